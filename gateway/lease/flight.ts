/**
 * One issue per key at a time. In this process calls share one promise, which belongs to none of them: a caller that leaves
 * ends nothing. Across replicas a lock with a fencing token in the shared cache lets one issue while the others wait briefly.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError, type ProblemCode } from '../protocol/problem.ts'
import type { LeaseCache, LeaseKey } from './cache.ts'

/**
 * Failures of an issuer, and for how many milliseconds the next call is refused with the same one, so that a broken issuer
 * is not stormed. Anything else (shutdown, an ended grant, a log that cannot be written) is not the issuer's and is not kept.
 */
const KEPT_MS: Partial<Record<ProblemCode, number>> = {
  credential_rejected: 5_000,
  credential_too_wide: 5_000,
  credential_unconfigured: 5_000,
  credential_unavailable: 2_000,
}

export interface Flight<T> {
  /** The work under way for this id, or else this work. Shared failures are the same error for everyone who waits. */
  run(id: string, work: () => Promise<T>): Promise<T>
}

export function createFlight<T>(clock: Clock): Flight<T> {
  /** id → issue under way */
  const underway = new Map<string, Promise<T>>()
  /** id → last failure of the issuer; at most a few seconds old */
  const failures = new Map<string, { readonly error: GatewayError; readonly untilMs: number }>()

  function keep(id: string, error: unknown): void {
    const keptMs = error instanceof GatewayError ? KEPT_MS[error.code] : undefined
    if (keptMs === undefined) return
    const nowMs = clock.elapsedMs()
    for (const [other, failure] of failures) if (failure.untilMs <= nowMs) failures.delete(other)
    failures.set(id, { error: error as GatewayError, untilMs: nowMs + keptMs })
  }

  return {
    run(id, work) {
      const known = underway.get(id)
      if (known !== undefined) return known
      const failure = failures.get(id)
      if (failure !== undefined && failure.untilMs > clock.elapsedMs()) return Promise.reject(failure.error)
      const started = work()
        .catch((error: unknown) => {
          keep(id, error)
          throw error
        })
        .finally(() => underway.delete(id))
      underway.set(id, started)
      return started
    },
  }
}

export interface SharedIssue<T> {
  readonly cache: Pick<LeaseCache, 'lock' | 'unlock'>
  readonly key: LeaseKey
  /** Longest time one issue takes, in milliseconds: a lock older than this belongs to a replica that died. */
  readonly lockMs: number
  /** How long to wait for another replica before issuing as well, in milliseconds. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  /** The credential another replica has left in the cache, if it will do. */
  readonly read: () => Promise<T | undefined>
  /** Issue and store under this fencing token; null when no lock could be had. */
  readonly issue: (fence: number | null) => Promise<T>
}

/**
 * Take what is in the cache, or issue under the lock, or wait for whoever holds it. A replica that hangs or died delays the
 * others by `patienceMs` at most; a store that cannot be reached delays nobody beyond its own timeout.
 */
export async function issueOnce<T>(o: SharedIssue<T>): Promise<T> {
  let waitedMs = 0
  for (let pauseMs = 10; ; pauseMs = Math.min(2 * pauseMs, 100)) {
    const fence = await attempt(o)
    if (typeof fence !== 'number' && fence !== 'taken') return fence.value
    if (typeof fence === 'number') return issueLocked(o, fence)
    if (waitedMs >= o.patienceMs) return o.issue(null)
    await waitOrDrain(pauseMs, o.signal)
    waitedMs += pauseMs
  }
}

async function waitOrDrain(pauseMs: number, signal: AbortSignal): Promise<void> {
  try {
    await pause(pauseMs, undefined, { signal })
  } catch {
    throw new GatewayError('draining', 'The gateway is shutting down; no new credential is issued.')
  }
}

/** A value that was found, a fencing token, or `taken` while another replica issues. */
async function attempt<T>(o: SharedIssue<T>): Promise<{ readonly value: T } | number | 'taken'> {
  try {
    const found = await o.read()
    if (found !== undefined) return { value: found }
    return (await o.cache.lock(o.key, o.lockMs)) ?? 'taken'
  } catch (cause) {
    requireStoreFailure(cause)
    // The cache is only a cache: without it this replica issues for itself.
    return { value: await o.issue(null) }
  }
}

async function issueLocked<T>(o: SharedIssue<T>, fence: number): Promise<T> {
  try {
    // The last holder may have stored its credential between our read and our lock.
    const found = await o.read().catch(requireStoreFailure)
    return found ?? (await o.issue(fence))
  } finally {
    await o.cache.unlock(o.key, fence).catch(() => undefined)
  }
}

function requireStoreFailure(cause: unknown): undefined {
  if (!(cause instanceof GatewayError) || cause.code !== 'store_unavailable') throw cause
  return undefined
}
