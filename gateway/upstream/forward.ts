/** The far side of the gateway: sends requests that carry a credential, and brings back answers that do not. */
import type { Clock } from '../protocol/clock.ts'
import type { Obligations } from '../protocol/decision.ts'
import type { Grant } from '../protocol/grant.ts'
import type { ClientCertificate, Inbound, Outbound, Outcome, Reply } from '../protocol/message.ts'
import type { Endpoint } from '../protocol/service.ts'
import { atEndOfTurn } from '../protocol/turn.ts'
import type { Answer } from './answer.ts'
import type { BodyHashes } from './answering.ts'
import { type Baits, inHead, seeking } from './bait.ts'
import { createDial, type DialOptions } from './dial.ts'
import { type Call, Exchange } from './exchange.ts'
import { type Fetch, Fetches } from './fetch.ts'
import { type Inspection, inspect } from './inspection.ts'
import { LastingCalls, type WatchCall } from './lasting.ts'
import { Pool } from './pool.ts'
import { Searchers } from './searcher.ts'
import type { SecretRules } from './secret-rules.ts'
import { createUpgrades } from './upgrade.ts'

const MIB = 1024 * 1024

export interface UpstreamOptions {
  /** Milliseconds for lookup, connection and TLS handshake together. */
  readonly connectTimeoutMs: number
  /** Milliseconds without an answer's head after the request was sent. */
  readonly headersTimeoutMs: number
  /** Milliseconds without a byte of an answer's body. */
  readonly bodyTimeoutMs: number
  /** Bytes of payload of one WebSocket frame. Default 16 MiB. A larger one ends the connection with 1009. */
  readonly maxFrameBytes?: number
  /** Bytes of payload of one WebSocket message, all its frames together. Default 64 MiB. */
  readonly maxMessageBytes?: number
  /** Offer HTTP/2 for requests that came over it. Default true. */
  readonly http2?: boolean
  /** Roots in PEM, added to the system's. */
  readonly ca: readonly string[]
  /** Host name → address, like `/etc/hosts`; still checked. */
  readonly hosts: ReadonlyMap<string, string>
  readonly clock: Clock
  /** What finds credentials that are not ours; needed where a policy asks for it. */
  secretRules?(): SecretRules | undefined
  /** Canaries to look for. Default: there are none. */
  readonly baits?: Baits | undefined
  /** Of which bodies the outcome holds a keyed hash. Default: of none. */
  readonly hashes?: BodyHashes
  /** Addresses of a name. Default: the system's resolver. */
  readonly resolve?: NonNullable<DialOptions['resolve']>
  /** The proxy through which the way out leads. Default: there is none. */
  readonly proxy?: DialOptions['proxy']
  /** Doors of the gateway that no call may reach. Default: there is none. */
  readonly isClosed?: NonNullable<DialOptions['isClosed']>
  /** Says when a call that lasts must go on no longer. Default: every one may. */
  readonly watch?: WatchCall
}

export interface Upstream {
  /**
   * Send a request and its answer on. Resolves when the last byte was handed over, or the exchange broke off after the
   * head (`error` says why, and the reply was cut so that the agent sees a truncated answer).
   * @param reissue asked once, after a 401; the request is sent again if its body could be kept (none, or at most 64 KiB)
   * @param leaked a credential came back: told at once, because an answer may go on for as long as its grant; also of an answer of
   *   which nothing is passed on
   * @throws {GatewayError} before the head only: `address_forbidden`, `upstream_…`, `request_malformed`, or what `reissue` throws.
   */
  forward(outbound: Outbound, reply: Reply, reissue: Call['reissue'], leaked: Call['leaked']): Promise<Outcome>
  /** Look for credentials that are not ours (`inspection.ts`). @throws {GatewayError} `foreign_credential`. */
  inspect(inbound: Inbound, endpoint: Endpoint, obligations: Obligations, grant?: Grant): Inspection | undefined
  /**
   * `fetch` through the same dial, for providers. `addresses`: CIDR ranges it may reach besides public addresses. With a
   * `certificate`, asked for anew at every use: the same comes back for the same id, and the oldest are closed.
   */
  fetchFor(addresses: readonly string[], certificate?: ClientCertificate): Fetch
  /** The gateway is shutting down: WebSockets, which may last for as long as their grant, are closed with 1001. */
  goAway(): void
  /** Close idle connections now, the others after their exchange. */
  close(): Promise<void>
}

export function createUpstream(options: UpstreamOptions): Upstream {
  const { headersTimeoutMs, bodyTimeoutMs, http2 = true, hashes = {} } = options
  const dial = createDial(options)
  const pool = new Pool({ dial, headersTimeoutMs, bodyTimeoutMs, http2 })
  const lasting = new LastingCalls(options.watch ?? (() => () => {}))
  const parts = {
    pool,
    lasting,
    searchers: new Searchers(),
    hashes,
    flushSoon: atEndOfTurn((answer: Answer) => answer.flush()),
  }
  const limits = {
    maxFrameBytes: options.maxFrameBytes ?? 16 * MIB,
    maxMessageBytes: options.maxMessageBytes ?? 64 * MIB,
  }
  const upgrades = createUpgrades({ ...parts, limits, options: { dial, headersTimeoutMs, bodyTimeoutMs } })
  const serve = (call: Call) => {
    if (call.outbound.upgrade === undefined) new Exchange(parts, call).start()
    else upgrades.serve(call)
  }
  const fetches = new Fetches(dial)
  return {
    forward: (outbound, reply, reissue, leaked) =>
      new Promise((resolve, reject) => serve({ outbound, reply, reissue, leaked, resolve, reject })),
    inspect(inbound, endpoint, obligations, grant) {
      const found = options.baits && seeking(options.baits, inbound, grant)
      const bait = found && inHead(inbound, found)
      if (bait !== undefined) throw bait
      return inspect(inbound, endpoint, obligations, { rules: options.secretRules?.(), found })
    },
    goAway: () => upgrades.goAway(),
    fetchFor: (addresses, certificate) => fetches.for(addresses, certificate),
    async close() {
      pool.close()
      await fetches.close()
    },
  }
}
