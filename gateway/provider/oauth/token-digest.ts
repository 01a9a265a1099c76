/** Tokens that others show to this gateway: only their digests leave this file, and a digest is all that comparing needs. */
import { hash } from 'node:crypto'
import type { ReadSecret, SecretReference } from '../reference.ts'

/** Characters. A shorter one could be guessed over the network. */
const MIN_CHARS = 20

/**
 * SHA-256 of the token that a reference names: 32 bytes.
 * @throws {GatewayError} when the reference cannot be read. @throws {Error} when what is there is too short, or no token of RFC 6750 §2.1.
 */
export async function readTokenDigest(reference: SecretReference, readSecret: ReadSecret): Promise<Buffer> {
  const token = (await readSecret(reference)).reveal()
  if (token.length < MIN_CHARS)
    throw new Error(
      `the token has ${token.length} characters, needed are ${MIN_CHARS}. Make one with "openssl rand -base64 32".`,
    )
  if (!/^[A-Za-z0-9._~+/-]+=*$/.test(token))
    throw new Error(
      'the token has characters that no bearer token has (RFC 6750). Make one with "openssl rand -base64 32".',
    )
  return hash('sha256', token, 'buffer')
}
