/**
 * Upstream connections, kept for the isolation key, client certificate and place they were opened for and for no other
 * (standards.md H4). Over HTTP/1.1 one connection serves one exchange at a time, so an upstream that answers twice reaches
 * nobody; over HTTP/2 the exchanges of one grant share sessions.
 */
import type { EventEmitter } from 'node:events'
import type { Outbound } from '../protocol/message.ts'
import { Connection } from './connection.ts'
import type { Dialled } from './dial.ts'
import { dialTarget, type PoolOptions, type Tickets } from './lane.ts'
import { Session } from './session.ts'

const HTTP_2_OR_1 = ['h2', 'http/1.1']
const HTTP_1 = ['http/1.1']
const IDLE_MS = 15_000

/** All connections of one place and isolation key. */
interface Lane extends Tickets {
  readonly key: string
  /** HTTP/1.1, last used last: the warmest connection is taken first. */
  readonly idle: PooledConnection[]
  /** HTTP/2, idle or not, as long as they take new streams. */
  readonly sessions: PooledSession[]
  /** A connection that is being opened with HTTP/2 on offer: others wait for what comes of it. */
  opening: Promise<PooledSession | PooledConnection> | undefined
  /** The upstream was offered HTTP/2 and chose HTTP/1.1. */
  isHttp1Only: boolean
  /** Exchanges under way. */
  busy: number
}

export type PooledConnection = Connection<Lane>
export type PooledSession = Session<Lane>

export class Pool {
  readonly options: PoolOptions
  readonly #maxIdle: number
  /** place and isolation key → connections */
  readonly #lanes = new Map<string, Lane>()
  /** Unused for longest first. */
  readonly #idle = new Set<PooledConnection | PooledSession>()
  #isClosed = false

  constructor(options: PoolOptions) {
    this.options = options
    this.#maxIdle = options.maxIdle ?? 1024
  }

  /** Number of idle connections. */
  get idle(): number {
    return this.#idle.size
  }

  /** Number of places and keys with a connection. */
  get lanes(): number {
    return this.#lanes.size
  }

