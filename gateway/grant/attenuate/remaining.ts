/**
 * What is left of a grant for the one that takes its place. Nobody authorised more, so what was spent stays spent: a task
 * cannot get its calls back by changing its intent or by being suspended.
 */
import { hasBudget } from '../../protocol/constraint.ts'
import type { Authority, Constraints, Grant, Level, Succession } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { chargesOf } from '../budget.ts'
import type { CountCharge, GrantStore } from '../store/store.ts'
import { excessOf } from './attenuate.ts'

type Remaining = Pick<Grant, 'authority'> & { readonly succession: Succession }

/**
 * The authority, less what the old grant spent; entries with nothing left are dropped. What is left of a rate or a single use,
 * and what another replica spends while it has not heard of the end, is counted where the old grant counted it.
 * @param authority within the old grant's. To be asked once the old grant has ended.
 * @throws {GatewayError} `limit_exceeded` when nothing is left at all, `store_unavailable`
 */
export async function remaining(
  store: Pick<GrantStore, 'left'>,
  old: Grant,
  authority: readonly Authority[],
): Promise<Remaining> {
  const left = await Promise.all(authority.map((entry) => leftOf(store, old, entry)))
  const kept = left.filter((entry) => entry !== undefined)
  if (kept.length > 0) {
    const origin = old.succession?.origin ?? old.id
    return { authority: kept, succession: { origin, levels: kept.map((entry) => levelBefore(old, entry)) } }
  }
  throw new GatewayError(
    'limit_exceeded',
    `Every budget of grant ${old.id} is used up, so there is nothing to go on with. Ask the grantor for a new task.`,
  )
}

/** Where the budgets of an entry were counted first. Two entries that come from one go on spending that one's. */
function levelBefore({ id, authority, succession }: Grant, entry: Authority): Level | null {
  const i = authority.findIndex((held) => isBudgeted([held]) && excessOf([held], [entry]).length === 0)
  if (i === -1) return null
  return succession?.levels[i] ?? { grant: id, entry: i, constraints: authority[i]?.constraints }
}

/** Keep what a grant spent in mind until then, because another one may take its place that late. @param untilS epoch seconds */
export async function remember(store: Pick<GrantStore, 'add'>, grant: Grant, untilS: number): Promise<void> {
  const { authority, succession } = grant
  const before = (succession?.levels ?? []).filter((level) => level !== null)
  const spent = [...authority.flatMap((_, i) => countsOf(grant, i)), ...countsAt(grant, before)]
  if (spent.length === 0) return
  await store.add(
    grant.tenant,
    spent.map((charge) => ({ ...charge, by: 0, untilS })),
  )
}

export function isBudgeted(authority: readonly Authority[]): boolean {
  return authority.some(({ constraints }) => hasBudget(constraints ?? {}))
}

/** Of several old entries that cover it, the one that has least left counts. */
async function leftOf(store: Pick<GrantStore, 'left'>, old: Grant, entry: Authority): Promise<Authority | undefined> {
  const above = old.authority.flatMap((held, i) => (excessOf([held], [entry]).length === 0 ? countsOf(old, i) : []))
  const constraints: { -readonly [K in keyof Constraints]: Constraints[K] } = { ...entry.constraints }
  for (const charge of above) {
    const left = await store.left(old.tenant, charge)
    if (left === 0) return undefined
    if (charge.name.endsWith('/calls')) constraints.max_calls = Math.min(constraints.max_calls ?? left, left)
    if (charge.name.endsWith('/bytes')) constraints.max_bytes = Math.min(constraints.max_bytes ?? left, left)
  }
  return above.length === 0 ? entry : { ...entry, constraints }
}

function countsOf(grant: Grant, entry: number): readonly CountCharge[] {
  return countsAt(grant, [{ grant: grant.id, entry, constraints: grant.authority[entry]?.constraints }])
}

function countsAt(grant: Grant, levels: readonly Level[]): readonly CountCharge[] {
  return chargesOf(grant, levels, { operation: '', isSingleUse: false }).filter((charge) => charge.kind === 'count')
}
