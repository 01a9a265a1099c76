/** Whether enough witnesses stand behind a log: what they cosigned is held against the entries like any other head. */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { ledTo } from '../files/handover.ts'
import { files } from '../lines.ts'
import type { Checkpoint } from '../tree/checkpoint.ts'
import { type Note, NoteRefused, type NoteVerifier, parseNote } from '../tree/note.ts'
import { cosignedAt } from '../witness/cosignature.ts'
import { type Head, opened } from './heads.ts'
import type { Findings, Verdict } from './verdict.ts'

export interface Quorum {
  readonly witnesses: readonly NoteVerifier[]
  /** How many of them must have cosigned the same checkpoint. */
  readonly least: number
}

export interface Witnessed {
  readonly head: Head | undefined
  /** What enough of them have cosigned. */
  readonly told: Verdict['witnessed']
  /** Epoch milliseconds of the newest cosignature that counts. */
  readonly atMs: number | undefined
}

const NOBODY: Witnessed = { head: undefined, told: null, atMs: undefined }

/** Reads `checkpoint.witnessed`, and looks at the checkpoint itself for cosignatures too. Nothing is asked of it without a quorum. */
export async function witnessedHead(
  dir: string,
  verifier: NoteVerifier,
  quorum: Quorum | undefined,
  findings: Findings,
): Promise<Witnessed> {
  const path = join(dir, files.witnessed)
  const bytes = await readIfThere(path)
  if (!bytes) {
    if (quorum) findings.fault('witness', null, `there is no ${files.witnessed}: no witness has cosigned this log`)
    return NOBODY
  }
  const refuse = (what: string) => findings[quorum ? 'fault' : 'warn']('witness', null, `${files.witnessed}: ${what}`)
  const checkpoint = await openedBySome(dir, bytes, verifier, refuse)
  if (!checkpoint) return NOBODY
  return { head: headOf(checkpoint), ...counted(parseNote(bytes), checkpoint, quorum, refuse) }
}

/** After a change of the key the newest cosigned checkpoint is one of the old key until witnesses have been given the new one. */
async function openedBySome(dir: string, bytes: Buffer, verifier: NoteVerifier, refuse: (what: string) => void) {
  let why = ''
  const checkpoint = opened(bytes, verifier, (what) => {
    why = what
  })
  if (checkpoint) return checkpoint
  for (const { old, checkpoint: last } of await ledTo(dir, verifier)) {
    const earlier = opened(bytes, old, () => {})
    if (earlier && earlier.size <= last.size) return earlier
  }
  refuse(why)
  return undefined
}

function headOf(checkpoint: Checkpoint): Head {
  return {
    ...checkpoint,
    check: 'witness',
    otherwise: `the first ${checkpoint.size} entries are not those that witnesses saw: history was rewritten, or this is a fork`,
  }
}

function counted(
  note: Note,
  { size }: Checkpoint,
  quorum: Quorum | undefined,
  refuse: (what: string) => void,
): Pick<Witnessed, 'told' | 'atMs'> {
  if (!quorum) return { told: null, atMs: undefined }
  const times = quorum.witnesses.flatMap((witness) => {
    const atS = timeOf(note, witness, refuse)
    return atS === undefined ? [] : [{ name: witness.name, atS }]
  })
  if (times.length < quorum.least)
    refuse(
      `${times.length} of the ${quorum.witnesses.length} witnesses have cosigned the checkpoint at ${size}; ${quorum.least} are asked for`,
    )
  const atMs = times.length === 0 ? undefined : 1000 * Math.max(...times.map(({ atS }) => atS))
  const by = times.map(({ name }) => name)
  return { told: atMs === undefined ? null : { size, by, at: new Date(atMs).toISOString() }, atMs }
}

function timeOf({ text, signatures }: Note, witness: NoteVerifier, refuse: (what: string) => void): number | undefined {
  try {
    return cosignedAt(text, signatures, witness)
  } catch (cause) {
    if (!(cause instanceof NoteRefused)) throw cause
    refuse(cause.message)
    return undefined
  }
}
