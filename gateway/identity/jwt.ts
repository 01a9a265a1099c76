/**
 * Tokens that others signed (RFC 7515 compact, RFC 7519 claims), read by the rules of RFC 8725: nothing in a token chooses how
 * it is verified. What a kind of token is, its own file says; here is what all have in common.
 */
import type { KeyObject } from 'node:crypto'
import { compactVerify } from 'jose'
import type { Clock } from '../protocol/clock.ts'
import { parseStrictJson } from '../protocol/strict-json.ts'
import { isRecord, type KeySet, keyFailure } from './key-set.ts'
import { type Refuse, shown } from './refuse.ts'

const TOKEN_LIMIT = 16 * 1024

/** Read, and not yet believed: every member is the presenter's until `verifyJwt` has returned. */
export interface Jwt {
  readonly token: string
  readonly header: Claims
  readonly claims: Claims
}

export type Claims = Readonly<Record<string, unknown>>

export interface JwtRules {
  /** Accepted `typ`, lower case without `application/`; undefined stands for none. RFC 8725 §3.11: one class, one type. */
  readonly typ: readonly (string | undefined)[]
  /** Header members besides `alg`, `kid` and `typ` that say nothing about verification. */
  readonly inert?: readonly string[]
  readonly algorithms: readonly string[]
  /** Exact `iss`; undefined: it must be absent. */
  readonly issuer: string | undefined
  readonly audience: readonly string[]
  /** One audience, so that no other recipient can present the token here; `all`: several, each of which is ours. */
  readonly audiences: 'one' | 'all'
  readonly skewS: number
  readonly maxLifetimeS: number
  /** Whether `iat` may be absent; then the life is counted from now. */
  readonly isIssuedAtOptional?: boolean
}

export interface JwtTools {
  readonly keys: KeySet
  readonly clock: Clock
  readonly refuse: Refuse
}

/** RFC 8725 §3.11 for tokens that are just JWTs. */
export const PLAIN_JWT: readonly (string | undefined)[] = [undefined, 'jwt']
/** Thumbprints of the signing certificate that identity providers add; nothing here looks at them. */
export const INERT_HEADERS: readonly string[] = ['x5t', 'x5t#S256']

/** A row of settings about one issuer, as far as all kinds of token have it in common. */
interface IssuerRow {
  readonly algorithms: readonly string[]
  readonly issuer?: string | undefined
  readonly audience: readonly string[]
  readonly clock_skew_s: number
  readonly max_lifetime_s: number
}

export function rulesOf(row: IssuerRow): Omit<JwtRules, 'typ'> {
  const { algorithms, issuer, audience, clock_skew_s: skewS, max_lifetime_s: maxLifetimeS } = row
  return { algorithms, issuer, audience, audiences: 'one', skewS, maxLifetimeS }
}

/** Split and parse, in one way only. */
export function readJwt(token: string, refuse: Refuse): Jwt {
  if (token.length > TOKEN_LIMIT) throw refuse(`it is longer than ${TOKEN_LIMIT} characters`)
  const parts = token.split('.')
  const [head, body, signature] = parts
  if (parts.length !== 3 || head === undefined || body === undefined || signature === undefined)
    throw refuse(`it has ${parts.length} parts, where a compact JWS has 3`)
  decode(signature, refuse)
  return { token, header: parse(head, refuse), claims: parse(body, refuse) }
}

/** @returns the epoch second at which the token is void. Claims may be believed from then on, and not earlier. */
export async function verifyJwt(jwt: Jwt, rules: JwtRules, { keys, clock, refuse }: JwtTools): Promise<number> {
  const { alg, kid } = checkHeader(jwt.header, rules, refuse)
  // Before the signature, because it is cheap: an expired token costs its presenter more than us.
  const expiresAt = checkClaims(jwt.claims, rules, Math.floor(clock.nowMs() / 1000), refuse)
  let key: KeyObject | undefined
  try {
    key = await keys.find(kid, alg)
  } catch (cause) {
    throw refuse(`the keys of its issuer cannot be had (${keyFailure(cause)}); try again later`, cause)
  }
  if (key === undefined)
    throw refuse(`its issuer publishes no ${alg} key ${kid === undefined ? 'of its own' : shown(kid)}`)
  await checkSignature(jwt, key, refuse)
  return expiresAt
}

/** @param key already held against `alg` of the header (`canMake`). */
export async function checkSignature(jwt: Jwt, key: KeyObject, refuse: Refuse): Promise<void> {
  try {
    await compactVerify(jwt.token, key, { algorithms: [String(jwt.header.alg)] })
  } catch (cause) {
    throw refuse('its signature does not verify', cause)
  }
}

