/**
 * The claims of a signed grant (LG/1 §1.2) and the way back from claims to a `Grant`. Strict in both directions: a claim that
 * this version does not know could be a restriction, so it is refused, not ignored. Pure.
 */
import { hash } from 'node:crypto'
import type { Agent, Authority, Grant } from '../protocol/grant.ts'
import { lineageHash, rootLineage } from './lineage.ts'

const VERSION = 'lg/1'
const AUTHORITY_TYPE = 'keyless_access'

/** What cannot be true of a token that this gateway signed for this version. Says which claim, never its value. */
export class ClaimError extends Error {}

/** A grant as its claims tell it: what is known of the agent beyond its id is in the registry. */
export type ClaimedGrant = Omit<Grant, 'agent'> & { readonly agent: Pick<Agent, 'id'> }

/** LG/1 claims of a root grant. `issuer` is also the audience: the gateway's tokens are for the gateway. */
export function claimsOf(grant: Grant, issuer: string): Record<string, unknown> {
  return {
    ver: VERSION,
    iss: issuer,
    aud: issuer,
    iat: grant.issuedAt,
    nbf: grant.issuedAt,
    exp: grant.expiresAt,
    jti: grant.id,
    sub: grant.human.sub,
    sub_iss: grant.human.iss,
    client_id: grant.agent.id,
    tenant: grant.tenant,
    txn: grant.task.id,
    intent: { purpose: grant.task.purpose, hash: intentHash(grant.task.purpose) },
    act: { iss: issuer, sub: grant.agent.id, sub_profile: 'ai_agent' },
    authorization_details: grant.authority.map((authority) => ({ type: AUTHORITY_TYPE, ...authority })),
    del_depth: 0,
    lin: grant.lineageHash,
  }
}

/** The grant that verified claims stand for. @throws {ClaimError} */
export function grantOf(claims: unknown, issuer: string): ClaimedGrant {
  const members = object(claims, 'claims', CLAIMS)
  require(members.ver === VERSION, 'ver')
  require(members.iss === issuer, 'iss')
  require(members.aud === issuer, 'aud')
  const id = text(members.jti, 'jti')
  const agent = { id: text(members.client_id, 'client_id') }
  const human = { iss: text(members.sub_iss, 'sub_iss'), sub: text(members.sub, 'sub') }
  const intent = object(members.intent, 'intent', ['purpose', 'hash'])
  const purpose = text(intent.purpose, 'intent')
  require(intent.hash === intentHash(purpose), 'intent')
  const act = object(members.act, 'act', ['iss', 'sub', 'sub_profile'])
  // RFC 8693 §4.1: the current actor. Deeper chains carry attestations, which this version does not verify.
  require(act.sub === agent.id && act.iss === issuer && act.sub_profile === 'ai_agent', 'act')
  require(members.del_depth === 0, 'del_depth')
  const lineage = rootLineage(human, agent.id, id)
  require(members.lin === lineageHash(lineage), 'lin')
  require(members.nbf === members.iat, 'nbf')
  return {
    id,
    tenant: text(members.tenant, 'tenant'),
    human,
    agent,
    task: { id: text(members.txn, 'txn'), purpose },
    authority: authorityOf(members.authorization_details),
    issuedAt: seconds(members.iat, 'iat'),
    expiresAt: seconds(members.exp, 'exp'),
    lineage,
    lineageHash: members.lin as string,
    depth: 0,
    maxDepth: 3,
    delegable: true,
    ancestry: [],
    attestations: [],
  }
}

const CLAIMS =
  'ver iss aud iat nbf exp jti sub sub_iss client_id tenant txn intent act authorization_details del_depth lin'.split(
    ' ',
  )

/** RFC 9396 §2.2: an unknown type, member or shape is refused. */
function authorityOf(details: unknown): readonly Authority[] {
  require(Array.isArray(details) && details.length > 0, 'authorization_details')
  return (details as unknown[]).map((entry) => {
    const members = object(entry, 'authorization_details', ['type', 'operations'], ['locations', 'paths'])
    require(members.type === AUTHORITY_TYPE, 'authorization_details')
    return {
      operations: texts(members.operations),
      ...(members.locations !== undefined && { locations: texts(members.locations) }),
      ...(members.paths !== undefined && { paths: texts(members.paths) }),
    }
  })
}

function intentHash(purpose: string): string {
  return hash('sha256', purpose, 'base64url')
}

function require(holds: boolean, claim: string): void {
  if (!holds) throw new ClaimError(`claim ${claim} is not as this gateway writes it`)
}

/** An object with every required member, any optional one, and no other. */
function object(
  value: unknown,
  claim: string,
  required: readonly string[],
  optional: readonly string[] = [],
): Record<string, unknown> {
  require(typeof value === 'object' && value !== null && !Array.isArray(value), claim)
  const members = value as Record<string, unknown>
  require(required.every((name) => Object.hasOwn(members, name)), claim)
  require(Object.keys(members).every((name) => required.includes(name) || optional.includes(name)), claim)
  return members
}

function text(value: unknown, claim: string): string {
  require(typeof value === 'string' && value.length > 0, claim)
  return value as string
}

/** A list that is there must say something: an empty one is neither “all” nor “none” to every reader. */
function texts(value: unknown): readonly string[] {
  require(Array.isArray(value) && value.length > 0, 'authorization_details')
  return (value as unknown[]).map((entry) => text(entry, 'authorization_details'))
}

function seconds(value: unknown, claim: string): number {
  require(Number.isSafeInteger(value) && (value as number) > 0, claim)
  return value as number
}
