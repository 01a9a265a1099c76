/** One HTTP/1.1 connection to an upstream: an undici `Client` that dials through the guarded dial. */
import type { Socket } from 'node:net'
import { Client } from 'undici'
import type { Outbound } from '../protocol/message.ts'
import { formatAuthority } from '../protocol/target.ts'
import type { Dialled } from './dial.ts'
import { dialTarget, MAX_HEADER_BYTES, type PoolOptions, type Tickets } from './lane.ts'

export class Connection<Lane extends Tickets = Tickets> {
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

  /** @param dialled what its first socket shall be, when that was opened already. */
  constructor(outbound: Outbound, lane: Lane, options: PoolOptions, dialled?: Dialled) {
    this.lane = lane
    this.allowed = outbound.service.addresses
    this.#socket = dialled?.socket
    const target = dialTarget(outbound, lane)
    let ready = dialled
    this.client = new Client(`${outbound.scheme}://${formatAuthority(outbound)}`, {
      allowH2: false,
      pipelining: 1,
      maxHeaderSize: MAX_HEADER_BYTES,
      headersTimeout: options.headersTimeoutMs,
      bodyTimeout: options.bodyTimeoutMs,
      keepAliveTimeout: options.idleTimeoutMs ?? 15_000,
      keepAliveMaxTimeout: 60_000,
      connect: (_, callback) => {
        const dialling = ready === undefined ? options.dial(target, this.#leaving.signal) : Promise.resolve(ready)
        ready = undefined
        dialling.then(
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
    this.#socket?.destroy()
  }
}

function ignore(): void {
  // `destroy` has nothing to report.
}
