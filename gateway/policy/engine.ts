/**
 * Asks Cedar, remembers answers, and turns everything that is not a clean yes into a no (standards.md C1): Cedar skips a
 * policy that errs, so an erring forbid would otherwise not fire.
 */
import { statefulIsAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask, Obligations } from '../protocol/decision.ts'
import type { Operation } from '../protocol/service.ts'
import { type GrantAsk, keyOf, type Selection, selectCall, selectGrant } from './attributes/attributes.ts'
import { Memo } from './memo.ts'
import { combine, NO_OBLIGATIONS } from './obligation.ts'
import { callQuestion, grantQuestion, type Question } from './question.ts'
import { names, type Slice } from './slice.ts'
import type { Bundle } from './source/bundle.ts'
import { mustBeNamed } from './vocabulary.ts'

/** Cedar's answer after our own rules. */
export interface Verdict {
  readonly effect: 'allow' | 'deny'
  readonly policyIds: readonly string[]
  readonly errors: readonly string[]
  readonly obligations: Obligations
}

export interface Engine {
  decide(ask: Ask): Verdict
  /** On making a grant; never remembered. */
  decideGrant(ask: GrantAsk): Verdict
}

/** Answers kept per operation and generation. */
const ANSWERS_KEPT = 2048
/** A longer key (a path of many kilobytes) is not worth remembering, and may be there to fill the memory. */
const LONGEST_KEY = 1024

interface Desk {
  readonly slice: Slice
  readonly selection: Selection<Ask>
  readonly answers: Memo<Verdict>
}

/** @param options.remembers false asks Cedar every time; for tests and comparison. */
export function createEngine(bundle: Bundle, options: { readonly remembers: boolean } = { remembers: true }): Engine {
  /** Operations are objects of the catalogue, a fixed number of them; the bundle never changes under an engine. */
  const desks = new Map<Operation, Desk>()
  const deskFor = (operation: Operation): Desk => {
    const known = desks.get(operation)
    if (known !== undefined) return known
    const slice = bundle.sliceFor(operation)
    const desk = { slice, selection: selectCall(slice.asked.readings), answers: new Memo<Verdict>(ANSWERS_KEPT) }
    desks.set(operation, desk)
    return desk
  }
  return {
    decide(ask) {
      const { operation } = ask.endpoint
      const desk = deskFor(operation)
      const key = keyOf(desk.selection, ask)
      const known = desk.answers.get(key)
      if (known !== undefined) return known
      const answer = askCedar(desk.slice, desk.slice.narrowSchema, () =>
        callQuestion(desk.selection, ask, operation, desk.slice.asked.isPlaced),
      )
      const verdict = requireName(answer, desk.slice, operation)
      // An engine that failed may answer next time; what it did not say is no answer to keep.
      if (options.remembers && verdict.errors.length === 0 && key.length <= LONGEST_KEY) desk.answers.set(key, verdict)
      return verdict
    },
    decideGrant(ask) {
      const slice = bundle.grantSliceFor(ask.action, ask.service)
      return askCedar(slice, slice.narrowSchema, () =>
        grantQuestion(selectGrant(ask.action, slice.asked.readings), ask),
      )
    },
  }
}

/** One question, never remembered. Whatever is not a clean yes is a no. @param schema of the slice; it has all that the question says. */
export function askCedar(slice: Slice, schema: () => string, question: () => Question): Verdict {
  if (slice.preparsed === undefined) return denied([], [])
  try {
    const answer = statefulIsAuthorized({
      ...question(),
      preparsedSchemaName: schema(),
      validateRequest: true,
      preparsedPolicySetId: slice.preparsed,
    })
    if (answer.type === 'failure')
      return denied(
        [],
        answer.errors.map((error) => error.message),
      )
    const { decision, diagnostics } = answer.response
    const reasons = [...diagnostics.reason].sort()
    const errors = [
      ...diagnostics.errors.map(({ policyId, error }) => `${policyId}: ${error.message}`),
      ...answer.warnings.map((warning) => warning.message),
    ]
    if (errors.length > 0) return denied(reasons, errors)
    const obligations = combine(reasons.map((id) => slice.policies.get(id)?.obligations ?? NO_OBLIGATIONS))
    if (decision !== 'allow') return { ...denied(reasons, []), obligations }
    return { effect: 'allow', policyIds: reasons, errors: [], obligations }
  } catch (cause) {
    // A trap in the engine: whatever it was going to say, it did not say yes.
    return denied([], [`the policy engine failed: ${cause instanceof Error ? cause.message : String(cause)}`])
  }
}

function denied(policyIds: readonly string[], errors: readonly string[]): Verdict {
  return { effect: 'deny', policyIds, errors, obligations: NO_OBLIGATIONS }
}

/** A broad permit must not reach answers that are credentials, what can't be undone, and what nobody has described. */
export function requireName(verdict: Verdict, slice: Slice, operation: Operation): Verdict {
  if (verdict.effect === 'deny' || !mustBeNamed(operation)) return verdict
  const isNamed = verdict.policyIds.some((id) => {
    const policy = slice.policies.get(id)
    return policy !== undefined && names(policy, operation.name)
  })
  return isNamed ? verdict : denied(verdict.policyIds, [])
}
