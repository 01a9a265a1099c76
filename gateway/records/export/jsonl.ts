/** JSON lines: the entries as they are. Unmasked ones are the canonical bytes, so that a receiver can check them against a proof. */
import type { Item } from './item.ts'

export function jsonlRow({ entry, proven }: Item): string {
  return proven?.text ?? JSON.stringify(entry)
}
