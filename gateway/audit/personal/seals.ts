/** What the pen of the log needs for `audit.personal: sealed`: the right keys in time, and a seal on every name. */
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { nameOf } from '../entries/cause.ts'
import type { SealPersonal } from '../entries/letterhead.ts'
import type { Seal } from '../sealing.ts'
import type { Person, Personal } from './personal.ts'
import { REGISTRY, sealFields } from './places.ts'

/** The issuer of those of whom nobody knows who they are: one of a kind a day, named by the day (UTC). */
export const NOBODY = 'nobody'

export interface PersonalSeals {
  /** Cannot fail: after `ready`. */
  readonly seal: SealPersonal
  /**
   * Whoever will be named has a key; undefined: they have it already.
   * @param owner of the agent, where the entry names one.
   * @throws {GatewayError} `audit_unavailable` when a key cannot be made durable: no record, no call.
   */
  ready(human: Human | undefined, owner?: string): Promise<void> | undefined
  /** Whenever a key is destroyed, here or by another process. */
  onForgotten(listener: () => void): void
}

export function personalSeals(personal: Personal, tenant: string, clock: Clock): PersonalSeals {
  const personOf = (human: Human | undefined): Person =>
    human === undefined
      ? { tenant, iss: NOBODY, sub: new Date(clock.nowMs()).toISOString().slice(0, 10) }
      : { tenant, iss: human.iss, sub: human.sub }
  const of = (iss: string, sub: string) => personal.of({ tenant, iss, sub })
  /** A grant brings the same human to each of its calls. */
  const near = new WeakMap<Human, Seal>()
  const nearOf = (human: Human | undefined) => {
    const seal = human && near.get(human)
    return seal?.isDestroyed ? undefined : seal
  }
  const ownOf = (human: Human | undefined) => {
    const known = nearOf(human)
    if (known !== undefined) return known
    const seal = personal.of(personOf(human))
    if (human && !seal.isDestroyed) near.set(human, seal)
    return seal
  }
  return {
    onForgotten: (listener) => personal.onDestroyed(listener),
    seal: (members, human) => sealFields(members, { own: () => ownOf(human), of }),
    ready(human, owner) {
      const own = nearOf(human) ? undefined : personal.ready(personOf(human))
      const other = owner === undefined ? undefined : personal.ready({ tenant, iss: REGISTRY, sub: owner })
      return own || other ? made([own, other]) : undefined
    },
  }
}

async function made(keys: readonly (Promise<void> | undefined)[]): Promise<void> {
  try {
    await Promise.all(keys)
  } catch (cause) {
    throw new GatewayError(
      'audit_unavailable',
      `The key that a human's name is sealed under cannot be made (${nameOf(cause as NodeJS.ErrnoException)}), so nothing was done. Calls go on as soon as keys_dir can be written again.`,
      { cause },
    )
  }
}
