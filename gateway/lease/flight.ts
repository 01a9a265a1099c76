/**
 * One issue per key at a time. In this process calls share one promise, which belongs to none of them: a caller that leaves
 * ends nothing. Across replicas a lock with a fencing token in the shared cache lets one issue while the others wait briefly.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { GatewayError } from '../protocol/problem.ts'
import type { LeaseCache, LeaseKey } from './cache.ts'
import type { Failures } from './failures.ts'

export interface Flight<T> {
  /** The work under way for this id, or else this work. Shared failures are the same error for everyone who waits. */
  run(id: string, work: () => Promise<T>): Promise<T>
}

export function createFlight<T>(failures: Pick<Failures, 'requireNone'>): Flight<T> {
  /** id → issue under way */
  const underway = new Map<string, Promise<T>>()
  return {
    async run(id, work) {
      const known = underway.get(id)
      if (known !== undefined) return known
      failures.requireNone(id)
      const started = work().finally(() => underway.delete(id))
      underway.set(id, started)
      return started
    },
  }
}

export interface SharedIssue<T> {
  readonly cache: Pick<LeaseCache, 'lock' | 'extend' | 'unlock'>
  readonly key: LeaseKey
  /** Milliseconds after which the lock of a replica that died is free; one that lives keeps it for as long as it issues. */
  readonly lockMs: number
  /** How long to wait for other replicas, in milliseconds. */
  readonly patienceMs: number
  readonly signal: AbortSignal
  /** The credential another replica has left in the cache, if it will do. */
  readonly read: () => Promise<T | undefined>
  /** Issue and store under this fencing token; null when no lock could be had. */
  readonly issue: (fence: number | null) => Promise<T>
}

/**
 * Take what is in the cache, or issue under the lock, or wait for whoever holds it. A replica that died delays the others by `lockMs`
 * at most; a store that cannot be reached delays nobody beyond its own timeout.
 * @throws {GatewayError} `credential_unavailable` when another replica issues for longer than `patienceMs`.
 */
export async function issueOnce<T>(o: SharedIssue<T>): Promise<T> {
  let waitedMs = 0
  let takenUntilMs = 0
  for (let pauseMs = 10; ; pauseMs = Math.min(2 * pauseMs, 100)) {
    const fence = await attempt(o, waitedMs < takenUntilMs)
    if (typeof fence === 'object') return fence.value
    if (typeof fence === 'number') return issueLocked(o, fence)
    if (waitedMs >= o.patienceMs) throw tooSlow()
    takenUntilMs = Math.max(takenUntilMs, waitedMs + (fence === 'taken' ? o.lockMs : 0))
    await waitOrDrain(pauseMs, o.signal)
    waitedMs += pauseMs
  }
}

function tooSlow(): GatewayError {
  return new GatewayError(
    'credential_unavailable',
    'Another replica has been asking for this credential for too long. Try again.',
    { retryAfterMs: 1_000 },
  )
}

async function waitOrDrain(pauseMs: number, signal: AbortSignal): Promise<void> {
  try {
    await pause(pauseMs, undefined, { signal })
  } catch {
    throw new GatewayError('draining', 'The gateway is shutting down; no new credential is issued.')
  }
}

/**
 * A value that was found, a fencing token, or `taken` while another replica issues.
 * @param isTaken one was seen issuing a moment ago: a store that falters meanwhile is no reason to issue as well (`unknown`).
 */
async function attempt<T>(
  o: SharedIssue<T>,
  isTaken: boolean,
): Promise<{ readonly value: T } | number | 'taken' | 'unknown'> {
  try {
    const found = await o.read()
    if (found !== undefined) return { value: found }
    return (await o.cache.lock(o.key, o.lockMs)) ?? 'taken'
  } catch (cause) {
    requireStoreFailure(cause)
    if (isTaken) return 'unknown'
    // The cache is only a cache: without it this replica issues for itself.
    return { value: await o.issue(null) }
  }
}

async function issueLocked<T>(o: SharedIssue<T>, fence: number): Promise<T> {
  // A crash from here on leaves a lock that nobody extends: another replica has it within `lockMs`.
  const keeping = setInterval(() => o.cache.extend(o.key, fence, o.lockMs).catch(() => undefined), o.lockMs / 3)
  try {
    // The last holder may have stored its credential between our read and our lock.
    const found = await o.read().catch(requireStoreFailure)
    return found ?? (await o.issue(fence))
  } finally {
    clearInterval(keeping)
    await o.cache.unlock(o.key, fence).catch(() => undefined)
  }
}

function requireStoreFailure(cause: unknown): undefined {
  if (!(cause instanceof GatewayError) || cause.code !== 'store_unavailable') throw cause
  return undefined
}