/** Every member of the header is one of those known: `crit`, `jku`, `x5u`, `jwk`, `x5c`, `b64`, `zip` are refused as strangers. */
export function checkHeader(
  header: Claims,
  rules: Pick<JwtRules, 'typ' | 'algorithms' | 'inert'>,
  refuse: Refuse,
): { readonly alg: string; readonly kid: string | undefined } {
  const { alg, kid, typ } = header
  const known = ['alg', 'kid', 'typ', ...(rules.inert ?? [])]
  const stranger = Object.keys(header).find((member) => !known.includes(member))
  if (stranger !== undefined) throw refuse(`its header has ${shown(stranger)}; only ${known.join(', ')} are understood`)
  // RFC 7515 §4.1.9: compared without regard to case, and `application/` may be left out.
  const type = typeof typ === 'string' ? typ.toLowerCase().replace(/^application\//, '') : typ
  if (!rules.typ.includes(type as string | undefined))
    throw refuse(`its type is ${shown(typ)}, not ${rules.typ.map((name) => name ?? 'none').join(' or ')}`)
  if (typeof alg !== 'string' || !rules.algorithms.includes(alg))
    throw refuse(`its algorithm is ${shown(alg)}; accepted here: ${rules.algorithms.join(', ')}`)
  if (kid !== undefined && typeof kid !== 'string') throw refuse('its kid is not a string')
  return { alg, kid }
}

function checkClaims(claims: Claims, rules: JwtRules, nowS: number, refuse: Refuse): number {
  if (claims.iss !== rules.issuer) throw refuse(`its issuer is ${shown(claims.iss)}, not ${shown(rules.issuer)}`)
  const audience = typeof claims.aud === 'string' ? [claims.aud] : claims.aud
  if (!Array.isArray(audience) || audience.length === 0) throw refuse('it names no audience')
  const foreign = audience.find((name) => !rules.audience.includes(name))
  if (foreign !== undefined) throw refuse(`its audience is ${shown(foreign)}, not ${rules.audience.join(' or ')}`)
  if (rules.audiences === 'one' && audience.length > 1) throw refuse('it names several audiences; ask for one of them')
  // RFC 7800: a token bound to a key is no bearer token, and no proof of that key comes with it here.
  if (claims.cnf !== undefined) throw refuse('it is bound to a key (cnf), whose proof cannot be presented here')
  return checkTimes(claims, rules, nowS, refuse)
}

/** The instant at which a token is over, its clock's error included, is the first at which it is refused. */
export function checkTimes(
  claims: Claims,
  rules: Pick<JwtRules, 'skewS' | 'maxLifetimeS' | 'isIssuedAtOptional'>,
  nowS: number,
  refuse: Refuse,
): number {
  const { skewS, maxLifetimeS } = rules
  const [exp, nbf, iat] = (['exp', 'nbf', 'iat'] as const).map((name) => instant(claims, name, refuse))
  if (exp === undefined) throw refuse('it never expires (no exp)')
  if (exp + skewS <= nowS) throw refuse(`it expired ${nowS - exp} s ago`)
  if (nbf !== undefined && nbf - skewS > nowS) throw refuse(`it is valid only in ${nbf - nowS} s`)
  if (iat === undefined && rules.isIssuedAtOptional !== true)
    throw refuse('it does not say when it was issued (no iat)')
  if (iat !== undefined && iat - skewS > nowS) throw refuse(`it was issued ${iat - nowS} s from now`)
  const lifetimeS = exp - (iat ?? nowS + skewS)
  if (lifetimeS > maxLifetimeS) throw refuse(`it lives ${lifetimeS} s, longer than the ${maxLifetimeS} s accepted here`)
  return exp
}

function instant(claims: Claims, name: string, refuse: Refuse): number | undefined {
  const value = claims[name]
  if (value === undefined) return undefined
  // RFC 7519 §2 allows fractions; no issuer means more than the second.
  if (typeof value === 'number' && Number.isFinite(value) && value >= 0 && value < 2 ** 40) return Math.floor(value)
  throw refuse(`its ${name} is not a time in seconds`)
}

/** A claim that must be a text of 1 to `max` characters without control characters. */
export function textOf(claims: Claims, name: string, refuse: Refuse, max = 255): string {
  const value = claims[name]
  if (typeof value === 'string' && value.length > 0 && value.length <= max && !/\p{Cc}/u.test(value)) return value
  throw refuse(`its ${name} is not a text of 1 to ${max} characters`)
}

function parse(part: string, refuse: Refuse): Claims {
  let value: unknown
  try {
    value = parseStrictJson(decode(part, refuse).toString('utf8'))
  } catch (cause) {
    if (!(cause instanceof SyntaxError)) throw cause
    throw refuse('it is not JSON that can be read in one way only', cause)
  }
  if (isRecord(value)) return value
  throw refuse('its header or claims are not an object')
}

/** base64url in its one canonical form: the last character of a part has bits that a lax decoder drops. */
function decode(part: string, refuse: Refuse): Buffer {
  const bytes = Buffer.from(part, 'base64url')
  if (bytes.length === 0 || bytes.toString('base64url') !== part) throw refuse('it is not base64url')
  return bytes
}
