/**
 * A grant with everything that it takes to check it without the gateway: its own token, what was signed of every grant above it,
 * and the attestations. Each token names the hash of what was signed of its parent, so the newest one with the gateway's
 * signature vouches for all above it. Those come without their signatures: a complete token of a parent could be used.
 */
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { parseStrictJson } from '../../protocol/strict-json.ts'
import { ClaimError, exact, require } from '../members.ts'
import { MAX_HOPS } from './claims.ts'
import { hashOf, inputOf } from './jws.ts'
import type { TokenSeal } from './token.ts'

/** Characters of JSON (LG/1 §1.6 step 1). */
const BUNDLE_LIMIT = 256 * 1024

/** Spelled as on the wire. */
export interface Bundle {
  /** Compact JWS, signed by the gateway or offline by the parent's holder. As secret as the grant, until it expires. */
  readonly token: string
  /**
   * Root first, parent last: header and payload of what was signed, joined by a dot. With its signature only the newest one that
   * the gateway signed, when `token` was signed offline: it is bound to the key that signed below it, and useless without.
   */
  readonly ancestors: readonly string[]
  /** One per delegation, oldest first. */
  readonly actor_proofs: readonly string[]
}

/**
 * The bundle of a grant.
 * @param chain root first, the grant itself last.
 * @throws {GatewayError} `lineage_truncated` when something cannot be told any more: the key that signed it is gone, or never signed
 */
export function bundleOf(chain: readonly Grant[], seal: Pick<TokenSeal, 'signedAgain'>): Bundle {
  const anchor = chain.findLastIndex((grant) => offlineText(grant) === undefined)
  const texts = chain.map((grant, i) => {
    const offline = offlineText(grant)
    const signed = offline === undefined ? seal.signedAgain(grant) : { input: inputOf(offline), token: offline }
    const text = i === anchor || i === chain.length - 1 ? signed?.token : signed?.input
    if (text === undefined)
      throw broken('lineage_truncated', `what was signed of grant ${grant.id} cannot be told any more`)
    return text
  })
  const grant = chain.at(-1) as Grant
  return { token: texts.at(-1) as string, ancestors: texts.slice(0, -1), actor_proofs: grant.attestations }
}

/** The text of a grant that its parent's holder signed. */
function offlineText({ attestations, signedHash }: Grant): string | undefined {
  const newest = attestations.at(-1)
  return newest !== undefined && hashOf(inputOf(newest)) === signedHash ? newest : undefined
}

/** @throws {GatewayError} `grant_invalid` */
export function readBundle(text: string): Bundle {
  if (text.length > BUNDLE_LIMIT) throw broken('grant_invalid', `it is longer than ${BUNDLE_LIMIT} characters`)
  try {
    const bundle = exact(parseStrictJson(text), 'bundle', ['token', 'ancestors', 'actor_proofs'])
    require(typeof bundle.token === 'string' && isList(bundle.ancestors) && isList(bundle.actor_proofs), 'bundle')
    return bundle as unknown as Bundle
  } catch (cause) {
    if (cause instanceof ClaimError || cause instanceof SyntaxError)
      throw broken(
        'grant_invalid',
        'it is not a JSON object of token, ancestors and actor_proofs and nothing else',
        cause,
      )
    throw cause
  }
}

function isList(value: unknown): boolean {
  return Array.isArray(value) && value.length <= MAX_HOPS + 1 && value.every((entry) => typeof entry === 'string')
}

export function broken(code: ProblemCode, why: string, cause?: unknown): GatewayError {
  return new GatewayError(
    code,
    `The bundle does not verify: ${why}. Export it again from the gateway that issued the grant.`,
    {
      cause,
    },
  )
}
