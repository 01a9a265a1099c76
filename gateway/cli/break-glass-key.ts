/**
 * A custodian's private key as a file: an encrypted JWK (RFC 7517 §7), opened by a passphrase alone. No gateway ever sees it.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { CompactEncrypt, compactDecrypt, errors } from 'jose'
import { createOnce } from '../private-file.ts'

/** Guessing a passphrase costs this many hashes a try, a quarter of a second or so (OWASP asks for 210,000 of SHA-512). */
const ITERATIONS = 600_000
const LEAST_PASSPHRASE = 12

/** Make a key and write it to a new file, 0600. @returns the public half: `x`, as settings name it. */
export async function makeCustodianKey(file: string, passphrase: string): Promise<string> {
  if (/[\r\n]/.test(passphrase)) throw new Error('The passphrase has more than one line; write it once, on one.')
  const { length } = [...passphrase]
  if (length < LEAST_PASSPHRASE)
    throw new Error(`The passphrase has ${length} characters; take at least ${LEAST_PASSPHRASE}, such as five words.`)
  const { privateKey } = generateKeyPairSync('ed25519')
  const jwk = privateKey.export({ format: 'jwk' })
  const text = await new CompactEncrypt(Buffer.from(JSON.stringify(jwk)))
    .setProtectedHeader({ alg: 'PBES2-HS512+A256KW', enc: 'A256GCM', cty: 'jwk+json' })
    .setKeyManagementParameters({ p2c: ITERATIONS })
    .encrypt(Buffer.from(passphrase.normalize('NFKC')))
  await createOnce(file, `${text}\n`)
  if ((await readFile(file, 'utf8')) !== `${text}\n`)
    throw new Error(`${file} is there already. Name another file: a key that is in use is not written over.`)
  return String(jwk.x)
}

/** @throws {Error} when the file is no such key, or the passphrase is another. */
export async function openCustodianKey(file: string, passphrase: string): Promise<KeyObject> {
  const text = (await readFile(file, 'utf8')).trim()
  try {
    const { plaintext } = await compactDecrypt(text, Buffer.from(passphrase.normalize('NFKC')), {
      keyManagementAlgorithms: ['PBES2-HS512+A256KW'],
      contentEncryptionAlgorithms: ['A256GCM'],
      maxPBES2Count: ITERATIONS,
    })
    const key = createPrivateKey({ key: JSON.parse(Buffer.from(plaintext).toString('utf8')), format: 'jwk' })
    if (key.asymmetricKeyType === 'ed25519') return key
  } catch (cause) {
    if (cause instanceof errors.JWEDecryptionFailed)
      throw new Error(`The passphrase does not open ${file}. Nothing was signed.`, { cause })
    if (!(cause instanceof errors.JOSEError)) throw cause
  }
  throw new Error(`${file} holds no key of \`keyless break-glass keygen\`.`)
}
