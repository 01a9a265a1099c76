/**
 * Reading attestations (LG/1 §1.3): what the delegator of a hop signed about the grant below it, in a JWS that brings its own
 * key along; whether that key may speak is asked separately. Where a gateway spoke for a holder without a key, it says so. Pure.
 */
import type { KeyObject } from 'node:crypto'
import type { Confirmation, Grant } from '../../protocol/grant.ts'
import { isUuidv7 } from '../../protocol/id.ts'
import { GatewayError, type ProblemCode } from '../../protocol/problem.ts'
import { ClaimError, exact, type Members, require, seconds, text } from '../members.ts'
import { authorityHash, authorityOf, confirmationOf, SKEW_S, VERSION } from './claims.ts'
import { hashOf, isReencoded, isSignedBy, type Jws, JwsError, keyOf, readJws, thumbprintOf } from './jws.ts'

export const PROOF_TYPE = 'actor-proof+jwt'
export const DELEGATION_TYPE = 'keyless-delegation+jwt'
/** RFC 9278. */
export const THUMBPRINT_URN = 'urn:ietf:params:oauth:jwk-thumbprint:sha-256:'
export const ON_BEHALF = 'gateway-on-behalf'
/** LG/1 §1.6 step 1. */
const ATTESTATION_LIMIT = 16 * 1024
const TEXT_LIMIT = 500

/** One delegation, as the gateway is about to issue it. */
export interface Hop {
  readonly parent: Grant
  /** Its `attestations` are the parent's. */
  readonly child: Grant
  /** Exact `iss` of the gateway's grants. */
  readonly issuer: string
  /** Digest of the policy set in force. */
  readonly policy: string
  readonly reason?: string
}

/** What an attestation must say. Absent members are not known to the reader, and so not compared. */
export interface Link {
  /** Gateway for which it is meant. */
  readonly issuer: string
  readonly task: string
  /** Hop, from 1. */
  readonly depth: number
  /** Thumbprint of the delegator's key; undefined: it has none, and the gateway speaks for it. */
  readonly delegator: string | undefined
  readonly parentHash?: string | undefined
  /** Hash of the attestation before; undefined at the first hop. */
  readonly previous: string | undefined
  /** Whom it authorises. */
  readonly agent: string
  /** Key of the child, or null when it has none. */
  readonly cnf?: Confirmation | null
  readonly authorityHash: string
  /** Expiry of the parent, epoch seconds. */
  readonly notAfter?: number
}

/** What a signature vouches for. */
export interface Attestation {
  readonly jws: Jws
  readonly type: typeof PROOF_TYPE | typeof DELEGATION_TYPE
  /** Thumbprint of the key that signed; undefined when a gateway did. */
  readonly signer: string | undefined
  readonly claims: Members
  readonly id: string
  readonly task: string
  /** Gateway for which it was made. */
  readonly issuer: string
  readonly depth: number
  readonly agent: string
  readonly cnf: Confirmation | undefined
  readonly authorityHash: string
  readonly parentHash: string
  readonly previous: string | undefined
  readonly issuedAt: number
  readonly expiresAt: number
}

/**
 * An attestation that the holder of the parent presents, before the child is issued: it must say what will be issued.
 * @throws {GatewayError} `lineage_…`
 */
export function checkAttestation(text: string, hop: Hop): void {
  const { parent, child } = hop
  const attestation = readAttestation(text, child.depth)
  if (attestation.type !== PROOF_TYPE) throw fault('lineage_invalid', child.depth, `its type is not ${PROOF_TYPE}`)
  checkLink(attestation, { ...linkOf(hop), cnf: child.cnf ?? null })
  const { claims, issuedAt, expiresAt } = attestation
  const wrong =
    (claims.pol !== undefined && claims.pol !== hop.policy && 'it names another policy than the one in force') ||
    (expiresAt < child.expiresAt && `it ends at ${expiresAt}, before the grant would (${child.expiresAt})`) ||
    ((issuedAt > child.issuedAt + SKEW_S || issuedAt < parent.issuedAt - SKEW_S) &&
      'it was not made while the parent grant lived')
  if (wrong) throw fault('lineage_invalid', child.depth, wrong)
}

