/** Orders in SQLite: those of an embedded gateway, and the copy that each replica of a fleet has of all of them. */
import type { DatabaseSync } from 'node:sqlite'
import { openDatabase } from './sqlite-schema.ts'
import type { StoredOrder, StoredOrders } from './store.ts'

/** The row that has the version when the order that made it is forgotten. */
const VERSION = ''

/** What a replica knows, for the process after it. */
export interface OrderKeep {
  load(tenant: string): readonly StoredOrder[]
  /** In place of what it has about the same. */
  save(tenant: string, order: StoredOrder): void
  forget(tenant: string, about: readonly string[]): void
  close(): void
}

/** @param path file, created 0600 if absent; every change is fsynced. */
export function openOrderKeep(path: string): OrderKeep {
  const database = openDatabase(path)
  const shelf = createOrderShelf(database)
  return {
    load: (tenant) => shelf.orders(tenant).orders,
    save: (tenant, order) => shelf.save(tenant, order, 0),
    forget: (tenant, about) => shelf.forget(tenant, about),
    close: () => database.close(),
  }
}

/** Nothing in it is a transaction by itself; the caller's is. */
export function createOrderShelf(database: DatabaseSync) {
  const all = database.prepare('SELECT about, body FROM orders WHERE tenant = ? AND about <> ?')
  const newest = database.prepare('SELECT version FROM orders WHERE tenant = ? AND about = ?')
  const put = database.prepare('INSERT OR REPLACE INTO orders (tenant, about, body, version) VALUES (?, ?, ?, ?)')
  const forget = database.prepare('DELETE FROM orders WHERE tenant = ? AND about = ?')
  const version = (tenant: string) =>
    (newest.get(tenant, VERSION) as { readonly version: number } | undefined)?.version ?? 0
  const save = (tenant: string, { about, body }: StoredOrder, at: number) => void put.run(tenant, about, body, at)
  return {
    version,
    save,
    orders: (tenant: string): StoredOrders => ({
      version: version(tenant),
      orders: all.all(tenant, VERSION) as unknown as readonly StoredOrder[],
    }),
    put(tenant: string, order: StoredOrder, o: { readonly expected: number; readonly version: number }): boolean {
      if (version(tenant) !== o.expected) return false
      save(tenant, order, o.version)
      save(tenant, { about: VERSION, body: '' }, o.version)
      return true
    },
    forget(tenant: string, about: readonly string[]): void {
      for (const one of about) forget.run(tenant, one)
    },
  }
}
