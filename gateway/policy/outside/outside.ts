/**
 * Policy engines outside the gateway, as a further condition: asked only once grant and Cedar have said yes, all at once, and every one
 * has to say yes too. What cannot be asked, or answers too late or otherwise than agreed, is a no.
 */
import { patternCovers } from '../../protocol/authority.ts'
import { type Ask, type Decision, isAllowed, type Obligations } from '../../protocol/decision.ts'
import type { Proposal } from '../../protocol/instruction.ts'
import type { ProblemCode } from '../../protocol/problem.ts'
import { asked } from '../../protocol/reach.ts'
import { doing, exceeding, sentence } from '../issuing.ts'
import { combine, NO_OBLIGATIONS } from '../obligation.ts'
import type { Bundle } from '../source/bundle.ts'
import { refusal } from '../tools/ruling.ts'
import { unfulfilled } from '../tools/unfulfilled.ts'
import { type Answer, none } from './answer.ts'
import { type Asked, askedOfCall, askedOfGrant, type Question } from './facts.ts'

/** One engine: how it is asked. */
export interface OutsideEngine {
  /** As in settings; stands in entries as `engine:NAME`. */
  readonly name: string
  /** Patterns of the operations that it is asked about; undefined: all. */
  readonly operations: readonly string[] | undefined
  /** Attributes that it is told; undefined: all. */
  readonly facts: ReadonlySet<string> | undefined
  /** Seconds for which an answer to the very same question is remembered. 0: never. */
  readonly cacheS: number
  readonly timeoutMs: number
  /** @param signal ends after `timeoutMs`. May reject. */
  ask(question: Question, about: 'call' | 'grant', signal: AbortSignal): Promise<Answer>
}

export interface Outside {
  /** The decision as it is once the engines have answered; as it was, where none is asked. */
  call(ask: Ask, decision: Decision, bundle: Bundle): Decision | Promise<Decision>
  issuing(proposal: Proposal, decision: Decision, bundle: Bundle): Decision | Promise<Decision>
}

/** Answers remembered per engine. */
const KEPT = 1_024

/** @param nowMs monotonic. */
export function createOutside(engines: readonly OutsideEngine[], nowMs: () => number): Outside {
  const askers = engines.map((engine) => ({ engine, answer: remembering(engine, nowMs) }))
  /** Every question to every engine that it is for. */
  const answersTo = (about: 'call' | 'grant', questions: (engine: OutsideEngine) => readonly Asked[]) =>
    askers.flatMap(({ engine, answer }) =>
      questions(engine)
        .filter(({ operations }) => isFor(engine, operations))
        .map(async ({ question }) => ({ engine, answer: await answer(question, about) })),
    )
  return {
    call(ask, decision, bundle) {
      if (!isAllowed(decision)) return decision
      const answers = answersTo('call', ({ facts }) => [askedOfCall(ask, facts)])
      return answers.length === 0 ? decision : ruleOnCall(ask, decision, { bundle, answers })
    },
    issuing(proposal, decision, bundle) {
      if (!isAllowed(decision)) return decision
      const answers = answersTo('grant', ({ facts }) => askedOfGrant(proposal, facts))
      return answers.length === 0 ? decision : ruleOnGrant(proposal, decision, { bundle, answers })
    },
  }
}

interface Answered {
  readonly engine: OutsideEngine
  readonly answer: Answer
}

interface Asking {
  readonly bundle: Bundle
  readonly answers: readonly Promise<Answered>[]
}

/** A grant for `github:*` is about everything below, and about what is above. */
function isFor({ operations: own }: OutsideEngine, operations: readonly string[]): boolean {
  if (own === undefined) return true
  return own.some((one) => operations.some((other) => patternCovers(one, other) || patternCovers(other, one)))
}

