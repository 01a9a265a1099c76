/**
 * Root grants: a human's authority for one agent and one task. From the local socket; from a human's token and a workload's
 * identity that are presented together; from a workload alone, for which its registered owner answers.
 */
import type { Agent, Beside, Grant, Human, Task } from '../../protocol/grant.ts'
import { uuidv7 } from '../../protocol/id.ts'
import type { PresentedToken, Workload } from '../../protocol/identity.ts'
import type { GrantRequest, Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { planOf } from '../life/plan.ts'
import { livingTask } from '../life/task.ts'
import type { Room } from '../room.ts'
import { invalid, termsAsked } from '../terms.ts'
import { checkPurpose, draftRoot, type Root, registered } from './draft.ts'

type Opening = Extract<Instruction, { kind: 'task.open' }>
type Requested = Extract<Instruction, { kind: 'grant.request' }>

/** From the local socket, or by whoever grants what an agent asked for: that is the human. */
export function proposeOpen(i: Opening, room: Room): Proposal | Promise<Proposal> {
  if (i.beside !== undefined) return proposeBeside(i, i.beside, room)
  const agent = registered(i.agent, room.agents)
  return opening(i, { tenant: i.tenant, human: i.human, agent, cnf: i.request.cnf }, room)
}

/** In the task as it is now, which ends it as well: what is asked for in the course of a task is not for afterwards. */
async function proposeBeside(i: Opening, beside: Grant, room: Room): Promise<Proposal> {
  const { root, state } = await livingTask(i.tenant, beside.task.id, room)
  if (state === 'suspended') throw invalid(`the task ${beside.task.id} is suspended; resume it first`)
  const agent = registered(i.agent, room.agents)
  const nowMs = room.clock.nowMs()
  const { step, trace, cnf, expiresAt: until, instance, attested, workload } = beside
  const bound = { ...(step !== undefined && { step }), ...(trace !== undefined && { trace }) }
  const terms = termsAsked({ delegable: false, ...i.request, ...bound }, room, nowMs)
  const draft = draftRoot({ tenant: i.tenant, human: i.human, agent, task: root.task, cnf, until }, terms, nowMs)
  const proved = {
    ...(instance !== undefined && { instance }),
    ...(attested && { attested }),
    ...(workload && { workload }),
  }
  return { ...opened({ ...draft, ...proved, beside: besideOf(beside) }, {}), beside }
}

function besideOf({ id, ancestry, human: { iss, sub }, lineage, beside }: Grant): Beside {
  const agents = lineage.flatMap((step) => (step.type === 'ai_agent' ? [step.id] : []))
  return { grants: [id, ...ancestry.map((above) => above.id)], human: { iss, sub }, agents, ...(beside && { beside }) }
}

/** Token exchange with a human's token (RFC 8693 §2.1). @param client authenticated client, if any. */
export async function proposeAuthorised(
  i: Requested,
  subject: PresentedToken,
  client: Workload | undefined,
  room: Room,
): Promise<Proposal> {
  checkPurpose(i.purpose) // before anything that costs: there is no grant without a declared intent
  const workload = i.actor === undefined ? client : await room.identities.workload(i.actor)
  if (workload === undefined) {
    throw new GatewayError(
      'actor_invalid',
      'Nothing proves which agent is to act. Send its workload identity as actor_token, or authenticate the client as that agent.',
    )
  }
  const agent = registered(workload.id, room.agents)
  checkNamed(i.requestedActor, agent)
  checkExchanger(client, agent)
  const { human, mayAct } = await room.identities.human(subject)
  if (mayAct !== undefined && !mayAct.includes(agent.id)) {
    throw new GatewayError(
      'actor_invalid',
      `The subject token says in may_act who may act for ${human.sub}, and ${agent.id} is not among them. Present a token that names it.`,
    )
  }
  return opening(i, { tenant: i.tenant, human, agent, workload, ...keysOf(i, client, agent) }, room)
}

/** Client credentials (RFC 6749 §4.4): nobody presents a human, so the agent's registered owner answers for it. */
export function proposeAutonomous(i: Requested, client: Workload | undefined, room: Room): Proposal {
  if (i.subject !== undefined || i.actor !== undefined)
    throw invalid(
      'client_credentials takes no subject_token and no actor_token; for them use the grant type token-exchange',
    )
  if (client === undefined) {
    throw new GatewayError(
      'client_invalid',
      'Nothing proves who the client is. Send a client assertion (private_key_jwt or jwt-spiffe), or use a client certificate.',
    )
  }
  const agent = registered(client.id, room.agents)
  const human: Human = { iss: 'registry', sub: agent.owner }
  return opening(i, { tenant: i.tenant, human, agent, workload: client, ...keysOf(i, client, agent) }, room)
}

/**
 * Delegation confusion (standards.md A1): whoever exchanges must be the agent that the authority is of, or be registered to do
 * so for it. @throws {GatewayError} `actor_invalid`
 */
export function checkExchanger(client: Workload | undefined, agent: Agent): void {
  if (client === undefined || client.id === agent.id || agent.orchestrators?.includes(client.id) === true) return
  throw new GatewayError(
    'actor_invalid',
    `The client ${client.id} may not exchange tokens for ${agent.id}. Authenticate as that agent, or add the client to its \`orchestrators\` in the settings.`,
  )
}

/** @throws {GatewayError} `actor_invalid` when two agents are named. */
export function checkNamed(requested: string | undefined, proved: Agent): void {
  if (requested === undefined || requested === proved.id) return
  throw new GatewayError(
    'actor_invalid',
    `The identity presented is of ${proved.id}, and requested_actor names another agent. Leave requested_actor out.`,
  )
}

function opening(i: Opening | Requested, root: Omit<Root, 'task'>, room: Room): Proposal {
  const { purpose } = i
  checkPurpose(purpose)
  const nowMs = room.clock.nowMs()
  const terms = termsAsked(i.request, room, nowMs)
  const task = { id: `task_${uuidv7(nowMs)}`, purpose, ...planOf(i.plan, room.knowsOperation), ...countedFrom(room) }
  const grant = draftRoot({ ...root, task }, terms, nowMs)
  const { workload } = root
  return opened(grant, { heartbeat: i.kind === 'task.open' && i.heartbeat === true, ...(workload && { workload }) })
}

/** From its first call on, or never: a past of which only a part is known is none. */
export function countedFrom({ countsPast }: Pick<Room, 'countsPast'>): Pick<Task, 'counted'> {
  return countsPast?.() === true ? { counted: true } : {}
}

export function opened(
  grant: Grant,
  o: { readonly heartbeat?: boolean; readonly workload?: Workload },
): Extract<Proposal, { kind: 'task.open' }> {
  const { authority, agent, issuedAt, expiresAt } = grant
  return { kind: 'task.open', grant, authority, agent, ttlS: expiresAt - issuedAt, heartbeat: false, ...o }
}

/** What a grant is to be bound to, and until when that is good. */
type Binding = Pick<Root, 'cnf' | 'until'>

/** The key that was named for the agent, or those that it proved itself. */
function keysOf({ jkt, request }: Requested, client: Workload | undefined, agent: Agent): Binding {
  const certificate = certificateAsked(request, client, agent)
  const cnf = { ...(jkt !== undefined && { jkt }), ...certificate?.cnf, ...request.cnf }
  return Object.keys(cnf).length === 0 ? {} : { cnf, until: certificate?.until }
}

/**
 * RFC 8705 §3.4: certificate-bound only where the client wants it, because not every door can see a certificate. An
 * orchestrator's certificate is not its agent's. @throws {GatewayError} `instruction_invalid` when there is none to bind to.
 */
export function certificateAsked(
  { isCertificateBound = false }: GrantRequest,
  client: Workload | undefined,
  agent: Agent,
): Binding | undefined {
  if (!isCertificateBound) return undefined
  if (client?.id === agent.id && client.cnf !== undefined) return { cnf: client.cnf, until: client.expiresAt }
  throw invalid(
    `the grant is to be bound to a certificate, and ${agent.id} did not authenticate with one. Connect with its X.509-SVID, or leave tls_client_certificate_bound_access_tokens out`,
  )
}
