/**
 * Compact JWS (RFC 7515) with the two algorithms of grants and attestations (RFC 9864: fully specified names). A text has one
 * reading: canonical base64url, no JSON key twice. Nothing in it chooses how it is verified; callers bring key and algorithm. Pure.
 */
import { createPublicKey, hash, type KeyObject, sign, verify } from 'node:crypto'
import { parseStrictJson } from '../../protocol/strict-json.ts'

export type Algorithm = 'Ed25519' | 'ES256'

export interface Jws {
  /** The attacker's until the signature has been checked; so is `payload`. */
  readonly header: Readonly<Record<string, unknown>>
  readonly payload: Readonly<Record<string, unknown>>
  /** What is signed: header and payload as they stand in the text. */
  readonly input: string
  readonly signature: Buffer
}

/** Why a text is no JWS of ours. `isEncoding`: its bytes are not the canonical ones for what they mean. */
export class JwsError extends Error {
  readonly isEncoding: boolean

  constructor(message: string, isEncoding = false) {
    super(message)
    this.isEncoding = isEncoding
  }
}

/** @param limit characters. @throws {JwsError} */
export function readJws(text: string, limit: number): Jws {
  const parts = text.split('.', 4)
  if (parts.length !== 3) throw new JwsError(`it has not 3 parts, as a signed grant has`)
  const read = readInput(inputOf(text), limit - (parts[2] as string).length)
  return { ...read, signature: decode(parts[2] as string) }
}

/** Header and payload without the signature. @throws {JwsError} */
export function readInput(input: string, limit: number): Omit<Jws, 'signature'> {
  if (input.length > limit) throw new JwsError(`it is longer than ${limit} characters`)
  const [head, body, ...more] = input.split('.', 3)
  if (body === undefined || more.length > 0) throw new JwsError('it has not a header and a payload')
  return {
    header: readObject(decode(head as string).toString('utf8'), 'header'),
    payload: readObject(decode(body).toString('utf8'), 'payload'),
    input,
  }
}

/** The algorithm follows from the key, never from the text; the text must have named the same. */
export function isSignedBy(jws: Jws, key: KeyObject): boolean {
  const input = Buffer.from(jws.input)
  const algorithm = algorithmOf(key)
  if (jws.header.alg !== algorithm) return false
  if (algorithm === 'Ed25519') return verify(null, input, key, jws.signature)
  return verify('sha256', input, { key, dsaEncoding: 'ieee-p1363' }, jws.signature)
}

/**
 * Whether what was signed are the same values in other bytes: those that `signJws` writes. Only to say what is wrong with a text
 * whose signature does not verify.
 */
export function isReencoded(jws: Jws, key: KeyObject): boolean {
  return isSignedBy({ ...jws, input: signingInput(jws.header, jws.payload) }, key)
}

/** @param key private, Ed25519 or P-256; it decides `alg`. */
export function signJws(header: Readonly<Record<string, unknown>>, claims: object, key: KeyObject): string {
  const alg = algorithmOf(key)
  const input = signingInput({ ...header, alg }, claims)
  const signature =
    alg === 'Ed25519'
      ? sign(null, Buffer.from(input), key)
      : sign('sha256', Buffer.from(input), { key, dsaEncoding: 'ieee-p1363' })
  return `${input}.${signature.toString('base64url')}`
}

/** What is signed (RFC 7515 §5.1), in the one way in which we write it. */
export function signingInput(header: object, claims: object): string {
  return `${encode(header)}.${encode(claims)}`
}

/** @throws {TypeError} for a key that neither algorithm is for. */
export function algorithmOf(key: KeyObject): Algorithm {
  if (key.asymmetricKeyType === 'ed25519') return 'Ed25519'
  if (key.asymmetricKeyType === 'ec' && key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return 'ES256'
  throw new TypeError('a key for grants and attestations is Ed25519 or P-256')
}

/** base64url SHA-256 of a text: what `par_hash`, `prh` and `lin` hold. */
export function hashOf(text: string): string {
  return hash('sha256', text, 'base64url')
}

/** Header and payload of a compact JWS, whose hash its children name. */
export function inputOf(text: string): string {
  return text.slice(0, text.lastIndexOf('.'))
}

/** RFC 7638 §3.2, RFC 8037 §2: the required members of the public key in lexicographic order. */
export function thumbprintOf(key: KeyObject): string {
  return hashOf(JSON.stringify(publicJwk(key)))
}

/** Public members only, in the order of RFC 7638. */
export function publicJwk(key: KeyObject): Readonly<Record<string, string>> {
  const { crv, kty, x, y } = key.export({ format: 'jwk' }) as Record<string, string>
  const members = { crv, kty, x, ...(algorithmOf(key) === 'ES256' && { y }) }
  return members as Record<string, string>
}

const JWK_MEMBERS: Readonly<Record<string, readonly string[]>> = {
  Ed25519: ['crv', 'kty', 'x'],
  'P-256': ['crv', 'kty', 'x', 'y'],
}

/**
 * The public key that a header brings along. Whether it may speak is for the caller, by its thumbprint.
 * @throws {JwsError} for any member besides the required ones: `d` would be a private key, `alg` or `key_ops` a second opinion.
 */
export function keyOf(jwk: unknown): KeyObject {
  const members = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as Record<string, unknown>
  const names = JWK_MEMBERS[String(members.crv)]
  const isExact = names !== undefined && Object.keys(members).sort().join() === names.join()
  if (!isExact || !names.every((name) => typeof members[name] === 'string')) {
    throw new JwsError('its key is not a public JWK of Ed25519 or P-256 with exactly the required members')
  }
  try {
    const key = createPublicKey({ key: members as Record<string, string>, format: 'jwk' })
    // A second spelling of the same key would have a second thumbprint.
    if (JSON.stringify(publicJwk(key)) === JSON.stringify(members, names as string[])) return key
  } catch {
    // Said below: not a point on the curve, or not of its length.
  }
  throw new JwsError('its key is not a public JWK of Ed25519 or P-256 in its one spelling')
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url')
}

/** base64url in its one canonical form: the last character of a signature has bits that a lax decoder drops. */
function decode(part: string): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (part !== '' && bytes.toString('base64url') === part) return bytes
  throw new JwsError('it is not base64url', true)
}

function readObject(text: string, part: string): Record<string, unknown> {
  let value: unknown
  try {
    value = parseStrictJson(text)
  } catch {
    throw new JwsError(`its ${part} is not JSON that everybody reads alike`)
  }
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw new JwsError(`its ${part} is not a JSON object`)
}
