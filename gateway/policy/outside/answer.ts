/**
 * What an engine outside the gateway answered, read strictly: a yes is the boolean `true` and nothing else, and one that obliges to
 * something that nobody here would carry out is no yes (AuthZEN 1.0 leaves obligations to the parties).
 */
import type { Obligations } from '../../protocol/decision.ts'
import { OBLIGATION_NAMES, readAnnotations } from '../annotation.ts'
import { NO_OBLIGATIONS } from '../obligation.ts'

export type Answer =
  | { readonly effect: 'allow'; readonly obligations: Obligations }
  | { readonly effect: 'deny' }
  /** Nothing that can be used was answered, or not in time. `why` is for the record: no text of the engine. */
  | { readonly effect: 'none'; readonly why: string }

/** Bytes; a decision is some dozens. */
export const MAX_ANSWER_BYTES = 65_536

/** What they need is worked out when Cedar policies load (`foreign_credentials`), or belongs to a forbid (`revoke`). */
const OURS_ALONE: readonly string[] = ['foreign_credentials', 'revoke']
const KNOWN: ReadonlySet<string> = new Set(OBLIGATION_NAMES.filter((name) => !OURS_ALONE.includes(name)))

type About = 'call' | 'grant'

/** AuthZEN 1.0: `{ "decision": true, "context": { "obligations": [{ "type": "ttl", "value": 300 }] } }`. */
export function readDecision(answer: unknown, about: About): Answer {
  if (!isRecord(answer)) return none('the answer is no JSON object')
  return readEffect(answer, 'decision', about)
}

/**
 * OPA: a boolean, or an object with `allow` and the same obligations. A rule that is undefined says no: that is how Rego says it
 * (`allow if …` without a default).
 */
export function readResult(result: unknown, about: About): Answer {
  if (result === undefined || result === false) return { effect: 'deny' }
  if (result === true) return { effect: 'allow', obligations: NO_OBLIGATIONS }
  if (!isRecord(result)) return none('the result is neither a boolean nor an object')
  return readEffect(result, 'allow', about)
}

export function none(why: string): Answer {
  return { effect: 'none', why }
}

function readEffect(answer: Record<string, unknown>, member: 'decision' | 'allow', about: About): Answer {
  const effect = Object.hasOwn(answer, member) ? answer[member] : undefined
  if (effect === false) return { effect: 'deny' }
  if (effect !== true) return none(`\`${member}\` is not a boolean`)
  const { context = {} } = answer
  if (!isRecord(context)) return none('`context` is no object')
  // At either place, so that none is overlooked.
  const lists = [answer.obligations, context.obligations].filter((list) => list !== undefined)
  if (!lists.every(Array.isArray)) return none('`obligations` is no list')
  const obligations = readObligations(lists.flat(), about)
  return typeof obligations === 'string' ? none(obligations) : { effect: 'allow', obligations }
}

/** @returns what is wrong with them, where they cannot be carried out. */
function readObligations(items: readonly unknown[], about: About): Obligations | string {
  if (items.length === 0) return NO_OBLIGATIONS
  const said: Record<string, string> = {}
  for (const item of items) {
    const type = isRecord(item) ? item.type : undefined
    if (typeof type !== 'string' || !KNOWN.has(type)) return 'it obliges to something that is not known here'
    const value = textOf((item as Record<string, unknown>).value)
    if (value === undefined || Object.hasOwn(said, type)) return `its obligation \`${type}\` can be read in no one way`
    said[type] = value
  }
  const read = readAnnotations({ id: 'outside', owner: 'outside', ...said }, 'permit', [about])
  return 'obligations' in read ? read.obligations : 'its obligations say what is not allowed here'
}

/** As an annotation would say it. A flag may be said without a value. */
function textOf(value: unknown): string | undefined {
  if (value === undefined) return 'true'
  if (typeof value === 'string') return value
  if (typeof value === 'boolean' || typeof value === 'number') return String(value)
  const isList = Array.isArray(value) && value.length > 0 && value.every((one) => typeof one === 'string')
  return isList && value.every((one) => !one.includes(',')) ? value.join(',') : undefined
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
