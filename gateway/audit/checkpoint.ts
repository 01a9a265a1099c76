/**
 * Signed checkpoints: C2SP tlog-checkpoint inside a C2SP signed-note, Ed25519. What an outsider needs to hold the log to what
 * it once said. Knows nothing of files.
 */
import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'

export interface Checkpoint {
  readonly origin: string
  /** Number of entries covered. */
  readonly size: number
  /** RFC 9162 root over the first `size` entries. */
  readonly root: Buffer
}

/** A public key under the name that its signature lines carry. */
export interface NoteVerifier {
  readonly name: string
  /** First four bytes of SHA-256(name, LF, 0x01, key). */
  readonly keyId: Buffer
  readonly publicKey: KeyObject
}

/** Why a note is not believed. */
export class NoteRefused extends Error {
  override readonly name = 'NoteRefused'
}

const ED25519 = 0x01
const MAX_NOTE_BYTES = 1024 * 1024
const MAX_SIGNATURES = 100

export function noteVerifier(name: string, publicKey: KeyObject): NoteVerifier {
  if (!isKeyName(name))
    throw new NoteRefused(`"${name}" cannot name a log: it must not be empty, nor hold spaces or "+"`)
  return { name, keyId: keyIdOf(name, rawKey(publicKey)), publicKey }
}

/** The text form that verifiers are given: `name+keyid+base64(0x01 || key)`, as Go's sumdb and the C2SP tools read it. */
export function formatVerifier(verifier: NoteVerifier): string {
  const key = Buffer.concat([Buffer.of(ED25519), rawKey(verifier.publicKey)])
  return `${verifier.name}+${verifier.keyId.toString('hex')}+${key.toString('base64')}`
}

/** @throws {NoteRefused} when the text is not an Ed25519 verifier key, or its id does not belong to the key. */
export function parseVerifier(text: string): NoteVerifier {
  const parts = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/u.exec(text)
  if (!parts) throw new NoteRefused('a verifier key reads name+keyid+key, as in the file log.pub')
  const [, name = '', id = '', encoded = ''] = parts
  const key = strictBase64(encoded)
  if (key?.[0] !== ED25519 || key.length !== 33) throw new NoteRefused('the verifier key is not an Ed25519 key')
  const raw = key.subarray(1)
  if (keyIdOf(name, raw).toString('hex') !== id)
    throw new NoteRefused('the id in the verifier key does not belong to its name and key')
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: raw.toString('base64url') }
  return noteVerifier(name, createPublicKey({ key: jwk, format: 'jwk' }))
}

export type CheckpointSigner = (checkpoint: Omit<Checkpoint, 'origin'>) => string

/** Makes notes for the log `origin`. `key` is its Ed25519 private key; the key is named by the origin. */
export function checkpointSigner(origin: string, key: KeyObject): CheckpointSigner {
  const { name, keyId } = noteVerifier(origin, createPublicKey(key))
  return ({ size, root }) => {
    const text = `${origin}\n${size}\n${root.toString('base64')}\n`
    const signature = Buffer.concat([keyId, sign(null, Buffer.from(text), key)])
    return `${text}\n— ${name} ${signature.toString('base64')}\n`
  }
}

/**
 * Read a checkpoint that `verifier` has signed. Signatures of other keys are ignored; a failing one of this key refuses the
 * note, even if another line of it would pass.
 * @throws {NoteRefused}
 */
export function openCheckpoint(note: Uint8Array, verifier: NoteVerifier): Checkpoint {
  const { text, signatures } = parseNote(note)
  const own = signatures.filter((line) => line.name === verifier.name && line.keyId.equals(verifier.keyId))
  if (own.length === 0)
    throw new NoteRefused(`the checkpoint is not signed by ${verifier.name} (key ${verifier.keyId.toString('hex')})`)
  const body = Buffer.from(text)
  for (const line of own) {
    if (!verify(null, body, verifier.publicKey, line.signature))
      throw new NoteRefused(`the signature of ${verifier.name} on the checkpoint is wrong`)
  }
  const checkpoint = parseBody(text)
  if (checkpoint.origin !== verifier.name)
    throw new NoteRefused(`the checkpoint is of the log "${checkpoint.origin}", the key of "${verifier.name}"`)
  return checkpoint
}

interface SignatureLine {
  readonly name: string
  readonly keyId: Buffer
  readonly signature: Buffer
}

function parseNote(note: Uint8Array): { text: string; signatures: SignatureLine[] } {
  if (note.length > MAX_NOTE_BYTES) throw new NoteRefused('the checkpoint is larger than 1 MiB')
  const whole = decodeUtf8(note)
  // C2SP signed-note: no character below U+0020 but the line feed.
  if ([...whole].some((character) => character < ' ' && character !== '\n'))
    throw new NoteRefused('the checkpoint holds control characters')
  // The text may hold empty lines; the last one ends it.
  const gap = whole.lastIndexOf('\n\n')
  if (gap < 0 || !whole.endsWith('\n')) throw new NoteRefused('the checkpoint is not a signed note')
  const lines = whole.slice(gap + 2, -1).split('\n')
  if (lines.length > MAX_SIGNATURES) throw new NoteRefused(`the checkpoint has more than ${MAX_SIGNATURES} signatures`)
  return { text: whole.slice(0, gap + 1), signatures: lines.map(parseSignature) }
}

function parseSignature(line: string): SignatureLine {
  const parts = /^— (\S+) (\S+)$/u.exec(line)
  const bytes = strictBase64(parts?.[2] ?? '')
  const name = parts?.[1] ?? ''
  if (!bytes || bytes.length < 5 || !isKeyName(name))
    throw new NoteRefused('the checkpoint has a malformed signature line')
  return { name, keyId: bytes.subarray(0, 4), signature: bytes.subarray(4) }
}

function parseBody(text: string): Checkpoint {
  const [origin = '', size = '', root = '', ...extensions] = text.slice(0, -1).split('\n')
  const hashed = strictBase64(root)
  const isComplete =
    origin !== '' && /^(0|[1-9][0-9]{0,15})$/.test(size) && Number.isSafeInteger(Number(size)) && hashed?.length === 32
  if (!isComplete || !hashed || extensions.includes(''))
    throw new NoteRefused('the checkpoint does not have the three lines origin, size, root')
  return { origin, size: Number(size), root: hashed }
}

function keyIdOf(name: string, key: Buffer): Buffer {
  return hash('sha256', Buffer.concat([Buffer.from(`${name}\n`), Buffer.of(ED25519), key]), 'buffer').subarray(0, 4)
}

function rawKey(publicKey: KeyObject): Buffer {
  const { crv, x } = publicKey.export({ format: 'jwk' })
  if (crv !== 'Ed25519' || x === undefined) throw new NoteRefused('the key of a log must be an Ed25519 key')
  return Buffer.from(x, 'base64url')
}

function isKeyName(name: string): boolean {
  return name !== '' && !/[\s+]/u.test(name)
}

/** RFC 4648 §4 with padding and nothing else: two texts for one value would be two notes for one checkpoint. */
function strictBase64(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64')
  return text !== '' && bytes.toString('base64') === text ? bytes : undefined
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes)
  } catch (cause) {
    throw new NoteRefused('the checkpoint is not UTF-8', { cause })
  }
}
