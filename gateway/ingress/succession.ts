/**
 * Which of several roots signs, until when each is trusted, and when the next one is due. Everything follows from the
 * certificates themselves, so that replicas that share them agree without a word. Pure.
 *
 * A successor is made when a third of the life is left, and takes over when half of that third is over: until then agents
 * can fetch it. A root that was superseded earlier (other hosts, or by command) is trusted for as long again.
 */
import type { Root } from './root.ts'

const DAY_MS = 86_400_000

/** Which hosts the persisted roots must sign for; undefined: any. */
export type Wanted = readonly string[] | undefined

export interface Succession {
  /** The root that signs for most hosts first, then newest first. Those that have ended are not in it. */
  readonly living: readonly Heir[]
  /** The newest that permits the host and has taken over, or the oldest that permits it; undefined: none does. */
  signerOf(host: string): Heir | undefined
  /** Whether another root should be made now. */
  isDue(wanted: Wanted): boolean
  /** Roots that nobody trusts any more, nor did so within the last hour: clocks of replicas differ. */
  readonly ended: readonly Root[]
}

export interface Heir {
  readonly root: Root
  /** Milliseconds since the epoch from which it signs wherever it may; before, only where no older one may. The first: -Infinity. */
  readonly signsFromMs: number
  /** Milliseconds since the epoch until which agents are told to trust it. */
  readonly untilMs: number
}

interface Place extends Heir {
  /** Whether it will stay long enough that no successor is due. */
  readonly lasts: boolean
}

/** @param roots oldest first. */
export function succession(roots: readonly Root[], nowMs: number): Succession {
  const starts = takeovers(roots)
  const places = roots.map((root, i) =>
    placeOf(root, starts[i] ?? 0, { next: roots[i + 1], startMs: starts[i + 1] }, nowMs),
  )
  const living = places.filter(({ untilMs }) => untilMs > nowMs)
  const main = living.findLast(({ signsFromMs }) => signsFromMs <= nowMs) ?? living[0]
  return {
    living: [...(main ? [main] : []), ...living.filter((place) => place !== main).reverse()],
    signerOf(host) {
      const able = living.filter(({ root }) => permits(root, host))
      return able.findLast(({ signsFromMs }) => signsFromMs <= nowMs) ?? able[0]
    },
    isDue(wanted) {
      if (roots.at(-1)?.isOperators) return false // theirs to replace
      const lasting = living.filter(
        ({ lasts, root }) => lasts && (root.constraints === undefined) === (wanted === undefined),
      )
      if (lasting.length === 0) return true
      return wanted !== undefined && !wanted.every((host) => lasting.some(({ root }) => permits(root, host)))
    },
    ended: places.filter(({ untilMs }) => untilMs + 3_600_000 <= nowMs).map(({ root }) => root),
  }
}

function permits({ constraints }: Root, host: string): boolean {
  return constraints === undefined || constraints.permits(host)
}

/** When each takes over: after a sixth of its own life, or half of what its predecessor had left when it was made. */
function takeovers(roots: readonly Root[]): number[] {
  return roots.map((root, i) => {
    const before = roots[i - 1]
    if (before === undefined) return Number.NEGATIVE_INFINITY
    return root.madeAtMs + Math.min(lifeOf(root) / 6, Math.max(0, before.endsAtMs - root.madeAtMs) / 2)
  })
}

interface Next {
  readonly next: Root | undefined
  readonly startMs: number | undefined
}

function placeOf(root: Root, signsFromMs: number, { next, startMs = 0 }: Next, nowMs: number): Place {
  if (next === undefined)
    return { root, signsFromMs, untilMs: root.endsAtMs, lasts: root.endsAtMs - nowMs > lifeOf(root) / 3 }
  // A day at least: leaves that it signed last live as long.
  const untilMs = Math.min(root.endsAtMs, startMs + Math.max(lifeOf(next) / 6, DAY_MS))
  return { root, signsFromMs, untilMs, lasts: untilMs - nowMs > lifeOf(next) / 6 }
}

function lifeOf({ madeAtMs, endsAtMs }: Root): number {
  return endsAtMs - madeAtMs
}