  /** A connection for one exchange; give it back by `release` or `discard`. */
  take(outbound: Outbound): PooledConnection {
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
  takeFresh(outbound: Outbound): PooledConnection {
    const lane = this.#lane(outbound)
    lane.busy += 1
    return this.#open(outbound, lane)
  }

  /** The exchange is over and was complete. */
  release(connection: PooledConnection): void {
    const { lane } = connection
    if (this.#isClosed) {
      this.discard(connection)
      return
    }
    lane.busy -= 1
    lane.idle.push(connection)
    this.#rest(connection)
  }

  /** The exchange broke off: the socket's state is unknown. */
  discard(connection: PooledConnection): void {
    connection.lane.busy -= 1
    this.#dropIfUnused(connection.lane)
    connection.destroy()
  }

  /**
   * What carries a request over HTTP/2: a session with room for it, or, where the upstream offers none, a connection. Give
   * a session back by `leave`, a connection as always.
   * @param isRetry not over a session that exists already: one of them refused the request.
   * @throws {GatewayError} what the dial throws.
   */
  async reach(outbound: Outbound, isRetry: boolean): Promise<PooledSession | PooledConnection> {
    const lane = this.#lane(outbound)
    lane.busy += 1 // whoever waits keeps the lane
    try {
      for (let hasWaited = false; ; hasWaited = true) {
        const known = isRetry && !hasWaited ? undefined : this.#roomIn(lane, outbound)
        if (known !== undefined) return this.#join(known)
        if (lane.isHttp1Only) return isRetry ? this.takeFresh(outbound) : this.take(outbound)
        if (lane.opening === undefined) {
          lane.opening = this.#negotiate(outbound, lane).finally(() => {
            lane.opening = undefined
          })
          const opened = await lane.opening
          return opened instanceof Session ? this.#join(opened) : opened
        }
        await lane.opening
      }
    } finally {
      lane.busy -= 1
      this.#dropIfUnused(lane)
    }
  }

  /** A stream of the session has ended, whichever way. */
  leave(session: PooledSession): void {
    const { lane } = session
    lane.busy -= 1
    session.busy -= 1
    if (session.busy > 0) return
    if (this.#isClosed || !lane.sessions.includes(session)) this.retire(session)
    else this.#rest(session)
  }

  /** No new streams on this session; it ends with its last one. */
  retire(session: PooledSession): void {
    const { lane } = session
    this.#idle.delete(session)
    const place = lane.sessions.indexOf(session)
    if (place !== -1) lane.sessions.splice(place, 1)
    if (session.busy > 0) return
    this.#dropIfUnused(lane)
    session.destroy()
  }

  /** Close idle connections now, and the others when their exchange is over. */
  close(): void {
    this.#isClosed = true
    for (const resting of this.#idle) this.#forget(resting)
  }

  #lane({ scheme, host, port, isolation, certificate }: Outbound): Lane {
    // An upstream takes whoever shows a certificate for the one who sends every request of that connection.
    const shown = certificate === undefined ? '' : `\n${certificate.id}`
    const key = `${scheme}://${host}:${port}\n${isolation}${shown}`
    const known = this.#lanes.get(key)
    if (known !== undefined) return known
    const lane: Lane = {
      key,
      idle: [],
      sessions: [],
      opening: undefined,
      isHttp1Only: false,
      busy: 0,
      ticket: undefined,
    }
    this.#lanes.set(key, lane)
    return lane
  }

  #open(outbound: Outbound, lane: Lane, dialled?: Dialled): PooledConnection {
    const connection = new Connection(outbound, lane, this.options, dialled)
    // Closed by the upstream, by the idle timer, or because it spoke unasked: gone while nobody uses it.
    connection.client.on('disconnect', () => this.#forget(connection))
    const emitter: EventEmitter = connection.client
    emitter.on('error', () => connection.destroy())
    return connection
  }

  async #negotiate(outbound: Outbound, lane: Lane): Promise<PooledSession | PooledConnection> {
    const { dial, http2 = true } = this.options
    const alpn = http2 ? HTTP_2_OR_1 : HTTP_1
    const dialled = await dial({ ...dialTarget(outbound, lane), alpn }, new AbortController().signal)
    lane.isHttp1Only = dialled.protocol !== 'h2'
    if (lane.isHttp1Only) {
      lane.busy += 1
      return this.#open(outbound, lane, dialled)
    }
    const session = new Session(outbound, lane, dialled)
    lane.sessions.push(session)
    session.client
      .once('goaway', () => this.retire(session))
      .once('close', () => this.retire(session))
      .on('timeout', () => this.#forget(session)) // of silence, which only an idle one has to answer for
    return session
  }

  #roomIn(lane: Lane, { service }: Outbound): PooledSession | undefined {
    return lane.sessions.find((session) => session.hasRoom && isSame(session.allowed, service.addresses))
  }

  #join(session: PooledSession): PooledSession {
    this.#idle.delete(session)
    session.lane.busy += 1
    session.busy += 1
    return session
  }

  #rest(resting: PooledConnection | PooledSession): void {
    if (resting instanceof Session) resting.client.setTimeout(this.options.idleTimeoutMs ?? IDLE_MS)
    this.#idle.add(resting)
    if (this.#idle.size > this.#maxIdle) this.#evict()
  }

  #evict(): void {
    for (const oldest of this.#idle) {
      this.#forget(oldest)
      return
    }
  }

  /** Drop a connection if it is idle; one in use is its exchange's business. */
  #forget(resting: PooledConnection | PooledSession): void {
    if (!this.#idle.has(resting)) return
    if (resting instanceof Session) {
      this.retire(resting)
      return
    }
    this.#idle.delete(resting)
    const { lane } = resting
    lane.idle.splice(lane.idle.indexOf(resting), 1)
    this.#dropIfUnused(lane)
    resting.destroy()
  }

  #dropIfUnused(lane: Lane): void {
    if (lane.busy === 0 && lane.idle.length === 0 && lane.sessions.length === 0) this.#lanes.delete(lane.key)
  }
}

function isSame(a: readonly string[], b: readonly string[]): boolean {
  return a === b || (a.length === b.length && a.every((range, i) => range === b[i]))
}
