/** A store that answers about a grant only once every order is known here that stood there in the moment of the answer. */
import type { Orders } from '../orders/orders.ts'
import type { GrantState, GrantStore } from './store.ts'

/** @param tenant whose orders they are. */
export function obeying(store: GrantStore, orders: Pick<Orders, 'heed'>, tenant: string): GrantStore {
  if (store.trustMs === Number.POSITIVE_INFINITY) return store // every order is given here
  const heeded = async <T extends GrantState>(of: string, asked: T | undefined | Promise<T | undefined>) => {
    const answer = await asked
    if (of === tenant) await orders.heed(answer?.orders)
    return answer
  }
  return {
    ...store,
    byHandle: (of, digest) => heeded(of, store.byHandle(of, digest)),
    byId: (of, id) => heeded(of, store.byId(of, id)),
    async states(of, ids) {
      const states = await store.states(of, ids)
      const versions = states.flatMap((state) => state?.orders ?? [])
      if (of === tenant && versions.length > 0) await orders.heed(Math.max(...versions))
      return states
    },
  }
}
