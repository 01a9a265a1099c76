/**
 * The public keys of one issuer, from a URL or a file that settings name. What it owns: when to ask again. Strangers choose
 * the `kid` of a token, so how often an issuer is asked does not depend on what they send (standards.md E).
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'

export type GuardedFetch = typeof globalThis.fetch

/** How long a set is used without asking again. A key that its issuer withdraws is refused after this at the latest. */
const FRESH_MS = 600_000
/** Between two questions because of a `kid` that is not in the set. */
const COOLDOWN_MS = 30_000
/** Between two attempts at an issuer that does not answer. */
const RETRY_MS = 5_000
/** How long an old set serves while its issuer does not answer. */
const STALE_MS = 3_600_000
const TIMEOUT_MS = 5_000
/** Tokens that wait for one issuer's answer: half of what the token endpoint works on at once, so that the rest go on. */
const MAX_WAITING = 64
const MAX_BYTES = 512 * 1024
const MAX_KEYS = 64

export interface PublicKey {
  readonly kid: string | undefined
  /** What the key is restricted to; undefined: any algorithm of its type. */
  readonly alg: string | undefined
  readonly key: KeyObject
}

export interface KeySet {
  /**
   * The one key for `kid` (undefined: the only key there is) that can have made a signature of this algorithm.
   * @throws when the keys cannot be had and those known are too old.
   */
  find(kid: string | undefined, alg: string): Promise<KeyObject | undefined>
}

export interface KeySetOptions {
  /** The text of the set as it is now: `download` or `readKeys`. */
  readonly load: () => Promise<string>
  /** `use` (RFC 7517 §4.2) that a key must have: SPIFFE bundles demand it, others may leave `sig` out. */
  readonly use: 'sig' | 'jwt-svid'
  readonly clock: Clock
}

/** State: what is held, when it was last asked for, the question that is out now (written only by `ask()`), and who waits for it. */
export function createKeySet(o: KeySetOptions): KeySet {
  let held: { readonly keys: readonly PublicKey[]; readonly atMs: number } | undefined
  let asked: { readonly atMs: number; readonly failure?: unknown } | undefined
  let flight: Promise<void> | undefined
  let waiting = 0

  const ageOf = (event: { atMs: number } | undefined) =>
    event === undefined ? Number.POSITIVE_INFINITY : o.clock.elapsedMs() - event.atMs

  async function ask(): Promise<void> {
    try {
      held = { keys: parseKeys(await o.load(), o.use), atMs: o.clock.elapsedMs() }
      asked = { atMs: o.clock.elapsedMs() }
    } catch (failure) {
      asked = { atMs: o.clock.elapsedMs(), failure }
    } finally {
      flight = undefined
    }
  }

  /** One question at a time, whoever wants it. */
  function refresh(): Promise<void> {
    flight ??= ask()
    return flight
  }

  async function waitFor(answered: Promise<void>): Promise<void> {
    if (waiting >= MAX_WAITING) throw new Error('it takes its time to answer, and many wait for it already')
    waiting += 1
    await answered
    waiting -= 1
  }

  return {
    async find(kid, alg) {
      const isOld = ageOf(held) >= FRESH_MS
      const known = ageOf(held) < STALE_MS ? pick(held?.keys, kid, alg) : undefined
      if ((isOld || known === undefined) && ageOf(asked) >= (isOld ? RETRY_MS : COOLDOWN_MS)) {
        const answered = refresh()
        // While an issuer is silent, nobody whose key is known waits for it.
        const isUrgent = known === undefined || (asked?.failure === undefined && waiting < MAX_WAITING)
        if (isUrgent) await waitFor(answered)
      }
      if (ageOf(held) >= STALE_MS) throw asked?.failure ?? new Error('no keys')
      return pick(held?.keys, kid, alg)
    },
  }
}

function pick(keys: readonly PublicKey[] = [], kid: string | undefined, alg: string): KeyObject | undefined {
  // A key without a name, as in a PEM file, is meant only where there is no other.
  const named = (key: PublicKey) => key.kid === kid || (key.kid === undefined && keys.length === 1)
  const fitting = keys.filter(
    (key) => (kid === undefined || named(key)) && (key.alg ?? alg) === alg && canMake(key.key, alg),
  )
  return fitting.length === 1 ? fitting[0]?.key : undefined // two under one name: neither is meant for sure
}

const CURVES: Readonly<Record<string, string>> = { ES256: 'prime256v1', ES384: 'secp384r1', ES512: 'secp521r1' }

