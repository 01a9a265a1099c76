/**
 * Who is calling: from what an inbound request presents to a living grant. A token is resolved once and remembered by its
 * digest; time is checked on every use, and so is its end: at once where this process makes every change, within
 * `store.trustMs` where replicas share a store. While the store cannot be asked, nothing that is not freshly known passes.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { digestOf, isHandle, isWellShaped } from './handle.ts'
import type { Records } from './record.ts'
import { type GrantStore, type Standing, storeUnavailable } from './store.ts'
import { TOKEN_LIMIT, type TokenSeal } from './token.ts'

/** Seconds by which the clock of the replica that issued a grant may be ahead of ours (LG/1 §1.6 step 4). */
const SKEW_S = 30
/** Entries are about 1 KB; more tokens than this at once only cost their owners a look into the store. */
const CACHE_ENTRIES = 10_000

interface Parts {
  readonly store: GrantStore
  readonly records: Records
  readonly seal: TokenSeal
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  readonly clock: Clock
}

interface Entry {
  readonly grant: Grant
  readonly expiresAtMs: number
  /** Monotonic time at which the store was asked, before it answered. */
  askedAtMs: number
  isRefreshing: boolean
}

export class Authenticator {
  readonly #parts: Parts
  /** token digest → what it stands for; written only by `#remember` and `end` */
  readonly #entries = new Map<string, Entry>()
  /** tenant and token digest → the question that is under way */
  readonly #flights = new Map<string, Promise<Grant>>()
  /** grant id → expiry, epoch seconds: ended by this process, whatever the store managed to write */
  readonly #ended = new Map<string, number>()

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Tokens remembered, at most 10,000. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * The living grant behind what was presented; no promise when it is freshly known.
   * @throws {GatewayError} `grant_missing`, `grant_invalid`, `grant_expired`, `grant_revoked`, `agent_unknown`, `store_unavailable`
   */
  authenticate(inbound: Inbound): Grant | Promise<Grant> {
    const token = tokenOf(inbound)
    const digest = digestOf(token)
    const entry = this.#entries.get(digest)
    if (entry !== undefined && entry.grant.tenant === inbound.tenant && this.#isFresh(entry, digest)) return entry.grant
    checkShape(token, inbound)
    return this.#resolve(token, digest, inbound.tenant)
  }

  /** From here on the grant is dead in this process, even if the store should fail to say so. */
  end(grant: Grant): void {
    const nowS = this.#parts.clock.nowMs() / 1000
    for (const [id, expiresAt] of this.#ended) if (expiresAt <= nowS) this.#ended.delete(id)
    this.#ended.set(grant.id, grant.expiresAt)
    for (const [digest, entry] of this.#entries) if (entry.grant.id === grant.id) this.#entries.delete(digest)
  }

  /** A grant from a store, checked as it must be on any use. */
  admit(standing: Standing): Grant {
    const grant = this.#withAgent(this.#parts.records.open(standing.stored))
    if (standing.ended !== undefined || this.#ended.has(grant.id)) throw ended(grant, standing.ended)
    this.#checkTime(grant)
    return grant
  }

  #isFresh(entry: Entry, digest: string): boolean {
    const { clock, store } = this.#parts
    if (clock.nowMs() >= entry.expiresAtMs) return false
    if (store.trustMs === Number.POSITIVE_INFINITY) return true
    const ageMs = clock.elapsedMs() - entry.askedAtMs
    if (ageMs >= store.trustMs) return false
    // Ask ahead of time, so that the requests of a busy agent never wait for the store.
    if (ageMs >= store.trustMs / 2 && !entry.isRefreshing) void this.#refresh(entry, digest)
    return true
  }

  async #refresh(entry: Entry, digest: string): Promise<void> {
    entry.isRefreshing = true
    const { store, clock } = this.#parts
    const askedAtMs = clock.elapsedMs()
    try {
      const standing = await store.byId(entry.grant.tenant, entry.grant.id)
      if (standing === undefined || standing.ended !== undefined) this.#entries.delete(digest)
      else entry.askedAtMs = askedAtMs
    } catch {
      // The entry runs out of trust by itself, and then the request that needs the store reports it.
    } finally {
      entry.isRefreshing = false
    }
  }

  #resolve(token: string, digest: string, tenant: string): Grant | Promise<Grant> {
    const flightKey = `${tenant} ${digest}`
    const flying = this.#flights.get(flightKey)
    if (flying !== undefined) return flying
    const askedAtMs = this.#parts.clock.elapsedMs()
    const found = isHandle(token) ? this.#byHandle(token, digest, tenant) : this.#byToken(token, tenant)
    if (!(found instanceof Promise)) return this.#remember(digest, found, askedAtMs)
    const flight = found
      .then((grant) => this.#remember(digest, grant, askedAtMs))
      .finally(() => this.#flights.delete(flightKey))
    this.#flights.set(flightKey, flight)
    return flight
  }

  #byHandle(token: string, digest: string, tenant: string): Grant | Promise<Grant> {
    if (!isWellShaped(token)) throw invalid('A handle was presented that is cut short or changed.')
    // A store finds by pointers that carry no seal of ours; the digest under the seal says whose handle this is.
    const known = (found: Standing | undefined): Grant => {
      if (found !== undefined && found.stored.handleDigest !== digest) throw swapped()
      return this.#known(found, tenant)
    }
    const found = ask(() => this.#parts.store.byHandle(tenant, digest))
    return found instanceof Promise ? found.then(known) : known(found)
  }

  /** The signature says what was granted; the store says whether it still stands. */
  async #byToken(token: string, tenant: string): Promise<Grant> {
    const claimed = await this.#parts.seal.verify(token)
    if (claimed.tenant !== tenant) throw invalid('A signed grant of another tenant was presented.')
    this.#checkTime(claimed)
    const found = await ask(() => this.#parts.store.byId(tenant, claimed.id))
    if (found !== undefined && found.stored.id !== claimed.id) throw swapped()
    return this.#known(found, tenant)
  }

  #known(standing: Standing | undefined, tenant: string): Grant {
    if (standing === undefined) throw invalid('The grant that was presented is not known to this gateway.')
    if (standing.stored.tenant !== tenant) throw swapped()
    return this.admit(standing)
  }

  #remember(digest: string, grant: Grant, askedAtMs: number): Grant {
    // It may have ended between its admission and here, and what is remembered may never be asked for again.
    if (this.#ended.has(grant.id)) throw ended(grant, undefined)
    if (this.#entries.size >= CACHE_ENTRIES) this.#evict()
    this.#entries.set(digest, { grant, expiresAtMs: grant.expiresAt * 1000, askedAtMs, isRefreshing: false })
    return grant
  }

  /** The oldest entry: its owner pays one look into the store if it is still about. */
  #evict(): void {
    for (const [digest] of this.#entries) return void this.#entries.delete(digest)
  }

  /** Attributes that policy decides on are those of today's registry, not those of the day of issue. */
  #withAgent(grant: Grant): Grant {
    const agent = this.#parts.agents.get(grant.agent.id)
    if (agent !== undefined) return { ...grant, agent }
    throw new GatewayError(
      'agent_unknown',
      `The agent ${grant.agent.id} of this grant is not registered any more. Add it to \`agents\` in the settings.`,
    )
  }

  #checkTime(grant: Pick<Grant, 'issuedAt' | 'expiresAt'>): void {
    const nowS = this.#parts.clock.nowMs() / 1000
    // No tolerance here: we set the expiry ourselves, and a handle and a token of one grant must die together.
    if (nowS >= grant.expiresAt) {
      throw new GatewayError(
        'grant_expired',
        `The grant expired at ${new Date(grant.expiresAt * 1000).toISOString()}. Open a new task.`,
      )
    }
    if (grant.issuedAt > nowS + SKEW_S) {
      throw invalid(
        `The grant is from the future by more than ${SKEW_S} s: the clocks of the gateways differ, or this one was set back.`,
      )
    }
  }
}

function tokenOf(inbound: Inbound): string {
  const { presented } = inbound
  if (presented === null) {
    throw new GatewayError(
      'grant_missing',
      'Nothing was presented that says who is calling. Run the command with `keyless run`, or use the proxy URL that `keyless task open` prints.',
    )
  }
  const { token } = presented
  if (token.length > TOKEN_LIMIT) throw invalid(`What was presented is longer than ${TOKEN_LIMIT} characters.`)
  return token
}

function checkShape(token: string, inbound: Inbound): void {
  if (isHandle(token) || token.split('.').length === 3) return
  throw invalid(
    `A value of ${token.length} characters was presented${where(inbound)} that is neither a handle (kh_…) nor a signed grant.`,
  )
}

function where(inbound: Inbound): string {
  switch (inbound.presented?.scheme) {
    case 'basic':
      return ' as Basic password'
    case 'bearer':
      return ' as Bearer token'
    default:
      return ' in the credential slot of the service'
  }
}

function invalid(what: string): GatewayError {
  return new GatewayError('grant_invalid', `${what} Open a new task with \`keyless task open\` or \`keyless run\`.`)
}

function swapped(): GatewayError {
  return invalid('The store has another grant in the place of the one that was presented: someone else writes to it.')
}

function ended(grant: Grant, reason: string | undefined): GatewayError {
  const how = reason === undefined ? '' : ` (${reason.replace('_', ' ')})`
  return new GatewayError(
    'grant_revoked',
    `The task ${grant.task.id} has ended${how}, and its grant with it. Open a new task.`,
  )
}

/** A store that fails in any way is a store that cannot be relied on. */
function ask<T>(question: () => T | Promise<T>): T | Promise<T> {
  try {
    const answer = question()
    return answer instanceof Promise ? answer.catch(refuse) : answer
  } catch (cause) {
    return refuse(cause)
  }
}

function refuse(cause: unknown): never {
  throw cause instanceof GatewayError ? cause : storeUnavailable(cause)
}
