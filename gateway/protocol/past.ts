/**
 * Earlier calls of a task, as they are counted: one field for each thing that policies can ask of them. `n`: all; `d`: how many
 * different operations and labels; `a:`, `s:`, `o:` and `l:` with access, sensitivity, name of the operation and label.
 */
import type { Past } from './decision.ts'
import type { Operation } from './service.ts'

type Counted = Pick<Operation, 'name' | 'access' | 'sensitivity' | 'labels'>

/** Counted one more for a call. `d` is counted by the store, for each of the `kinds` that was not there. */
export function fieldsOf({ name, access, sensitivity, labels = [] }: Counted): {
  readonly plain: readonly string[]
  readonly kinds: readonly string[]
} {
  return {
    plain: ['n', `a:${access}`, `s:${sensitivity}`],
    kinds: [`o:${name}`, ...labels.map((label) => `l:${label}`)],
  }
}

export function countOf(past: Past, field: string): number {
  return past[field] ?? 0
}

/** What stands behind the prefix, by count: `o:` gives operations. */
export function countsUnder(past: Past, prefix: 'o:' | 'l:'): Readonly<Record<string, number>> {
  const found = Object.entries(past).filter(([field]) => field.startsWith(prefix))
  return Object.fromEntries(found.map(([field, count]) => [field.slice(prefix.length), count]))
}
