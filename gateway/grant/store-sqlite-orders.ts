/** Orders in SQLite. Nothing here is a transaction by itself; the caller's is. */
import type { DatabaseSync } from 'node:sqlite'
import type { StoredOrder, StoredOrders } from './store.ts'

/** The row that has the version when the order that made it is forgotten. */
const VERSION = ''

export function createOrderShelf(database: DatabaseSync) {
  const all = database.prepare('SELECT about, body FROM orders WHERE tenant = ? AND about <> ?')
  const newest = database.prepare('SELECT version FROM orders WHERE tenant = ? AND about = ?')
  const put = database.prepare('INSERT OR REPLACE INTO orders (tenant, about, body, version) VALUES (?, ?, ?, ?)')
  const forget = database.prepare('DELETE FROM orders WHERE tenant = ? AND about = ?')
  const version = (tenant: string) =>
    (newest.get(tenant, VERSION) as { readonly version: number } | undefined)?.version ?? 0
  return {
    version,
    orders: (tenant: string): StoredOrders => ({
      version: version(tenant),
      orders: all.all(tenant, VERSION) as unknown as readonly StoredOrder[],
    }),
    put(tenant: string, order: StoredOrder, o: { readonly expected: number; readonly version: number }): boolean {
      if (version(tenant) !== o.expected) return false
      put.run(tenant, order.about, order.body, o.version)
      put.run(tenant, VERSION, '', o.version)
      return true
    },
    forget(tenant: string, about: readonly string[]): void {
      for (const one of about) forget.run(tenant, one)
    },
  }
}
