/**
 * The independent check of a bundle, from public keys alone: what an auditor runs without the gateway. Recomputes every hash,
 * signature, subset and bound between the human and who holds the grant now, and names the first fault.
 */
import type { KeyObject } from 'node:crypto'
import type { Confirmation, Grant } from '../../protocol/grant.ts'
import { excessOf } from '../attenuate/attenuate.ts'
import { ClaimError } from '../members.ts'
import { type Attestation, DELEGATION_TYPE, fault, type Link } from './attestation.ts'
import { broken, readBundle } from './bundle.ts'
import { checkChain, readChain } from './chain.ts'
import { authorityHash, authorityOf, type ClaimedGrant, grantOf, SKEW_S } from './claims.ts'
import { hashOf, inputOf, JwsError, readInput } from './jws.ts'
import { readGrant, TOKEN_LIMIT } from './token.ts'

export interface Verified {
  readonly issuer: string
  readonly human: Grant['human']
  readonly task: Grant['task']
  readonly tenant: string
  /** Root first, the grant itself last. */
  readonly grants: readonly VerifiedGrant[]
}

/** One grant of the chain. */
export interface VerifiedGrant {
  readonly id: string
  readonly agent: string
  readonly authority: Grant['authority']
  /** Epoch seconds. */
  readonly issuedAt: number
  readonly expiresAt: number
  readonly maxDepth: number
  readonly delegable: boolean
  readonly cnf: Confirmation | undefined
  /** Who vouches for the delegation. */
  readonly attestedBy: 'delegator' | 'gateway' | undefined
  /** `par` and `par_hash`. */
  readonly parent: string | undefined
  readonly parentHash: string | undefined
  /** Hash of what was signed of it. */
  readonly hash: string
  /** Claims that the gateway signed; undefined for a grant that was delegated offline. */
  readonly claims: ClaimedGrant | undefined
}

/**
 * @param text JSON of a `Bundle`, at most 256 KiB. @param keyOf the gateway's public keys by key id.
 * @throws {GatewayError} the first fault: `grant_invalid`, `invalid_scope`, `delegation_refused`, `lineage_…`. Expiry is none.
 */
export function verifyBundle(text: string, keyOf: (kid: string) => KeyObject | undefined): Verified {
  const { token, ancestors, actor_proofs: proofs } = readBundle(text)
  const texts = [...ancestors, token]
  const at = texts.findLastIndex((each) => partsOf(each).header.typ !== DELEGATION_TYPE)
  const anchored = texts[at]
  if (anchored === undefined) throw broken('grant_invalid', 'no grant in it was signed by a gateway')
  const issuer = String(partsOf(anchored).payload.iss)
  const anchor = readGrant(anchored, issuer, keyOf)
  const { depth, human, task, tenant } = anchor
  if (at < depth) throw broken('lineage_truncated', `there are ${at} grants above one of depth ${depth}`)
  if (at > depth) throw broken('lineage_grafted', `there are ${at} grants above one of depth ${depth}`)
  const shape = { count: ancestors.length, first: 1, task: task.id, gatewayKey: keyOf }
  const chain = readChain(proofs, shape)
  const grants: VerifiedGrant[] = []
  for (const [i, each] of texts.entries()) {
    // A second signature would be one that nobody checks.
    if ((i === at || i === ancestors.length) !== isComplete(each))
      throw broken(
        'grant_invalid',
        `grant ${i} stands there with a signature that is not looked for, or without its own`,
      )
    grants.push(grantAt(each, { i, issuer, above: grants[i - 1] }, chain[i - 1]))
  }
  if (at < ancestors.length && token !== proofs.at(-1))
    throw fault('lineage_reencoded', ancestors.length, 'it is not the delegation that is presented')
  for (const [i, grant] of grants.entries()) checkParent(grant, grants[i - 1], i)
  checkChain(chain, proofs, (i) => linkAt(i, grants, { issuer, task: task.id }))
  for (const [i, grant] of grants.entries()) {
    if (grant.claims !== undefined) checkClaims(grant.claims, grants.slice(0, i), { anchor, proof: proofs[i - 1] })
    if (i > 0) checkBounds(grant, grants[i - 1] as VerifiedGrant, { i, attestation: chain[i - 1] as Attestation })
  }
  return { issuer, human, task, tenant, grants }
}

interface Place {
  readonly i: number
  readonly issuer: string
  readonly above: VerifiedGrant | undefined
}

