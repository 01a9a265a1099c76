/** Decisions as they leave this room. Texts are for the agent; which policies decided is for the record only. */
import type { Decision } from '../../protocol/decision.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import type { Verdict } from '../engine.ts'
import { NO_OBLIGATIONS } from '../obligation.ts'

const NO_LEVELS: Decision['levels'] = Object.freeze([])

export function allowance(
  policySet: string,
  detail: string,
  verdict: Pick<Verdict, 'policyIds' | 'obligations'>,
): Decision {
  return {
    effect: 'allow',
    code: undefined,
    detail,
    policyIds: verdict.policyIds,
    policySet,
    errors: [],
    obligations: verdict.obligations,
    levels: NO_LEVELS,
  }
}

export function refusal(policySet: string, code: ProblemCode, detail: string, verdict?: Verdict): Decision {
  return {
    effect: 'deny',
    code,
    detail,
    policyIds: verdict?.policyIds ?? [],
    policySet,
    errors: verdict?.errors ?? [],
    obligations: verdict?.effect === 'deny' ? verdict.obligations : NO_OBLIGATIONS, // those of a yes oblige to nothing here
    levels: NO_LEVELS,
  }
}
