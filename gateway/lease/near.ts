/**
 * Credentials that this process holds in the clear, by grant: the first level of the cache. A lookup compares the parts of
 * the lease key themselves instead of hashing them. State is written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import type { Service } from '../protocol/service.ts'
import type { Claim } from './claim.ts'
import type { Held } from './held.ts'

export class Near {
  readonly #clock: Clock
  readonly #maxGrants: number
  /** grant id → what is held under it, oldest grant first */
  readonly #grants = new Map<string, Held[]>()
  /** grant id → what was replaced before its end and could still be revoked with the grant */
  readonly #replaced = new Map<string, Held[]>()

  /** @param maxGrants grants kept before the oldest are dropped; their credentials stay in the shared cache. */
  constructor(clock: Clock, maxGrants: number) {
    this.#clock = clock
    this.#maxGrants = maxGrants
  }

  /**
   * What may be used now under exactly this authority, from the issuer of first choice. Provider, credential and slot follow from the service, which is
   * compared by identity: a catalogue that was loaded again finds nothing here.
   */
  find(grant: Grant, service: Service, ttlS: number | undefined, role: string | undefined): Held | undefined {
    const list = this.#grants.get(grant.id)
    if (list === undefined) return undefined
    for (let i = 0; i < list.length; i += 1) {
      const held = list[i]
      if (held === undefined || held.claim.service !== service || held.claim.ttlS !== ttlS) continue
      if (held.claim.role !== role || held.claim.name !== service.credential) continue
      if (held.claim.grant !== grant && !isSameAuthority(held.claim.grant, grant)) continue
      return this.isUsable(held, grant) ? held : undefined
    }
    return undefined
  }

  /** The same by lease key, whoever issued it. */
  at({ key, grant }: Claim): Held | undefined {
    const held = this.#grants.get(grant.id)?.find((one) => one.claim.key.id === key.id)
    return held !== undefined && this.isUsable(held, grant) ? held : undefined
  }

  /** Everything of a grant. */
  of(grant: string): readonly Held[] {
    return [...(this.#grants.get(grant) ?? []), ...(this.#replaced.get(grant) ?? [])]
  }

  /** Everything that is one of these, under whatever grant. */
  named(ids: ReadonlySet<string>): readonly Held[] {
    const all = [...this.#grants.values(), ...this.#replaced.values()].flat()
    return all.filter(({ credentialId }) => ids.has(credentialId))
  }

  /** A lease ends at the earlier of its two clocks, and with the grant it is used under. */
  isUsable(held: Held, grant: Grant): boolean {
    const nowMs = this.#clock.nowMs()
    return nowMs < held.untilMs && nowMs < grant.expiresAt * 1000 && this.#clock.elapsedMs() < held.untilElapsedMs
  }

  /** In place of whatever was held under the same key. */
  put(held: Held): void {
    const { grant, key } = held.claim
    const list = this.#grants.get(grant.id) ?? []
    const others = list.filter((other) => other.claim.key.id !== key.id)
    this.#keepRevocable(
      grant.id,
      list.filter((other) => !others.includes(other) && other.credentialId !== held.credentialId),
    )
    if (!this.#grants.has(grant.id) && this.#grants.size >= this.#maxGrants) this.#dropOldest()
    this.#grants.set(grant.id, [...others, held])
  }

  /** Compare and delete; it may still be revoked with its grant. */
  remove(held: Held): void {
    const { id } = held.claim.grant
    const others = (this.#grants.get(id) ?? []).filter((other) => other !== held)
    if (others.length === 0) this.#grants.delete(id)
    else this.#grants.set(id, others)
    this.#keepRevocable(id, [held])
  }

  /** Whatever holds this credential under the grant, removed: it is not used again, nor revoked with the grant. */
  forget(grant: string, credentialId: string): void {
    for (const lists of [this.#grants, this.#replaced]) {
      const kept = (lists.get(grant) ?? []).filter((held) => held.credentialId !== credentialId)
      if (kept.length === 0) lists.delete(grant)
      else lists.set(grant, kept)
    }
  }

  /** Everything of a grant, removed. */
  take(grant: string): readonly Held[] {
    const list = this.of(grant)
    this.#grants.delete(grant)
    this.#replaced.delete(grant)
    return list
  }

  /** Drop what cannot be used any more, so that no credential outlives its use in memory. */
  sweep(): void {
    const nowMs = this.#clock.nowMs()
    keepOnly(this.#grants, (held) => this.isUsable(held, held.claim.grant))
    keepOnly(this.#replaced, (held) => nowMs < held.credential.expiresAt * 1000)
  }

  clear(): void {
    this.#grants.clear()
    this.#replaced.clear()
  }

  #keepRevocable(grant: string, out: readonly Held[]): void {
    const revocable = out.filter(({ claim, credential }) => credential.ephemeral && claim.provider.revoke !== undefined)
    if (revocable.length > 0) this.#replaced.set(grant, [...(this.#replaced.get(grant) ?? []), ...revocable])
  }

  #dropOldest(): void {
    for (const id of this.#grants.keys()) {
      this.#grants.delete(id)
      return
    }
  }
}

function keepOnly(lists: Map<string, Held[]>, isKept: (held: Held) => boolean): void {
  for (const [id, list] of lists) {
    const kept = list.filter(isKept)
    if (kept.length === list.length) continue
    if (kept.length === 0) lists.delete(id)
    else lists.set(id, kept)
  }
}

function isSameAuthority(one: Grant, other: Grant): boolean {
  return one.id === other.id && one.tenant === other.tenant && one.lineageHash === other.lineageHash
}
