/** Services as people read them in a terminal. */
import type { ServiceDescription } from '../../policy/catalogue/service-file.ts'
import { columns, counted } from '../table.ts'

export function listed(services: readonly ServiceDescription[]): string {
  const rows = services.map((service) => [
    service.name,
    service.title,
    whereIs(service),
    slotWords(service.slots[0]),
    counted(Object.keys(service.operations).length, 'operation'),
  ])
  return `${columns(rows, 0).join('\n')}\n`
}

function whereIs({ hosts, instance }: ServiceDescription): string {
  const [first = `yours, such as ${instance}`, ...others] = hosts
  return others.length === 0 ? first : `${first} +${others.length}`
}

export function slotWords(slot: ServiceDescription['slots'][number] | undefined): string {
  if (slot === undefined) return 'no credential'
  switch (slot.in) {
    case 'header':
      return slot.prefix === undefined ? slot.name : `${slot.name}: ${slot.prefix.trim()}`
    case 'basic':
      return 'Basic'
    case 'query':
      return `?${slot.name}=`
    case 'cookie':
      return `cookie ${slot.name}`
    case 'subprotocol':
      return `WebSocket protocol ${slot.prefix}`
    case 'body':
      return `body ${slot.pointer}`
    case 'form':
      return `form ${slot.name}`
    case 'path':
      return `path /${slot.prefix}`
    case 'signature':
      return `signature ${slot.scheme}`
    case 'certificate':
      return 'client certificate'
    default:
      return slot satisfies never
  }
}

export function shown(service: ServiceDescription): string {
  const facts: [string, string][] = [
    ['hosts', [...service.hosts, ...(service.instance ? [`yours, such as ${service.instance}`] : [])].join(', ')],
    ['ports', service.ports.join(', ')],
    ['credential', service.slots.map(slotWords).join(', ')],
    ['placeholders', Object.keys(service.placeholders).join(', ')],
    ['base URLs', service.base_urls.join(', ')],
    ['tools', service.tools.join(', ')],
  ]
  const operations = Object.entries(service.operations).map(([id, one]) => [
    `${service.name}:${id}`,
    one.access,
    one.sensitivity,
    [one.returns_secret && 'returns a secret', one.irreversible && 'irreversible', one.websocket && 'WebSocket']
      .filter(Boolean)
      .join(', '),
    one.match.join('  '),
  ])
  return [
    `${service.title} (${service.name})`,
    ...columns(facts.filter(([, text]) => text !== '')),
    '',
    ...columns(operations),
    '',
  ].join('\n')
}
