/** A service made ready for locating: its operations in one trie per host, and what stands in for what it does not list. */
import { isHostPattern, labelNames } from '../../protocol/host-pattern.ts'
import { parseParameter } from '../../protocol/parameter.ts'
import type {
  Access,
  Dialect,
  NamedParameter,
  Operation,
  ParameterType,
  Service,
  Slot,
} from '../../protocol/service.ts'
import type { Fault } from '../fault.ts'
import { parsePattern, type RequestPattern } from './pattern.ts'
import type { ServiceDescription } from './service-file.ts'
import { OperationTrie } from './trie.ts'

/** An operation and the service as it looks to it: the attached slot comes first. */
export interface Spot {
  readonly operation: Operation
  readonly service: Service
}

export interface Site {
  readonly service: Service
  /** host or pattern, as written → operations there */
  readonly tries: ReadonlyMap<string, OperationTrie<Spot>>
  /** pattern of a host → the name in it that is the first segment of the path elsewhere: `bucket` */
  readonly inside: ReadonlyMap<string, string>
  /** Same name for both; they differ in access, which follows the method. */
  readonly unlisted: { readonly read: Spot; readonly write: Spot }
}

/** Hosts that belong to no service: forwarded without a credential, and only when a policy names the operation. */
export const UNMANAGED: Service = Object.freeze({
  name: 'unmanaged',
  title: 'Hosts that belong to no service',
  hosts: [],
  ports: [],
  scheme: 'https',
  slots: [],
  operations: [strange('unmanaged', 'read', 'read'), strange('unmanaged', 'write', 'write')],
  addresses: [],
  dialect: 'problem',
  placeholders: {},
  baseUrls: [],
  tools: [],
  credential: undefined,
})

function strange(service: string, id: string, access: Access): Operation {
  const never = { returnsSecret: false, irreversible: false, websocket: false, captures: [] }
  return { id, name: `${service}:${id}`, access, sensitivity: 'restricted', ...never }
}

/** Compile a description; mistakes that need the whole of it (foreign hosts, two owners of one pattern) go to `faults`. */
export function assembleService(description: ServiceDescription, faults: Fault[]): Site {
  const operations = Object.entries(description.operations).map(
    ([id, entry]): Operation => ({
      id,
      name: `${description.name}:${id}`,
      access: entry.access,
      sensitivity: entry.sensitivity,
      returnsSecret: entry.returns_secret,
      irreversible: entry.irreversible,
      websocket: entry.websocket,
      captures: entry.captures,
      ...(entry.permissions && { permissions: entry.permissions }),
      match: entry.match,
      ...(entry.iam && { iam: entry.iam }),
      ...(entry.labels && { labels: entry.labels }),
      ...(entry.params && { parameters: Object.entries(entry.params).map(parameterOf) }),
    }),
  )
  refuseLooseEnds(description, faults)
  const service = plainService(description, operations)
  const tries = new Map(description.hosts.map((host) => [host, new OperationTrie<Spot>()]))
  const faces = new Map<string, Service>()
  const inside = new Map(description.hosts.flatMap((host) => heldBy(host, description)))
  for (const operation of operations) {
    const entry = description.operations[operation.id]
    if (entry === undefined) continue
    const spot = {
      operation,
      service: faceOf(service, entry.attach as Slot | 'none' | undefined, entry.dialect, faces),
    }
    for (const text of entry.match) place(text, spot, { description, tries, inside, faults })
  }
  const unlisted = {
    read: { operation: strange(service.name, 'unlisted', 'read'), service },
    write: { operation: strange(service.name, 'unlisted', 'write'), service },
  }
  return { service, tries, inside, unlisted }
}

function parameterOf([name, written]: [string, string | { from: string; type: ParameterType }]): NamedParameter {
  const { from: key, type } = typeof written === 'string' ? { from: written, type: 'string' as const } : written
  const from = parseParameter(key)
  if (from === undefined) throw new TypeError('the schema has checked the key')
  return { name, key, from, type }
}

/** Where a placeholder may stand the agent's own credential does not pass: one of the two would undo the other. */
function refuseLooseEnds({ name, operations }: ServiceDescription, faults: Fault[]): void {
  const entries = Object.entries(operations)
  if (entries.every(([, { captures }]) => captures.length === 0)) return
  for (const [id] of entries.filter(([, { attach }]) => attach === 'none'))
    faults.push({
      where: `service ${name}: operations.${id}.attach`,
      got: 'none, though the service has `captures`',
      allowed: 'none only where no credential of an answer is captured',
      fix: 'remove it: a placeholder in the request is replaced by what it stands for',
    })
}

function saysInForms({ operations }: ServiceDescription): boolean {
  const patterns = Object.values(operations).flatMap(({ match }) => match.map(parsePattern))
  return patterns.some((pattern) => typeof pattern === 'object' && pattern.condition?.in === 'form')
}

