/**
 * What was verified before: for each log its key and its last signed head, in a file that the verifier keeps where nobody who
 * writes the log can. A log can then neither be put back to an earlier state nor rewritten, and a new key does not pass for the old.
 */
import { readIfThere, replace } from '../../private-file.ts'
import type { Checkpoint } from '../tree/checkpoint.ts'
import { NoteRefused, type NoteVerifier, parseVerifier } from '../tree/note.ts'
import { type Head, opened } from './heads.ts'

export interface Remembered {
  /** Verifier key, as in `log.pub`. */
  readonly key: string
  /** Signed note. */
  readonly checkpoint: string
  /** When it was verified, RFC 3339. */
  readonly at: string
}

/** Origin → what is remembered of the log. */
export type Memory = ReadonlyMap<string, Remembered>

/** Nothing, if there is no file yet. @throws {Error} when it is not such a file. */
export async function readMemory(path: string): Promise<Memory> {
  const bytes = await readIfThere(path)
  if (!bytes) return new Map()
  try {
    const { v, logs } = JSON.parse(bytes.toString('utf8')) as { v: number; logs: Record<string, Remembered> }
    if (v !== 1) throw new Error(`its version is ${v}`)
    for (const one of Object.values(logs)) openRemembered(one)
    return new Map(Object.entries(logs))
  } catch (cause) {
    throw new Error(
      `${path} is not a file that was written by --remember (${(cause as Error).message}). Restore it from a backup; a new one would forget what was verified.`,
      { cause },
    )
  }
}

/** Durable when this resolves. */
export async function writeMemory(path: string, memory: Memory): Promise<void> {
  await replace(path, `${JSON.stringify({ v: 1, logs: Object.fromEntries(memory) }, null, 2)}\n`)
}

/** @throws {NoteRefused} when key and checkpoint do not belong together. */
export function openRemembered({ key, checkpoint }: Remembered): { verifier: NoteVerifier; head: Checkpoint } {
  const verifier = parseVerifier(key)
  const head = opened(Buffer.from(checkpoint), verifier, (what) => {
    throw new NoteRefused(what)
  })
  return { verifier, head: head as Checkpoint }
}

export function rememberedHead(one: Remembered): Head {
  const { head } = openRemembered(one)
  return {
    ...head,
    check: 'remembered',
    otherwise: `the first ${head.size} entries are not those that were verified on ${one.at}: history was rewritten`,
  }
}
