/**
 * A policy taken apart into its single conditions, and which of them hold. Cedar says of each whether it does: nothing here
 * evaluates an expression. What is not known leaves a condition unknown, and a policy with it only where that decides.
 */
import {
  type EntityUidJson,
  type Expr,
  type PolicyJson,
  policyToText,
  statefulIsAuthorized,
} from '@cedar-policy/cedar-wasm/nodejs'
import { type Reading, readingsOf } from '../attributes/reads.ts'
import { parseSet } from '../preparsed.ts'
import type { Question } from '../question.ts'
import type { Slice } from '../slice.ts'

/** One condition that is not made of others. */
export interface Atom {
  readonly expr: Expr
  /** In Cedar, on one line. */
  readonly text: string
  readonly readings: ReadonlySet<Reading>
}

/** When a policy applies, as far as it is made with `&&`, `||` and `!`. */
export type Term =
  | { readonly kind: 'all' | 'any'; readonly of: readonly Term[] }
  | { readonly kind: 'not'; readonly of: Term }
  | { readonly kind: 'atom'; readonly atom: Atom }

/** `error`: Cedar could not evaluate it, which is what another condition before it prevents: `hasTag` before `getTag`. */
export type Truth = 'true' | 'false' | 'unknown' | 'error'

/** Scope first, then `when` and `unless` in their order. */
export function termOf(policy: PolicyJson): Term {
  const conditions = policy.conditions.map(({ kind, body }): Term => {
    const term = split(body)
    return kind === 'when' ? term : { kind: 'not', of: term }
  })
  return { kind: 'all', of: [...scopeExprs(policy).map(atomOf), ...conditions].flatMap(flat) }
}

function flat(term: Term): readonly Term[] {
  return term.kind === 'all' ? term.of.flatMap(flat) : [term]
}

function split(expr: Expr): Term {
  const pair = (name: '&&' | '||') => (expr as Partial<Record<string, { left: Expr; right: Expr }>>)[name]
  const and = pair('&&')
  if (and !== undefined) return { kind: 'all', of: [split(and.left), split(and.right)] }
  const or = pair('||')
  if (or !== undefined) return { kind: 'any', of: [split(or.left), split(or.right)] }
  const not = '!' in expr ? (expr as { '!': { arg: Expr } })['!'] : undefined
  return not === undefined ? atomOf(expr) : { kind: 'not', of: split(not.arg) }
}

function scopeExprs({ principal, action, resource }: PolicyJson): Expr[] {
  const variable = (name: string) => ({ Var: name }) as Expr
  const entity = (uid: EntityUidJson): Expr => ({ Value: '__entity' in uid ? uid : { __entity: uid } }) as Expr
  const of = (name: string, scope: PolicyJson['principal'] | PolicyJson['action'] | PolicyJson['resource']): Expr[] => {
    const left = variable(name)
    if (scope.op === 'All') return []
    if (scope.op === 'is') {
      const above = scope.in !== undefined && 'entity' in scope.in ? { in: entity(scope.in.entity) } : {}
      return [{ is: { left, entity_type: scope.entity_type, ...above } } as Expr]
    }
    if ('entities' in scope) return [{ in: { left, right: { Set: scope.entities.map(entity) } } } as Expr]
    return 'entity' in scope ? [{ [scope.op]: { left, right: entity(scope.entity) } } as Expr] : []
  }
  return [...of('principal', principal), ...of('action', action), ...of('resource', resource)]
}

const EVERYTHING: Pick<PolicyJson, 'effect' | 'principal' | 'action' | 'resource'> = {
  effect: 'permit',
  principal: { op: 'All' },
  action: { op: 'All' },
  resource: { op: 'All' },
}

function atomOf(expr: Expr): Extract<Term, { kind: 'atom' }> {
  const policy = alone(expr)
  const answer = policyToText(policy)
  if (answer.type === 'failure') throw new Error(answer.errors.map(({ message }) => message).join('; '))
  const begin = answer.text.indexOf('when {') + 'when {'.length
  const text = answer.text.slice(begin, answer.text.lastIndexOf('}')).replaceAll(/\s+/g, ' ').trim()
  return { kind: 'atom', atom: { expr, text, readings: readingsOf(policy) } }
}

function alone(expr: Expr): PolicyJson {
  return { ...EVERYTHING, conditions: [{ kind: 'when', body: expr }] }
}

export function atomsIn(term: Term): readonly Atom[] {
  if (term.kind === 'atom') return [term.atom]
  return term.kind === 'not' ? atomsIn(term.of) : term.of.flatMap(atomsIn)
}

/** The policies of a slice taken apart. Dispose of it when nothing is asked of it any more. */
export interface Conditions extends Disposable {
  /** id of the policy → when it applies */
  readonly terms: ReadonlyMap<string, Term>
  /** @param isKnown whether what a condition reads is known. Default: everything is. */
  truths(question: Question, isKnown?: (reading: Reading) => boolean): (term: Term) => Truth
}

export function conditionsOf(slice: Slice): Conditions {
  const terms = new Map([...slice.policies.values()].map((policy) => [policy.id, termOf(policy.json)]))
  /** text → id; equal conditions of several policies are asked once */
  const ids = new Map<string, string>()
  for (const term of terms.values())
    for (const { text } of atomsIn(term)) if (!ids.has(text)) ids.set(text, `c${ids.size}`)
  const set = [...ids].map(([text, id]) => [id, `permit (principal, action, resource) when { ${text} };`])
  const parsed = parseSet(Object.fromEntries(set))
  return {
    terms,
    truths(question, isKnown = () => true) {
      const { held, failed } = ask(slice, parsed.id, question)
      const atom = ({ text, readings }: Atom): Truth => {
        if (![...readings].every(isKnown)) return 'unknown'
        const id = ids.get(text) ?? ''
        if (failed.has(id)) return 'error'
        return held.has(id) ? 'true' : 'false'
      }
      return (term) => truthOf(term, atom)
    },
    [Symbol.dispose]: () => parsed[Symbol.dispose](),
  }
}

function ask(slice: Slice, preparsedPolicySetId: string, question: Question) {
  const terms = { preparsedSchemaName: slice.schema(), validateRequest: true, preparsedPolicySetId }
  const answer = statefulIsAuthorized({ ...question, ...terms })
  if (answer.type === 'failure') throw new Error(answer.errors.map(({ message }) => message).join('; '))
  const { reason, errors } = answer.response.diagnostics
  return { held: new Set(reason), failed: new Set(errors.map(({ policyId }) => policyId)) }
}

/** As Cedar evaluates, left to right; but one `false` settles an `all` wherever it stands, which an unknown before it cannot change to true. */
function truthOf(term: Term, atom: (atom: Atom) => Truth): Truth {
  if (term.kind === 'atom') return atom(term.atom)
  if (term.kind === 'not') return not(truthOf(term.of, atom))
  const [settles, passes] = term.kind === 'all' ? (['false', 'true'] as const) : (['true', 'false'] as const)
  let result: Truth = passes
  for (const part of term.of) {
    const truth = truthOf(part, atom)
    if (truth === settles) return settles
    if (truth === 'error' && result === passes) return 'error'
    if (truth !== passes) result = 'unknown'
  }
  return result
}

function not(truth: Truth): Truth {
  if (truth === 'true') return 'false'
  return truth === 'false' ? 'true' : truth
}
