/** The end of credentials before their time: with their grant, because somebody said so, or because they came back in an answer. */
import type { Grant } from '../protocol/grant.ts'
import type { Provider } from '../provider/provider.ts'
import { digestOf, type LeaseCache, type Stored } from './cache.ts'
import type { Captives } from './captured.ts'
import type { Ended } from './ended.ts'
import { openStored } from './found.ts'
import type { Bare, Held } from './held.ts'
import type { Near } from './near.ts'
import type { Revocations } from './revocations.ts'
import type { Reason, Unused } from './revoke.ts'
import type { Seal } from './seal.ts'

/** Which credentials: of these grants, and of these only where it says so. */
export interface RevocationOrder {
  readonly grants: readonly Grant[]
  /** Names in settings. */
  readonly credential?: string | undefined
  readonly service?: string | undefined
}

export interface EndingRooms {
  readonly cache: LeaseCache
  readonly seal: Seal
  readonly providers: ReadonlyMap<string, Provider>
  readonly near: Near
  readonly captives: Captives
  readonly ended: Ended
  readonly revocations: Revocations
}

export class Endings {
  readonly #rooms: EndingRooms
  /** Grants that this process is purging. */
  readonly #purging = new Set<string>()

  constructor(rooms: EndingRooms) {
    this.#rooms = rooms
    rooms.cache.onPurge((grant, removed) => this.#purgedElsewhere(grant, removed))
    rooms.cache.onBurn((grant, credentialId) => rooms.near.forget(grant, credentialId))
  }

  /** @see Leases.purge */
  async purge(grant: Grant): Promise<number> {
    const { ended, captives, near, cache, revocations } = this.#rooms
    ended.add(grant.id)
    captives.forget(grant.id)
    const held = near.take(grant.id)
    this.#purging.add(grant.id)
    // A store that is away keeps sealed values until they expire; no call reaches them, because grants are checked first.
    const far = await cache.purge(grant.id).catch((): readonly Stored[] => [])
    this.#purging.delete(grant.id)
    return this.#end([
      ...this.#opened(far, grant, 'grant_ended'),
      ...revocations.inUse(grant.id, 'all'),
      ...held.map((one) => ({ ...one, reason: 'grant_ended' as const })),
    ])
  }

  /** @see Leases.revoke */
  async revoke({ grants, ...only }: RevocationOrder): Promise<number> {
    const counts = await Promise.all(grants.map((grant) => this.#revokeOf(grant, only)))
    return counts.reduce((sum, count) => sum + count, 0)
  }

  /** It came back in an answer: nobody uses it any more. */
  leaked(held: Bare): void {
    const { near, cache, revocations } = this.#rooms
    const { claim, credentialId, sealed } = held
    near.forget(claim.grant.id, credentialId)
    // A store that is away keeps it until it expires; `Burns.isBurnt` keeps this replica from reading it again.
    cache.burn(claim.key, sealed, credentialId).catch(() => undefined)
    void revocations.order({ ...held, reason: 'leaked' })
  }

  /** @see Leases.known */
  async known(ids: ReadonlySet<string>, grants: readonly Grant[]): Promise<readonly Unused[]> {
    const { near, revocations, cache } = this.#rooms
    const far = await Promise.all(
      grants.map(async (grant) => this.#opened(await cache.list(grant.id), grant, 'leaked')),
    )
    const all = [...far.flat(), ...revocations.named(ids), ...near.named(ids)]
    const meant = all.filter(({ credentialId }) => ids.has(credentialId))
    return [
      ...new Map(
        meant.map((one) => [`${one.claim.grant.id} ${one.credentialId}`, { ...one, reason: 'leaked' as const }]),
      ).values(),
    ]
  }

  /** It was found where it may not be. Never rejects. */
  async stray(unused: Unused): Promise<void> {
    const { cache, near, revocations } = this.#rooms
    const { claim, credentialId } = unused
    near.forget(claim.grant.id, credentialId)
    const far = await cache.list(claim.grant.id).catch((): readonly Stored[] => [])
    const value = far.find((one) =>
      this.#opened([one], claim.grant, 'leaked').some((opened) => opened.credentialId === credentialId),
    )
    await cache.burn(value?.key ?? { id: '', grant: claim.grant.id }, value?.value, credentialId).catch(() => undefined)
    await revocations.order(unused)
  }

  async #revokeOf(grant: Grant, only: Omit<RevocationOrder, 'grants'>): Promise<number> {
    const { cache, near, revocations } = this.#rooms
    const far = await cache.list(grant.id).catch((): readonly Stored[] => [])
    const stored = new Map(
      far.flatMap((value) => this.#opened([value], grant, 'ordered').map((one) => [one.credentialId, value] as const)),
    )
    const known: Unused[] = [
      ...this.#opened(far, grant, 'ordered'),
      ...revocations.inUse(grant.id, 'all'),
      ...near.of(grant.id).map((one) => ({ ...one, reason: 'ordered' as const })),
    ]
    const meant = known.filter(
      ({ claim }) =>
        (only.credential ?? claim.name) === claim.name && (only.service ?? claim.service.name) === claim.service.name,
    )
    for (const { credentialId } of meant) {
      const value = stored.get(credentialId)
      near.forget(grant.id, credentialId)
      await cache.burn(value?.key ?? { id: '', grant: grant.id }, value?.value, credentialId).catch(() => undefined)
    }
    return this.#end(meant.map((one) => ({ ...one, reason: 'ordered' })))
  }

  #opened(stored: readonly Stored[], grant: Grant, reason: Reason): Unused[] {
    return stored.flatMap((one) => openStored(one, { grant, reason }, this.#rooms) ?? [])
  }

  /** Each once, whoever knew it. */
  async #end(all: readonly Unused[]): Promise<number> {
    const unused = new Map(all.map((one) => [one.credentialId, one]))
    await Promise.all([...unused.values()].map((one) => this.#rooms.revocations.order(one)))
    return unused.size
  }

  /** Another replica ended the grant and revokes what it found in the cache; what only this one knows is left to this one. */
  #purgedElsewhere(grant: string, removed: ReadonlySet<string>): void {
    if (this.#purging.has(grant)) return
    const { ended, captives, near, revocations } = this.#rooms
    ended.add(grant)
    captives.forget(grant)
    // Replaced since, or lost by the cache.
    const isMissed = ({ sealed }: Held) => sealed === undefined || !removed.has(digestOf(sealed))
    const missed = new Set(near.take(grant).flatMap((held) => (isMissed(held) ? held.credentialId : [])))
    const issuedHere = revocations.inUse(grant, 'all').filter(({ credentialId }) => missed.has(credentialId))
    void this.#end([...revocations.inUse(grant, 'unshared'), ...issuedHere])
    revocations.leave(grant)
  }
}
