/**
 * What a service file says that a person should look at twice: it is valid, and may still not mean what its author meant. A
 * remark on an operation goes away when the file says the thing itself (`returns_secret: false`). Pure.
 */
import { fixedEnd, isHostPattern, labelNames } from '../../protocol/host-pattern.ts'
import type { Operation } from '../../protocol/service.ts'
import { canonicalPath } from '../../protocol/target.ts'
import type { Told } from '../attributes/told.ts'
import { atExample } from '../instance.ts'
import { parsePattern, type RequestPattern } from './pattern.ts'
import type { ServiceDescription } from './service-file.ts'
import { assembleService, type Site } from './site.ts'

export interface Remark {
  /** Place in the file: `operations.keys.create`. */
  readonly where: string
  readonly says: string
  readonly fix: string
}

export interface Reviewed {
  readonly description: ServiceDescription
  /** The same as written, where a default differs from a decision. */
  readonly written: unknown
  /** @returns what kinds of credential a text looks like to secret scanners. */
  findSecrets(text: string): readonly string[]
}

export function reviewService({ description, written, findSecrets }: Reviewed): Remark[] {
  const site = assembleService(atExample(description), [])
  const open = openSpans(site)
  return [
    ...strangers(description),
    ...placeholders(description, findSecrets),
    ...Object.entries(description.operations).flatMap(([id, operation]) => {
      const where = `operations.${id}`
      const said = membersOf(member(member(written, 'operations'), id))
      const patterns = operation.match.map((text) => ({ text, pattern: parsePattern(text) }))
      return [
        ...patterns.flatMap(({ text, pattern }) =>
          typeof pattern === 'string'
            ? []
            : [unreachable, shadowed].flatMap((look) => look({ id, text, pattern, site, where, open })),
        ),
        ...unsaidSecret(patterns, said, where),
        ...unsaidLoss(patterns, said, where),
      ]
    }),
  ]
}

/** Labels that a vendor fills, not whoever rents a name there. */
const OF_THE_VENDOR: readonly string[] = ['region', 'location', 'zone']

/** A credential that travels as a value can be read by whoever has a name below the fixed end. */
function strangers({ hosts, slots }: ServiceDescription): Remark[] {
  if (slots.every((slot) => slot.in === 'signature' || slot.in === 'certificate')) return []
  return hosts
    .filter((host) => isHostPattern(host) && labelNames(host).some((name) => !OF_THE_VENDOR.includes(name)))
    .map((host) => ({
      where: 'hosts',
      says: `${host} sends the credential to whoever has a name below ${fixedEnd(host)}`,
      fix: 'write hosts: [] and an example as instance, so that settings name the hosts, unless all of them are yours',
    }))
}

function placeholders({ placeholders }: ServiceDescription, findSecrets: Reviewed['findSecrets']): Remark[] {
  return Object.entries(placeholders).flatMap(([name, value]) => {
    const kinds = findSecrets(`${name}=${value}\n`)
    const fix = 'make it shorter, or plainly made up, as far as the start-up check of the SDK lets you'
    return kinds.length === 0
      ? []
      : [{ where: `placeholders.${name}`, says: `secret scanners take it for a credential (${kinds.join(', ')})`, fix }]
  })
}

interface Reach {
  readonly id: string
  readonly text: string
  readonly pattern: RequestPattern
  readonly site: Site
  readonly where: string
  readonly open: readonly RequestPattern[]
}

/** A request made from the pattern itself has to find its way back to the operation. */
function unreachable({ id, text, pattern, site, where }: Reach): Remark[] {
  if (/^(?:TRACE|TRACK|CONNECT)$/.test(pattern.method))
    return [{ where, says: `${text} is never reached: the gateway refuses this method`, fix: 'remove it' }]
  const found = reached(pattern, pattern.segments.map(sampleOf), site)?.id
  if (found === id) return []
  const says = `${text} is never reached: such a request is ${found === undefined ? 'unlisted' : `taken for ${found}`}`
  return [{ where, says, fix: 'correct the pattern, or remove it' }]
}

/**
 * A literal wins over a name, so `/{kind}/{id}/secret` is `/models/{path**}` for models: what nobody gets by default must not be
 * had under another operation's name by spelling one of its literals.
 */
