/** The catalogue as Cedar schema: one action per operation, in the groups by which policies name many at once. */
import type { Operation, ParameterType, Service } from '../protocol/service.ts'

/** Groups an operation belongs to: its access, and everything above it in its own name. */
export function groupsOf(operation: Operation): string[] {
  const [service = '', id = ''] = operation.name.split(':')
  const groups = [`${service}:*`]
  for (let dot = id.indexOf('.'); dot !== -1; dot = id.indexOf('.', dot + 1))
    groups.push(`${service}:${id.slice(0, dot)}.*`)
  const hasAccessGroup = service !== 'unmanaged' && id !== 'unlisted'
  return hasAccessGroup ? [operation.access, ...groups] : groups
}

/** Nothing general may allow these: a policy has to name the operation itself. */
export function mustBeNamed(operation: Operation): boolean {
  return (
    operation.returnsSecret ||
    operation.irreversible ||
    operation.id === 'unlisted' ||
    operation.name.startsWith('unmanaged:')
  )
}

/** The operations of a service that policies can name, the one for everything unlisted included. */
export function namedOperations(service: Service): readonly Operation[] {
  if (service.name === 'unmanaged') return service.operations
  const unlisted: Operation = {
    id: 'unlisted',
    name: `${service.name}:unlisted`,
    access: 'write',
    sensitivity: 'restricted',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
  }
  return [...service.operations, unlisted]
}

/** @param base text of `policies/schema.cedarschema`. */
export function schemaText(base: string, services: readonly Service[]): string {
  const lines: string[] = [base]
  const call = /^type Call = \{\n([\s\S]*?)^\};$/m.exec(base)?.[1] ?? ''
  for (const service of services) {
    const groups = new Set<string>()
    const actions = namedOperations(service).map((operation) => {
      const memberOf = groupsOf(operation)
      for (const group of memberOf) if (group.includes(':')) groups.add(group)
      const parents = memberOf.map((group) => `Action::"${group}"`).join(', ')
      return `action "${operation.name}" in [${parents}] appliesTo { principal: [Agent], resource: [Endpoint], context: ${contextOf(operation, call)} };`
    })
    lines.push(...[...groups].map((group) => `action "${group}";`), ...actions)
  }
  return lines.join('\n')
}

const CEDAR_TYPES: Readonly<Record<ParameterType, string>> = {
  string: 'String',
  long: 'Long',
  bool: 'Bool',
  strings: 'Set<String>',
}

/** That of every call, and the parameters of this one. @param call members of `Call`, as the schema writes them. */
function contextOf({ parameters }: Operation, call: string): string {
  if (parameters === undefined) return 'Call'
  const members = parameters.map(({ name, type }) => `"${name}"?: ${CEDAR_TYPES[type]}`)
  return `{ ${call.replaceAll(/\/\/.*$/gm, '')} params: { ${members.join(', ')} } }`
}
