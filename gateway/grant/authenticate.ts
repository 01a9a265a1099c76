/**
 * Who is calling: from what an inbound request presents to a living grant. A token is resolved once and remembered by its
 * digest; time is checked on every use, and so is the end of the grant and of everything it hangs on: at once where this
 * process makes every change, within `store.trustMs` where replicas share a store. While the store cannot be asked, nothing
 * that is not freshly known passes.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Presented } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { FirstSight } from './chain/first-sight.ts'
import {
  about,
  type Caller,
  checkProof,
  checkShape,
  invalid,
  type OfflineGrant,
  offlineOf,
  tokenOf,
} from './chain/presented.ts'
import type { TokenSeal } from './chain/token.ts'
import { digestOf, isHandle, isWellShaped } from './handle.ts'
import type { Liveness } from './life/liveness.ts'
import type { Records } from './store/record.ts'
import { ask, type Eventual, type GrantStore, type Standing } from './store/store.ts'

/** Entries are about 1 KB; more tokens than this at once only cost their owners a look into the store. */
const CACHE_ENTRIES = 10_000

interface Parts {
  readonly store: GrantStore
  readonly records: Records
  readonly seal: Pick<TokenSeal, 'verify'>
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  readonly clock: Clock
  readonly liveness: Liveness
  /** Of a delegated grant that is not remembered. */
  readonly firstSight: FirstSight
  /** Verify a grant that was delegated offline and make it known, or refuse it. Absent: none is accepted. */
  present?(token: string, tenant: string): Promise<void>
}

interface Entry {
  readonly grant: Grant
  readonly marks: readonly string[]
  readonly expiresAtMs: number
  /** Monotonic time at which the store was asked, before it answered. */
  askedAtMs: number
  isRefreshing: boolean
}

export class Authenticator {
  readonly #parts: Parts
  /** token digest → what it stands for; written only by `#welcome`, `#forget` and a refresh that finds it dead */
  readonly #entries = new Map<string, Entry>()
  /** what was presented → digest of its token */
  readonly #digests = new WeakMap<Presented, string>()
  /** tenant and token digest → the question that is under way */
  readonly #flights = new Map<string, Promise<Grant>>()
  readonly #liveness: Liveness
  /** Counts `recheck`s: an answer from before one is not remembered after it. */
  #rechecks = 0

  constructor(parts: Parts) {
    this.#parts = parts
    this.#liveness = parts.liveness
  }

  /** Tokens remembered, at most 10,000. */
  get size(): number {
    return this.#entries.size
  }

  /**
   * The living grant behind what was presented; no promise when it is freshly known.
   * @throws {GatewayError} `grant_missing`, `grant_invalid`, `grant_expired`, `grant_revoked`, `task_suspended`,
   *   `agent_unknown`, `store_unavailable`, and of an offline delegation at first sight whatever is wrong with it
   */
  authenticate(caller: Caller): Eventual<Grant> {
    const token = tokenOf(caller)
    const digest = this.#digest(token, caller)
    const entry = this.#entries.get(digest)
    const known = entry?.grant.tenant === caller.tenant ? entry : undefined
    if (known !== undefined && this.#isFresh(known, digest)) return proved(known.grant, caller)
    checkShape(token, caller)
    const found = this.#resolve({ token, digest, tenant: caller.tenant, known })
    return found instanceof Promise ? found.then((grant) => proved(grant, caller)) : proved(found, caller)
  }

  /** A connection that presents the same all the time presents one object all the time; what is in a slot comes anew with each request. */
  #digest(token: string, { presented }: Caller): string {
    if (presented === null || presented.scheme === 'slot') return digestOf(token)
    const known = this.#digests.get(presented)
    if (known !== undefined) return known
    const digest = digestOf(token)
    this.#digests.set(presented, digest)
    return digest
  }

  /** From here on every grant that carries the mark is dead in this process, even if the store should fail to say so. @see Liveness.end */
  end(tenant: string, mark: string, o: { readonly reason: string; readonly untilS: number }): void {
    this.#forget(tenant, mark)
    this.#liveness.end(tenant, mark, o)
  }

  /** Something about the grants that carry the mark has changed in the store, which is asked again before their next use. */
  recheck(tenant: string, mark: string): void {
    this.#rechecks += 1
    this.#forget(tenant, mark)
    this.#liveness.changed(tenant, mark)
  }

