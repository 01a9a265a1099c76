/**
 * Recorded decisions put to other policies: which would change, and which cannot be told because they depend on something that the
 * log does not hold. Nothing is guessed: a fact that was not recorded is unknown, and so is what hangs on it.
 */
import canonicalize from 'canonicalize'
import { patternCovers } from '../../protocol/authority.ts'
import type { Obligations } from '../../protocol/decision.ts'
import type { Endpoint } from '../../protocol/service.ts'
import type { Catalogue } from '../catalogue/catalogue.ts'
import type { Recorded } from './recorded.ts'
import { type Answer, answer, hasOperation, type Scene, type Subject, sceneOfOperation } from './scene.ts'
import type { Facts } from './supposed.ts'

/** `approval`: allowed once somebody consents. `unknown`: it depends on what the log does not hold. */
export type Effect = 'allow' | 'approval' | 'deny' | 'unknown'

export interface Replayed {
  readonly recorded: Recorded
  readonly before: Effect
  readonly after: Effect
  /** Policies that would decide. */
  readonly policyIds: readonly string[]
  /** Obligations that would be others: name → before and after. Only where both allow, and both are known. */
  readonly obligations: Readonly<Record<string, readonly [before: unknown, after: unknown]>>
  /** What is not known and decides; of `unknown` never empty. */
  readonly unknown: readonly string[]
}

export interface Summary {
  /** Decisions that policy had a say in. */
  readonly decisions: number
  readonly same: number
  /** Refused before policy was asked. */
  readonly before: number
  readonly changed: readonly Group[]
  readonly unknown: readonly Group[]
}

/** Decisions that change alike. */
export interface Group {
  readonly agent: string
  readonly kind: Recorded['kind']
  readonly asked: string
  readonly from: Effect
  readonly to: Effect
  /** Policies that decided, and that would decide. */
  readonly was: readonly string[]
  readonly would: readonly string[]
  readonly obligations: Replayed['obligations']
  readonly unknown: readonly string[]
  readonly count: number
  /** Id of the last of them. */
  readonly last: string
}

/** @param spell obligations as the log spells them. */
export async function replay(subject: Subject, recorded: Recorded, spell: Spell): Promise<Replayed | undefined> {
  const before = effectBefore(recorded)
  if (before === undefined) return undefined
  const base = { recorded, before, policyIds: [], obligations: {} }
  const [operation = ''] = recorded.asked
  if (recorded.kind === 'call' && !hasOperation(subject, operation))
    return { ...base, after: 'unknown', unknown: [`${operation}, which no service here has`] }
  const { scene, facts } = sceneOfRecorded(subject, recorded)
  const answered = await answer(subject, scene, facts, (name) => facts.has(name))
  const unknown = [...new Set(answered.seen.flatMap((seen) => seen.unknown ?? []))]
  if (unknown.length > 0) return { ...base, after: 'unknown', unknown }
  if (before === 'unknown') {
    const isNo = answered.decision.effect === 'deny'
    return {
      ...base,
      after: isNo ? 'deny' : 'unknown',
      before: isNo ? 'deny' : before,
      unknown: isNo ? [] : [WHO_SAID_NO],
    }
  }
  return compared(recorded, before, answered, spell)
}

const WHO_SAID_NO = 'whether policy or the grant refused it'

function effectBefore({ effect, obligations }: Recorded): Effect | undefined {
  if (effect === 'none') return undefined
  if (effect === 'unread') return 'unknown'
  return effect === 'allow' && obligations?.approval !== undefined ? 'approval' : effect
}

/**
 * The question again, with the facts that the log holds.
 * @throws {Error} for an operation that no service here has.
 */
export function sceneOfRecorded(subject: Subject, recorded: Recorded): { scene: Scene; facts: Facts } {
  const { kind, asked, maxDepth, facts } = recorded
  if (kind !== 'call') return { scene: { kind, scope: asked, maxDepth }, facts }
  return { scene: sceneOfOperation(subject, asked[0] ?? ''), facts: factsOfRecorded(subject.catalogue, recorded) }
}

/** Of a call, with what its path holds. */
export function factsOfRecorded(catalogue: Catalogue, recorded: Recorded): Facts {
  return new Map([...recorded.facts, ...placeFacts(catalogue, recorded)])
}

