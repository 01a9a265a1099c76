/**
 * Questions to policy with facts that are supposed rather than observed: what tests, explanations and replays ask. Cedar, our own
 * rules and the tables of attributes are those of a running gateway; only where a value comes from differs.
 */
import { nearest } from '../../protocol/nearest.ts'
import { type Selection, selectCall, selectGrant, type Value } from '../attributes/attributes.ts'
import { askCedar, type Engine, requireName, type Verdict } from '../engine.ts'
import { callQuestion, grantQuestion } from '../question.ts'
import type { Bundle } from '../source/bundle.ts'
import { type Looked, type Weighed, weigh } from './weighing.ts'

export type Kind = 'call' | 'mint' | 'delegate'

/** Values by the names under which policies read them: `context.human`, `principal` for its id, `resource tags`. */
export type Facts = ReadonlyMap<string, Value>

/** Facts as people write them: under the variable of a policy. `id` is the identity itself, `tags` its tags. */
export interface Written {
  readonly principal?: Readonly<Record<string, unknown>> | undefined
  readonly resource?: Readonly<Record<string, unknown>> | undefined
  readonly context?: Readonly<Record<string, unknown>> | undefined
}

/** Every attribute that such a question has. */
export function attributesOf(kind: Kind): readonly string[] {
  return Object.keys(tableOf(kind))
}

function tableOf(kind: Kind): Readonly<Record<string, unknown>> {
  return kind === 'call' ? selectCall(new Set()).table : selectGrant(kind, new Set()).table
}

/** @throws {Error} naming a fact that no such question has, and the one that may be meant. */
export function factsOf(kind: Kind, written: Written): Map<string, Value> {
  const known = attributesOf(kind)
  const facts = new Map<string, Value>()
  for (const variable of ['principal', 'resource', 'context'] as const) {
    for (const [member, value] of Object.entries(written[variable] ?? {})) {
      const name = nameOf(variable, member)
      if (!known.includes(name)) throw unknownFact(kind, `${variable}.${member}`, known)
      facts.set(name, name === 'context.now' ? epochSeconds(value) : (value as Value))
    }
  }
  return facts
}

function nameOf(variable: string, member: string): string {
  if (member === 'tags') return `${variable} tags`
  return variable === 'principal' && member === 'id' ? variable : `${variable}.${member}`
}

function unknownFact(kind: Kind, written: string, known: readonly string[]): Error {
  const spelled = known.map((name) => (name === 'principal' ? 'principal.id' : name.replace(' ', '.')))
  const meant = nearest(written, spelled)
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`
  return new Error(
    `${written} is nothing that a policy on a ${kind} can read.${hint} There are: ${spelled.join(', ')}.`,
  )
}

function epochSeconds(value: unknown): number {
  const seconds = typeof value === 'string' ? Date.parse(value) / 1000 : Number(value)
  if (!Number.isFinite(seconds))
    throw new Error(`context.now is ${JSON.stringify(value)}; write a time such as 2026-11-23T10:00:00Z.`)
  return Math.floor(seconds)
}

/** One question that Cedar was asked, and what came of it. */
export interface Seen extends Looked, Weighed {
  readonly service: string
}

type Asked = Looked & Pick<Seen, 'service'>

export interface Watching {
  /** Gets every question. */
  readonly seen: Seen[]
  /** Whether a fact is known, by its name. Default: all are. */
  readonly isKnown?: ((name: string) => boolean) | undefined
}

/** Asks Cedar with these facts in the place of what a request would say. Never remembers. */
export function supposingEngine(bundle: Bundle, facts: Facts, { seen, isKnown }: Watching): Engine {
  const note = (one: Asked, said: () => Verdict): Verdict => {
    const weighed = isKnown === undefined ? { verdict: said() } : weigh(one, isKnown)
    seen.push({ ...one, ...weighed })
    return weighed.verdict
  }
  return {
    decide(ask) {
      const { operation, service } = ask.endpoint
      const slice = bundle.sliceFor(operation)
      const selection = supposed(selectCall(slice.readings), facts)
      const question = callQuestion(selection, ask, operation)
      const one = { slice, operation, service: service.name, question, ...seenIn(selection, ask) }
      return note(one, () =>
        requireName(
          askCedar(slice, slice.schema, () => question),
          slice,
          operation,
        ),
      )
    },
    decideGrant(ask) {
      const slice = bundle.grantSliceFor(ask.action, ask.service)
      const selection = supposed(selectGrant(ask.action, slice.readings), facts)
      const question = grantQuestion(selection, ask)
      const one = { slice, operation: undefined, service: ask.service, question, ...seenIn(selection, ask) }
      return note(one, () => askCedar(slice, slice.schema, () => question))
    },
  }
}

function seenIn<A>({ names, table }: Selection<A>, ask: A): Pick<Looked, 'names' | 'values'> {
  const read = names.map((name) => [name, table[name]?.read(ask)] as const)
  return { names, values: new Map(read.filter((one): one is [string, Value] => one[1] !== undefined)) }
}

/** All attributes, so that a fact of the wrong type is an error whether or not a policy reads it. */
export function supposed<A>({ table }: Selection<A>, facts: Facts): Selection<A> {
  const own = { ...table }
  for (const [name, value] of facts) {
    const attribute = own[name]
    if (attribute !== undefined) own[name] = { ...attribute, read: () => value }
  }
  return { names: Object.keys(own), table: own, reads: () => true }
}