/** What is attested about a hop. @throws {GatewayError} `delegation_refused` for a parent that was never signed. */
export function linkOf({ parent, child, issuer }: Hop): Link {
  if (parent.signedHash === undefined) {
    throw new GatewayError(
      'delegation_refused',
      `Grant ${parent.id} is older than delegation and cannot be named by another grant. Open a new task.`,
    )
  }
  const previous = parent.attestations.at(-1)
  return {
    issuer,
    task: parent.task.id,
    depth: child.depth,
    delegator: parent.cnf?.jkt,
    parentHash: parent.signedHash,
    previous: previous === undefined ? undefined : hashOf(previous),
    agent: child.agent.id,
    ...(child.cnf !== undefined && { cnf: child.cnf }),
    authorityHash: authorityHash(child.authority),
    notAfter: parent.expiresAt,
  }
}

const ALWAYS = 'iss jti iat exp txn act target del_depth par_hash'.split(' ')
const MEMBERS: Readonly<Record<Attestation['type'], { always: readonly string[]; sometimes: readonly string[] }>> = {
  [PROOF_TYPE]: { always: [...ALWAYS, 'ad_hash'], sometimes: 'cnf prh reason pol att'.split(' ') },
  [DELEGATION_TYPE]: {
    always: [...ALWAYS, 'ver', 'par', 'authorization_details'],
    sometimes: 'cnf prh reason del_max_depth delegable step trace'.split(' '),
  },
}
const SHORT = ['jti', 'reason', 'pol', 'par', 'step', 'trace']

/**
 * What a text vouches for, its signature checked under the key that it names. Whether that key may speak is for `checkLink`.
 * @param hop number for the message. @param gatewayKey a gateway's key by key id.
 * @throws {GatewayError} `lineage_invalid`, `lineage_reencoded`
 */
export function readAttestation(
  text: string,
  hop: number,
  gatewayKey: (kid: string) => KeyObject | undefined = () => undefined,
): Attestation {
  try {
    const jws = readJws(text, ATTESTATION_LIMIT)
    const { header } = jws
    const type = header.typ === DELEGATION_TYPE ? DELEGATION_TYPE : PROOF_TYPE
    if (header.typ !== type) throw new JwsError(`its type is not ${PROOF_TYPE}`)
    const isHolders = header.jwk !== undefined
    const key = isHolders ? keyOf(header.jwk) : gatewayKey(String(header.kid))
    if (key === undefined) throw new JwsError('it names a key that is not among the known ones')
    // crit, jku, x5u, b64: each would let the text say how it is to be verified.
    if (Object.keys(header).length !== 3)
      throw new JwsError('its header has other members than typ, alg and jwk or kid')
    if (!isSignedBy(jws, key)) throw new JwsError('its signature does not verify', isReencoded(jws, key))
    return attestationOf(jws, type, isHolders ? thumbprintOf(key) : undefined)
  } catch (cause) {
    if (cause instanceof JwsError)
      throw fault(cause.isEncoding ? 'lineage_reencoded' : 'lineage_invalid', hop, cause.message)
    if (cause instanceof ClaimError) throw fault('lineage_invalid', hop, `its ${cause.message}`)
    throw cause
  }
}

