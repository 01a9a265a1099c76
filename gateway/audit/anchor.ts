/**
 * The last signed head and what is needed to go on from it: frontier, offset, leaf hashes. `checkpoint` is for the world;
 * `frontier.json` carries the same note with the peaks, so that a start reads only what came later. Both are replaced whole.
 */
import { join } from 'node:path'
import { readIfThere } from '../private-file.ts'
import { type Checkpoint, type CheckpointSigner, openCheckpoint } from './checkpoint.ts'
import type { Disk } from './disk.ts'
import { files } from './lines.ts'
import { Frontier } from './merkle.ts'
import type { NoteVerifier } from './note.ts'

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

/**
 * Sign and publish. The frontier goes first and is not synced: if it is lost or torn, the next start reads the whole log.
 * A crash between the two leaves the older checkpoint, which the newer head is consistent with.
 * @returns the signed note.
 */
export async function publish(
  dir: string,
  anchor: Anchor,
  by: { sign: CheckpointSigner; disk: Disk },
): Promise<string> {
  const { frontier, segment, offset, latestMs } = anchor
  const note = by.sign({ size: frontier.size, root: frontier.root() })
  const peaks = frontier.peaks.map((peak) => peak.toString('base64'))
  const state = `${JSON.stringify({ v: 1, checkpoint: note, segment, offset, latestMs, peaks })}\n`
  await by.disk.replace(join(dir, files.frontier), state, { isDurable: false })
  await by.disk.replace(join(dir, files.checkpoint), note, { isDurable: true })
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

/**
 * The anchor in `frontier.json`, if it is signed and its peaks hash to the signed root. It is a copy for speed: whatever is wrong
 * with it, the answer is undefined and the log itself is read.
 */
export async function readAnchor(
  dir: string,
  verifier: NoteVerifier,
): Promise<{ anchor: Anchor; head: Checkpoint } | undefined> {
  const bytes = await readIfThere(join(dir, files.frontier))
  if (!bytes) return undefined
  try {
    const state = JSON.parse(bytes.toString('utf8')) as {
      checkpoint: string
      segment?: number
      offset: number
      latestMs: number
      peaks: string[]
    }
    const head = openCheckpoint(Buffer.from(state.checkpoint), verifier)
    const frontier = new Frontier(
      head.size,
      state.peaks.map((peak) => Buffer.from(peak, 'base64')),
    )
    const isSound =
      frontier.root().equals(head.root) && Number.isSafeInteger(state.offset) && Number.isFinite(state.latestMs)
    const { segment = 0, offset, latestMs } = state
    return isSound ? { anchor: { frontier, segment, offset, latestMs }, head } : undefined
  } catch {
    return undefined
  }
}
