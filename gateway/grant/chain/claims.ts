/**
 * The claims of a signed grant (LG/1 §1.2) and the way back. Strict in both directions: a claim that this version does not know
 * could be a restriction, so it is refused, not ignored. Pure.
 */
import { hash } from 'node:crypto'
import canonicalize from 'canonicalize'
import { detailsOf, parseDetails } from '../../protocol/details.ts'
import type { Agent, Authority, Confirmation, Grant, Human, Preset } from '../../protocol/grant.ts'
import { ClaimError, exact, type Members, require, seconds, text } from '../members.ts'
import { presets } from '../propose/preset.ts'
import { lineageHash, rootLineage } from './lineage.ts'

export const VERSION = 'lg/1'
const HASH = /^[A-Za-z0-9_-]{43}$/
/** LG/1 §1.6 step 1. */
export const MAX_HOPS = 8
/** Seconds by which the clocks of gateways, replicas and holders may differ (LG/1 §1.6 step 4). */
export const SKEW_S = 30

/**
 * A grant as its claims tell it. What is known of the agent beyond its id is in the registry; ids and authority of the grants
 * above are in their own tokens, which `parentHash` pins.
 */
export interface ClaimedGrant
  extends Pick<
    Grant,
    | 'id'
    | 'tenant'
    | 'human'
    | 'task'
    | 'authority'
    | 'issuedAt'
    | 'expiresAt'
    | 'depth'
    | 'maxDepth'
    | 'delegable'
    | 'parentHash'
    | 'cnf'
    | 'instance'
    | 'preset'
    | 'step'
    | 'trace'
  > {
  readonly agent: Pick<Agent, 'id'>
  /** Agent ids from `act`: first the one whom the human authorised, last the current one. As many as `depth` and one. */
  readonly actors: readonly string[]
  /** `par`: id of the parent. Absent at depth 0. */
  readonly parent?: string
  /** `lin`: hash of the newest attestation; at depth 0 of the lineage. */
  readonly lin: string
  /** `mission.authority_hash`: what the human authorised. */
  readonly missionHash: string
}

/** LG/1 claims. `issuer` is also the audience: the gateway's tokens are for the gateway. */
export function claimsOf(grant: Grant, issuer: string): Record<string, unknown> {
  const { human, agent, task, ancestry, attestations } = grant
  const newest = attestations.at(-1)
  return {
    ver: VERSION,
    iss: issuer,
    aud: issuer,
    iat: grant.issuedAt,
    nbf: grant.issuedAt,
    exp: grant.expiresAt,
    jti: grant.id,
    sub: human.sub,
    sub_iss: human.iss,
    client_id: agent.id,
    tenant: grant.tenant,
    txn: task.id,
    mission: { id: task.id, issuer, authority_hash: authorityHash(ancestry[0]?.authority ?? grant.authority) },
    intent: { purpose: task.purpose, hash: intentHash(task.purpose) },
    ...given('auth_time', human.authTime),
    ...given('amr', human.amr),
    ...given('acr', human.acr),
    ...given('cnf', grant.cnf),
    act: actOf(grant, issuer),
    authorization_details: detailsOf(grant.authority),
    del_depth: grant.depth,
    del_max_depth: grant.maxDepth,
    ...given('par', ancestry.at(-1)?.id),
    ...given('par_hash', grant.parentHash),
    lin: newest === undefined ? grant.lineageHash : hash('sha256', newest, 'base64url'),
    ...(grant.delegable ? {} : { delegable: false }),
    ...given('preset', grant.preset),
    ...given('step', grant.step),
    ...given('trace', grant.trace),
  }
}

const ALWAYS =
  'ver iss aud iat nbf exp jti sub sub_iss client_id tenant txn mission intent act authorization_details del_depth del_max_depth lin'.split(
    ' ',
  )
const SOMETIMES = 'auth_time amr acr cnf par par_hash delegable preset step trace'.split(' ')

/** The grant that verified claims stand for. @throws {ClaimError} */
export function grantOf(claims: unknown, issuer: string): ClaimedGrant {
  const members = exact(claims, 'claims', ALWAYS, SOMETIMES)
  require(members.ver === VERSION, 'ver')
  require(members.iss === issuer, 'iss')
  require(members.aud === issuer, 'aud')
  require(members.nbf === members.iat, 'nbf')
  const id = text(members.jti, 'jti')
  const human = humanOf(members)
  const task = taskOf(members)
  const agent = { id: text(members.client_id, 'client_id') }
  const { actors, instance } = actorsOf(members.act, issuer)
  require(actors.at(-1) === agent.id, 'act')
  const depth = members.del_depth as number
  require(depth === actors.length - 1, 'del_depth')
  const isRoot = depth === 0
  const lin = digest(members.lin, 'lin')
  require(!isRoot || lin === lineageHash(rootLineage(human, agent.id, id)), 'lin')
  const mission = exact(members.mission, 'mission', ['id', 'issuer', 'authority_hash'])
  require(mission.id === task.id && mission.issuer === issuer, 'mission')
  const authority = authorityOf(members.authorization_details)
  const missionHash = digest(mission.authority_hash, 'mission')
  require(!isRoot || missionHash === authorityHash(authority), 'mission')
  require((members.par === undefined) === isRoot, 'par')
  require((members.par_hash === undefined) === isRoot, 'par_hash')
  const maxDepth = members.del_max_depth as number
  require(Number.isSafeInteger(maxDepth) && maxDepth >= depth && maxDepth <= MAX_HOPS, 'del_max_depth')
  require(members.delegable === undefined || members.delegable === false, 'delegable')
  return {
    id,
    tenant: text(members.tenant, 'tenant'),
    human,
    agent,
    task,
    authority,
    issuedAt: seconds(members.iat, 'iat'),
    expiresAt: seconds(members.exp, 'exp'),
    depth,
    maxDepth,
    delegable: members.delegable === undefined,
    actors,
    lin,
    missionHash,
    ...given('parent', members.par === undefined ? undefined : text(members.par, 'par')),
    ...given('parentHash', members.par_hash === undefined ? undefined : digest(members.par_hash, 'par_hash')),
    ...given('cnf', confirmationOf(members.cnf)),
    ...given('instance', instance),
    ...given('preset', presetOf(members)),
    ...given('step', optional(members, 'step')),
    ...given('trace', optional(members, 'trace')),
  }
}

