/** Which attributes of an ask a slice of policies reads: their values are the key under which an answer is remembered, and all that Cedar is told. */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../../protocol/decision.ts'
import type { GrantAction, GrantAsk, Table } from './attribute.ts'
import { callTable } from './call.ts'
import { delegateTable, mintTable } from './grant.ts'
import { isRead } from './reads.ts'

export type { GrantAction, GrantAsk, Value } from './attribute.ts'

/** The attributes of one kind of ask that a slice reads, in a fixed order. */
export interface Selection<A> {
  readonly names: readonly string[]
  readonly table: Table<A>
  /** Also of what is in no table, because the operation fixes it. */
  reads(name: string): boolean
}

/** @param readings of all policies of a slice; a reading that is in no table is fixed by the operation. */
export function selectCall(readings: ReadonlySet<string>): Selection<Ask> {
  return selected(callTable, readings)
}

export function selectGrant(action: GrantAction, readings: ReadonlySet<string>): Selection<GrantAsk> {
  return selected(action === 'mint' ? mintTable : delegateTable, readings)
}

function selected<A>(table: Table<A>, readings: ReadonlySet<string>): Selection<A> {
  const reads = (name: string) => isRead(name, readings)
  return { names: Object.keys(table).filter(reads), table, reads }
}

/** Every value read, each with its length, so that no two lists of values look alike. */
export function keyOf<A>(selection: Selection<A>, ask: A): string {
  let key = ''
  for (const name of selection.names) {
    const value = selection.table[name]?.read(ask)
    const text = typeof value === 'string' ? value : JSON.stringify(value)
    key += text === undefined ? '-' : `${text.length}:${text}`
  }
  return key
}

/** Values by name of attribute. What the request does not have is left out. */
export function valuesOf<A>({ names, table }: Selection<A>, ask: A): Map<string, CedarValueJson> {
  const values = new Map<string, CedarValueJson>()
  for (const name of names) {
    const attribute = table[name]
    const value = attribute?.read(ask)
    if (value !== undefined) values.set(name, attribute?.cedar?.(value) ?? (value as CedarValueJson))
  }
  return values
}
