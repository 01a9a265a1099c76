/** What the log already has of a journal: asked at the start, because a process can die between handing an entry over and noting it. */
import { parseEntry } from '../entries/entry.ts'
import { firstKept, readWritten } from './follow.ts'

const LATE = 'breakglass.recorded_late'

/** @returns number of the last entry of the journal that is in the log in `dir`; 0: none. */
export async function foundInLog(dir: string, { journal, size }: { journal: string; size: number }): Promise<number> {
  let found = 0
  const from = Math.max(size, await firstKept(dir))
  for await (const { entries } of readWritten(dir, from)) {
    for (const bytes of entries) {
      if (!bytes.includes(LATE)) continue // most lines need no parsing
      const entry = parseEntry(bytes)
      if (entry?.kind !== LATE || entry.facts?.journal !== journal) continue
      found = Math.max(found, Number(entry.facts.n))
    }
  }
  return found
}