/** The type of the key decides, not the header: RSA never verifies as EC, and neither as HMAC (RFC 8725 §3.1). */
export function canMake(key: KeyObject, alg: string): boolean {
  switch (key.asymmetricKeyType) {
    case 'rsa':
      return /^[RP]S(?:256|384|512)$/.test(alg)
    case 'ec':
      return CURVES[alg] === key.asymmetricKeyDetails?.namedCurve
    case 'ed25519':
      return alg === 'Ed25519'
    default:
      return false
  }
}

/** @param uri out of settings; never out of a token. */
export function download(uri: string, fetch: GuardedFetch): () => Promise<string> {
  return async () => {
    const answer = await fetch(uri, {
      headers: { accept: 'application/jwk-set+json, application/json' },
      redirect: 'error',
      signal: AbortSignal.timeout(TIMEOUT_MS),
    })
    if (answer.status !== 200) throw new Error(`it answered ${answer.status}`)
    return bounded(Buffer.from(await answer.arrayBuffer()))
  }
}

/** A file may be replaced while the gateway runs: whoever rotates keys rewrites it. */
export function readKeys(file: string): () => Promise<string> {
  return async () => bounded(await readFile(file))
}

function bounded(bytes: Buffer): string {
  if (bytes.byteLength > MAX_BYTES) throw new Error(`its key set is larger than ${MAX_BYTES} bytes`)
  return bytes.toString('utf8')
}

/**
 * Usable keys of a PEM file, a JWK or a JWK Set. Keys of other uses and types are passed over, as RFC 7517 §5 wants.
 * @throws {Error} for what is none of them, or a set of more than 64 keys.
 */
export function parseKeys(text: string, use: KeySetOptions['use']): readonly PublicKey[] {
  if (text.trimStart().startsWith('-----BEGIN')) return [{ kid: undefined, alg: undefined, key: fromPem(text) }]
  let value: unknown
  try {
    value = parseStrictJson(text)
  } catch (cause) {
    throw new Error('it does not hold JSON', { cause })
  }
  const set = isRecord(value) && Array.isArray(value.keys) ? value.keys : [value]
  if (set.length > MAX_KEYS) throw new Error(`its key set has ${set.length} keys, more than ${MAX_KEYS}`)
  if (!set.every(isRecord)) throw new Error('it does not hold a JWK Set')
  return set.flatMap((jwk) => usableKey(jwk, use) ?? [])
}

function fromPem(text: string): KeyObject {
  if (/PRIVATE KEY/.test(text)) throw new Error('it holds a private key, where the public one belongs')
  const key = createPublicKey(text)
  if (!isStrong(key)) throw new Error('its key is not RSA (2048 to 4096 bits), P-256, P-384, P-521 or Ed25519')
  return key
}

function usableKey(jwk: Readonly<Record<string, unknown>>, use: KeySetOptions['use']): PublicKey | undefined {
  const { kid, alg, kty, crv, key_ops: operations } = jwk
  if (use === 'jwt-svid' ? jwk.use !== use : (jwk.use ?? use) !== use) return undefined
  if (Array.isArray(operations) && !operations.includes('verify')) return undefined
  if (kid !== undefined && typeof kid !== 'string') return undefined
  const key = publicKeyOf(jwk)
  if (key === undefined) return undefined
  // RFC 9864: many sets still call Ed25519 by its old, ambiguous name.
  const own = alg === 'EdDSA' && kty === 'OKP' && crv === 'Ed25519' ? 'Ed25519' : alg
  return own === undefined || typeof own === 'string' ? { kid, alg: own, key } : undefined
}

const PRIVATE_MEMBERS = ['d', 'p', 'q', 'dp', 'dq', 'qi', 'oth', 'k']

/** A JWK as a verification key; undefined if it is private, symmetric, malformed, too weak or too large to verify cheaply. */
export function publicKeyOf(jwk: Readonly<Record<string, unknown>>): KeyObject | undefined {
  if (PRIVATE_MEMBERS.some((member) => Object.hasOwn(jwk, member))) return undefined
  const { kty, crv, x, y, n, e } = jwk
  try {
    const key = createPublicKey({ key: JSON.parse(JSON.stringify({ kty, crv, x, y, n, e })), format: 'jwk' })
    return isStrong(key) ? key : undefined
  } catch {
    return undefined
  }
}

function isStrong(key: KeyObject): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = key
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= 2048 && (details?.modulusLength ?? 0) <= 4096
  return type === 'ed25519' || Object.values(CURVES).includes(details?.namedCurve ?? '')
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** Why keys could not be had, in words for whoever presented a token; only coded errors say more than that. */
export function keyFailure(cause: unknown): string {
  if (cause instanceof GatewayError) return `${cause.code}: ${cause.detail.replace(/\.$/, '')}`
  return cause instanceof Error && !('code' in cause) ? cause.message : 'they cannot be read'
}
