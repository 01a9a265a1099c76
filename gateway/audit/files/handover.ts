/**
 * How the key of a log changes hands, so that whoever holds an old `log.pub` can follow: for each change a file with the old key, the last
 * checkpoint signed by it, the entry that names the new key, and the proof that this entry is in that checkpoint.
 *
 * The rule: a key speaks for the log up to the size of that checkpoint and not beyond. The first entry `log.key_rotated` that names a
 * key as the old one ends it: at most the `log.sealed` behind that entry is signed by it as well. So whoever steals an old key can sign
 * nothing later: neither a checkpoint of a larger size nor another successor.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { parseEntry } from '../entries/entry.ts'
import { type Checkpoint, openCheckpoint } from '../tree/checkpoint.ts'
import { leafHash, verifyInclusion } from '../tree/merkle.ts'
import { formatVerifier, NoteRefused, type NoteVerifier, parseVerifier } from '../tree/note.ts'

export const KEY_ROTATED = 'log.key_rotated'

/** Entries that the old key signs from the one that ends it: that entry, and `log.sealed`. */
export const LAST_WORDS = 2

/** `key-rotation-<size>.json` */
export interface HandoverFile {
  /** Verifier key, as it stood in `log.pub`. */
  readonly old_key: string
  /** Signed note. */
  readonly checkpoint: string
  /** Number and text of the entry. */
  readonly seq: number
  readonly entry: string
  /** Base64 hashes, from the leaf up. */
  readonly proof: readonly string[]
}

/** One change of the key, proven. */
export interface Handover {
  readonly old: NoteVerifier
  readonly next: NoteVerifier
  /** Number of the entry `log.key_rotated`. */
  readonly seq: number
  /** The last one of the old key: what the old key says of a larger size is forged. */
  readonly checkpoint: Checkpoint
}

const NAME = /^key-rotation-\d{12,}\.json$/

export function handoverName(size: number): string {
  return `key-rotation-${String(size).padStart(12, '0')}.json`
}

/**
 * From a key that is trusted to the one that speaks for the log now, by the files in its directory. Without a change it is the same key.
 * The roots of the handovers' checkpoints are for the caller to compare with the log's tree.
 * @throws {NoteRefused} when a change of that key does not prove itself.
 */
export async function followKeys(
  dir: string,
  trusted: NoteVerifier,
): Promise<{ readonly current: NoteVerifier; readonly handovers: readonly Handover[] }> {
  const files = await readHandovers(dir)
  const handovers: Handover[] = []
  let current = trusted
  for (;;) {
    const mine = files.filter(({ old_key }) => old_key === formatVerifier(current))
    // The first entry that ends a key counts: a thief of the key could write a second one.
    const first = mine.sort((a, b) => a.seq - b.seq)[0]
    if (!first) return { current, handovers }
    const handover = proven(first, current)
    if (handover.seq <= (handovers.at(-1)?.seq ?? -1)) throw refused(first, 'it is not later than the one before')
    handovers.push(handover)
    current = handover.next
  }
}

/** The other way: the changes that led to this key, the last one first, as far as the files in its directory prove them. */
export async function ledTo(dir: string, current: NoteVerifier): Promise<readonly Handover[]> {
  const all = (await readHandovers(dir)).flatMap((file) => {
    try {
      return proven(file, parseVerifier(file.old_key))
    } catch (cause) {
      if (!(cause instanceof NoteRefused)) throw cause
      return []
    }
  })
  const found: Handover[] = []
  for (let key = current; ; ) {
    const last = all.find((one) => formatVerifier(one.next) === formatVerifier(key) && !found.includes(one))
    if (!last) return found
    found.push(last)
    key = last.old
  }
}

async function readHandovers(dir: string): Promise<HandoverFile[]> {
  const names = (await readdir(dir)).filter((name) => NAME.test(name))
  return Promise.all(
    names.map(async (name) => {
      try {
        return JSON.parse(await readFile(join(dir, name), 'utf8')) as HandoverFile
      } catch (cause) {
        throw new NoteRefused(`${name} cannot be read`, { cause })
      }
    }),
  )
}

function proven(file: HandoverFile, old: NoteVerifier): Handover {
  const checkpoint = openCheckpoint(Buffer.from(String(file.checkpoint)), old)
  const bytes = Buffer.from(String(file.entry))
  const entry = parseEntry(bytes)
  const { size, root } = checkpoint
  const proof = Array.isArray(file.proof) ? file.proof.map((hash) => Buffer.from(String(hash), 'base64')) : []
  if (entry?.seq !== file.seq || !verifyInclusion(leafHash(bytes), { index: file.seq, size }, proof, root))
    throw refused(file, 'its entry is not in its checkpoint')
  const isEnd = entry.kind === KEY_ROTATED && entry.log === old.name && entry.facts?.old_key === file.old_key
  if (!isEnd || size > file.seq + LAST_WORDS) throw refused(file, 'its entry does not end that key')
  const next = parseVerifier(String(entry.facts?.new_key))
  if (next.name !== old.name) throw refused(file, 'its new key is of another log')
  return { old, next, seq: file.seq, checkpoint }
}

function refused({ seq }: HandoverFile, why: string): NoteRefused {
  return new NoteRefused(`the change of the log's key at entry ${Number(seq)} is not proven: ${why}`)
}
