/**
 * What other policies would mean: which are new, gone or changed, and, for every operation, where the two sides decide otherwise. The
 * second part tries the values that the policies themselves compare with, and those on either side of them: it finds differences,
 * and proves that there are none no more than tests do.
 */
import canonicalize from 'canonicalize'
import type { Service } from '../../protocol/service.ts'
import type { Catalogue } from '../catalogue/catalogue.ts'
import { type Values, valuesFor } from '../remedy.ts'
import type { Bundle } from '../source/bundle.ts'
import type { Policy } from '../source/policy-file.ts'
import { namedOperations } from '../vocabulary.ts'
import { atomsIn, termOf } from './conditions.ts'
import { answer, type Scene, sceneOfOperation } from './scene.ts'
import type { Facts, Seen } from './supposed.ts'

export interface Difference {
  readonly added: readonly Policy[]
  readonly removed: readonly Policy[]
  /** Under one @id and file: what was changed of it. */
  readonly changed: readonly { readonly before: Policy; readonly after: Policy; readonly what: readonly string[] }[]
  readonly effects: readonly EffectChange[]
  /** Questions that were put to both. */
  readonly tried: number
}

/** The same change for several operations, with facts under which it shows. */
export interface EffectChange {
  readonly asked: readonly string[]
  readonly from: 'allow' | 'approval' | 'deny'
  readonly to: 'allow' | 'approval' | 'deny'
  readonly was: readonly string[]
  readonly would: readonly string[]
  /** Facts that differ from those of an ordinary agent (docs/policy-tests.md). */
  readonly when: Readonly<Record<string, unknown>>
}

export interface Sides {
  readonly before: Bundle
  readonly after: Bundle
  readonly catalogue: Catalogue
}

export async function differenceOf(sides: Sides): Promise<Difference> {
  const { before, after } = sides
  const [old, now] = [byName(before.policies), byName(after.policies)]
  const changed = [...now].flatMap(([name, policy]) => {
    const was = old.get(name)
    const what = was === undefined ? [] : changesOf(was, policy)
    return was === undefined || what.length === 0 ? [] : [{ before: was, after: policy, what }]
  })
  const { effects, tried } = await effectsOf(sides)
  return {
    added: [...now].filter(([name]) => !old.has(name)).map(([, policy]) => policy),
    removed: [...old].filter(([name]) => !now.has(name)).map(([, policy]) => policy),
    ...{ changed, effects, tried },
  }
}

/** Two checkouts stand in different directories: a policy is known by its file and @id alone. */
function byName(policies: readonly Policy[]): Map<string, Policy> {
  return new Map(policies.map((policy) => [policy.id.split('/').at(-1) ?? policy.id, policy]))
}

function changesOf(before: Policy, after: Policy): string[] {
  const [was, is] = [before.json, after.json]
  const scope = ({ principal, action, resource }: Policy['json']) => canonicalize({ principal, action, resource })
  const names = [...new Set([...Object.keys(was.annotations ?? {}), ...Object.keys(is.annotations ?? {})])].sort()
  const notes = names.filter((name) => was.annotations?.[name] !== is.annotations?.[name])
  return [
    ...(was.effect === is.effect ? [] : [`${was.effect} → ${is.effect}`]),
    ...(scope(was) === scope(is) ? [] : ['scope']),
    ...(canonicalize(was.conditions) === canonicalize(is.conditions) ? [] : ['conditions']),
    ...notes.map((name) => `@${name}: ${was.annotations?.[name] ?? 'none'} → ${is.annotations?.[name] ?? 'none'}`),
  ]
}

/** Questions for one operation; many more hardly find anything else. */
const MOST = 64
/** Alternatives that are followed of one condition. */
const WAYS = 2

async function effectsOf({ before, after, catalogue }: Sides) {
  const groups = new Map<string, EffectChange>()
  let tried = 0
  for (const { asked, scene } of scenesOf(catalogue)) {
    for (const facts of await questions(scene, [before, after])) {
      tried += 1
      const [was, would] = await Promise.all([put(before, scene, facts), put(after, scene, facts)])
      if (was.effect === would.effect) continue
      const alike = { from: was.effect, to: would.effect, was: was.policyIds, would: would.policyIds }
      const key = JSON.stringify([alike, scene.kind])
      const known = groups.get(key)
      if (known?.asked.includes(asked)) continue
      const base = known ?? { ...alike, asked: [], when: Object.fromEntries(facts) }
      groups.set(key, { ...base, asked: [...base.asked, asked] })
    }
  }
  return { effects: [...groups.values()], tried }
}

async function put(bundle: Bundle, scene: Scene, facts: Facts) {
  const { decision } = await answer({ bundle }, scene, facts)
  const { effect, obligations, policyIds } = decision
  return {
    effect: effect === 'allow' && obligations.approval !== undefined ? ('approval' as const) : effect,
    policyIds,
  }
}

function scenesOf(catalogue: Catalogue): { asked: string; scene: Scene }[] {
  return catalogue.services.flatMap((service: Service) => {
    const calls = namedOperations(service).map(({ name }) => ({
      asked: name,
      scene: sceneOfOperation({ catalogue }, name),
    }))
    const grants = (['mint', 'delegate'] as const).map((kind) => {
      return { asked: `${kind} ${service.name}:*`, scene: { kind, scope: [`${service.name}:*`] } as const }
    })
    return [...calls, ...grants]
  })
}

/** The ordinary question, and the same on either side of every condition of every policy that is about it; also of all of one at once. */
async function questions(scene: Scene, bundles: readonly Bundle[]): Promise<Facts[]> {
  const found = new Map<string, Facts>([['', new Map()]])
  for (const bundle of bundles) {
    const { seen } = await answer({ bundle }, scene, new Map())
    for (const one of seen)
      for (const values of around(one)) {
        const facts = changesTo(one.values, values)
        if (found.size < MOST) found.set(JSON.stringify([...facts]), facts)
      }
  }
  return [...found.values()]
}

/** Where a policy applies, and just beyond each of its conditions; the order says what is worth trying first. */
function* around({ slice, values }: Seen): Generator<Values> {
  const terms = [...slice.policies.values()].map((policy) => termOf(policy.json))
  const met = terms.map((term) => ({ term, ways: valuesFor(term, true, values).slice(0, WAYS) }))
  for (const { ways } of met) yield* ways
  for (const { term, ways } of met)
    for (const way of ways)
      for (const atom of atomsIn(term)) yield* valuesFor({ kind: 'atom', atom }, false, way).slice(0, WAYS)
  for (const term of terms) yield* valuesFor(term, false, values)
}

function changesTo(before: Facts, after: Values): Facts {
  return new Map([...after].filter(([name, value]) => JSON.stringify(before.get(name)) !== JSON.stringify(value)))
}