/** What the path holds is known where the path alone still leads to the same operation. */
function placeFacts({ locate }: Catalogue, { place, asked }: Recorded): [string, Endpoint['params']][] {
  if (place === undefined) return []
  try {
    const endpoint = locate({
      ...{ mode: 'forward', hostHeader: undefined, route: undefined, rawHeaders: [] },
      ...{ method: place.method, scheme: place.scheme, host: place.host, port: place.port },
      rawPath: place.path.replaceAll(/[^!-~]|["<>\\^`{|}#?]/g, encodeURIComponent),
    })
    const isSame = endpoint.operation.name === asked[0] && endpoint.path === place.path
    return isSame ? [['resource tags', endpoint.params]] : []
  } catch {
    return [] // a query, a field or a form says which operation it is
  }
}

function compared(recorded: Recorded, before: Effect, { decision, seen }: Answer, spell: Spell): Replayed {
  const { effect, policyIds } = decision
  const told = recorded.obligations
  const isTheGrants = recorded.isByGrant === true && before === 'approval'
  const after = effect === 'deny' ? effect : isTheGrants || decision.obligations.approval ? 'approval' : effect
  const areBoth = before !== 'deny' && after !== 'deny' && told !== undefined
  const isOpen = areBoth && seen.some((one) => one.isOpen === true)
  const left = isTheGrants ? ['approval', 'notify'] : []
  const obligations = areBoth && !isOpen ? differences(told, spell(decision.obligations), left) : {}
  return { recorded, before, after, policyIds, obligations, unknown: isOpen ? [FURTHER] : [] }
}

const FURTHER = 'whether further permits apply, with their obligations'

type Spelled = Readonly<Record<string, unknown>>
type Spell = (obligations: Obligations) => Spelled

/** @param left names that are not looked at. */
function differences(before: Spelled, after: Spelled, left: readonly string[]): Replayed['obligations'] {
  const names = [...new Set([...Object.keys(before), ...Object.keys(after)])].filter((name) => !left.includes(name))
  const plain = (value: unknown): unknown => (value === undefined ? null : JSON.parse(JSON.stringify(value)))
  const pairs = names.sort().map((name) => [name, [plain(before[name]), plain(after[name])] as const] as const)
  return Object.fromEntries(pairs.filter(([, [was, is]]) => canonicalize(was) !== canonicalize(is)))
}

/** Gathers replayed decisions; keeps one line for those that are alike, however many there are. */
export class Gathering {
  #decisions = 0
  #same = 0
  #before = 0
  readonly #groups = new Map<string, Group>()

  /** @param replayed undefined: policy was not asked. */
  add(replayed: Replayed | undefined): void {
    if (replayed === undefined) {
      this.#before += 1
      return
    }
    this.#decisions += 1
    const { before, after, obligations, unknown } = replayed
    if (before === after && Object.keys(obligations).length === 0 && unknown.length === 0) this.#same += 1
    else this.#put(groupOf(replayed))
  }

  #put(group: Group): void {
    const { count: _, last, ...alike } = group
    const key = JSON.stringify(alike)
    this.#groups.set(key, { ...group, last, count: (this.#groups.get(key)?.count ?? 0) + 1 })
  }

  summary(): Summary {
    const groups = [...this.#groups.values()].sort((a, b) => b.count - a.count || (a.asked < b.asked ? -1 : 1))
    return {
      decisions: this.#decisions,
      same: this.#same,
      before: this.#before,
      changed: groups.filter(({ unknown }) => unknown.length === 0),
      unknown: groups.filter(({ unknown }) => unknown.length > 0),
    }
  }
}

function groupOf({ recorded, before, after, policyIds, obligations, unknown }: Replayed): Group {
  const { agent, kind, asked, req } = recorded
  const alike = { agent, kind, asked: asked.join(' '), from: before, to: after, was: recorded.policyIds }
  return { ...alike, would: policyIds, obligations, unknown, count: 1, last: req }
}

/** Whether a grant for these patterns covers the operation. */
export function isCovered(patterns: readonly string[], operation: string): boolean {
  return patterns.some((pattern) => patternCovers(pattern, operation))
}
