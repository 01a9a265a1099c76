/** The key that signs checkpoints, and the public half in the form that verifiers are given. */
import { createPrivateKey, createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, readIfThere, readOrCreate } from '../private-file.ts'
import { formatVerifier, type NoteVerifier, noteVerifier, parseVerifier } from './tree/note.ts'

/** Names in the directory of a log. */
export const keyFiles = {
  current: 'log.key',
  /** The key that a rotation under way is about to put in its place. */
  next: 'log.key.next',
  public: 'log.pub',
} as const

/**
 * The Ed25519 private key in `<dir>/log.key` (PKCS #8 PEM, 0600), made if absent, with `<dir>/log.pub` beside it: the verifier key
 * that an auditor copies away. Each log has its own; two logs with one key could be passed off as each other.
 * @throws {Error} when a file is not such a key, or `log.pub` names another origin or key: only `key-rotation.ts` changes the key.
 */
export async function loadLogKey(dir: string, origin: string): Promise<KeyObject> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  if (await readIfThere(join(dir, keyFiles.next)))
    throw new Error(
      `${dir}: a change of the log's key was cut short. Run "keyless log rotate-key" again: it ends what was begun.`,
    )
  const key = await loadKey(join(dir, keyFiles.current))
  await publishVerifier(join(dir, keyFiles.public), noteVerifier(origin, createPublicKey(key)))
  return key
}

/** The Ed25519 private key in the file, made if absent. @throws {Error} when the file is none. */
export async function loadKey(path: string): Promise<KeyObject> {
  const pem = await readOrCreate(path, () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
  )
  return parseKey(path, pem)
}

async function publishVerifier(path: string, verifier: NoteVerifier): Promise<void> {
  const text = formatVerifier(verifier)
  const present = (await readIfThere(path))?.toString('utf8').trim()
  if (present === undefined) await createOnce(path, `${text}\n`, 0o644)
  else if (present !== text) throw new Error(changed(path, present, verifier))
}

function changed(path: string, present: string, verifier: NoteVerifier): string {
  const there = parseVerifier(present)
  const what = there.name === verifier.name ? 'another key (was log.key replaced?)' : `the log "${there.name}"`
  return `${path} is for ${what}; this gateway would sign as "${verifier.name}". Keep audit.origin and log.key as they were, or start a new log in an empty directory.`
}

function parseKey(path: string, pem: Buffer): KeyObject {
  let key: KeyObject
  try {
    key = createPrivateKey(pem)
  } catch (cause) {
    throw new Error(`${path} is not a private key in PEM form. Restore it from a backup.`, { cause })
  }
  if (key.asymmetricKeyType === 'ed25519') return key
  throw new Error(`${path} holds a key of type ${key.asymmetricKeyType}; it must be Ed25519.`)
}
