/**
 * Why policy answers a question as it does: which policies decided, of the others which condition failed and what it saw, and
 * what would make it pass. A way that is told was tried: the same question with these facts is allowed.
 */
import type { Decision } from '../../protocol/decision.ts'
import type { Value } from '../attributes/attributes.ts'
import { isAnother, type Values, valuesFor } from '../remedy.ts'
import type { Policy } from '../source/policy-file.ts'
import { type Atom, type Conditions, conditionsOf, type Term, type Truth } from './conditions.ts'
import { type Answer, answer, type Scene, type Subject } from './scene.ts'
import type { Facts, Seen } from './supposed.ts'
import { isEnough, isReadingKnown } from './weighing.ts'

export interface Explanation {
  readonly decision: Decision
  /** By service of a grant, or the one of a call. */
  readonly services: readonly Account[]
  /** Where it is a no: what makes it a yes, fewest changes first. Empty: nothing that was tried does. */
  readonly ways: readonly Way[]
  /** What decides, and is not known; with it there is no decision. */
  readonly unknown: readonly string[]
}

/** All policies that could have had a say on one question. */
export interface Account {
  readonly service: string
  readonly effect: 'allow' | 'deny' | 'unknown'
  /** Those that applied first, then those that came closest. */
  readonly policies: readonly Standing[]
}

export interface Standing {
  readonly policy: Policy
  /** Whether it applies. */
  readonly truth: Truth
  /** It applies, and is a permit that does not name an operation which has to be named. */
  readonly isTooGeneral: boolean
  /** Conditions that keep it from applying, in its order. */
  readonly failed: readonly Failed[]
}

export interface Failed {
  /** The condition as the policy has it; of one in an `unless`: what should not be. */
  readonly text: string
  readonly shouldBe: boolean
  readonly truth: Truth
  /** What it looked at → what stood there; undefined: not known. */
  readonly saw: Readonly<Record<string, Value | undefined>>
}

export interface Way {
  readonly changes: readonly Change[]
}

export interface Change {
  readonly name: string
  readonly from: Value | undefined
  /** A value with which it was tried. */
  readonly to: Value
  /** Any other text would do as well, as far as this condition goes. */
  readonly isAnother?: true
}

/** Questions that one explanation asks at most. */
const TRIES = 240
const WAYS_TOLD = 4

/** @param isKnown whether a fact is known, by its name. Default: all are. */
export async function explain(
  subject: Pick<Subject, 'bundle'>,
  scene: Scene,
  facts: Facts,
  isKnown: (name: string) => boolean = () => true,
): Promise<Explanation> {
  const answered = await answer(subject, scene, facts, isKnown)
  const services = answered.seen.map((seen) => account(seen, isKnown))
  const unknown = [...new Set(answered.seen.flatMap((seen) => seen.unknown ?? []))]
  const isNo = answered.decision.effect === 'deny' && unknown.length === 0
  const ways = isNo ? await waysOf(subject, { scene, facts, isKnown }, answered) : []
  return { decision: answered.decision, services, ways, unknown }
}

function account(seen: Seen, isKnown: (name: string) => boolean): Account {
  const { slice, service, verdict, unknown } = seen
  const effect = unknown === undefined ? verdict.effect : 'unknown'
  if (slice.policies.size === 0) return { service, effect, policies: [] }
  using conditions = conditionsOf(slice)
  const isRead = (reading: string) => isReadingKnown(reading, seen, isKnown)
  const truth = conditions.truths(seen.question, isRead)
  const policies = [...slice.policies.values()].map((policy): Standing => {
    const term = termIn(conditions, policy)
    const applies = truth(term)
    const isTooGeneral = applies === 'true' && policy.json.effect === 'permit' && !isEnough(policy, seen)
    const failed = applies === 'true' ? [] : failing(term, true, truth).map((one) => told(one, seen, isKnown))
    return { policy, truth: applies, isTooGeneral, failed }
  })
  return { service, effect, policies: policies.sort(byNearness) }
}

function termIn({ terms }: Conditions, policy: Policy): Term {
  return terms.get(policy.id) ?? { kind: 'all', of: [] }
}

interface Failing {
  readonly atom: Atom
  readonly shouldBe: boolean
  readonly truth: Truth
}

/** The conditions that make a term other than wanted. Of alternatives every one failed, and each is named. */
function failing(term: Term, wanted: boolean, truth: (term: Term) => Truth): Failing[] {
  const is = truth(term)
  if (is === (wanted ? 'true' : 'false')) return []
  if (term.kind === 'atom') return [{ atom: term.atom, shouldBe: wanted, truth: is }]
  if (term.kind === 'not') return failing(term.of, !wanted, truth)
  return term.of.flatMap((part) => failing(part, wanted, truth))
}

function told({ atom, shouldBe, truth }: Failing, { names, values }: Seen, isKnown: (name: string) => boolean): Failed {
  const read = names.filter((name) => atom.readings.has(name))
  const saw = Object.fromEntries(read.map((name) => [name, isKnown(name) ? values.get(name) : undefined]))
  return { text: atom.text, shouldBe, truth, saw }
}

/** What applied, then what failed by least; a permit before a forbid. */
function byNearness(a: Standing, b: Standing): number {
  const rank = ({ truth, failed, policy }: Standing) =>
    (truth === 'true' ? 0 : failed.length) * 2 + (policy.json.effect === 'permit' ? 1 : 0)
  return rank(a) - rank(b) || (a.policy.id < b.policy.id ? -1 : 1)
}

