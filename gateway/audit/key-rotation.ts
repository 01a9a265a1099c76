/**
 * Gives a log a new key, while no gateway writes it. The old key signs the entry that names the new one, and nothing after that; whoever
 * holds the old `log.pub` can follow (`handover.ts`). Cut short at any step it is ended by being run again, and no gateway starts meanwhile.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { readIfThere, replace, syncDirectory } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import { publish } from './anchor.ts'
import { draftFrom } from './canonical.ts'
import type { Entry } from './entries/entry.ts'
import { openForAppending, realDisk } from './files/disk.ts'
import { entryAt } from './files/follow.ts'
import { type HandoverFile, handoverName, KEY_ROTATED, LAST_WORDS } from './files/handover.ts'
import { takeLock } from './files/lock.ts'
import { openReader } from './files/reader.ts'
import { recover } from './files/recovery.ts'
import { keyFiles, loadKey } from './key.ts'
import { files } from './lines.ts'
import { openLog } from './log.ts'
import { checkpointSigner, openCheckpoint } from './tree/checkpoint.ts'
import { formatVerifier, NoteRefused, type NoteVerifier, noteVerifier, parseVerifier } from './tree/note.ts'
import { openHashes } from './tree/proofs.ts'

export interface RotatedKey {
  /** Verifier key that `log.pub` holds now. */
  readonly key: string
  /** Entries that are signed by the old key. */
  readonly size: number
  /** File that shows holders of the old key the way, in the directory of the log. */
  readonly file: string
}

interface Change {
  readonly dir: string
  readonly clock: Clock
  readonly old: KeyObject
  readonly next: KeyObject
  readonly before: NoteVerifier
  readonly after: NoteVerifier
}

/** @throws {Error} when there is no log in `dir`, another process writes it, or it cannot be written. */
export async function rotateKey(dir: string, clock: Clock): Promise<RotatedKey> {
  const origin = parseVerifier((await readFile(join(dir, keyFiles.public), 'utf8')).trim()).name
  // Before a key is made: a key that waits for its change lets no gateway start, also the one that runs now.
  takeLock(join(dir, files.lock), 'a gateway writes this log. Stop it, and then change the key').release()
  const [old, next] = [await loadKey(join(dir, keyFiles.current)), await loadKey(join(dir, keyFiles.next))]
  const [before, after] = [old, next].map((key) => noteVerifier(origin, createPublicKey(key))) as [
    NoteVerifier,
    NoteVerifier,
  ]
  const change = { dir, clock, old, next, before, after }
  let rotated: RotatedKey | undefined
  if (await announced(change)) {
    const lock = takeLock(join(dir, files.lock))
    rotated = await settle(change).finally(() => lock.release())
  } else {
    const whenClosed = async () => {
      rotated = await settle(change)
    }
    const log = await openLog({ dir, origin, key: old, durability: 'fsync', clock, whenClosed })
    const facts = { old_key: formatVerifier(before), new_key: formatVerifier(after) }
    await log.append(draftFrom({ kind: KEY_ROTATED, log: origin, facts }))
    await log.close()
  }
  if (!rotated) throw new Error(`${dir}: the log's key was not changed.`)
  return rotated
}

/** The entry that hands over to the new key, if it is among the last of the log. */
async function announced({ dir, after }: Change): Promise<Entry | undefined> {
  const reader = await openReader(dir)
  let found: Entry | undefined
  for await (const entry of reader.tail(LAST_WORDS))
    if (entry.kind === KEY_ROTATED && entry.facts?.new_key === formatVerifier(after)) found = entry
  await reader.close()
  return found
}

/** With the log locked, and the entry in it. The new private key takes its place last: until then all of this can be run again. */
async function settle(change: Change): Promise<RotatedKey> {
  const { dir, after } = change
  const size = (await sizeSignedBy(dir, after)) ?? (await handOver(change))
  await rename(join(dir, keyFiles.next), join(dir, keyFiles.current))
  await syncDirectory(dir)
  return { key: formatVerifier(after), size, file: handoverName(size) }
}

async function sizeSignedBy(dir: string, verifier: NoteVerifier): Promise<number | undefined> {
  try {
    return openCheckpoint((await readIfThere(join(dir, files.checkpoint))) ?? Buffer.alloc(0), verifier).size
  } catch (cause) {
    if (!(cause instanceof NoteRefused)) throw cause
    return undefined
  }
}

async function handOver(change: Change): Promise<number> {
  const { dir, clock, old, next, before, after } = change
  const file = await openForAppending(join(dir, files.entries), 'fsync')
  try {
    const { anchor } = await recover({ dir, verifier: before, file, nowMs: clock.nowMs() })
    const { size } = anchor.frontier
    const entry = await announced(change)
    if (!entry) throw new Error(`${dir}: the entry that names the new key is not in the log. Run this again.`)
    const origin = before.name
    const checkpoint = await publish(dir, anchor, { sign: checkpointSigner(origin, old), disk: realDisk })
    const handover = await handoverOf(dir, { old_key: formatVerifier(before), checkpoint, seq: entry.seq }, size)
    await replace(join(dir, handoverName(size)), `${JSON.stringify(handover)}\n`, 0o644)
    await replace(join(dir, keyFiles.public), `${formatVerifier(after)}\n`, 0o644)
    await publish(dir, anchor, { sign: checkpointSigner(origin, next), disk: realDisk })
    return size
  } finally {
    await file.close()
  }
}

async function handoverOf(
  dir: string,
  known: Pick<HandoverFile, 'old_key' | 'checkpoint' | 'seq'>,
  size: number,
): Promise<HandoverFile> {
  const hashes = await openHashes(dir)
  try {
    const proof = await hashes.inclusionProof(known.seq, size)
    const entry = (await entryAt(dir, known.seq))?.toString('utf8') ?? ''
    return { ...known, entry, proof: proof.map((hash) => hash.toString('base64')) }
  } finally {
    await hashes.close()
  }
}
