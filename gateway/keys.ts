/**
 * The gateway's own keys on disk: the grant-signing key and the key that seals leases. Replicas that stand behind one address
 * share this directory; an embedded gateway makes it on first start. Files are 0600 in a 0700 directory.
 */
import {
  createPrivateKey,
  createSecretKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { join } from 'node:path'
import { makePrivate, readOrCreate } from './private-file.ts'

export interface Keys {
  /** Ed25519, signs grants. */
  readonly grant: KeyObject
  /** 32 bytes, seals leases. */
  readonly lease: KeyObject
  /** Keys the hashes of low-entropy values in the log, so that they can be compared and not guessed. */
  readonly record: KeyObject
}

/** Read the keys in `dir`, making those that are absent. Two processes that start at once end up with the same keys. */
export async function loadKeys(dir: string): Promise<Keys> {
  await makePrivate(dir)
  const grant = await readOrCreate(join(dir, 'grant.key'), () =>
    generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' }),
  )
  const lease = await readOrCreate(join(dir, 'lease.key'), () => randomBytes(32))
  if (lease.length !== 32)
    throw new Error(
      `${join(dir, 'lease.key')} has ${lease.length} bytes; it must have 32. Restore it from a backup, or remove it to make a new one.`,
    )
  const record = Buffer.from(hkdfSync('sha256', lease, Buffer.alloc(0), 'keyless record values', 32))
  return {
    grant: signingKey(grant, join(dir, 'grant.key')),
    lease: createSecretKey(lease),
    record: createSecretKey(record),
  }
}

function signingKey(pem: Buffer, path: string): KeyObject {
  let key: KeyObject | undefined
  try {
    key = createPrivateKey(pem)
  } catch {
    // Said below; OpenSSL's own words help nobody.
  }
  if (key?.asymmetricKeyType === 'ed25519') return key
  throw new Error(
    `${path} holds no Ed25519 private key in PEM. Restore it from a backup, or remove it to make a new one; grants signed with the old one then end.`,
  )
}
