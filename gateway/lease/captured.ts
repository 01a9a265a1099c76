/**
 * Credentials that upstreams answered with (`returns_secret`): sealed beside the leases under the grant that asked for them, and
 * sent in place of ours where their placeholder stands, by the same grant at the same service and nowhere else. Once stored and
 * before the answer has left, a crash leaves a sealed value that nobody has a name for; it ends with its grant.
 */
import type { Permit } from '../policy/decision.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Captive, Capture, Outbound } from '../protocol/message.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import { withoutField } from '../protocol/raw-headers.ts'
import type { Secret } from '../protocol/secret.ts'
import type { Service, Slot } from '../protocol/service.ts'
import { createPlacement } from '../provider/placement/placement.ts'
import type { LeaseCache, LeaseKey } from './cache.ts'
import type { Ended } from './ended.ts'
import { leaseKey } from './key.ts'
import type { Lease } from './lease.ts'
import { newPlaceholder, type Standing } from './placeholder.ts'
import type { RecordLease } from './record.ts'
import { CAPTURED, recordRevocation } from './revoke.ts'
import type { Seal } from './seal.ts'
import type { SetBacks } from './set-back.ts'

export interface CaptiveRooms {
  readonly cache: LeaseCache
  readonly seal: Seal
  readonly clock: Clock
  readonly record: RecordLease
  readonly ended: Pick<Ended, 'requireLiving'>
  readonly setBacks: Pick<SetBacks, 'canTell'>
}

/** A captured credential in this process. */
interface Kept {
  readonly key: LeaseKey
  readonly sealed: Buffer
  readonly secret: Secret
  readonly credentialId: string
  /** Milliseconds since the epoch, and the same instant on the clock that never goes back. */
  readonly untilMs: number
  readonly untilElapsedMs: number
}

/** Kept in the clear before the oldest are read from the cache again. */
const MAX_KEPT = 10_000

export class Captives {
  readonly #rooms: CaptiveRooms
  readonly #placement = createPlacement()
  /** key → what is kept, oldest first */
  readonly #near = new Map<string, Kept>()

  constructor(rooms: CaptiveRooms) {
    this.#rooms = rooms
    rooms.cache.onBurn((grant, credentialId) => this.forget(grant, credentialId))
  }

