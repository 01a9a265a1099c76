/**
 * Credentials at rest: AES-256-GCM with the lease key as associated data, so that a sealed value moved under another key does
 * not open. The only file of this room that reveals a secret.
 *
 * Layout: version (1 byte), nonce (12, random), tag (16), ciphertext. Random 96-bit nonces are safe for 2^32 values under one
 * key (NIST SP 800-38D §8.3), which at a thousand issues a second is seven weeks; each deployment has its own key.
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import { Secret } from '../protocol/secret.ts'

const VERSION = 3
const NONCE_BYTES = 12
const TAG_BYTES = 16
const HEAD_BYTES = 1 + NONCE_BYTES + TAG_BYTES

/** What another replica, or this one after a restart, needs in order to use a credential. */
export interface Sealable {
  readonly tenant: string
  /** Name of the credential in settings: which provider can revoke it. */
  readonly name: string
  /** `Provider.identity` of whoever issued it: it is shown to no other for revocation. */
  readonly identity: string
  /** Name of the service that it is for. */
  readonly service: string
  readonly secret: Secret
  readonly parts: Readonly<Record<string, Secret>> | undefined
  /** Epoch seconds; Infinity for a standing key. */
  readonly expiresAt: number
  readonly ephemeral: boolean
  readonly scope: string | undefined
  /** Milliseconds since the epoch: when it was issued. */
  readonly sinceMs: number
  /** Milliseconds since the epoch, see `Lifetime`. The cache's own expiry is never relied on. */
  readonly untilMs: number
  readonly renewAtMs: number
}

export interface Seal {
  seal(key: string, value: Sealable): Buffer
  /** @returns undefined for anything that was not sealed by this key for exactly this place: it counts as absent. */
  open(key: string, sealed: Buffer): Sealable | undefined
  /** The same of a text that is no credential and is nobody's business either. */
  sealText(place: string, text: string): Buffer
  openText(place: string, sealed: Buffer): string | undefined
  /** 16 bytes of HMAC-SHA-256, base64url: equal credentials can be found in the record, none can be guessed from it. */
  credentialId(secret: Secret): string
  /** Key for lease keys (key.ts). */
  readonly macKey: KeyObject
}

/** @param sealKey 32-byte secret key, shared by all replicas. One key per purpose is derived from it. */
export function createSeal(sealKey: KeyObject): Seal {
  if (sealKey.type !== 'secret' || sealKey.symmetricKeySize !== 32)
    throw new Error('the lease key is not a 32-byte secret key')
  const cipherKey = derive(sealKey, 'keyless lease seal v1')
  const idKey = derive(sealKey, 'keyless credential id v1')
  return {
    macKey: derive(sealKey, 'keyless lease key v1'),
    seal(key, value) {
      const plain = encode(value)
      const sealed = wrap(cipherKey, key, plain)
      plain.fill(0)
      return sealed
    },
    open: (key, sealed) => unwrap(cipherKey, key, sealed, decode),
    sealText: (place, text) => wrap(cipherKey, `text ${place}`, Buffer.from(text, 'utf8')),
    openText: (place, sealed) => unwrap(cipherKey, `text ${place}`, sealed, String),
    credentialId: (secret) =>
      createHmac('sha256', idKey).update(secret.reveal(), 'utf8').digest().subarray(0, 16).toString('base64url'),
  }
}

function wrap(cipherKey: KeyObject, place: string, plain: Buffer): Buffer {
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', cipherKey, nonce)
  cipher.setAAD(associated(place))
  const body = cipher.update(plain)
  cipher.final()
  return Buffer.concat([Buffer.of(VERSION), nonce, cipher.getAuthTag(), body])
}

function unwrap<T>(cipherKey: KeyObject, place: string, sealed: Buffer, read: (plain: Buffer) => T): T | undefined {
  if (sealed.length <= HEAD_BYTES || sealed[0] !== VERSION) return undefined
  const nonce = sealed.subarray(1, 1 + NONCE_BYTES)
  const decipher = createDecipheriv('aes-256-gcm', cipherKey, nonce, { authTagLength: TAG_BYTES })
  decipher.setAuthTag(sealed.subarray(1 + NONCE_BYTES, HEAD_BYTES))
  decipher.setAAD(associated(place))
  const plain = decipher.update(sealed.subarray(HEAD_BYTES))
  try {
    decipher.final()
    return read(plain)
  } catch {
    return undefined
  } finally {
    plain.fill(0)
  }
}

/** HMAC as a key derivation with a fixed label (NIST SP 800-108 §4.1, one block). */
function derive(sealKey: KeyObject, label: string): KeyObject {
  return createSecretKey(createHmac('sha256', sealKey).update(label).digest())
}

function associated(key: string): Buffer {
  return Buffer.from(`keyless lease v${VERSION}\0${key}`, 'utf8')
}

/** Parts of a credential in the clear. */
type Pairs = readonly (readonly [part: string, text: string])[]

function revealed(parts: Sealable['parts']): Pairs | null {
  return parts === undefined ? null : Object.entries(parts).map(([part, secret]) => [part, secret.reveal()])
}

/** JSON has no Infinity: null stands for it. */
function encode(value: Sealable): Buffer {
  const fields = [
    value.tenant,
    value.name,
    value.identity,
    value.service,
    value.secret.reveal(),
    Number.isFinite(value.expiresAt) ? value.expiresAt : null,
    value.ephemeral,
    value.scope ?? null,
    value.sinceMs,
    value.untilMs,
    Number.isFinite(value.renewAtMs) ? value.renewAtMs : null,
    revealed(value.parts),
  ]
  return Buffer.from(JSON.stringify(fields), 'utf8')
}

type SealedFields = [
  ...[tenant: string, name: string, identity: string, service: string, secret: string],
  ...[expiresAt: number | null, ephemeral: boolean, scope: string | null],
  ...[sinceMs: number, untilMs: number, renewAtMs: number | null, parts: Pairs | null],
]

/** Only what `encode` wrote under our key comes here: GCM has authenticated it. */
function decode(plain: Buffer): Sealable {
  const [tenant, name, identity, service, secret, expiresAt, ephemeral, scope, sinceMs, untilMs, renewAtMs, parts] =
    JSON.parse(plain.toString('utf8')) as SealedFields
  return {
    tenant,
    name,
    identity,
    service,
    secret: new Secret(secret),
    expiresAt: expiresAt ?? Number.POSITIVE_INFINITY,
    ephemeral,
    scope: scope ?? undefined,
    sinceMs,
    untilMs,
    renewAtMs: renewAtMs ?? Number.POSITIVE_INFINITY,
    parts: parts ? Object.fromEntries(parts.map(([part, text]) => [part, new Secret(text)])) : undefined,
  }
}
