/**
 * Which attributes of an ask a slice of policies reads: its values are the key under which an answer is remembered, and all that
 * Cedar is told. The others are the same stand-in for every request.
 */
import type { CedarValueJson } from '@cedar-policy/cedar-wasm/nodejs'
import type { Ask } from '../protocol/decision.ts'
import type { GrantAction, GrantAsk, Table, Value } from './attribute.ts'
import { callTable } from './attributes-call.ts'
import { delegateTable, mintTable } from './attributes-grant.ts'

export type { GrantAction, GrantAsk, Value } from './attribute.ts'

/** The attributes of one kind of ask that a slice reads, in a fixed order. */
export interface Selection<A> {
  readonly names: readonly string[]
  readonly table: Table<A>
}

/** @param readings of all policies of a slice; a reading that is in no table is fixed by the operation. */
export function selectCall(readings: ReadonlySet<string>): Selection<Ask> {
  return { names: selected(callTable, readings), table: callTable }
}

export function selectGrant(action: GrantAction, readings: ReadonlySet<string>): Selection<GrantAsk> {
  const table = action === 'mint' ? mintTable : delegateTable
  return { names: selected(table, readings), table }
}

function selected(table: Readonly<Record<string, unknown>>, readings: ReadonlySet<string>): string[] {
  return Object.keys(table).filter((name) => readings.has(name) || readings.has(`${name.split(/[. ]/)[0]} *`))
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

/** Attribute values by name: those read from the ask, and the stand-ins of all others. What is not there is left out. */
export function valuesOf<A>(selection: Selection<A>, ask: A): Map<string, CedarValueJson> {
  const read = new Set(selection.names)
  const values = new Map<string, CedarValueJson>()
  for (const [name, attribute] of Object.entries(selection.table)) {
    const value: Value | undefined =
      read.has(name) || attribute.isFixed === true ? attribute.read(ask) : attribute.standIn
    if (value !== undefined) values.set(name, attribute.cedar?.(value) ?? (value as CedarValueJson))
  }
  return values
}