/** base64url SHA-256 over the JCS bytes of `authorization_details`: `ad_hash`, `mission.authority_hash`. */
export function authorityHash(authority: readonly Authority[]): string {
  return hash('sha256', canonicalize(detailsOf(authority)) as string, 'base64url')
}

/** `cnf` (RFC 7800): one of our two members at least, and no other. @throws {ClaimError} */
export function confirmationOf(value: unknown): Confirmation | undefined {
  if (value === undefined) return undefined
  const members = exact(value, 'cnf', [], ['jkt', 'x5t#S256'])
  const thumbprints = Object.values(members)
  require(thumbprints.length > 0, 'cnf')
  for (const thumbprint of thumbprints) digest(thumbprint, 'cnf')
  return members as Confirmation
}

/** RFC 8693 §4.1: outermost is the current actor, each one inside is who delegated to it. */
function actOf(grant: Grant, issuer: string): object {
  const [first, ...others] = grant.lineage.slice(1).map((step) => step.id)
  const actor = (sub: string | undefined) => ({ iss: issuer, sub, sub_profile: 'ai_agent' })
  const nested = others.reduce<object>((act, sub) => ({ ...actor(sub), act }), actor(first))
  return grant.instance === undefined ? nested : { ...nested, inst: grant.instance }
}

function actorsOf(act: unknown, issuer: string): { actors: string[]; instance: string | undefined } {
  const actors: string[] = []
  let instance: string | undefined
  for (let inner = act; inner !== undefined; ) {
    const isCurrent = actors.length === 0
    const members = exact(inner, 'act', ['iss', 'sub', 'sub_profile'], isCurrent ? ['inst', 'act'] : ['act'])
    require(members.iss === issuer && members.sub_profile === 'ai_agent', 'act')
    if (members.inst !== undefined) instance = text(members.inst, 'act')
    actors.push(text(members.sub, 'act'))
    require(actors.length <= MAX_HOPS + 1, 'act')
    inner = members.act
  }
  require(actors.length > 0, 'act')
  return { actors: actors.reverse(), instance }
}

function humanOf(members: Members): Human {
  const { amr } = members
  require(amr === undefined || (Array.isArray(amr) && amr.length > 0), 'amr')
  return {
    iss: text(members.sub_iss, 'sub_iss'),
    sub: text(members.sub, 'sub'),
    ...given('authTime', members.auth_time === undefined ? undefined : seconds(members.auth_time, 'auth_time')),
    ...given(
      'amr',
      (amr as unknown[] | undefined)?.map((method) => text(method, 'amr')),
    ),
    ...given('acr', optional(members, 'acr')),
  }
}

function presetOf(members: Members): Preset | undefined {
  const preset = optional(members, 'preset')
  require(preset === undefined || Object.hasOwn(presets, preset), 'preset')
  return preset as Preset | undefined
}

function taskOf(members: Members): Grant['task'] {
  const intent = exact(members.intent, 'intent', ['purpose', 'hash'])
  const purpose = text(intent.purpose, 'intent')
  require(intent.hash === intentHash(purpose), 'intent')
  return { id: text(members.txn, 'txn'), purpose }
}

/** A member that is written only when it has a value. */
function given<Name extends string, Value>(name: Name, value: Value | undefined): { [key in Name]?: Value } {
  return (value === undefined ? {} : { [name]: value }) as { [key in Name]?: Value }
}

function optional(members: Members, claim: string): string | undefined {
  return members[claim] === undefined ? undefined : text(members[claim], claim)
}

function digest(value: unknown, claim: string): string {
  require(typeof value === 'string' && HASH.test(value), claim)
  return value as string
}

function intentHash(purpose: string): string {
  return hash('sha256', purpose, 'base64url')
}

/** @throws {ClaimError} */
export function authorityOf(details: unknown): readonly Authority[] {
  try {
    return parseDetails(details)
  } catch {
    throw new ClaimError('claim authorization_details is not as this version writes it')
  }
}
