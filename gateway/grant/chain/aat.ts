/**
 * Import of a delegation chain of another kind: Attenuating Authorization Tokens (draft-niyikiza-oauth-attenuating-agent-tokens),
 * an array of JWS, root first, under its invariants I1 to I6. What such a chain allows and a grant cannot say is refused, never
 * rounded. An import profile only: nothing here is ever issued.
 */
import type { KeyObject } from 'node:crypto'
import { isOperationPattern } from '../../protocol/authority.ts'
import type { Authority } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { parseStrictJson } from '../../protocol/strict-json.ts'
import { ClaimError, exact, type Members, require, seconds, text } from '../members.ts'
import { THUMBPRINT_URN } from './attestation.ts'
import { SKEW_S } from './claims.ts'
import { hashOf, inputOf, isSignedBy, type Jws, JwsError, keyOf, readJws, thumbprintOf } from './jws.ts'

const TYPE = 'aat+jwt'
const DETAILS_TYPE = 'attenuating_agent_token'
const CHAIN_LIMIT = 256 * 1024
const TOKEN_LIMIT = 64 * 1024
const MAX_TOKENS = 9
const MAX_TOOLS = 256

/** What a root token says of its own signature. */
export interface AatRoot {
  readonly issuer: string
  readonly kid: string | undefined
  readonly alg: string
}

export interface AatTrust {
  /** The key of a root token; undefined for an issuer, key id or algorithm that is not trusted. */
  rootKey(root: AatRoot): KeyObject | undefined | Promise<KeyObject | undefined>
  /** Our own name: a root that names an audience must name this one. */
  readonly audience: string
  /** Thumbprint of the key that the presenter proved (I6). */
  readonly proved: string | undefined
  /** Epoch seconds. */
  readonly nowS: number
}

/** What a chain proves. */
export interface AatChain {
  /** `iss` of the root. */
  readonly issuer: string
  /** `sub` of the root: on whose behalf, if the issuer says so. */
  readonly subject?: string
  /** `jti`, root first. */
  readonly ids: readonly string[]
  /** Of the newest token; covered by every one above it. */
  readonly authority: readonly Authority[]
  /** Epoch seconds. */
  readonly expiresAt: number
  /** Thumbprint of the newest token's key. */
  readonly holder: string
  /** How many more delegations it allows. */
  readonly depthLeft: number
}

/** @throws {GatewayError} `subject_invalid` saying which token broke which rule */
export async function readAatChain(json: string, trust: AatTrust): Promise<AatChain> {
  const texts = textsOf(json)
  let above: Token | undefined
  const ids: string[] = []
  for (const [i, compact] of texts.entries()) {
    try {
      above = await readToken(compact, i, above, trust)
    } catch (cause) {
      if (cause instanceof JwsError || cause instanceof ClaimError)
        throw refused(`token ${i} is refused: ${cause.message}`)
      throw cause
    }
    if (ids.includes(above.id)) throw refused(`token ${i} has the jti of one above it`)
    ids.push(above.id)
  }
  const { root, tools, expiresAt, holder, depth, maxDepth, isDelegation } = above as Token
  if (trust.proved !== holder)
    throw refused('nobody proved the key that its newest token is bound to (I6). Send a DPoP proof made with that key')
  return {
    issuer: root.issuer,
    ...(root.subject !== undefined && { subject: root.subject }),
    ids,
    authority: [{ operations: tools }],
    expiresAt,
    holder,
    depthLeft: isDelegation ? maxDepth - depth : 0, // nothing may be below a token for execution
  }
}

interface Token {
  readonly root: { readonly issuer: string; readonly subject: string | undefined }
  readonly id: string
  readonly tools: readonly string[]
  readonly issuedAt: number
  readonly expiresAt: number
  readonly depth: number
  readonly maxDepth: number
  readonly isDelegation: boolean
  readonly key: KeyObject
  readonly holder: string
  readonly hash: string
}

function textsOf(json: string): readonly string[] {
  if (json.length > CHAIN_LIMIT) throw refused(`it is longer than ${CHAIN_LIMIT} characters`)
  let value: unknown
  try {
    value = parseStrictJson(json)
  } catch {
    // Said below.
  }
  const isChain = Array.isArray(value) && value.length > 0 && value.every((entry) => typeof entry === 'string')
  if (!isChain) throw refused('it is not a JSON array of compact JWS, root first')
  const texts = value as string[]
  if (texts.length > MAX_TOKENS) throw refused(`it has ${texts.length} tokens; at most ${MAX_TOKENS} are read`)
  return texts
}

