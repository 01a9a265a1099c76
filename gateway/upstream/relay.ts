/**
 * A WebSocket after its handshake: frames both ways with back-pressure, until one side closes, breaks off or breaks the
 * protocol, or the gateway ends it. How it ended is known once. Whoever is left is told in a close frame, or, where a frame
 * is cut in the middle, by the end of the connection alone, which WebSocket clients show as abnormal (1006).
 */
import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Censor } from '../protocol/message.ts'
import type { Meter } from '../protocol/meter.ts'
import { GatewayError, problems } from '../protocol/problem.ts'
import { FrameFlow } from './frame-flow.ts'
import { closeFrame, FrameError, type FrameLimits, type Sender } from './frames.ts'
import type { Searcher } from './searcher.ts'

export interface RelayParts {
  readonly agent: Duplex
  readonly upstream: Duplex
  readonly limits: FrameLimits
  /** Null when there is no credential to search for. */
  readonly searcher: Searcher | null
  readonly meter: Meter | undefined
  /** Looks at what the agent says. */
  readonly censor?: Censor | undefined
  /** Called when the first credential was overwritten. */
  leaked(): void
  /** Once. @param error stable code; undefined when one side closed as it should. */
  ended(error: string | undefined): void
}

/** After a close frame the other side has so long to answer it. */
const CLOSING_MS = 30_000
/** After a close frame of our own the peer has so long to read it. */
const FAREWELL_MS = 1_000

interface Side {
  readonly socket: Duplex
  /** What comes from here. */
  readonly flow: FrameFlow
  readonly other: () => Side
  bytes: number
}

export class Relay {
  readonly #parts: RelayParts
  readonly #agent: Side
  readonly #upstream: Side
  #timer: NodeJS.Timeout | undefined
  #isOver = false

  constructor(parts: RelayParts) {
    this.#parts = parts
    this.#agent = this.#side('agent', () => this.#upstream)
    this.#upstream = this.#side('upstream', () => this.#agent)
  }

  /** Bytes of frames that came from the agent and may go on. */
  get sentBytes(): number {
    return this.#agent.bytes
  }

  get receivedBytes(): number {
    return this.#upstream.bytes
  }

  /** Credentials overwritten. */
  get found(): number {
    return this.#upstream.flow.found
  }

  start(): void {
    for (const side of [this.#agent, this.#upstream]) {
      const { socket } = side
      socket.on('data', (chunk: Buffer) => this.#carry(side, chunk))
      socket.on('drain', () => side.other().socket.resume())
      socket.on('end', () => this.#left(side))
      socket.on('close', () => this.#left(side))
      socket.on('error', ignore) // `close` follows
      socket.resume()
    }
  }

  /** The gateway ends it. */
  cut(why: GatewayError): void {
    if (this.#isOver) return
    this.#finish(why.code)
    this.#dismiss(this.#agent, closeCodeOf(why), why.code)
    this.#dismiss(this.#upstream, 1001, '')
  }

  #side(sender: Sender, other: () => Side): Side {
    const { agent, upstream, limits, searcher, leaked, censor } = this.#parts
    const [socket, destination] = sender === 'agent' ? [agent, upstream] : [upstream, agent]
    const write = (bytes: Buffer) => void destination.write(bytes)
    const looks = sender === 'upstream' ? { searcher, leaked } : { searcher: null, censor }
    const flow = new FrameFlow({ sender, limits, write, ...looks })
    return { socket, flow, other, bytes: 0 }
  }

  #carry(from: Side, chunk: Buffer): void {
    if (this.#isOver) return
    const { meter } = this.#parts
    const fits = from === this.#agent ? meter?.send(chunk.length) : meter?.receive(chunk.length)
    if (meter !== undefined && !fits) {
      this.cut(meter.exceeded())
      return
    }
    from.bytes += chunk.length
    const to = from.other().socket
    to.cork()
    try {
      from.flow.push(chunk)
    } catch (cause) {
      this.#violated(from, cause)
    } finally {
      to.uncork()
    }
    if (this.#isOver) return
    if (from.flow.hasClosed) this.#closing(from)
    else if (to.writableNeedDrain) from.socket.pause()
  }

  /** RFC 6455 §7.1.1: closed when both have said so. */
  #closing(from: Side): void {
    if (from.other().flow.hasClosed) {
      this.#finish(undefined)
      for (const side of [this.#agent, this.#upstream]) this.#hangUp(side)
      return
    }
    this.#timer ??= setTimeout(() => this.#left(from.other()), CLOSING_MS)
  }

  #violated(from: Side, cause: unknown): void {
    if (cause instanceof GatewayError) {
      this.cut(cause)
      return
    }
    const isAgent = from === this.#agent
    const code = cause instanceof FrameError ? cause.status : 1011
    const error = !(cause instanceof FrameError) ? 'internal' : isAgent ? 'request_malformed' : 'upstream_broken'
    const what = cause instanceof FrameError ? `${error}: ${cause.message}` : error
    this.#finish(error)
    this.#dismiss(this.#agent, code, what)
    this.#dismiss(this.#upstream, isAgent ? 1001 : code, isAgent ? '' : what)
  }

  /** A side has ended its connection. What it sent before still reaches the other. */
  #left(side: Side): void {
    if (this.#isOver) return
    const isClean = side.flow.hasClosed || side.other().flow.hasClosed
    this.#finish(isClean ? undefined : side === this.#agent ? 'client_left' : 'upstream_broken')
    for (const one of [this.#agent, this.#upstream]) this.#hangUp(one)
  }

  #finish(error: string | undefined): void {
    this.#isOver = true
    clearTimeout(this.#timer)
    this.#parts.ended(error)
  }

  /** Say goodbye to a side, unless it is in the middle of a frame of the other's. */
  #dismiss(side: Side, code: number, reason: string): void {
    const toIt = side.other().flow
    if (!toIt.isBetweenFrames || toIt.hasClosed) {
      side.socket.destroy()
      return
    }
    side.socket.write(closeFrame(code, reason, side === this.#upstream ? randomBytes(4) : undefined))
    this.#hangUp(side)
  }

  /** End our half, and read on for a moment: closing on unread bytes would reset away what was written last. */
  #hangUp({ socket }: Side): void {
    if (socket.destroyed) return
    const destroy = () => socket.destroy()
    const timer = setTimeout(destroy, FAREWELL_MS)
    socket.once('close', () => clearTimeout(timer))
    socket.once('end', destroy)
    if (socket.readableEnded) socket.end(destroy)
    else socket.end()
    socket.resume()
  }
}

/** RFC 6455 §7.4.1 and the registry that it opened: the reason is the code of the refusal. */
function closeCodeOf({ code }: GatewayError): number {
  if (code === 'draining') return 1001 // going away
  return problems[code].remedy === 'retry' ? 1013 : 1008 // try again later, policy violation
}

function ignore(): void {
  // See `start`.
}
