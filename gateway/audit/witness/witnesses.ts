/** The witnesses of the log in one directory: what they are shown is read from its files, so nothing waits for them. */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { join } from 'node:path'
import { readIfThere, syncDirectory } from '../../private-file.ts'
import type { Clock } from '../../protocol/clock.ts'
import { files } from '../lines.ts'
import { checkpointSigner, openCheckpoint } from '../tree/checkpoint.ts'
import { EMPTY_ROOT } from '../tree/merkle.ts'
import { type NoteVerifier, noteVerifier, openNote } from '../tree/note.ts'
import { type Hashes, openHashes } from '../tree/proofs.ts'
import type { Head } from './call.ts'
import { parseWitnessKey } from './cosignature.ts'
import { openCosigned } from './witnessed.ts'
import { createWitnessing, HASHES_MISSING, type Witnessing, type WitnessNews } from './witnessing.ts'

export interface WitnessesOptions {
  /** Of the log. */
  readonly dir: string
  readonly origin: string
  /** Of the log. */
  readonly key: KeyObject
  /** Name → where it is, its verifier key, and CIDR ranges that its address may be in besides public ones. */
  readonly witnesses: Readonly<Record<string, WitnessAt>>
  readonly everyMs: number
  readonly fetchFor: (addresses: readonly string[]) => typeof globalThis.fetch
  readonly clock: Clock
  tell(news: WitnessNews): void
}

export interface WitnessAt {
  readonly url: string
  readonly key: string
  readonly addresses?: readonly string[] | undefined
}

/** @throws {Error} naming the setting when a key is none. */
export async function openWitnessing(o: WitnessesOptions): Promise<Witnessing> {
  const witnesses = Object.entries(o.witnesses).map(([name, { url, key, addresses = [] }]) => ({
    name,
    url: url.replace(/\/$/, ''),
    key: keyOf(name, key),
    send: o.fetchFor(addresses),
  }))
  const log = noteVerifier(o.origin, createPublicKey(o.key))
  const keys = witnesses.map(({ key }) => key)
  const cosigned = await openCosigned(o.dir, log, keys)
  return createWitnessing({ ...o, witnesses, cosigned, head: () => readHead(o) })
}

function keyOf(name: string, text: string): NoteVerifier {
  try {
    return parseWitnessKey(text)
  } catch (cause) {
    throw new Error(
      `audit.witnesses.${name}.key: ${(cause as Error).message}. Copy the whole line that "keyless witness key" prints there.`,
      { cause },
    )
  }
}

/** The newest signed head; of a log that does not exist yet, the empty one: a witness that knows more must be heard. */
async function readHead({ dir, origin, key }: WitnessesOptions): Promise<Head> {
  const stored = await readIfThere(join(dir, files.checkpoint))
  // Nothing is shown that a power cut could take back: the name of the file is synced last.
  await syncDirectory(dir)
  const note = stored ?? Buffer.from(checkpointSigner(origin, key)({ size: 0, root: EMPTY_ROOT }))
  const log = noteVerifier(origin, createPublicKey(key))
  const checkpoint = openCheckpoint(note, log)
  return {
    ...checkpoint,
    text: openNote(note, log),
    note: note.toString('utf8'),
    rootAt: (size) => withHashes(dir, checkpoint.size, (hashes) => hashes.root(size)),
    consistency: (size) => withHashes(dir, checkpoint.size, (hashes) => hashes.consistencyProof(size, checkpoint.size)),
  }
}

async function withHashes<T>(dir: string, size: number, use: (hashes: Hashes) => Promise<T>): Promise<T> {
  const hashes = await openHashes(dir)
  try {
    if (hashes.size < size) throw new Error(HASHES_MISSING)
    return await use(hashes)
  } finally {
    await hashes.close()
  }
}