async function readToken(compact: string, i: number, above: Token | undefined, trust: AatTrust): Promise<Token> {
  const jws = readJws(compact, TOKEN_LIMIT)
  const { header, payload: claims } = jws
  if (header.typ !== TYPE) throw new JwsError(`its type is not ${TYPE}`)
  // crit, jku, x5u, jwk: each would let the text say how it is to be verified.
  exact(header, 'header', ['typ', 'alg'], ['kid'])
  const issuer = text(claims.iss, 'iss')
  const kid = typeof header.kid === 'string' ? header.kid : undefined
  const key =
    above?.key ?? (await trust.rootKey({ issuer, kid, alg: header.alg === 'EdDSA' ? 'Ed25519' : String(header.alg) }))
  if (key === undefined) throw refused('nobody here trusts the issuer of its root, or not this key of it')
  if (!isVerified(jws, key)) throw new JwsError('its signature is not by the key of the token above it (I1)')
  require(above === undefined || issuer === THUMBPRINT_URN + above.holder, 'iss')
  const own = keyOf(bareKey(exact(claims.cnf, 'cnf', ['jwk']).jwk))
  const token: Token = {
    root: above?.root ?? { issuer, subject: claims.sub === undefined ? undefined : text(claims.sub, 'sub') },
    id: text(claims.jti, 'jti'),
    tools: toolsOf(claims.authorization_details),
    issuedAt: seconds(claims.iat, 'iat'),
    expiresAt: seconds(claims.exp, 'exp'),
    depth: claims.del_depth as number,
    maxDepth: claims.del_max_depth as number,
    isDelegation: claims.aat_type !== 'execution',
    key: own,
    holder: thumbprintOf(own),
    hash: hashOf(inputOf(compact)),
  }
  checkRoot(claims, above, trust)
  checkInvariants(token, claims, { i, above, nowS: trust.nowS })
  return token
}

/** The drafts say `EdDSA`, RFC 9864 `Ed25519`; with a key of that curve both mean the same. */
function isVerified(jws: Jws, key: KeyObject): boolean {
  const isOldName = jws.header.alg === 'EdDSA' && key.asymmetricKeyType === 'ed25519'
  return isSignedBy(isOldName ? { ...jws, header: { ...jws.header, alg: 'Ed25519' } } : jws, key)
}

/** RFC 7517 §4: members of a JWK that are not understood are ignored. A private half is not one of them. */
function bareKey(jwk: unknown): unknown {
  const { crv, kty, x, y, d } = (typeof jwk === 'object' && jwk !== null ? jwk : {}) as Members
  if (d !== undefined) throw new JwsError('its key is a private one')
  return { crv, kty, x, ...(y !== undefined && { y }) }
}

function checkRoot(claims: Members, above: Token | undefined, { audience, nowS }: AatTrust): void {
  const { aud, nbf, aat_type } = claims
  require(aud === undefined || [aud].flat().includes(audience), 'aud')
  require(nbf === undefined || seconds(nbf, 'nbf') <= nowS + SKEW_S, 'nbf')
  require(aat_type === undefined || aat_type === 'delegation' || aat_type === 'execution', 'aat_type')
  require((claims.par_hash === undefined) === (above === undefined), 'par_hash')
}

interface Place {
  readonly i: number
  readonly above: Token | undefined
  readonly nowS: number
}

/** I2 to I5. `del_max_depth` is the deepest `del_depth` there may be; in another draft the same name means a number of tokens. */
function checkInvariants(token: Token, claims: Members, { i, above, nowS }: Place): void {
  const { depth, maxDepth, issuedAt, expiresAt, tools } = token
  const isBounded = Number.isSafeInteger(maxDepth) && maxDepth >= 0 && maxDepth <= (above?.maxDepth ?? maxDepth)
  const widened = above && tools.find((tool) => !above.tools.includes(tool))
  const why =
    (depth !== i && 'its del_depth is not one more than that of the token above it (I2)') ||
    (!isBounded && 'its del_max_depth is no number, or rises (I2)') ||
    (depth > maxDepth && `its del_depth is more than the del_max_depth of ${maxDepth} (I2)`) ||
    (above && !above.isDelegation && 'the token above it is for execution, not for delegation') ||
    (nowS >= expiresAt && 'it has expired (I3)') ||
    (expiresAt <= issuedAt && 'it expires before it is issued (I3)') ||
    (issuedAt > nowS + SKEW_S && `it is from the future by more than ${SKEW_S} s (I3)`) ||
    (above && expiresAt > above.expiresAt && 'it would outlive the token above it (I3)') ||
    (above && issuedAt < above.issuedAt && 'it is older than the token above it (I3)') ||
    (widened !== undefined && `it has the tool ${JSON.stringify(widened)}, which the token above it has not (I4)`) ||
    (above && claims.par_hash !== above.hash && 'its par_hash is not that of the token above it (I5)')
  if (why) throw new JwsError(why)
}

/** I4. Tools are operations of the catalogue, by their exact names. */
function toolsOf(details: unknown): readonly string[] {
  require(Array.isArray(details) && details.length === 1, 'authorization_details')
  const { type, tools } = exact((details as unknown[])[0], 'authorization_details', ['type', 'tools'])
  if (type !== DETAILS_TYPE) throw new JwsError(`its authorization_details are not of the type ${DETAILS_TYPE}`)
  require(typeof tools === 'object' && tools !== null && !Array.isArray(tools), 'authorization_details')
  const entries = Object.entries(tools as Members)
  require(entries.length > 0 && entries.length <= MAX_TOOLS, 'authorization_details')
  return entries.map(([tool, constraints]) => {
    const name = JSON.stringify(tool.slice(0, 100))
    if (!isOperationPattern(tool) || tool.endsWith('*'))
      throw new JwsError(`its tool ${name} is not the name of an operation, such as github:issues.read`)
    // Naming one argument closes a tool to all others. A request has parts that no grant can close.
    if (JSON.stringify(constraints) !== '{}')
      throw new JwsError(
        `its tool ${name} has argument constraints, which no grant can keep in full. Leave them out, and narrow the grant that is asked for instead`,
      )
    return tool
  })
}

function refused(why: string): GatewayError {
  return new GatewayError('subject_invalid', `An AAT chain was presented, but ${why}.`)
}
