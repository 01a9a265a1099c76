/**
 * The last signed head and what is needed to go on from it: frontier, offset, leaf hashes. `checkpoint` is for the world;
 * `frontier.json` carries the same note with the peaks, so that a start reads only what came later. Both are replaced whole.
 */
import { stat } from 'node:fs/promises'
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
  /** Bytes of the entries file that the frontier covers. */
  readonly offset: number
  /** Latest time in those entries, milliseconds since the epoch. */
  readonly latestMs: number
}

export const origin: Anchor = { frontier: new Frontier(), offset: 0, latestMs: 0 }

/**
 * Sign and publish. The frontier goes first and is not synced: if it is lost or torn, the next start reads the whole log.
 * A crash between the two leaves the older checkpoint, which the newer head is consistent with.
 */
export async function publish(dir: string, anchor: Anchor, by: { sign: CheckpointSigner; disk: Disk }): Promise<void> {
  const { frontier, offset, latestMs } = anchor
  const note = by.sign({ size: frontier.size, root: frontier.root() })
  const peaks = frontier.peaks.map((peak) => peak.toString('base64'))
  const state = `${JSON.stringify({ v: 1, checkpoint: note, offset, latestMs, peaks })}\n`
  await by.disk.replace(join(dir, files.frontier), state, { isDurable: false })
  await by.disk.replace(join(dir, files.checkpoint), note, { isDurable: true })
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
    return isSound ? { anchor: { frontier, offset: state.offset, latestMs: state.latestMs }, head } : undefined
  } catch {
    return undefined
  }
}

export async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return 0
    throw cause
  }
}
