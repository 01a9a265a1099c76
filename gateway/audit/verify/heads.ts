/** The signed heads that a log is held to: its own checkpoint, those of its witnesses, and the one that was remembered. */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { files } from '../lines.ts'
import { type Checkpoint, openCheckpoint } from '../tree/checkpoint.ts'
import { NoteRefused, type NoteVerifier } from '../tree/note.ts'
import type { Check, Findings } from './verdict.ts'

export interface Head extends Checkpoint {
  readonly check: Check
  /** What it means when the entries do not hash to it. */
  readonly otherwise: string
}

export async function ownHeads(dir: string, verifier: NoteVerifier, findings: Findings): Promise<Head[]> {
  const heads: Head[] = []
  const note = await readIfThere(join(dir, files.checkpoint))
  if (!note) findings.fault('checkpoint', null, 'the checkpoint is missing')
  else {
    const checkpoint = opened(note, verifier, (what) => findings.fault('checkpoint', null, what))
    if (checkpoint) heads.push(own(checkpoint))
  }
  return heads
}

function own(checkpoint: Checkpoint): Head {
  return {
    ...checkpoint,
    check: 'hash',
    otherwise: `the first ${checkpoint.size} entries do not hash to the signed root: one was changed, removed or added`,
  }
}

/** The checkpoint in the note, or what is wrong with it. */
export function opened(
  note: Uint8Array,
  verifier: NoteVerifier,
  refuse: (what: string) => void,
): Checkpoint | undefined {
  try {
    return openCheckpoint(note, verifier)
  } catch (cause) {
    if (!(cause instanceof NoteRefused)) throw cause
    refuse(cause.message)
    return undefined
  }
}
