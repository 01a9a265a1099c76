/**
 * Credentials that came back in an answer: each is burnt once, and an operation that goes on repeating its credential does not
 * get new ones for ever. State of one process, written only by this class.
 */
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Claim } from './claim.ts'
import type { Bare } from './held.ts'
import type { Fate } from './lease.ts'

export function fateOf({ claim, credential }: Pick<Bare, 'claim' | 'credential'>): Fate {
  if (!credential.ephemeral) return 'standing'
  return claim.provider.revoke === undefined ? 'expires' : 'revoked'
}

/** So many credentials of one grant and service burn within a minute before it gets no further one. */
const MAX_BURNS = 3
const BURNS_MS = 60_000

export class Burns {
  readonly #clock: Clock
  readonly #burnt = new WeakSet<Bare['credential']>()
  /** lease key → when its last credentials were burnt, monotonic ms */
  readonly #recent = new Map<string, readonly number[]>()
  /** credential id → when its lease ends, monotonic ms */
  readonly #ids = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** @returns whether it is the first time for this credential. */
  note({ claim, credential, credentialId, untilElapsedMs }: Bare): boolean {
    if (this.#burnt.has(credential)) return false
    this.#burnt.add(credential)
    const at = [...this.#since(claim.key.id), this.#clock.elapsedMs()]
    this.#recent.set(claim.key.id, at.slice(-MAX_BURNS))
    this.#ids.set(credentialId, untilElapsedMs)
    return true
  }

  /** Found elsewhere than in an answer. @param forMs longer than it is in any cache. */
  ban(credentialId: string, forMs: number): void {
    this.#ids.set(credentialId, this.#clock.elapsedMs() + forMs)
  }

  /** A store that was away when it should have dropped this credential still has it. */
  isBurnt(credentialId: string): boolean {
    return this.#ids.has(credentialId)
  }

  /** @throws {GatewayError} `credential_unavailable` while too many of this authority's credentials came back. */
  requireCalm(claim: Claim): void {
    if (this.#since(claim.key.id).length < MAX_BURNS) return
    throw new GatewayError(
      'credential_unavailable',
      `${claim.service.name} has repeated ${MAX_BURNS} credentials within a minute, each of which was revoked. Wait a minute, and do not call what repeats its request.`,
    )
  }

  sweep(): void {
    for (const id of this.#recent.keys()) if (this.#since(id).length === 0) this.#recent.delete(id)
    for (const [id, untilMs] of this.#ids) if (untilMs <= this.#clock.elapsedMs()) this.#ids.delete(id)
  }

  #since(id: string): readonly number[] {
    const fromMs = this.#clock.elapsedMs() - BURNS_MS
    return (this.#recent.get(id) ?? []).filter((ms) => ms > fromMs)
  }
}
