/**
 * Cosignatures of witnesses: C2SP tlog-cosignature `cosignature/v1`, Ed25519 with a time. One says: this is the largest tree
 * of this log that I have seen by then, and all that I saw before are its beginnings.
 */
import { createPublicKey, type KeyObject, sign, verify } from 'node:crypto'
import {
  COSIGNATURE,
  formatVerifier,
  linesOf,
  NoteRefused,
  type NoteVerifier,
  noteVerifier,
  parseTypedVerifier,
  type SignatureLine,
  signatureLine,
} from '../tree/note.ts'

export interface Cosigner {
  readonly verifier: NoteVerifier
  /** One signature line, with its line feed. @param text of a checkpoint. @param timestampS epoch seconds. */
  cosign(text: string, timestampS: number): string
}

/** @param name by preference a URL without scheme. @param key Ed25519 private key, used for nothing else. */
export function cosigner(name: string, key: KeyObject): Cosigner {
  const verifier = noteVerifier(name, createPublicKey(key), COSIGNATURE)
  return {
    verifier,
    cosign(text, timestampS) {
      const time = Buffer.alloc(8)
      time.writeBigUInt64BE(BigInt(timestampS))
      return signatureLine(verifier, Buffer.concat([time, sign(null, message(text, timestampS), key)]))
    },
  }
}

/**
 * The verifier key of a witness. Some publish their key with the type of plain notes (0x01); it is the same key, and what it signs
 * is a cosignature all the same.
 * @throws {NoteRefused}
 */
export function parseWitnessKey(text: string): NoteVerifier {
  const { type, verifier } = parseTypedVerifier(text)
  return type === COSIGNATURE ? verifier : noteVerifier(verifier.name, verifier.publicKey, COSIGNATURE)
}

export function formatWitnessKey(verifier: NoteVerifier): string {
  return formatVerifier(verifier, COSIGNATURE)
}

/**
 * When the witness cosigned `text`, epoch seconds; undefined if it has not. Of several lines the latest counts, and all must be right.
 * @throws {NoteRefused} when a line of its key is wrong.
 */
export function cosignedAt(
  text: string,
  signatures: readonly SignatureLine[],
  witness: NoteVerifier,
): number | undefined {
  let latest: number | undefined
  for (const { signature } of linesOf(signatures, witness)) {
    const time = signature.length === 72 ? signature.readBigUInt64BE(0) : undefined
    const isRight =
      time !== undefined &&
      time <= BigInt(Number.MAX_SAFE_INTEGER) &&
      verify(null, message(text, Number(time)), witness.publicKey, signature.subarray(8))
    if (!isRight) throw new NoteRefused(`the cosignature of ${witness.name} on the checkpoint is wrong`)
    latest = Math.max(latest ?? 0, Number(time))
  }
  return latest
}

function message(text: string, timestampS: number): Buffer {
  return Buffer.from(`cosignature/v1\ntime ${timestampS}\n${text}`)
}
