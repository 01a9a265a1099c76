/**
 * How far an export has come: a file that is replaced after the receiver has confirmed. A crash between the two sends the same
 * entries again; nothing is left out.
 */
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { type Place, START } from '../../audit/files/follow.ts'
import { makePrivate, readIfThere, replace } from '../../private-file.ts'

export interface Mark {
  /** Name of the log that it counts in. */
  readonly log: string
  readonly place: Place
  /** Numbers of decisions whose outcome was still to come. */
  readonly open: readonly number[]
}

export interface SetAside {
  readonly log: string
  readonly seq: number
  readonly kind: string
  /** What the receiver said. */
  readonly reason: string
}

export interface Cursor {
  /** @throws {Error} when the file is not readable as a mark, or is one of another log. */
  read(): Promise<Mark>
  write(mark: Mark): Promise<void>
  /** Entries that were not taken, durable before the cursor moves on. The log still has them. */
  setAside(refused: readonly SetAside[]): Promise<void>
  /** Where those are written. */
  readonly asidePath: string
}

/** @param begin where a new one begins; default at the first entry. Written down at once, so that a crash does not move it. */
export function createCursor(dir: string, name: string, log: string, begin?: () => Promise<Place>): Cursor {
  const path = join(dir, `${name}.json`)
  const asidePath = join(dir, `${name}.refused.jsonl`)
  return {
    asidePath,
    async read() {
      await makePrivate(dir)
      const text = await readIfThere(path)
      if (text === undefined) {
        const mark = { log, place: (await begin?.()) ?? START, open: [] }
        if (begin) await replace(path, JSON.stringify(mark))
        return mark
      }
      const mark = parseMark(text.toString('utf8'))
      if (!mark) throw new Error(`${path} is not a cursor. Restore it, or remove it to export everything again.`)
      if (mark.log !== log)
        throw new Error(`${path} counts in the log ${mark.log}, and this is ${log}. Give the export another name.`)
      return mark
    },
    write: (mark) => replace(path, JSON.stringify(mark)),
    async setAside(refused) {
      const file = await open(asidePath, 'a', 0o600)
      try {
        await file.appendFile(refused.map((one) => `${JSON.stringify(one)}\n`).join(''))
        await file.sync()
      } finally {
        await file.close()
      }
    },
  }
}

function parseMark(text: string): Mark | undefined {
  try {
    const { log, place, open: numbers } = JSON.parse(text) as Mark
    const counts = [place.seq, place.segment, place.offset, ...numbers]
    return typeof log === 'string' && counts.every((n) => Number.isSafeInteger(n) && n >= 0)
      ? { log, place, open: numbers }
      : undefined
  } catch {
    return undefined
  }
}
