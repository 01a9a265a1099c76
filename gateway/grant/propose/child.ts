/**
 * Children: a holder passes on part of what it has (LG/1 §1.4). A child can only lose: authority, lifetime, depth, step and
 * trace stay within the parent's. It is of the parent's human and task; nobody joins a task without a grant of it.
 */
import type { Agent, Confirmation, Grant } from '../../protocol/grant.ts'
import type { PresentedToken, Workload } from '../../protocol/identity.ts'
import type { GrantRequest, Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { checkAttestation } from '../chain/attestation.ts'
import { about } from '../chain/presented.ts'
import { heldGrant, isGrantId, namedGrant, proofOf } from '../life/living.ts'
import type { Room } from '../room.ts'
import { invalid, termsWithin } from '../terms.ts'
import { draftChild, registered } from './draft.ts'
import { certificateAsked, checkExchanger, checkNamed } from './root.ts'

type Requested = Extract<Instruction, { kind: 'grant.request' }>

/** Token exchange with the parent grant as subject. The exchanger is the parent's holder, and proves its key if there is one. */
export async function proposeChild(
  i: Requested,
  subject: PresentedToken,
  client: Workload | undefined,
  room: Room,
): Promise<Proposal> {
  if (i.plan !== undefined) throw invalid('a plan is of a whole task; a grant below another has that of its task')
  const parent = await heldGrant(room, i.tenant, { token: subject.token, proof: proofOf(i.client, i.jkt) })
  checkExchanger(client, parent.agent)
  const workload = i.actor === undefined ? undefined : await room.identities.workload(i.actor)
  const agent = heirOf(i, workload, room.agents)
  const { attestation, request } = i
  const certificate = certificateAsked(request, client, agent)
  const cnf = childKeys(i, parent, certificate?.cnf)
  const until = certificate?.until
  return about(parent, () => delegation({ parent, agent, request, cnf, until, workload, attestation }, room))
}

/** From the local socket. A grant that is named by its id alone is passed on only by the human behind it. */
export async function proposeDelegation(
  i: Extract<Instruction, { kind: 'grant.delegate' }>,
  room: Room,
): Promise<Proposal> {
  const isNamed = isGrantId(i.parent)
  const parent = isNamed
    ? await namedGrant(room, i.tenant, i.parent)
    : await heldGrant(room, i.tenant, { token: i.parent })
  const { human } = parent
  if (isNamed && (human.iss !== i.human.iss || human.sub !== i.human.sub)) {
    throw new GatewayError(
      'delegation_refused',
      `The grant ${parent.id} was authorised by somebody else. Name it by its handle, or ask its holder to delegate.`,
    )
  }
  const agent = registered(i.agent, room.agents)
  return about(parent, () => delegation({ parent, agent, request: i.request, cnf: i.request.cnf }, room))
}

interface Delegation {
  readonly parent: Grant
  readonly agent: Agent
  readonly request: GrantRequest
  readonly cnf?: Confirmation | undefined
  readonly until?: number | undefined
  readonly workload?: Workload | undefined
  /** Signed by the parent's key. */
  readonly attestation?: string | undefined
}

function delegation({ parent, request, attestation, ...heir }: Delegation, room: Room): Proposal {
  checkDelegable(parent)
  // Its own signature is what makes a keyed holder's delegation its own; without one, anyone's word would stand for it.
  if (attestation === undefined && parent.cnf?.jkt !== undefined) {
    throw new GatewayError(
      'lineage_truncated',
      `The holder of grant ${parent.id} has a key and signs its delegations itself. Send the attestation as actor_proof, or sign the child: \`keyless grant sign\`.`,
    )
  }
  const nowMs = room.clock.nowMs()
  const bound = { above: parent, depth: parent.depth + 1, held: parent.authority, name: `its parent ${parent.id}` }
  const { terms, cut } = termsWithin(bound, request, room, nowMs)
  const grant = draftChild({ parent, ...heir, onBehalf: attestation === undefined }, terms, nowMs)
  if (attestation !== undefined)
    checkAttestation(attestation, { parent, child: grant, issuer: room.issuer, policy: room.policySet() })
  return delegated({ parent, grant, attestation, narrowed: cut, workload: heir.workload })
}

/** @throws {GatewayError} `delegation_refused` */
function checkDelegable(parent: Grant): void {
  const refusal = (why: string) =>
    new GatewayError('delegation_refused', `The grant ${parent.id} cannot be delegated: ${why}. Ask its grantor.`)
  if (!parent.delegable) throw refusal('it was issued as not delegable')
  if (parent.depth >= parent.maxDepth)
    throw refusal(`it is at depth ${parent.depth}, and ${parent.maxDepth} is the deepest of its chain`)
}

export function delegated(d: {
  readonly parent: Grant
  readonly grant: Grant
  readonly attestation?: string | undefined
  readonly narrowed?: readonly string[]
  readonly workload?: Workload | undefined
}): Proposal {
  const { parent, grant, attestation, narrowed = [], workload } = d
  return {
    kind: 'grant.delegate',
    parent,
    grant,
    authority: grant.authority,
    agent: grant.agent,
    ttlS: grant.expiresAt - grant.issuedAt,
    ...(attestation !== undefined && { attestation }),
    ...(narrowed.length > 0 && { narrowed }),
    ...(workload !== undefined && { workload }),
  }
}

/** The agent that is to act: proved by its own identity, or merely named. */
function heirOf(i: Requested, workload: Workload | undefined, agents: ReadonlyMap<string, Agent>): Agent {
  const id = workload?.id ?? i.requestedActor
  if (id === undefined) {
    throw new GatewayError(
      'actor_invalid',
      'Nothing says which agent the child grant is for. Send its identity as actor_token, or its registered id as requested_actor.',
    )
  }
  const agent = registered(id, agents)
  checkNamed(i.requestedActor, agent)
  return agent
}

/** The child's key: as named, or its certificate; else the one that was proved here, if it is not the parent's. */
function childKeys(
  { request, jkt }: Requested,
  parent: Grant,
  certificate: Confirmation | undefined,
): Confirmation | undefined {
  const cnf = { ...request.cnf, ...certificate }
  if (Object.keys(cnf).length > 0) return cnf
  return jkt === undefined || jkt === parent.cnf?.jkt ? undefined : { jkt }
}
