/** What the forwarder's parts agree on: where the gateway is, which fields end at one connection, and how its absence reads. */
import { type ProblemCode, problems } from '../../protocol/problem.ts'
import type { HeldGrant } from './forwarder-grant.ts'

export interface GatewayAddress {
  readonly host: string
  readonly port: number
}

export interface Forwarding {
  /** The proxy door. */
  readonly gateway: GatewayAddress
  readonly grant: HeldGrant
  /** Told of every CONNECT that was refused, with the body of the refusal: clients show neither it nor its reason. */
  readonly onRefused?: (target: string, body: string) => void
}

/** Room for grants and cookies far beyond what servers accept; Node's own default of 16 KB refuses real requests. */
export const MAX_HEADER_BYTES = 128 * 1024

/** RFC 9110 §7.6.1, and what proxies of old are sent. */
const HOP_BY_HOP: ReadonlySet<string> = new Set([
  'connection',
  'keep-alive',
  'proxy-connection',
  'proxy-authorization',
  'proxy-authenticate',
  'proxy-authentication-info',
  'transfer-encoding',
  'te',
  'upgrade',
])

/** Where a message goes and where it ends: a `Connection` that names these would turn a body into the next request. */
const NEVER_DROPPED: ReadonlySet<string> = new Set(['host', 'content-length'])

/** A flat header list in its order and case, without what belongs to one connection only. */
export function endToEnd(rawHeaders: readonly string[], connection: string | undefined): string[] {
  // Fields that Connection names go no further either: dropping only Connection would promote them.
  const named = new Set(connection?.split(',').map((name) => name.trim().toLowerCase()))
  const kept: string[] = []
  for (let index = 0; index + 1 < rawHeaders.length; index += 2) {
    const name = rawHeaders[index] ?? ''
    const lower = name.toLowerCase()
    if (NEVER_DROPPED.has(lower) || (!HOP_BY_HOP.has(lower) && !named.has(lower)))
      kept.push(name, rawHeaders[index + 1] ?? '')
  }
  return kept
}

/** A flat header list without the fields of one name, given in lower case. */
export function withoutField(fields: readonly string[], name: string): string[] {
  return fields.filter((_, index) => fields[index - (index % 2)]?.toLowerCase() !== name)
}

export const UNREACHABLE = 'gateway_unreachable' satisfies ProblemCode

interface Refusal {
  readonly type: string
  readonly body: string
}

/**
 * The 502 while the gateway is away: a problem document with what SDKs look for in it, in the words that the client shows. Which
 * service is asked is the gateway's to know, so only the client itself tells.
 */
export function unreachable({ host, port }: GatewayAddress, userAgent = ''): Refusal {
  const { status, title, remedy } = problems[UNREACHABLE]
  const detail = `The Keyless gateway at ${host}:${port} does not answer. Start it again with \`keyless start\`; this run goes on as soon as it is back.`
  const message = `${detail} (${UNREACHABLE})`
  if (userAgent.startsWith('git/')) return { type: 'text/plain', body: `${message}\n` }
  const problem = {
    type: `urn:keyless:error:${UNREACHABLE}`,
    title,
    status,
    detail,
    code: UNREACHABLE,
    remedy,
    message,
  }
  // npm and its kin print an object as [object Object].
  const error = /^(?:npm|pnpm|yarn)\//.test(userAgent) ? message : { message, type: 'api_error', code: UNREACHABLE }
  return { type: 'application/problem+json', body: JSON.stringify({ ...problem, error }) }
}
