/**
 * One HTTP/2 connection to an upstream: what we let it do, and how many more streams it may carry. Its streams belong to
 * one tenant and grant, like everything of its lane.
 */
import { type ClientHttp2Session, connect } from 'node:http2'
import type { Outbound } from '../protocol/message.ts'
import { formatAuthority } from '../protocol/target.ts'
import type { Dialled } from './dial.ts'
import { MAX_HEADER_BYTES, type Tickets } from './lane.ts'

/** Streams at once, where the upstream allows as many; what is more gets a session of its own. */
const MAX_STREAMS = 100
/**
 * Bytes that an upstream may send on one stream ahead of its agent, and so what a stalled agent costs. Enough for
 * 25 MB/s at 20 ms.
 */
const STREAM_WINDOW = 512 * 1024
/** The same for all streams together. Node gives it back at once, so a stalled stream holds up no other. */
const SESSION_WINDOW = 8 * 1024 * 1024
const MAX_FIELDS = 1000
/**
 * In MB, as Node counts. Never reached by what is above; but Node goes on counting what was still to be sent on streams that
 * were cancelled, and at its default of 10 refuses answers after some hundred uploads whose agents left.
 */
const SESSION_MEMORY = 1024

const OPTIONS = {
  settings: { enablePush: false, initialWindowSize: STREAM_WINDOW, maxHeaderListSize: MAX_HEADER_BYTES },
  maxHeaderListPairs: MAX_FIELDS,
  maxSessionMemory: SESSION_MEMORY,
  maxSendHeaderBlockLength: 2 * MAX_HEADER_BYTES,
  strictSingleValueFields: false, // repetitions are the agent's business
}

export class Session<Lane extends Tickets = Tickets> {
  readonly client: ClientHttp2Session
  readonly lane: Lane
  readonly address: string
  /** The service's ranges when it was opened; other ranges need a new look at the address. */
  readonly allowed: readonly string[]
  /** Has it answered any request? A failure before that is no race with its closing. */
  hasAnswered = false
  /** Streams under way. */
  busy = 0
  #lastProcessed = Number.POSITIVE_INFINITY

  constructor(outbound: Outbound, lane: Lane, { socket, address }: Dialled) {
    this.lane = lane
    this.address = address
    this.allowed = outbound.service.addresses
    this.client = connect(`https://${formatAuthority(outbound)}`, { ...OPTIONS, createConnection: () => socket })
    this.client.once('connect', () => {
      if (!this.client.destroyed) this.client.setLocalWindowSize(SESSION_WINDOW)
    })
    this.client.on('goaway', (_, lastStreamId: number) => {
      this.#lastProcessed = lastStreamId
    })
    this.client.on('error', ignore) // its streams fail, and say so
  }

  /** May another stream be opened? */
  get hasRoom(): boolean {
    if (this.client.closed || this.client.destroyed) return false
    return this.busy < Math.min(MAX_STREAMS, this.client.remoteSettings.maxConcurrentStreams ?? MAX_STREAMS)
  }

  /** RFC 9113 §6.8: what is beyond the last stream named in GOAWAY was not looked at. */
  isBeyond(streamId: number | undefined): boolean {
    return streamId === undefined || streamId > this.#lastProcessed
  }

  destroy(): void {
    this.client.destroy()
  }
}

function ignore(): void {
  // See `Session`.
}
