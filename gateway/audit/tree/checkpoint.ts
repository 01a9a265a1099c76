/**
 * Checkpoints: C2SP tlog-checkpoint, the text of a signed note. What an outsider needs to hold the log to what it once said.
 * Knows nothing of files.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { NoteRefused, type NoteVerifier, noteVerifier, openNote, signNote, strictBase64 } from './note.ts'

export interface Checkpoint {
  readonly origin: string
  /** Number of entries covered. */
  readonly size: number
  /** RFC 9162 root over the first `size` entries. */
  readonly root: Buffer
}

export type CheckpointSigner = (checkpoint: Omit<Checkpoint, 'origin'>) => string

/** Makes notes for the log `origin`. `key` is its Ed25519 private key; the key is named by the origin. */
export function checkpointSigner(origin: string, key: KeyObject): CheckpointSigner {
  const verifier = noteVerifier(origin, createPublicKey(key))
  return ({ size, root }) => signNote(`${origin}\n${size}\n${root.toString('base64')}\n`, verifier, key)
}

/**
 * Read a checkpoint that `verifier` has signed, as `openNote` does; its origin must be the name of the key.
 * @throws {NoteRefused}
 */
export function openCheckpoint(note: Uint8Array, verifier: NoteVerifier): Checkpoint {
  const checkpoint = parseCheckpoint(openNote(note, verifier))
  if (checkpoint.origin !== verifier.name)
    throw new NoteRefused(`the checkpoint is of the log "${checkpoint.origin}", the key of "${verifier.name}"`)
  return checkpoint
}

/** @param text of a note; says nothing of who signed it. @throws {NoteRefused} */
export function parseCheckpoint(text: string): Checkpoint {
  const [origin = '', size = '', root = '', ...extensions] = text.slice(0, -1).split('\n')
  const count = parseSize(size)
  const hashed = strictBase64(root)
  if (origin === '' || count === undefined || hashed?.length !== 32 || extensions.includes(''))
    throw new NoteRefused('the checkpoint does not have the three lines origin, size, root')
  return { origin, size: count, root: hashed }
}

/** A tree size as C2SP writes it: decimal, no leading zeroes; undefined for anything else. */
export function parseSize(text: string): number | undefined {
  const size = /^(0|[1-9][0-9]{0,15})$/.test(text) ? Number(text) : Number.NaN
  return Number.isSafeInteger(size) ? size : undefined
}
