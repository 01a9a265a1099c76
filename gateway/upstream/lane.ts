/** What is the same for every connection of a lane, over either protocol: its limits, and how it is dialled. */
import type { Outbound } from '../protocol/message.ts'
import type { Dial, DialTarget } from './dial.ts'

/** Of an answer's fields, over either protocol. Clients of clients.md §7 see 20 KB. */
export const MAX_HEADER_BYTES = 64 * 1024

export interface PoolOptions {
  readonly dial: Dial
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  /** Offer HTTP/2 for requests that ask for it. Default true. */
  readonly http2?: boolean
  /** Idle connections over all keys; the one unused for longest goes first. Default 1024. */
  readonly maxIdle?: number
  /** Milliseconds after which an idle connection is closed; a shorter `Keep-Alive: timeout` of the upstream wins. Default 15,000. */
  readonly idleTimeoutMs?: number
}

/** What the connections of one lane have in common, and share with no other. */
export interface Tickets {
  /** TLS session to resume. */
  ticket: Buffer | undefined
}

/** Where and how a connection of a lane is dialled. */
export function dialTarget({ scheme, host, port, service, certificate }: Outbound, lane: Tickets): DialTarget {
  return {
    scheme,
    host,
    port,
    allowed: service.addresses,
    certificate,
    session: lane.ticket,
    onSession: (session) => {
      lane.ticket = session
    },
  }
}
