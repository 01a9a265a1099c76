/** All upstream connections of one place and isolation key: shared within it, with nobody outside (standards.md H4). */
import type { Outbound } from '../protocol/message.ts'
import type { Connection } from './connection.ts'
import type { Dial, DialTarget } from './dial.ts'
import type { Session } from './session.ts'

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

export interface Lane {
  readonly key: string
  /** HTTP/1.1, last used last: the warmest connection is taken first. */
  readonly idle: Connection[]
  /** HTTP/2, idle or not, as long as they take new streams. */
  readonly sessions: Session[]
  /** A connection that is being opened with HTTP/2 on offer: others wait for what comes of it. */
  opening: Promise<Session | Connection> | undefined
  /** The upstream was offered HTTP/2 and chose HTTP/1.1. */
  isHttp1Only: boolean
  /** Exchanges under way. */
  busy: number
  /** TLS session to resume. */
  ticket: Buffer | undefined
}

export function newLane(key: string): Lane {
  return { key, idle: [], sessions: [], opening: undefined, isHttp1Only: false, busy: 0, ticket: undefined }
}

/** Where and how a connection of a lane is dialled. */
export function dialTarget({ scheme, host, port, service }: Outbound, lane: Lane): DialTarget {
  return {
    scheme,
    host,
    port,
    allowed: service.addresses,
    session: lane.ticket,
    onSession: (session) => {
      lane.ticket = session
    },
  }
}
