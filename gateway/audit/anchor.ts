/** The last signed head, and a place in the log that it is signed at. The checkpoint is replaced whole. */
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import type { Disk } from './files/disk.ts'
import { files } from './lines.ts'
import { type Checkpoint, type CheckpointSigner, openCheckpoint } from './tree/checkpoint.ts'
import type { Frontier } from './tree/merkle.ts'
import type { NoteVerifier } from './tree/note.ts'

/** A place in the log up to which everything is known. */
export interface Anchor {
  readonly frontier: Frontier
  /** First entry of the segment that is being written. */
  readonly segment: number
  /** Bytes of that segment that the frontier covers. */
  readonly offset: number
  /** Latest time in those entries, milliseconds since the epoch. */
  readonly latestMs: number
}

/** Sign and publish. @returns the signed note. */
export async function publish(
  dir: string,
  { frontier }: Anchor,
  by: { sign: CheckpointSigner; disk: Disk },
): Promise<string> {
  const note = by.sign({ size: frontier.size, root: frontier.root() })
  await by.disk.replace(join(dir, files.checkpoint), note)
  return note
}

/**
 * The published checkpoint, or undefined if there is none.
 * @throws {NoteRefused} when it is not this log's.
 */
export async function readCheckpoint(dir: string, verifier: NoteVerifier): Promise<Checkpoint | undefined> {
  const note = await readIfThere(join(dir, files.checkpoint))
  return note && openCheckpoint(note, verifier)
}
