/**
 * What an agent could ask for in place of a request that was refused: operations of the same service that its grant names, nearest first,
 * as requests at the same place where the refused one says enough. Whether one would pass is for the caller to evaluate. Pure.
 */
import { entriesFor } from '../../protocol/authority.ts'
import type { Grant } from '../../protocol/grant.ts'
import { type Access, type Endpoint, type Operation, plainHost } from '../../protocol/service.ts'
import { parsePattern, type RequestPattern, type Segment } from '../catalogue/pattern.ts'

export interface Candidate {
  readonly endpoint: Endpoint
  readonly method: string
  /** `GET /repos/acme/site/issues`, with names in braces for what the refused request does not say. */
  readonly request: string
}

const BREADTH: Readonly<Record<Access, number>> = { read: 0, write: 1, admin: 2 }
const LONGEST_REQUEST = 200

/**
 * At most `limit`. Never the operation itself, one that reaches further, one that cannot be undone, or one whose answer is a credential:
 * nobody is led to those.
 */
export function candidates(refused: Endpoint, grant: Grant, limit: number): Candidate[] {
  const { operation: asked, service } = refused
  return service.operations
    .filter((one) => one !== asked && isHarmless(one, asked) && isNamed(grant, one.name))
    .map((operation) => ({ operation, distance: distanceOf(operation, asked) }))
    .sort((a, b) => a.distance - b.distance)
    .slice(0, limit)
    .flatMap(({ operation }) => at(refused, operation) ?? [])
}

function isHarmless({ access, irreversible, returnsSecret }: Operation, asked: Operation): boolean {
  return !irreversible && !returnsSecret && BREADTH[access] <= BREADTH[asked.access]
}

/** By every grant of the chain; an effective authority is their intersection. */
function isNamed({ authority, ancestry }: Grant, name: string): boolean {
  return (
    entriesFor(authority, name).length > 0 && ancestry.every((above) => entriesFor(above.authority, name).length > 0)
  )
}

/** Words of the name that they do not share come first, then a read before a write. */
function distanceOf(one: Operation, asked: Operation): number {
  const [own, others] = [one.id.split('.'), asked.id.split('.')]
  const shared = own.findIndex((word, i) => word !== others[i])
  return (others.length - (shared === -1 ? own.length : shared)) * 4 + BREADTH[one.access]
}

function at(refused: Endpoint, operation: Operation): Candidate | undefined {
  const [text] = operation.match ?? []
  const pattern = text === undefined ? undefined : parsePattern(text)
  if (pattern === undefined || typeof pattern === 'string') return undefined
  const host = hostOf(pattern, refused)
  const path = pathOf(pattern.segments, refused.params, (value) => value)
  const query = new URLSearchParams(pattern.query.map(([name, value]) => [name, value])).toString()
  const shown = pathOf(pattern.segments, refused.params, encodeURIComponent)
  const request = `${pattern.method} ${host === refused.host ? '' : host}${shown}${query === '' ? '' : `?${query}`}`
  if (request.length > LONGEST_REQUEST) return undefined
  const { place: _, ...there } = refused
  return { endpoint: { ...there, operation, host, path, rawPath: shown }, method: pattern.method, request }
}

function hostOf({ host }: RequestPattern, { host: asked, service }: Endpoint): string {
  if (host === '*' || host?.includes('{')) return asked
  return host ?? plainHost(service) ?? asked
}

function pathOf(segments: readonly Segment[], params: Endpoint['params'], encode: (value: string) => string): string {
  const parts = segments.map((segment) => {
    if (segment.kind === 'literal') return segment.text
    const value = params[segment.name]
    const suffix = segment.kind === 'one' ? segment.suffix : ''
    if (value === undefined) return `{${segment.name}}${suffix}`
    return segment.kind === 'rest' ? value.split('/').map(encode).join('/') : encode(value) + suffix
  })
  return `/${parts.join('/')}`
}
