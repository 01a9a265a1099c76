/** Standard Webhooks 1.0: `type`, `timestamp`, `data`. The data is the entry, which holds no secret; what is masked in it stays masked. */
import type { Item } from './item.ts'

export function standardText({ uid, entry }: Item): string {
  return JSON.stringify({ type: entry.kind, timestamp: entry.ts, data: { id: uid, ...entry } })
}
