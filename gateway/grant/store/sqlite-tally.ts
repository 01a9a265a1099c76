/**
 * Budgets in SQLite: how much is spent, and when the last calls of a rate were. Nothing here is a transaction by itself; the
 * caller's is.
 */
import type { DatabaseSync } from 'node:sqlite'
import type { Past } from '../../protocol/decision.ts'
import type { Charge, CountCharge, PastCharge, RateCharge } from './store.ts'

export interface Tally {
  spend(tenant: string, charges: readonly Charge[]): number
  add(tenant: string, charges: readonly CountCharge[]): void
  left(tenant: string, charge: CountCharge | RateCharge): number
  past(tenant: string, name: string): Past
}

export function createTally(database: DatabaseSync, nowMs: () => number): Tally {
  const used = database.prepare('SELECT used FROM counts WHERE tenant = ? AND name = ?')
  const count = database.prepare(
    'INSERT INTO counts (tenant, name, used, until) VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET used = used + excluded.used, until = max(until, excluded.until)',
  )
  const call = database.prepare('SELECT at_ms FROM calls WHERE tenant = ? AND name = ? AND slot = ?')
  const keep = database.prepare(
    'INSERT OR REPLACE INTO calls (tenant, name, slot, at_ms, until) VALUES (?, ?, ?, ?, ?)',
  )
  const recent = database.prepare('SELECT count(*) AS n FROM calls WHERE tenant = ? AND name = ? AND at_ms > ?')

  const under = database.prepare('SELECT name, used FROM counts WHERE tenant = ? AND name > ? AND name < ?')

  const usedOf = (tenant: string, name: string) => (used.get(tenant, name) as { used: number } | undefined)?.used ?? 0
  /** The slot that the next call takes still holds the n-th call before it. */
  const isSlotFree = (tenant: string, { name, n, perS }: RateCharge) => {
    const nth = call.get(tenant, name, usedOf(tenant, name) % n) as { at_ms: number } | undefined
    return nth === undefined || nowMs() - nth.at_ms >= perS * 1000
  }
  const isStillSo = (tenant: string, { name, seen }: PastCharge) =>
    Object.entries(seen).every(([field, count]) => usedOf(tenant, `${name}/${field}`) <= count)
  const remember = (tenant: string, { name, plain, kinds, untilS }: PastCharge) => {
    for (const field of kinds) if (usedOf(tenant, `${name}/${field}`) === 0) count.run(tenant, `${name}/d`, 1, untilS)
    for (const field of [...plain, ...kinds]) count.run(tenant, `${name}/${field}`, 1, untilS)
  }
  const fits = (tenant: string, charge: Charge) => {
    if (charge.kind === 'past') return isStillSo(tenant, charge)
    return charge.kind === 'rate'
      ? isSlotFree(tenant, charge)
      : usedOf(tenant, charge.name) + Math.max(charge.by, 1) <= charge.limit
  }
  const charge = (tenant: string, charge: Charge) => {
    if (charge.kind === 'past') {
      remember(tenant, charge)
      return
    }
    if (charge.kind === 'count') {
      if (charge.by > 0) count.run(tenant, charge.name, charge.by, charge.untilS)
      return
    }
    const { name, n, perS } = charge
    const until = Math.ceil(nowMs() / 1000 + perS)
    keep.run(tenant, name, usedOf(tenant, name) % n, nowMs(), until)
    count.run(tenant, name, 1, until)
  }
  return {
    past(tenant, name) {
      const rows = under.all(tenant, `${name}/`, `${name}0`) // the character after the slash
      return Object.fromEntries(rows.map((row) => [String(row.name).slice(name.length + 1), Number(row.used)]))
    },
    spend(tenant, charges) {
      const misfit = charges.findIndex((each) => !fits(tenant, each))
      if (misfit === -1) for (const each of charges) charge(tenant, each)
      return misfit
    },
    add(tenant, charges) {
      for (const { name, by, untilS } of charges) count.run(tenant, name, by, untilS)
    },
    left: (tenant, charge) =>
      charge.kind === 'count'
        ? Math.max(0, charge.limit - usedOf(tenant, charge.name))
        : charge.n - (recent.get(tenant, charge.name, nowMs() - charge.perS * 1000) as { n: number }).n,
  }
}
