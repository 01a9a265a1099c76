/** An answer to a question of an investigation, with the entries that show it. */
import type { Ref } from './granted.ts'

/** Something that speaks for yes. `strong`: by itself; `weak`: it also happens without. */
export interface Sign {
  readonly what: string
  readonly weight: 'strong' | 'weak'
  /** Each can be proved to be in the log. */
  readonly entries: readonly Ref[]
}

export type Question = 'stolen_parent' | 'misconfiguration' | 'too_broad'

export interface Verdict {
  readonly question: Question
  /** `likely`: a strong sign. `possible`: weak ones. `unknown`: there is nothing to judge by. */
  readonly answer: 'likely' | 'possible' | 'no_sign' | 'unknown'
  readonly signs: readonly Sign[]
  /** What was looked for, found or not, and what could not be looked for. */
  readonly looked_at: readonly string[]
}

/** More signs than this are alike. */
const SIGNS_SHOWN = 50

export function verdictOf(
  question: Question,
  found: readonly Sign[],
  o: { readonly lookedAt: readonly string[]; readonly isBlind: boolean },
): Verdict {
  const signs = found.toSorted((a, b) => a.weight.localeCompare(b.weight)).slice(0, SIGNS_SHOWN)
  const isStrong = signs.some(({ weight }) => weight === 'strong')
  const answer = isStrong ? 'likely' : signs.length > 0 ? 'possible' : o.isBlind ? 'unknown' : 'no_sign'
  return { question, answer, signs, looked_at: o.lookedAt }
}