async function ruleOnCall(ask: Ask, decision: Decision, { bundle, answers }: Asking): Promise<Decision> {
  const joined = join(decision, await Promise.all(answers), asked(ask))
  if (joined.effect === 'deny') return joined
  const no = unfulfilled(ask, joined.obligations, bundle.sliceFor(ask.endpoint.operation).needs)
  return no === undefined ? joined : refused(joined, no.code, no.detail)
}

async function ruleOnGrant(proposal: Proposal, decision: Decision, { bundle, answers }: Asking): Promise<Decision> {
  const what = 'ttlS' in proposal ? sentence(doing(proposal)) : 'This'
  const joined = join(decision, await Promise.all(answers), what)
  if (joined.effect === 'deny' || !('ttlS' in proposal)) return joined
  return exceeding(bundle, proposal, joined) ?? joined
}

/** @param what was asked, as the beginning of a sentence. */
function join(decision: Decision, answers: readonly Answered[], what: string): Decision {
  const names = [...new Set(answers.map(({ engine }) => `engine:${engine.name}`))]
  const known = { ...decision, policyIds: [...decision.policyIds, ...names].sort() }
  const noes = answers.filter(({ answer }) => answer.effect === 'deny')
  if (noes.length > 0) {
    const said = { ...known, policyIds: [...new Set(noes.map(({ engine }) => `engine:${engine.name}`))].sort() }
    const reason = `${what}: a policy engine beside those of this gateway does not allow it.`
    return refused(said, 'policy_denied', `${reason} Ask whoever keeps the policies of this gateway.`)
  }
  const errors = answers.flatMap(({ engine, answer }) =>
    answer.effect === 'none' ? [`engine ${engine.name}: ${answer.why}`] : [],
  )
  if (errors.length > 0) {
    const reason = `${what}: a policy engine that has to agree gave no answer that counts.`
    return refused({ ...known, errors }, 'policy_unavailable', `${reason} Try again in a moment.`)
  }
  const own: Obligations[] = answers.flatMap(({ answer }) => (answer.effect === 'allow' ? [answer.obligations] : []))
  return { ...known, obligations: combine([decision.obligations, ...own]) }
}

function refused(decision: Decision, code: ProblemCode, detail: string): Decision {
  return refusal(decision.policySet, code, detail, { ...decision, effect: 'deny', obligations: NO_OBLIGATIONS })
}

type AskInTime = (question: Question, about: 'call' | 'grant') => Promise<Answer>

/** Never rejects, and never takes longer than the engine may. The key of what is remembered is everything that is sent. */
function remembering(engine: OutsideEngine, nowMs: () => number): AskInTime {
  /** question → answer, oldest first */
  const kept = new Map<string, { readonly answer: Answer; readonly untilMs: number }>()
  return async (question, about) => {
    if (engine.cacheS === 0) return inTime(engine, question, about)
    const key = `${about} ${JSON.stringify(question)}`
    const known = kept.get(key)
    if (known !== undefined && known.untilMs > nowMs()) return known.answer
    const answer = await inTime(engine, question, about)
    kept.delete(key)
    if (answer.effect === 'none') return answer
    if (kept.size >= KEPT) kept.delete(kept.keys().next().value as string)
    kept.set(key, { answer, untilMs: nowMs() + engine.cacheS * 1000 })
    return answer
  }
}

async function inTime(engine: OutsideEngine, question: Question, about: 'call' | 'grant'): Promise<Answer> {
  const late = `no answer within ${engine.timeoutMs} ms`
  const signal = AbortSignal.timeout(engine.timeoutMs)
  const given = Promise.withResolvers<Answer>()
  const giveUp = () => given.resolve(none(late))
  signal.addEventListener('abort', giveUp, { once: true })
  try {
    return await Promise.race([engine.ask(question, about, signal), given.promise])
  } catch (cause) {
    return none(signal.aborted ? late : `it could not be asked (${cause instanceof Error ? cause.name : 'unknown'})`)
  } finally {
    signal.removeEventListener('abort', giveUp)
  }
}
