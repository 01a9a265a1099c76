/**
 * From what a token endpoint answered to a credential, or a refusal: the token must be of the kind that was asked for, for the place that
 * it was asked for, with no more scope, and end. What it says of itself is believed only where it says less than the answer.
 */
import { decodeJwt, type JWTPayload } from 'jose'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import type { Credential } from '../provider.ts'

/** Seconds assumed when the answer has no `expires_in` (RFC 6749 §5.1 only recommends it). */
const ASSUMED_LIFE_S = 300

/** An answer of a token endpoint (RFC 6749 §5.1, RFC 8693 §2.2.1) as far as it was understood. */
export interface TokenAnswer {
  readonly token: string
  /** Lower case. Undefined: the API has no such member. */
  readonly type: string | undefined
  readonly expiresInS: unknown
  readonly scope: string | undefined
  readonly issuedType?: string | undefined
}

export interface Expected {
  /** How messages call the server. */
  readonly server: string
  /** Epoch seconds before the request: time on the wire shortens the life and never lengthens it. */
  readonly askedAtS: number
  /** Undefined: the client's registered scope is what settings chose. */
  readonly scope: string | undefined
  /** One of these is in `aud`, where the token shows one. Empty: any. */
  readonly audience: readonly string[]
  /** The token is bound to this key (RFC 7638), and its type is DPoP. */
  readonly jkt?: string | undefined
  /** `issued_token_type` is one of these. Undefined: it does not matter. */
  readonly issuedTypes?: readonly string[] | undefined
}

/** @throws {GatewayError} `credential_rejected` for a token that cannot be used. Whether it is too wide is asked separately. */
export function tokenCredential(answer: TokenAnswer, expected: Expected): Credential {
  const { token, type, expiresInS = ASSUMED_LIFE_S, issuedType } = answer
  const { server, askedAtS, jkt, issuedTypes } = expected
  const wanted = jkt === undefined ? 'bearer' : 'dpop'
  if ((type ?? wanted) !== wanted)
    throw unusable(
      server,
      jkt === undefined
        ? 'its token_type is not Bearer'
        : 'its token_type is not DPoP: anybody could use it. Turn on DPoP for this client there',
    )
  if (issuedTypes !== undefined && (issuedType === undefined || !issuedTypes.includes(issuedType)))
    throw unusable(server, `its issued_token_type is not ${issuedTypes.join(' or ')}`)
  if (typeof expiresInS !== 'number' || !Number.isFinite(expiresInS) || expiresInS < 0)
    throw unusable(server, 'its expires_in is not a number of seconds')
  const shown = shownBy(token)
  checkShown(shown, expected)
  const expiresAt = askedAtS + Math.floor(Math.min(expiresInS, shownLifeS(shown, askedAtS)))
  // RFC 6749 §5.1: an answer without `scope` grants exactly what was asked.
  const scope = answer.scope ?? expected.scope
  return { secret: new Secret(token), expiresAt, ephemeral: true, ...(scope !== undefined && { scope }) }
}

/** Scope that was granted but not asked for. Nothing asked: the client's registered scope is what settings chose. */
export function excessScope(asked: string | undefined, granted: string | undefined): readonly string[] {
  if (asked === undefined || granted === undefined) return []
  const wanted = new Set(asked.split(' '))
  return granted.split(' ').filter((scope) => scope !== '' && !wanted.has(scope))
}

/** Most that are named; an issuer can say as much as it likes, and whoever reads refusals may be a model. */
const SHOWN_SCOPES = 3
const SCOPE_NAME = /^[\w.:/@*-]{1,80}$/

/** What an operator looks for, as far as it can be a name: no text of an issuer gets further. */
export function scopeWords(excess: readonly string[]): string {
  const names = excess.filter((scope) => SCOPE_NAME.test(scope)).slice(0, SHOWN_SCOPES)
  const more = excess.length - names.length
  return [...names, ...(more > 0 ? [`${names.length > 0 ? 'and ' : ''}${more} more`] : [])].join(' ')
}

/** Claims of a token that is a JWT. Nobody has verified them: they can only make us refuse. */
function shownBy(token: string): JWTPayload | undefined {
  try {
    return decodeJwt(token)
  } catch {
    return undefined // opaque, as most are
  }
}

/** Seconds that the token says it lives: from its own `iat`, because the issuer's clock is not ours. */
function shownLifeS(shown: JWTPayload | undefined, nowS: number): number {
  const { exp, iat } = shown ?? {}
  return typeof exp === 'number' ? exp - (typeof iat === 'number' ? iat : nowS) : Number.POSITIVE_INFINITY
}

function checkShown(shown: JWTPayload | undefined, { server, audience, jkt }: Expected): void {
  if (shown === undefined) return
  const given = [shown.aud ?? []].flat()
  if (audience.length > 0 && given.length > 0 && !audience.some((one) => given.includes(one)))
    throw unusable(server, 'it is for another audience than resource, audience or token_audience name')
  const bound = (shown.cnf as { readonly jkt?: unknown } | undefined)?.jkt
  if (bound !== undefined && bound !== jkt) throw unusable(server, 'it is bound to a key that is not ours')
}

export function unusable(server: string, why: string): GatewayError {
  return new GatewayError('credential_rejected', `The token from ${server} cannot be used: ${why}.`)
}
