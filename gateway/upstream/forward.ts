/** The far side of the gateway: sends requests that carry a credential, and brings back answers that do not. */
import type { Clock } from '../protocol/clock.ts'
import type { Outbound, Outcome, Reply } from '../protocol/message.ts'
import type { Answer } from './answer.ts'
import { createDial, type DialOptions } from './dial.ts'
import { Exchange } from './exchange.ts'
import { type BoundedFetch, createFetch, type Fetch } from './fetch.ts'
import { LastingCalls, type WatchGrant } from './lasting.ts'
import { Pool } from './pool.ts'
import { Searchers } from './searcher.ts'

export interface UpstreamOptions {
  /** Milliseconds for lookup, connection and TLS handshake together. */
  readonly connectTimeoutMs: number
  /** Milliseconds without an answer's head after the request was sent. */
  readonly headersTimeoutMs: number
  /** Milliseconds without a byte of an answer's body. */
  readonly bodyTimeoutMs: number
  /** Roots in PEM, added to the system's. */
  readonly ca: readonly string[]
  /** Host name → address, like `/etc/hosts`; still checked. */
  readonly hosts: ReadonlyMap<string, string>
  readonly clock: Clock
  /** Addresses of a name. Default: the system's resolver. */
  readonly resolve?: NonNullable<DialOptions['resolve']>
  /** Doors of the gateway that no call may reach. Default: there is none. */
  readonly isClosed?: NonNullable<DialOptions['isClosed']>
  /** Says when the grant of a call that lasts has ended. Default: grants outlive their calls. */
  readonly watch?: WatchGrant
}

export interface Upstream {
  /**
   * Send a request and its answer on. Resolves when the last byte was handed over, or the exchange broke off after the
   * head (`error` says why, and the reply was cut so that the agent sees a truncated answer).
   * @param reissue asked once, after a 401; the request is sent again if its body could be kept (none, or at most 64 KiB)
   * @throws {GatewayError} before the head only: `address_forbidden`, `upstream_…`, `request_malformed`, or what `reissue` throws.
   */
  forward(outbound: Outbound, reply: Reply, reissue: () => Promise<Outbound | null>): Promise<Outcome>
  /** `fetch` through the same dial, for providers. `addresses`: CIDR ranges it may reach besides public addresses. */
  fetchFor(addresses: readonly string[]): Fetch
  /** Close idle connections now, the others after their exchange. */
  close(): Promise<void>
}

export function createUpstream(options: UpstreamOptions): Upstream {
  const { headersTimeoutMs, bodyTimeoutMs } = options
  const dial = createDial(options)
  const pool = new Pool({ dial, headersTimeoutMs, bodyTimeoutMs })
  const lasting = new LastingCalls(options.watch ?? (() => () => {}))
  const parts = { pool, lasting, searchers: new Searchers(), flushSoon: createFlusher() }
  const fetches: BoundedFetch[] = []
  return {
    forward: (outbound, reply, reissue) =>
      new Promise((resolve, reject) => new Exchange(parts, { outbound, reply, reissue, resolve, reject }).start()),
    fetchFor(addresses) {
      const made = createFetch(dial, addresses)
      fetches.push(made)
      return made.fetch
    },
    async close() {
      pool.close()
      await Promise.all(fetches.map((made) => made.close()))
    },
  }
}

/** Flushes all answers of one turn of the event loop together: one immediate, not one an answer. */
function createFlusher(): (answer: Answer) => void {
  let waiting: Answer[] = []
  const flushAll = () => {
    const answers = waiting
    waiting = []
    for (const answer of answers) answer.flush()
  }
  return (answer) => {
    if (waiting.push(answer) === 1) setImmediate(flushAll)
  }
}
