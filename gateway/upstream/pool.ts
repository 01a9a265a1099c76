/**
 * Upstream connections, one undici `Client` each, kept for the isolation key and place they were opened for and for no
 * other (standards.md H4): one connection serves one exchange at a time, so an upstream that answers twice reaches nobody.
 */
import type { EventEmitter } from 'node:events'
import type { Socket } from 'node:net'
import { Client } from 'undici'
import type { Outbound } from '../protocol/message.ts'
import { formatAuthority } from '../protocol/target.ts'
import type { Dial } from './dial.ts'

export interface PoolOptions {
  readonly dial: Dial
  readonly headersTimeoutMs: number
  readonly bodyTimeoutMs: number
  /** Idle connections over all keys; the one unused for longest goes first. Default 1024. */
  readonly maxIdle?: number
  /** Milliseconds after which an idle connection is closed; a shorter `Keep-Alive: timeout` of the upstream wins. Default 15,000. */
  readonly idleTimeoutMs?: number
}

/** Clients of clients.md §7 see answers with 20 KB of headers. */
const MAX_HEADER_BYTES = 64 * 1024

/** All connections of one place and isolation key. */
interface Lane {
  readonly key: string
  /** Last used last: the warmest connection is taken first. */
  readonly idle: Connection[]
  busy: number
  session: Buffer | undefined
}

export class Connection {
  readonly client: Client
  readonly lane: Lane
  /** The service's ranges when it was opened; other ranges need a new look at the address. */
  readonly allowed: readonly string[]
  /** Address that was dialled last. */
  address: string | undefined
  /** Was the socket opened for the current exchange? A failure on an older one may be a race with its closing. */
  isFresh = true
  #socket: Socket | undefined
  readonly #leaving = new AbortController()

  constructor(outbound: Outbound, lane: Lane, options: PoolOptions) {
    const { scheme, host, port, service } = outbound
    this.lane = lane
    this.allowed = service.addresses
    this.client = new Client(`${scheme}://${formatAuthority(outbound)}`, {
      allowH2: false,
      pipelining: 1,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: options.headersTimeoutMs,
      bodyTimeout: options.bodyTimeoutMs,
      keepAliveTimeout: options.idleTimeoutMs ?? 15_000,
      keepAliveMaxTimeout: 60_000,
      connect: (_, callback) => {
        const onSession = (session: Buffer) => {
          lane.session = session
        }
        const target = { scheme, host, port, allowed: this.allowed, session: lane.session, onSession }
        options.dial(target, this.#leaving.signal).then(
          ({ socket, address }) => {
            this.address = address
            this.#socket = socket
            this.isFresh = true
            callback(null, socket)
          },
          (error) => callback(error, null),
        )
      },
    })
  }

  /** Did the upstream reset the connection? */
  get isReset(): boolean {
    return this.#socket?.errored != null
  }

  /** Close the socket, in whatever state: dialling, sending, or waiting for an answer. */
  destroy(): void {
    this.#leaving.abort()
    this.client.destroy(null, ignore)
  }
}

export class Pool {
  readonly #options: PoolOptions
  readonly #maxIdle: number
  /** place and isolation key → connections */
  readonly #lanes = new Map<string, Lane>()
  /** Unused for longest first. */
  readonly #idle = new Set<Connection>()
  #isClosed = false

  constructor(options: PoolOptions) {
    this.#options = options
    this.#maxIdle = options.maxIdle ?? 1024
  }

  /** Number of idle connections. */
  get idle(): number {
    return this.#idle.size
  }

  /** A connection for one exchange; give it back by `release` or `discard`. */
  take(outbound: Outbound): Connection {
    const lane = this.#lane(outbound)
    lane.busy += 1
    for (let known = lane.idle.pop(); known !== undefined; known = lane.idle.pop()) {
      this.#idle.delete(known)
      if (isSame(known.allowed, outbound.service.addresses)) {
        known.isFresh = false
        return known
      }
      known.destroy() // settings were reloaded since
    }
    return this.#open(outbound, lane)
  }

  /** A connection with a socket of its own, for a request that an old socket lost. */
  takeFresh(outbound: Outbound): Connection {
    const lane = this.#lane(outbound)
    lane.busy += 1
    return this.#open(outbound, lane)
  }

  /** The exchange is over and was complete. */
  release(connection: Connection): void {
    const { lane } = connection
    if (this.#isClosed) {
      this.discard(connection)
      return
    }
    lane.busy -= 1
    lane.idle.push(connection)
    this.#idle.add(connection)
    if (this.#idle.size > this.#maxIdle) this.#evict()
  }

  /** The exchange broke off: the socket's state is unknown. */
  discard(connection: Connection): void {
    connection.lane.busy -= 1
    this.#dropIfUnused(connection.lane)
    connection.destroy()
  }

  /** Close idle connections now, and the others when their exchange is over. */
  close(): void {
    this.#isClosed = true
    for (const connection of this.#idle) this.#forget(connection)
  }

  #lane({ scheme, host, port, isolation }: Outbound): Lane {
    const key = `${scheme}://${host}:${port}\n${isolation}`
    const known = this.#lanes.get(key)
    if (known !== undefined) return known
    const lane: Lane = { key, idle: [], busy: 0, session: undefined }
    this.#lanes.set(key, lane)
    return lane
  }

  #open(outbound: Outbound, lane: Lane): Connection {
    const connection = new Connection(outbound, lane, this.#options)
    // Closed by the upstream, by the idle timer, or because it spoke unasked: gone while nobody uses it.
    connection.client.on('disconnect', () => this.#forget(connection))
    const emitter: EventEmitter = connection.client
    emitter.on('error', () => connection.destroy())
    return connection
  }

  #evict(): void {
    for (const oldest of this.#idle) {
      this.#forget(oldest)
      return
    }
  }

  /** Drop a connection if it is idle; one in use is its exchange's business. */
  #forget(connection: Connection): void {
    if (!this.#idle.delete(connection)) return
    const { lane } = connection
    lane.idle.splice(lane.idle.indexOf(connection), 1)
    this.#dropIfUnused(lane)
    connection.destroy()
  }

  #dropIfUnused(lane: Lane): void {
    if (lane.busy === 0 && lane.idle.length === 0) this.#lanes.delete(lane.key)
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((range, i) => range === b[i]))
}

function ignore(): void {
  // `destroy` has nothing to report.
}
