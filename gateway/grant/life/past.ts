/**
 * What a task did before, for policies that look at it: counted with the call itself, over all replicas and all grants of the task.
 * This process remembers the most that it has seen of each, so that a store that has lost or been robbed of some of it makes no
 * past undone that was known here.
 */
import type { Facts, Past } from '../../protocol/decision.ts'
import { budgetsAt } from '../budget.ts'
import type { GrantStore } from '../store/store.ts'
import { pastName } from './past-charge.ts'

/** Tasks remembered before the oldest are known by the store alone. */
const MAX_TASKS = 10_000

export function createFacts(store: Pick<GrantStore, 'past' | 'left'>): Facts {
  /** tenant and task → the most that was seen of each field; oldest first */
  const known = new Map<string, Past>()
  const most = (key: string, read: Past): Past => {
    const before = known.get(key) ?? {}
    const fields = new Set([...Object.keys(before), ...Object.keys(read)])
    const past = Object.fromEntries([...fields].map((field) => [field, Math.max(before[field] ?? 0, read[field] ?? 0)]))
    known.delete(key)
    known.set(key, past)
    if (known.size > MAX_TASKS) known.delete(known.keys().next().value ?? '')
    return past
  }
  return {
    past(grant) {
      const { tenant, task } = grant
      if (task.counted !== true) return undefined
      const read = store.past(tenant, pastName(grant))
      const key = `${tenant} ${task.id}`
      return read instanceof Promise ? read.then((past) => most(key, past)) : most(key, read)
    },
    async left(grant, levels) {
      const charges = budgetsAt(grant, levels)
      const left = await Promise.all(
        charges.map(async (one) => ({ ...one, left: await store.left(grant.tenant, one.charge) })),
      )
      const least = (of: 'calls' | 'bytes') => {
        const all = left.filter(({ counts }) => counts === of).map((one) => one.left)
        return all.length === 0 ? {} : { [of]: Math.min(...all) }
      }
      return { ...least('calls'), ...least('bytes') }
    },
  }
}
