/**
 * C2SP signed notes: a text and the lines of those who signed it. Which keys count, and what they must sign, is for whoever
 * opens a note: `checkpoint.ts` for logs, `cosignature.ts` for witnesses. Knows nothing of files.
 */
import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'

/** A public key under the name that its signature lines carry. */
export interface NoteVerifier {
  readonly name: string
  /** First four bytes of SHA-256(name, LF, type, key). */
  readonly keyId: Buffer
  readonly publicKey: KeyObject
}

export interface SignatureLine {
  readonly name: string
  readonly keyId: Buffer
  readonly signature: Buffer
}

export interface Note {
  /** What is signed, with its final line feed. */
  readonly text: string
  readonly signatures: readonly SignatureLine[]
}

/** Why a note is not believed. */
export class NoteRefused extends Error {
  override readonly name = 'NoteRefused'
}

/** Signature types of C2SP signed-note that are used here. */
const ED25519 = 0x01
export const COSIGNATURE = 0x04

const MAX_NOTE_BYTES = 1024 * 1024
const MAX_SIGNATURES = 100

export function noteVerifier(name: string, publicKey: KeyObject, type = ED25519): NoteVerifier {
  if (!isKeyName(name))
    throw new NoteRefused(`"${name}" cannot name a log or witness: it must not be empty, nor hold spaces or "+"`)
  return { name, keyId: keyIdOf(name, type, rawKey(publicKey)), publicKey }
}

/** The text form that verifiers are given: `name+keyid+base64(type || key)`, as Go's sumdb and the C2SP tools read it. */
export function formatVerifier(verifier: NoteVerifier, type = ED25519): string {
  const key = Buffer.concat([Buffer.of(type), rawKey(verifier.publicKey)])
  return `${verifier.name}+${verifier.keyId.toString('hex')}+${key.toString('base64')}`
}

/** @throws {NoteRefused} when the text is not an Ed25519 verifier key, or its id does not belong to the key. */
export function parseVerifier(text: string): NoteVerifier {
  const { type, verifier } = parseTypedVerifier(text)
  if (type !== ED25519) throw new NoteRefused('the verifier key is not an Ed25519 key')
  return verifier
}

/** Of either type. @throws {NoteRefused} */
export function parseTypedVerifier(text: string): { readonly type: number; readonly verifier: NoteVerifier } {
  const parts = /^([^+\s]+)\+([0-9a-f]{8})\+([A-Za-z0-9+/]+={0,2})$/u.exec(text)
  if (!parts) throw new NoteRefused('a verifier key reads name+keyid+key, as in the file log.pub')
  const [, name = '', id = '', encoded = ''] = parts
  const key = strictBase64(encoded)
  const type = key?.[0]
  if (key?.length !== 33 || (type !== ED25519 && type !== COSIGNATURE))
    throw new NoteRefused('the verifier key is not an Ed25519 key')
  const jwk = { kty: 'OKP', crv: 'Ed25519', x: key.subarray(1).toString('base64url') }
  const verifier = noteVerifier(name, createPublicKey({ key: jwk, format: 'jwk' }), type)
  if (verifier.keyId.toString('hex') !== id)
    throw new NoteRefused('the id in the verifier key does not belong to its name and key')
  return { type, verifier }
}

/** A note signed by one Ed25519 key. @param text ends with a line feed. */
export function signNote(text: string, verifier: NoteVerifier, key: KeyObject): string {
  return `${text}\n${signatureLine(verifier, sign(null, Buffer.from(text), key))}`
}

export function signatureLine({ name, keyId }: Pick<NoteVerifier, 'name' | 'keyId'>, signature: Buffer): string {
  return `— ${name} ${Buffer.concat([keyId, signature]).toString('base64')}\n`
}

/**
 * The text, if `verifier` has signed it. Signatures of other keys are ignored; a failing one of this key refuses the note, even
 * if another line of it would pass.
 * @throws {NoteRefused}
 */
export function openNote(note: Uint8Array, verifier: NoteVerifier): string {
  const { text, signatures } = parseNote(note)
  const own = linesOf(signatures, verifier)
  if (own.length === 0)
    throw new NoteRefused(`the checkpoint is not signed by ${verifier.name} (key ${verifier.keyId.toString('hex')})`)
  for (const line of own) {
    if (!verify(null, Buffer.from(text), verifier.publicKey, line.signature))
      throw new NoteRefused(`the signature of ${verifier.name} on the checkpoint is wrong`)
  }
  return text
}

/** Lines that claim to be of this key. Name and id together name it. */
export function linesOf(signatures: readonly SignatureLine[], { name, keyId }: NoteVerifier): SignatureLine[] {
  return signatures.filter((line) => line.name === name && line.keyId.equals(keyId))
}

/** Form only: nothing is verified. @throws {NoteRefused} */
export function parseNote(note: Uint8Array): Note {
  if (note.length > MAX_NOTE_BYTES) throw new NoteRefused('the checkpoint is larger than 1 MiB')
  // C2SP signed-note: no character below U+0020 but the line feed. In UTF-8 such a byte is nothing else.
  if (note.some((byte) => byte < 0x20 && byte !== 0x0a))
    throw new NoteRefused('the checkpoint holds control characters')
  const whole = decodeUtf8(note)
  // The text may hold empty lines; the last one ends it.
  const gap = whole.lastIndexOf('\n\n')
  if (gap < 0 || !whole.endsWith('\n')) throw new NoteRefused('the checkpoint is not a signed note')
  return { text: whole.slice(0, gap + 1), signatures: parseSignatures(whole.slice(gap + 2)) }
}

/** Signature lines, each with its line feed: the end of a note, or what a witness answers. @throws {NoteRefused} */
export function parseSignatures(text: string): SignatureLine[] {
  const lines = text.split('\n')
  if (lines.pop() !== '') throw new NoteRefused('the last signature line does not end')
  if (lines.length > MAX_SIGNATURES) throw new NoteRefused(`the checkpoint has more than ${MAX_SIGNATURES} signatures`)
  return lines.map(parseSignature)
}

function parseSignature(line: string): SignatureLine {
  const parts = /^— (\S+) (\S+)$/u.exec(line)
  const bytes = strictBase64(parts?.[2] ?? '')
  const name = parts?.[1] ?? ''
  if (!bytes || bytes.length < 5 || !isKeyName(name))
    throw new NoteRefused('the checkpoint has a malformed signature line')
  return { name, keyId: bytes.subarray(0, 4), signature: bytes.subarray(4) }
}

function keyIdOf(name: string, type: number, key: Buffer): Buffer {
  return hash('sha256', Buffer.concat([Buffer.from(`${name}\n`), Buffer.of(type), key]), 'buffer').subarray(0, 4)
}

function rawKey(publicKey: KeyObject): Buffer {
  const { crv, x } = publicKey.export({ format: 'jwk' })
  if (crv !== 'Ed25519' || x === undefined) throw new NoteRefused('the key of a log or witness must be an Ed25519 key')
  return Buffer.from(x, 'base64url')
}

function isKeyName(name: string): boolean {
  return name !== '' && !/[\s+]/u.test(name)
}

/** RFC 4648 §4 with padding and nothing else: two texts for one value would be two notes for one checkpoint. */
export function strictBase64(text: string): Buffer | undefined {
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
