/**
 * Proofs that leave the house: C2SP tlog-proof texts, each with one entry, its way to the root, and a signed checkpoint. Whoever has
 * the log's public key checks one offline, with any tool that knows the format.
 */
import { join } from 'node:path'
import { readIfThere } from '../../private-file.ts'
import { entryAt } from '../files/follow.ts'
import { keyFiles } from '../key.ts'
import { files } from '../lines.ts'
import { type Checkpoint, openCheckpoint } from '../tree/checkpoint.ts'
import { leafHash, verifyInclusion } from '../tree/merkle.ts'
import { NoteRefused, type NoteVerifier, parseNote, parseVerifier, strictBase64 } from '../tree/note.ts'
import { openHashes } from '../tree/proofs.ts'
import { cosignedAt } from '../witness/cosignature.ts'

export interface Proof {
  readonly index: number
  /** Bytes of the entry; undefined where only its hash is left, and then whoever checks must have them. */
  readonly entry: Buffer | undefined
  /** RFC 9162 §2.1.3, from the leaf's sibling up. */
  readonly path: readonly Buffer[]
  /** Signed note. */
  readonly checkpoint: string
}

export interface Proven {
  readonly index: number
  readonly entry: Buffer
  readonly checkpoint: Checkpoint
  /** Witnesses of those that were asked for who cosigned the checkpoint, and when (epoch seconds). */
  readonly witnesses: readonly { readonly name: string; readonly atS: number }[]
}

/** Why a proof proves nothing. */
export class ProofRefused extends Error {
  override readonly name = 'ProofRefused'
}

const HEADER = 'c2sp.org/tlog-proof@v1'
const HASH = /^[A-Za-z0-9+/]{43}=$/
/** An entry has at most 60 KiB, a path 53 hashes. */
const MAX_PROOF_BYTES = 1024 * 1024

/**
 * The proof of entry `seq`, under the newest checkpoint that witnesses cosigned if there is one, else under the newest.
 * @throws {Error} when the log has no such entry, it is not signed yet, or the stored hashes are damaged.
 */
export async function prove(dir: string, seq: number): Promise<string> {
  const checkpoint = await coveringNote(dir, seq)
  const { size, root } = unverified(checkpoint)
  const hashes = await openHashes(dir)
  try {
    const [leaf, path, entry] = [
      await hashes.leaf(seq),
      await hashes.inclusionProof(seq, size),
      await entryAt(dir, seq),
    ]
    const isSound = verifyInclusion(leaf, { index: seq, size }, path, root) && (!entry || leafHash(entry).equals(leaf))
    if (isSound) return formatProof({ index: seq, entry, path, checkpoint })
    throw new Error(`the stored hashes do not lead from entry ${seq} to the signed root. Run "keyless log verify"`)
  } finally {
    await hashes.close()
  }
}

export function formatProof({ index, entry, path, checkpoint }: Proof): string {
  const extra = entry ? `extra ${entry.toString('base64')}\n` : ''
  const hashes = path.map((hash) => `${hash.toString('base64')}\n`).join('')
  return `${HEADER}\n${extra}index ${index}\n${hashes}\n${checkpoint}`
}

/** Form only: nothing is verified. @throws {ProofRefused} */
export function parseProof(text: string): Proof {
  if (text.length > MAX_PROOF_BYTES) throw new ProofRefused('the proof is larger than 1 MiB')
  const gap = text.indexOf('\n\n')
  const lines = text.slice(0, Math.max(0, gap)).split('\n')
  if (lines.shift() !== HEADER) throw new ProofRefused(`the proof does not begin with ${HEADER}`)
  const extra = lines[0]?.startsWith('extra ') ? lines.shift()?.slice(6) : undefined
  const entry = extra === undefined ? undefined : strictBase64(extra)
  if (extra !== undefined && !entry) throw new ProofRefused('the extra data of the proof is not base64')
  const index = /^index (0|[1-9]\d{0,15})$/.exec(lines.shift() ?? '')?.[1]
  if (index === undefined || !Number.isSafeInteger(Number(index)))
    throw new ProofRefused('the proof does not say of which entry it is')
  const path = lines.map((line) => (HASH.test(line) ? strictBase64(line) : undefined))
  if (!path.every((hash) => hash !== undefined)) throw new ProofRefused('the proof holds a line that is no hash')
  return { index: Number(index), entry, path, checkpoint: text.slice(gap + 2) }
}

/**
 * Offline: the entry is in the log whose key this is.
 * @param o.entry bytes of the entry, if it is not in the proof or to be held against it. @param o.least witnesses that must have cosigned.
 * @throws {ProofRefused} saying why not.
 */
export function checkProof(
  text: string,
  o: { verifier: NoteVerifier; entry?: Buffer; witnesses?: readonly NoteVerifier[]; least?: number },
): Proven {
  const proof = parseProof(text)
  const { index, path } = proof
  if (o.entry && proof.entry && !o.entry.equals(proof.entry))
    throw new ProofRefused('the proof is of another entry than the one that was given')
  const entry = o.entry ?? proof.entry
  if (!entry) throw new ProofRefused('the entry is not in the proof, and must be given beside it')
  const checkpoint = believed(() => openCheckpoint(Buffer.from(proof.checkpoint), o.verifier))
  if (!verifyInclusion(leafHash(entry), { index, size: checkpoint.size }, path, checkpoint.root))
    throw new ProofRefused(`the entry is not number ${index} of the log that the checkpoint is of`)
  const witnesses = believed(() => cosigners(proof.checkpoint, o.witnesses ?? []))
  const least = o.least ?? o.witnesses?.length ?? 0
  if (witnesses.length < least)
    throw new ProofRefused(`${witnesses.length} of the witnesses have cosigned the checkpoint; ${least} are asked for`)
  return { index, entry, checkpoint, witnesses }
}

function cosigners(note: string, witnesses: readonly NoteVerifier[]): Proven['witnesses'] {
  const { text, signatures } = parseNote(Buffer.from(note))
  return witnesses.flatMap((witness) => {
    const atS = cosignedAt(text, signatures, witness)
    return atS === undefined ? [] : [{ name: witness.name, atS }]
  })
}

function believed<T>(read: () => T): T {
  try {
    return read()
  } catch (cause) {
    if (cause instanceof NoteRefused) throw new ProofRefused(cause.message, { cause })
    throw cause
  }
}

async function coveringNote(dir: string, seq: number): Promise<string> {
  const key = await readIfThere(join(dir, keyFiles.public))
  for (const name of [files.witnessed, files.checkpoint]) {
    const note = (await readIfThere(join(dir, name)))?.toString('utf8')
    // Whoever has the new key of a log could not check what was cosigned under the one before.
    const isOld = key && name === files.witnessed && !isSigned(note ?? '', parseVerifier(key.toString('utf8').trim()))
    if (note !== undefined && !isOld && unverified(note).size > seq) return note
  }
  throw new Error(`entry ${seq} is not in the log, or not signed yet: a checkpoint is written every 200 ms`)
}

function isSigned(note: string, verifier: NoteVerifier): boolean {
  try {
    return openCheckpoint(Buffer.from(note), verifier) !== undefined
  } catch {
    return false
  }
}

/** As the log's own files say it; `checkProof` is what believes only signatures. */
function unverified(note: string): Omit<Checkpoint, 'origin'> {
  const [, size, root = ''] = note.split('\n', 3)
  return { size: Number(size), root: Buffer.from(root, 'base64') }
}