function grantAt(text: string, { i, issuer, above }: Place, attestation: Attestation | undefined): VerifiedGrant {
  const { header, payload, input } = partsOf(text)
  const attestedBy = attestation && (attestation.signer === undefined ? 'gateway' : 'delegator')
  if (header.typ !== DELEGATION_TYPE) {
    const claims = claimsAt(i, payload, issuer)
    const { id, agent, authority, issuedAt, expiresAt, maxDepth, delegable, cnf, parent, parentHash } = claims
    const own = { id, agent: agent.id, authority, issuedAt, expiresAt, maxDepth, delegable, cnf, parent, parentHash }
    return { ...own, attestedBy, hash: hashOf(input), claims }
  }
  if (attestation?.jws.input !== input || above === undefined)
    throw fault('lineage_grafted', i, 'it is not the delegation that made the grant below')
  const { claims, id, agent, issuedAt, expiresAt, cnf, parentHash } = attestation
  return {
    ...{ id, agent, issuedAt, expiresAt, cnf, parentHash, attestedBy },
    authority: authorityOf(claims.authorization_details),
    maxDepth: (claims.del_max_depth as number | undefined) ?? above.maxDepth,
    delegable: claims.delegable === undefined && cnf?.jkt !== undefined,
    parent: claims.par as string,
    hash: hashOf(input),
    claims: undefined,
  }
}

function claimsAt(i: number, payload: unknown, issuer: string): ClaimedGrant {
  try {
    return grantOf(payload, issuer)
  } catch (cause) {
    if (cause instanceof ClaimError) throw broken('grant_invalid', `of grant ${i} the ${cause.message}`, cause)
    throw cause
  }
}

/** Everything above the gateway's newest signature is vouched for by these hashes alone. */
function checkParent({ parent, parentHash }: VerifiedGrant, above: VerifiedGrant | undefined, i: number): void {
  if (parentHash === above?.hash && parent === above?.id) return
  throw broken('lineage_grafted', `grant ${i} does not hang on the one that stands above it`)
}

function linkAt(
  i: number,
  grants: readonly VerifiedGrant[],
  o: { issuer: string; task: string },
): Omit<Link, 'previous'> {
  const [above, child] = [grants[i], grants[i + 1]] as [VerifiedGrant, VerifiedGrant]
  return {
    ...o,
    depth: i + 1,
    delegator: above.cnf?.jkt,
    parentHash: above.hash,
    agent: child.agent,
    cnf: child.cnf ?? null,
    authorityHash: authorityHash(child.authority),
    notAfter: above.expiresAt,
  }
}

/** What the gateway signed of a grant, against the grants above it and the newest one that it signed. */
function checkClaims(
  claims: ClaimedGrant,
  above: readonly VerifiedGrant[],
  { anchor, proof }: { readonly anchor: ClaimedGrant; readonly proof: string | undefined },
): void {
  const { actors, depth, human, lin, missionHash, task, tenant } = claims
  const root = above[0]?.authority ?? claims.authority
  const isOneTask = task.id === anchor.task.id && task.purpose === anchor.task.purpose && tenant === anchor.tenant
  if (!isOneTask || JSON.stringify(human) !== JSON.stringify(anchor.human))
    throw broken('lineage_grafted', `grant ${depth} is of another human, task or tenant`)
  if (missionHash !== authorityHash(root))
    throw broken('lineage_grafted', `grant ${depth} names another mission than the one that the human authorised`)
  if (actors.slice(0, -1).join('\n') !== above.map(({ agent }) => agent).join('\n'))
    throw broken('lineage_grafted', `the actors of grant ${depth} are not those of the grants above it`)
  if (proof !== undefined && lin !== hashOf(proof))
    throw fault('lineage_reencoded', depth, 'it is not in the bytes that the grant below it was signed over')
}

/** A child can only lose. */
function checkBounds(
  grant: VerifiedGrant,
  above: VerifiedGrant,
  { i, attestation }: { i: number; attestation: Attestation },
): void {
  const why =
    (!above.delegable && 'the grant above it cannot be delegated') ||
    ((i > above.maxDepth || grant.maxDepth > above.maxDepth) &&
      `it goes deeper than ${above.maxDepth}, the most that the grant above it allows`)
  if (why) throw broken('delegation_refused', `of grant ${i}, ${why}`)
  if (grant.issuedAt < above.issuedAt - SKEW_S)
    throw broken('grant_invalid', `grant ${i} is older than the one above it`)
  // And no attestation outlives the grant above it: that was checked with its link.
  if (grant.expiresAt > attestation.expiresAt)
    throw fault('lineage_invalid', i, 'it ends before the grant below it does')
  const [excess] = excessOf(above.authority, grant.authority)
  if (excess !== undefined)
    throw broken(
      'invalid_scope',
      `grant ${i} is wider than the one above it: ${excess.at} is ${excess.got}; allowed is ${excess.allowed}`,
    )
}

function isComplete(text: string): boolean {
  return text.split('.').length === 3
}

function partsOf(text: string): ReturnType<typeof readInput> {
  try {
    return readInput(isComplete(text) ? inputOf(text) : text, TOKEN_LIMIT)
  } catch (cause) {
    if (cause instanceof JwsError) throw broken('grant_invalid', `of one of its grants, ${cause.message}`, cause)
    throw cause
  }
}
