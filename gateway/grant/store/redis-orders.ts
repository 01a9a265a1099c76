/**
 * Orders shared by replicas, in Redis: one hash a tenant, with their version in it. And the word that goes round when anything has
 * ended: it makes replicas look at once, and they believe only what they find.
 */
import type { Cluster, Redis } from 'ioredis'
import { subscribe } from '../../redis-answer.ts'
import { FORGET_ORDERS, PUT_ORDER } from './redis-scripts.ts'
import type { GrantStore, OrderShelf, StoredOrders } from './store.ts'

/** Field of the hash; no keyed hash is spelled like it. */
const VERSION = 'version'

interface Parts {
  readonly redis: Redis | Cluster
  readonly keys: { orders(tenant: string): string; changes(tenant: string): string }
  run<T>(script: string, names: readonly string[], ...given: readonly (string | number)[]): Promise<T>
  bounded<T>(work: Promise<T>): Promise<T>
}

export function createOrderShelf({
  redis,
  keys,
  run,
  bounded,
}: Parts): OrderShelf & Pick<GrantStore, 'ordersVersion'> & Required<Pick<GrantStore, 'onChange'>> & Disposable {
  let subscriber: Redis | undefined
  return {
    orders: async (tenant) => ordersOf(await bounded(redis.hgetall(keys.orders(tenant)))),
    ordersVersion: async (tenant) => Number((await bounded(redis.hget(keys.orders(tenant), VERSION))) ?? 0),
    putOrder: async (tenant, { about, body }, { expected, version }) =>
      (await run(PUT_ORDER, [keys.orders(tenant)], expected, version, about, body, keys.changes(tenant))) === 1,
    async forgetOrders(tenant, about, expected) {
      if (about.length > 0) await run(FORGET_ORDERS, [keys.orders(tenant)], expected, ...about)
    },
    onChange(tenant, hear) {
      // Again on every new connection: what was said between two is found by asking.
      subscriber ??= subscribe(redis as Redis, [keys.changes(tenant)], () => hear(undefined)).on(
        'message',
        (_, mark: string) => hear(mark === '' ? undefined : mark),
      )
    },
    [Symbol.dispose]: () => subscriber?.disconnect(),
  }
}

function ordersOf({ [VERSION]: version = '0', ...orders }: Record<string, string>): StoredOrders {
  return { version: Number(version), orders: Object.entries(orders).map(([about, body]) => ({ about, body })) }
}