  /** The same lease, whose answer is captured. */
  capturing(lease: Lease, permit: Permit): Lease {
    const { operation } = permit.endpoint
    const capture: Capture = { pointers: operation.captures, keep: (found) => this.#keep(permit, found) }
    return {
      facts: lease.facts,
      async attach(plain) {
        if (plain.upgrade !== undefined)
          throw new GatewayError('upgrade_refused', 'Of a WebSocket no credential can be captured.')
        return { ...(await lease.attach(plain)), capture }
      },
      async reissue(plain, answer) {
        const better = await lease.reissue(plain, answer)
        return better === null ? null : { ...better, capture }
      },
      burn: (plain) => lease.burn(plain),
      [Symbol.dispose]: () => lease[Symbol.dispose](),
    }
  }

  /**
   * The lease of the credential that a placeholder stands for.
   * @throws {GatewayError} `foreign_credential`: no placeholder of this grant at this service, or its time is over; `store_unavailable`;
   *   `grant_revoked`, because a store that was away when the grant ended still has what was captured under it.
   */
  async lease({ grant, endpoint }: Permit, standing: Standing): Promise<Lease> {
    this.#rooms.ended.requireLiving(grant)
    const kept = await this.#find(grant, endpoint.service, standing.id)
    if (kept === undefined) {
      throw new GatewayError(
        'foreign_credential',
        `The placeholder in the request stands for nothing that this grant may use at ${endpoint.service.name}: another grant, another service, or its time is over. Ask for the credential again under this grant.`,
      )
    }
    const { credentialId, untilMs } = kept
    const cache = 'hit'
    const times = { ephemeral: true, expiresAt: Math.floor(untilMs / 1000) }
    return {
      facts: { provider: 'captured', credential: endpoint.service.name, credentialId, ...times, cache },
      attach: (plain) => this.#place(kept, standing.slot, plain),
      reissue: async () => null,
      burn: () => {
        this.#burn(grant, endpoint.service, kept)
        return 'expires'
      },
      [Symbol.dispose]: () => undefined,
    }
  }

  /** Once, however often it comes back. */
  #burn(grant: Grant, service: Service, { key, sealed, secret, credentialId, untilMs }: Kept): void {
    if (![...this.#near.values()].some((kept) => kept.credentialId === credentialId)) return
    this.forget(grant.id, credentialId)
    this.#rooms.cache.burn(key, sealed, credentialId).catch(() => undefined)
    const credential = { secret, ephemeral: true, expiresAt: untilMs / 1000 }
    const claim = { name: '', provider: CAPTURED, service, grant }
    const burnt = { claim, credential, credentialId, reason: 'leaked' } as const
    void recordRevocation(burnt, 'expires', { ...this.#rooms, startedMs: this.#rooms.clock.elapsedMs() })
  }

  /** The grant has ended, or one credential of it may not be used any more. */
  forget(grant: string, credentialId?: string): void {
    for (const [id, kept] of this.#near) {
      const isMeant = kept.key.grant === grant && (credentialId ?? kept.credentialId) === kept.credentialId
      if (isMeant) this.#near.delete(id)
    }
  }

  sweep(): void {
    for (const [id, kept] of this.#near) if (!this.#isUsable(kept)) this.#near.delete(id)
  }

  async #keep(permit: Permit, found: readonly Captive[]): Promise<readonly string[]> {
    const placeholders: string[] = []
    for (const captive of found) placeholders.push(await this.#keepOne(permit, captive))
    return placeholders
  }

  async #keepOne({ grant, endpoint, decision }: Permit, captive: Captive): Promise<string> {
    const { seal, record, cache, clock } = this.#rooms
    const { id, text } = newPlaceholder(captive.look)
    const key = this.#keyOf(grant, endpoint.service, id)
    const nowMs = clock.nowMs()
    const lastsS = Math.min(captive.expiresInS ?? Infinity, decision.obligations.ttlS ?? Infinity)
    const untilMs = Math.min(nowMs + lastsS * 1000, (captive.expiresAt ?? Infinity) * 1000, grant.expiresAt * 1000)
    if (untilMs <= nowMs) throw withheld('its time is over already')
    const until = this.#until(untilMs)
    const credentialId = seal.credentialId(captive.secret)
    await record('lease.captured', grant, {
      provider: CAPTURED.name,
      credential: '',
      cred_id: credentialId,
      ephemeral: true,
      expires: Math.floor(untilMs / 1000),
      service: endpoint.service.name,
      operation: endpoint.operation.name,
    })
    const sealed = seal.seal(key.id, {
      // No provider has this name: with its grant it is dropped, and shown to no issuer for revocation.
      ...{
        tenant: grant.tenant,
        name: '',
        identity: '',
        service: endpoint.service.name,
        secret: captive.secret,
        parts: undefined,
        ephemeral: true,
        scope: undefined,
      },
      ...{ expiresAt: Math.floor(untilMs / 1000), sinceMs: nowMs, untilMs, renewAtMs: Infinity },
    })
    await store(cache, key, sealed, untilMs - nowMs)
    this.#hold(id, { key, sealed, secret: captive.secret, credentialId, ...until })
    return text
  }

  async #find(grant: Grant, service: Service, id: string): Promise<Kept | undefined> {
    const key = this.#keyOf(grant, service, id)
    const known = this.#near.get(id)
    if (known !== undefined && known.key.id === key.id) return this.#isUsable(known) ? known : undefined
    const sealed = await this.#rooms.cache.get(key)
    const value = sealed && this.#rooms.seal.open(key.id, sealed)
    if (sealed === undefined || value === undefined || !this.#rooms.setBacks.canTell(value.sinceMs)) return undefined
    const { secret, untilMs } = value
    const kept = { key, sealed, secret, credentialId: this.#rooms.seal.credentialId(secret), ...this.#until(untilMs) }
    if (!this.#isUsable(kept)) return undefined
    this.#hold(id, kept)
    return kept
  }

  /** As the service's own credential would go up, but where the placeholder stood, with what stood around it. */
  #place({ secret }: Kept, slot: Slot, plain: Outbound): Outbound {
    const face = { ...plain.service, slots: [slot] }
    const secrets = [...plain.secrets, secret, ...this.#placement.derived({ secret }, face)]
    // Cleansed of it already, but for operations that leave the agent's own authorization in place.
    const headers = withoutField(plain.headers, slot.in === 'header' ? slot.name.toLowerCase() : 'authorization')
    return {
      ...this.#placement.place({ secret }, { ...plain, headers, service: face, secrets }),
      service: plain.service,
    }
  }

  /** By everything that a placeholder is bound to: under another grant, service or tenant nothing is found. */
  #keyOf(grant: Grant, service: Service, id: string): LeaseKey {
    const authority = {
      ...{ tenant: grant.tenant, service: service.name, credential: 'captured', provider: 'captured', identity: id },
      ...{ grant: grant.id, lineageHash: grant.lineageHash, role: undefined, ttlS: undefined, singleUse: false },
    }
    return { id: leaseKey(authority, this.#rooms.seal.macKey), grant: grant.id }
  }

  #hold(id: string, kept: Kept): void {
    const oldest = this.#near.size >= MAX_KEPT ? this.#near.keys().next().value : undefined
    if (oldest !== undefined) this.#near.delete(oldest)
    this.#near.set(id, kept)
  }

  #until(untilMs: number): Pick<Kept, 'untilMs' | 'untilElapsedMs'> {
    const { clock } = this.#rooms
    return { untilMs, untilElapsedMs: clock.elapsedMs() + (untilMs - clock.nowMs()) }
  }

  #isUsable({ untilMs, untilElapsedMs }: Kept): boolean {
    return this.#rooms.clock.nowMs() < untilMs && this.#rooms.clock.elapsedMs() < untilElapsedMs
  }
}

/** Kept for every replica, or not given out at all. */
async function store(cache: LeaseCache, key: LeaseKey, sealed: Buffer, ttlMs: number): Promise<void> {
  let outcome: string
  try {
    outcome = await cache.set(key, sealed, { ttlMs, fence: null })
  } catch (cause) {
    if (asGatewayError(cause).code !== 'store_unavailable') throw cause
    throw withheld('the store in which it would be kept cannot be reached')
  }
  if (outcome === 'ended') throw new GatewayError('grant_revoked', 'The task of this grant has ended.')
  if (outcome !== 'stored') throw withheld('it could not be kept')
}

function withheld(why: string): GatewayError {
  return new GatewayError('answer_withheld', `The credential in the answer cannot be held back from the agent: ${why}.`)
}