function plainService(description: ServiceDescription, operations: readonly Operation[]): Service {
  const { name, title, hosts, ports, addresses, dialect, placeholders } = description
  return {
    name,
    title,
    hosts,
    ports,
    scheme: description.unsafe_cleartext ? 'http' : 'https',
    // zod types an absent prefix as `undefined`; on the wire of this program the two are the same.
    slots: description.slots as readonly Slot[],
    passesCookies: description.cookies === 'pass',
    ...(saysInForms(description) && { saysInForms: true }),
    operations,
    addresses,
    dialect,
    placeholders,
    baseUrls: description.base_urls,
    tools: description.tools,
    credential: description.slots.length === 0 ? undefined : (description.credential ?? name),
  }
}

/** The service as one operation sees it, shared by all operations that see it so. */
function faceOf(
  service: Service,
  attach: Slot | 'none' | undefined,
  dialect: Dialect | undefined,
  faces: Map<string, Service>,
): Service {
  if (attach === undefined && dialect === undefined) return service
  const key = JSON.stringify([attach, dialect])
  const known = faces.get(key)
  if (known !== undefined) return known
  const face = { ...service, ...attachedAt(service, attach), dialect: dialect ?? service.dialect }
  faces.set(key, face)
  return face
}

function attachedAt(service: Service, attach: Slot | 'none' | undefined): Partial<Service> {
  if (attach === undefined) return {}
  // The slots stay: on a reverse route one of them holds the agent's grant, which never passes.
  if (attach === 'none') return { credential: undefined, passesOwn: true }
  const others = service.slots.filter((slot) => JSON.stringify(slot) !== JSON.stringify(attach))
  return { slots: [attach, ...others] }
}

interface Placing {
  readonly description: ServiceDescription
  readonly tries: ReadonlyMap<string, OperationTrie<Spot>>
  readonly inside: Site['inside']
  readonly faults: Fault[]
}

function place(text: string, spot: Spot, { description, tries, inside, faults }: Placing): void {
  const pattern = parsePattern(text)
  if (typeof pattern === 'string') return // the schema has reported it
  const where = `service ${description.name}: operations.${spot.operation.id}.match`
  for (const host of hostsOf(pattern, description)) {
    const here = withinHost(pattern, inside.get(host))
    if (here === undefined) continue
    if (spokenTwice(here, host)) {
      const fix = 'give one of the two another name'
      faults.push({ where, got: `${text} at ${host}`, allowed: 'names that the host does not have', fix })
      continue
    }
    const trie = tries.get(host)
    if (trie === undefined) {
      faults.push({
        where,
        got: text,
        allowed: `a host of the service: ${description.hosts.join(', ')}`,
        fix: `add ${host} to hosts, or correct it`,
      })
      continue
    }
    const owner = trie.add(here, spot)
    if (owner === undefined) continue
    faults.push({
      where,
      got: text,
      allowed: 'a pattern that no other operation has',
      fix: `remove it here or at ${owner.operation.id}`,
    })
  }
}

/**
 * A pattern for every host as it is at one that holds the name of its first segment: `/{bucket}/{key}` is `/{key}` at
 * `{bucket}.s3.amazonaws.com`, and what is not in a bucket is not there. Undefined: it is not at this host.
 */
function withinHost(pattern: RequestPattern, held: string | undefined): RequestPattern | undefined {
  if (pattern.host !== '*' || held === undefined) return pattern
  return leadingName(pattern) === held ? { ...pattern, segments: pattern.segments.slice(1) } : undefined
}

/** The host and the name that it holds, where patterns for every host begin with it. */
function heldBy(host: string, { operations }: ServiceDescription): [[host: string, name: string]] | [] {
  const names = isHostPattern(host) ? labelNames(host) : []
  const patterns = Object.values(operations).flatMap(({ match }) => match.map(parsePattern))
  const leading = patterns.flatMap((one) =>
    typeof one === 'object' && one.host === '*' ? (leadingName(one) ?? []) : [],
  )
  const held = names.find((name) => leading.includes(name))
  return held === undefined ? [] : [[host, held]]
}

function leadingName({ segments: [first] }: RequestPattern): string | undefined {
  return first?.kind === 'one' && first.suffix === '' ? first.name : undefined
}

/** What the path and the host hold is one set of names. */
function spokenTwice({ segments }: RequestPattern, host: string): boolean {
  if (!isHostPattern(host)) return false
  const names = labelNames(host)
  return segments.some((segment) => segment.kind !== 'literal' && names.includes(segment.name))
}

function hostsOf(pattern: RequestPattern, description: ServiceDescription): readonly string[] {
  // The hosts of an instance are one API each.
  if (pattern.host === '*' || (pattern.host === undefined && description.instance !== undefined))
    return description.hosts
  return [pattern.host ?? description.hosts[0] ?? '']
}