interface Asked {
  readonly scene: Scene
  readonly facts: Facts
  readonly isKnown: (name: string) => boolean
}

async function waysOf(subject: Pick<Subject, 'bundle'>, asked: Asked, { decision, seen }: Answer): Promise<Way[]> {
  const last = seen.at(-1)
  if (last === undefined || decision.errors.length > 0) return []
  using conditions = conditionsOf(last.slice)
  const ways: Way[] = []
  const tried = new Set<string>()
  const waiting = [...guesses(last, decision, conditions)]
  for (let values = waiting.shift(); values !== undefined && tried.size < TRIES; values = waiting.shift()) {
    const changes = changesIn(last.values, values).filter(({ name }) => asked.isKnown(name))
    const key = JSON.stringify(changes)
    if (tried.has(key) || isMore(changes, ways)) continue
    tried.add(key)
    const supposed = new Map([...asked.facts, ...changes.map(({ name, to }) => [name, to] as const)])
    const again = await answer(subject, asked.scene, inTime(supposed, changes, last), asked.isKnown)
    if (again.decision.effect === 'allow') ways.push({ changes })
    // What a permit takes may be what a forbid looks for, and so may be what another forbid did not mind.
    else waiting.push(...disarmed(again, values, conditions))
  }
  return ways.sort((a, b) => a.changes.length - b.changes.length).slice(0, WAYS_TOLD)
}

/** The same without what the forbids that refused it look for. */
function disarmed({ seen }: Answer, values: Values, { terms }: Conditions): Values[] {
  const { verdict, slice } = seen.at(-1) ?? {}
  const fired = verdict?.policyIds.filter((id) => slice?.policies.get(id)?.json.effect === 'forbid') ?? []
  const parts = fired.flatMap((id): Term[] => (terms.has(id) ? [{ kind: 'not', of: terms.get(id) as Term }] : []))
  return parts.length === 0 ? [] : valuesFor({ kind: 'all', of: parts }, true, values)
}

/** Whoever reads a way does not want to read another that asks for the same, and more. */
function isMore(changes: readonly Change[], ways: readonly Way[]): boolean {
  const has = (one: Change) => changes.some((other) => JSON.stringify(other) === JSON.stringify(one))
  return ways.some((way) => way.changes.every(has))
}

/** For every permit that could allow, the one that misses least first: its conditions met. */
function guesses(seen: Seen, decision: Decision, conditions: Conditions): Values[] {
  const truth = conditions.truths(seen.question)
  const permits = [...seen.slice.policies.values()]
    .filter((policy) => policy.json.effect === 'permit' && isEnough(policy, seen))
    .map((policy) => termIn(conditions, policy))
    .map((term) => ({ term, missing: failing(term, true, truth).length }))
    .sort((a, b) => a.missing - b.missing)
  const met = permits.flatMap(({ term, missing }) =>
    missing === 0 ? [seen.values] : valuesFor(missingOf(term, truth), true, seen.values),
  )
  return [...withinBounds(seen, decision), ...met]
}

/** Only what fails has to change. */
function missingOf(term: Term, truth: (term: Term) => Truth): Term {
  return term.kind === 'all' ? { kind: 'all', of: term.of.filter((part) => truth(part) !== 'true') } : term
}

/** Policy said yes, and an obligation bounds what may be asked for. */
function withinBounds({ verdict, values }: Seen, { effect }: Decision): Values[] {
  if (effect === 'allow' || verdict.effect === 'deny') return []
  const { ttlS, maxDepth } = verdict.obligations
  const bounded = new Map(values)
  if (ttlS !== undefined && Number(values.get('context.ttl_s')) > ttlS) bounded.set('context.ttl_s', ttlS)
  if (maxDepth !== undefined && Number(values.get('context.lineage_depth')) > maxDepth)
    bounded.set('context.lineage_depth', maxDepth)
  return [bounded]
}

function changesIn(before: Facts, after: Values): Change[] {
  return [...after].flatMap(([name, to]) => {
    const from = before.get(name)
    return JSON.stringify(from) === JSON.stringify(to)
      ? []
      : [{ name, from, to, ...(isAnother(from, to) && { isAnother: true as const }) }]
  })
}

const HOUR_S = 3600
const CLOCK: Readonly<Record<string, (at: Date) => number>> = {
  'context.hour_utc': (at) => at.getUTCHours(),
  'context.weekday_utc': (at) => at.getUTCDay() || 7,
}

/** Hour and weekday follow from the time: the next moment that has those, so that no way asks for a time that never comes. */
function inTime(facts: Map<string, Value>, changes: readonly Change[], { values }: Seen): Facts {
  if (!changes.some(({ name }) => name in CLOCK)) return facts
  const wanted = Object.keys(CLOCK).map((name) => [name, facts.get(name) ?? values.get(name)] as const)
  for (const [name] of wanted) facts.delete(name)
  const now = Number(facts.get('context.now') ?? values.get('context.now'))
  for (let ahead = 0; ahead < 7 * 24; ahead += 1) {
    const at = new Date((now + ahead * HOUR_S) * 1000)
    if (wanted.every(([name, value]) => CLOCK[name]?.(at) === value))
      return facts.set('context.now', now + ahead * HOUR_S)
  }
  return facts
}