  /** Orders have changed: whatever they end is resolved anew, and refused. */
  forgetOrdered(): void {
    this.#rechecks += 1
    for (const [digest, { grant }] of this.#entries) if (this.#isOrdered(grant)) this.#entries.delete(digest)
  }

  /** A grant from a store, checked as it must be on any use. */
  admit(standing: Standing): Grant {
    const found = this.#parts.records.open(standing.stored)
    return about(found, () => {
      const grant = this.#withAgent(found)
      this.#liveness.check(grant, standing)
      return grant
    })
  }

  #forget(tenant: string, mark: string): void {
    for (const [digest, { grant, marks }] of this.#entries)
      if (grant.tenant === tenant && marks.includes(mark)) this.#entries.delete(digest)
  }

  #isOrdered(grant: Grant): boolean {
    try {
      this.#liveness.checkOrders(grant)
      return false
    } catch {
      return true
    }
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
      if (standing === undefined || standing.ended !== undefined || standing.isSuspended) this.#entries.delete(digest)
      else entry.askedAtMs = askedAtMs
    } catch {
      // The entry runs out of trust by itself, and then the request that needs the store reports it.
    } finally {
      entry.isRefreshing = false
    }
  }

  #resolve(o: Question): Eventual<Grant> {
    const flightKey = `${o.tenant} ${o.digest}`
    const flying = this.#flights.get(flightKey)
    if (flying !== undefined) return flying
    const asked = { atMs: this.#parts.clock.elapsedMs(), rechecks: this.#rechecks }
    const found = this.#find(o)
    const welcomed =
      found instanceof Promise
        ? found.then((standing) => this.#welcome(o, standing, asked))
        : this.#welcome(o, found, asked)
    if (!(welcomed instanceof Promise)) return welcomed
    const flight = welcomed.finally(() => this.#flights.delete(flightKey))
    this.#flights.set(flightKey, flight)
    return flight
  }

  #find({ token, digest, tenant, known }: Question): Eventual<Standing> {
    // What a token stands for never changes, only whether it still does.
    if (known !== undefined) return this.#byId(tenant, known.grant.id)
    if (isHandle(token)) return this.#byHandle(token, digest, tenant)
    const offline = offlineOf(token)
    return offline === undefined ? this.#byToken(token, tenant) : this.#byDelegation(token, offline, tenant)
  }

  #byHandle(token: string, digest: string, tenant: string): Eventual<Standing> {
    if (!isWellShaped(token)) throw invalid('A handle was presented that is cut short or changed.')
    const found = ask(() => this.#parts.store.byHandle(tenant, digest))
    // A store finds by pointers that carry no seal of ours; the digest under the seal says whose handle this is.
    const isIts = ({ handleDigest }: Standing['stored']) => handleDigest === digest
    return found instanceof Promise ? found.then((it) => known(it, tenant, isIts)) : known(found, tenant, isIts)
  }

  #byId(tenant: string, id: string): Eventual<Standing> {
    const found = ask(() => this.#parts.store.byId(tenant, id))
    const isIt = (stored: Standing['stored']) => stored.id === id
    return found instanceof Promise ? found.then((it) => known(it, tenant, isIt)) : known(found, tenant, isIt)
  }

  /** The signature says what was granted; the store says whether it still stands. */
  async #byToken(token: string, tenant: string): Promise<Standing> {
    const claimed = await this.#parts.seal.verify(token)
    if (claimed.tenant !== tenant) throw invalid('A signed grant of another tenant was presented.')
    about(claimed, () => this.#liveness.checkTime(claimed))
    return this.#byId(tenant, claimed.id)
  }

  /** Verified at first sight; from then on the store knows it, and by exactly which delegation. */
  async #byDelegation(token: string, { delegation, id }: OfflineGrant, tenant: string): Promise<Standing> {
    if ((await ask(() => this.#parts.store.byId(tenant, id))) === undefined) {
      if (this.#parts.present === undefined) throw invalid('Grants that were delegated offline are not accepted here.')
      await this.#parts.present(token, tenant)
    }
    const standing = await this.#byId(tenant, id)
    // Whoever may delegate chooses the id: another grant that has it is not what was presented.
    if (this.#parts.records.open(standing.stored).attestations.at(-1) === delegation) return standing
    throw invalid('The id of the delegation that was presented belongs to another grant.')
  }

  #welcome(o: Question, standing: Standing, asked: Asked): Eventual<Grant> {
    const grant = this.admit(standing)
    if (grant.depth === 0 || o.known !== undefined) return this.#keep(o.digest, grant, standing, asked)
    return this.#parts.firstSight(grant).then(() => {
      this.#liveness.check(grant, standing) // it may have ended meanwhile
      return this.#keep(o.digest, grant, standing, asked)
    })
  }

  #keep(digest: string, grant: Grant, { stored }: Standing, asked: Asked): Grant {
    if (asked.rechecks !== this.#rechecks) return grant
    const { marks } = stored
    if (this.#entries.size >= CACHE_ENTRIES) this.#evict()
    const entry = { grant, marks, expiresAtMs: grant.expiresAt * 1000, askedAtMs: asked.atMs, isRefreshing: false }
    this.#entries.set(digest, entry)
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
}

interface Asked {
  readonly atMs: number
  readonly rechecks: number
}

interface Question {
  readonly token: string
  readonly digest: string
  readonly tenant: string
  /** What is remembered of it, and not fresh any more. */
  readonly known: Entry | undefined
}

function proved(grant: Grant, caller: Caller): Grant {
  if (grant.cnf !== undefined) about(grant, () => checkProof(grant, caller.proof))
  return grant
}

function known(
  found: Standing | undefined,
  tenant: string,
  isAsked: (stored: Standing['stored']) => boolean,
): Standing {
  if (found === undefined) throw invalid('The grant that was presented is not known to this gateway.')
  if (found.stored.tenant === tenant && isAsked(found.stored)) return found
  throw invalid('The store has another grant in the place of the one that was presented: someone else writes to it.')
}