function attestationOf(jws: Jws, type: Attestation['type'], signer: string | undefined): Attestation {
  const { always, sometimes } = MEMBERS[type]
  const claims = exact(jws.payload, 'claims', always, sometimes)
  // A gateway says by `att` that it speaks for another; a holder speaks for itself, under its own name.
  require(signer === undefined ? claims.att === ON_BEHALF : claims.att === undefined, 'att')
  require(signer === undefined || claims.iss === THUMBPRINT_URN + signer, 'iss')
  require(signer !== undefined || type === PROOF_TYPE, 'typ')
  const act = exact(claims.act, 'act', ['iss', 'sub', 'sub_profile'])
  const { aud } = exact(claims.target, 'target', ['aud'])
  require(act.sub_profile === 'ai_agent' && act.iss === aud, 'act')
  require(signer !== undefined || claims.iss === aud, 'iss')
  for (const name of SHORT.filter((name) => claims[name] !== undefined))
    require(text(claims[name], name).length <= TEXT_LIMIT, name)
  // Ids of grants are also names under which their end is remembered; nobody may choose the name of something else.
  require(type === PROOF_TYPE || isUuidv7(claims.jti as string), 'jti')
  require(type === PROOF_TYPE || claims.ver === VERSION, 'ver')
  require(claims.delegable === undefined || claims.delegable === false, 'delegable')
  const depth = seconds(claims.del_depth, 'del_depth')
  const maxDepth = claims.del_max_depth
  require(maxDepth === undefined || seconds(maxDepth, 'del_max_depth') >= depth, 'del_max_depth')
  const [issuedAt, expiresAt] = [seconds(claims.iat, 'iat'), seconds(claims.exp, 'exp')]
  require(expiresAt > issuedAt, 'exp')
  return {
    jws,
    type,
    signer,
    claims,
    id: claims.jti as string,
    task: text(claims.txn, 'txn'),
    issuer: text(aud, 'target'),
    depth,
    agent: text(act.sub, 'act'),
    cnf: confirmationOf(claims.cnf),
    authorityHash:
      type === PROOF_TYPE ? text(claims.ad_hash, 'ad_hash') : authorityHash(authorityOf(claims.authorization_details)),
    parentHash: text(claims.par_hash, 'par_hash'),
    previous: claims.prh === undefined ? undefined : text(claims.prh, 'prh'),
    issuedAt,
    expiresAt,
  }
}

/**
 * Whether an attestation is the one that belongs here.
 * @throws {GatewayError} the code that says how it does not
 */
export function checkLink(a: Attestation, link: Link): void {
  const refuse = (code: LineageCode, why: string) => {
    throw fault(code, link.depth, why)
  }
  if (a.issuer !== link.issuer) refuse('lineage_grafted', 'it was made for another gateway')
  if (a.task !== link.task) refuse('lineage_grafted', 'it belongs to another task')
  if (a.signer !== link.delegator) refuse('lineage_spliced', signedBy(a, link))
  if (link.parentHash !== undefined && a.parentHash !== link.parentHash)
    refuse('lineage_grafted', 'it was made below another parent grant')
  if (a.depth !== link.depth) refuse('lineage_grafted', `it was made for hop ${a.depth}`)
  if (a.agent !== link.agent) refuse('lineage_grafted', 'it authorises another agent')
  if (link.cnf !== undefined && !isSameKey(a.cnf, link.cnf)) refuse('lineage_grafted', 'it authorises another key')
  if (a.authorityHash !== link.authorityHash)
    refuse('lineage_grafted', 'it is about other authorization details than those of the grant')
  if (link.notAfter !== undefined && a.expiresAt > link.notAfter)
    refuse('lineage_invalid', 'it would outlive the parent grant')
  if (a.previous === undefined && link.previous !== undefined)
    refuse('lineage_truncated', 'it does not name the attestation before it')
  if (a.previous !== undefined && link.previous === undefined)
    refuse('lineage_truncated', 'it names an attestation before it, and there is none')
  if (a.previous !== link.previous)
    refuse('lineage_reencoded', 'the attestation before it is not in the bytes that it was signed over')
}

function signedBy(a: Attestation, link: Link): string {
  if (link.delegator === undefined) return 'it was signed by a key, and the delegator has none'
  if (a.signer === undefined) return 'the gateway signed it for a delegator that has a key of its own'
  return 'it was signed by another key than the one that the delegator’s grant is bound to'
}

function isSameKey(a: Confirmation | undefined, b: Confirmation | null): boolean {
  return a?.jkt === b?.jkt && a?.['x5t#S256'] === b?.['x5t#S256']
}

export type LineageCode = Extract<ProblemCode, `lineage_${string}`>

export function fault(code: LineageCode, hop: number, why: string): GatewayError {
  return new GatewayError(
    code,
    `Attestation ${hop} is refused: ${why}. Present the attestations of this delegation as they were made, in their order.`,
  )
}