function shadowed({ id, text, pattern, site, where, open }: Reach): Remark[] {
  if (!isGuarded(site.service.operations.find((operation) => operation.id === id))) return []
  const takers = open.flatMap((span) => {
    if (span.method !== pattern.method) return []
    const segments = pattern.segments.map((segment, i) => {
      if (segment.kind !== 'one') return sampleOf(segment)
      const literal = span.segments[i]
      return segment.suffix === '' && literal?.kind === 'literal' ? literal.text : `k7${segment.suffix}`
    })
    const found = reached(pattern, segments, site)
    return found === undefined || found.id === id || isGuarded(found) ? [] : [`/${segments.join('/')} is ${found.id}`]
  })
  const [taker] = takers
  const fix = 'write the literals out in patterns of this operation'
  return taker === undefined ? [] : [{ where, says: `${text} does not get all it means: ${taker}`, fix }]
}

/** Patterns `…/{path**}` of what a policy need not name. */
function openSpans({ service }: Site): RequestPattern[] {
  return service.operations
    .filter((operation) => !isGuarded(operation))
    .flatMap(({ match }) => match ?? [])
    .map(parsePattern)
    .filter((parsed) => typeof parsed !== 'string' && parsed.segments.at(-1)?.kind === 'rest') as RequestPattern[]
}

function isGuarded(operation: Operation | undefined): boolean {
  return operation?.returnsSecret === true || operation?.irreversible === true
}

function reached(
  pattern: RequestPattern,
  segments: readonly string[],
  { service, tries }: Site,
): Operation | undefined {
  const query = new URLSearchParams(pattern.query.map(([name, value]) => [name, sampleValue(value)])).toString()
  const host = pattern.host === undefined || pattern.host === '*' ? (service.hosts[0] ?? '') : pattern.host
  const path = canonicalPath(`/${segments.join('/')}`)
  return tries.get(host)?.match(pattern.method, path, query, toldBy(pattern))?.value.operation
}

function sampleOf(segment: RequestPattern['segments'][number]): string {
  if (segment.kind === 'literal') return segment.text
  const slash = segment.mayHoldSlash ? 'k7%2Fk8' : 'k7'
  return segment.kind === 'one' ? `${slash}${segment.suffix}` : slash
}

function sampleValue(value: string): string {
  return value.endsWith('*') ? `${value.slice(0, -1)}k7` : value
}

function toldBy({ condition }: RequestPattern): Told {
  if (condition === undefined) return { rawHeaders: [] }
  const value = sampleValue(condition.value)
  return condition.in === 'header'
    ? { rawHeaders: [condition.name, value] }
    : { rawHeaders: [], content: { form: new URLSearchParams([[condition.name, value]]).toString() } }
}

type Parsed = readonly { readonly text: string; readonly pattern: RequestPattern | string }[]

/** Segments after which an API hands out, or shows, a credential. */
const SECRET_WORD =
  /^(?:api|access|auth|client|private|signing|secret|deploy|service|refresh|session|webhook)?[._-]?(?:tokens?|secrets?|passwords?|credentials?|keys?)$/i
const KEY_ALONE = /^keys?$/i

function unsaidSecret(patterns: Parsed, said: ReadonlySet<string>, where: string): Remark[] {
  if (said.has('returns_secret')) return []
  return patterns.flatMap(({ text, pattern }) => {
    if (typeof pattern === 'string' || pattern.method === 'DELETE') return []
    const words = pattern.segments.flatMap((segment) => (segment.kind === 'literal' ? [segment.text] : []))
    const last = words.at(-1)
    if (last === undefined || !SECRET_WORD.test(last) || KEY_ALONE.test(last)) return []
    const fix = 'write returns_secret: true and where it stands (captures), or returns_secret: false'
    return [{ where, says: `${text} sounds as if its answer held a credential`, fix }]
  })
}

function unsaidLoss(patterns: Parsed, said: ReadonlySet<string>, where: string): Remark[] {
  if (said.has('irreversible')) return []
  const [gone] = patterns.filter(({ text }) => text.startsWith('DELETE '))
  if (gone === undefined) return []
  const fix = 'write irreversible: true, so that a policy has to name it, or irreversible: false'
  return [{ where, says: `${gone.text} deletes, and nothing says whether that can be undone`, fix }]
}

function member(value: unknown, key: string): unknown {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>)[key] : undefined
}

function membersOf(value: unknown): ReadonlySet<string> {
  return new Set(typeof value === 'object' && value !== null ? Object.keys(value) : [])
}
