/**
 * Changes of a task's life: a new intent, the end of a step, suspension, resumption, the end. What only takes away may be asked
 * by the owner of the socket for any task; what gives anew, only by the human or the workload that the task is of.
 */
import type { Confirmation, Grant, Human, Task } from '../../protocol/grant.ts'
import type { Workload } from '../../protocol/identity.ts'
import type { GrantRequest, Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { isBudgeted } from '../attenuate/remaining.ts'
import { planAfter, planOf } from '../life/plan.ts'
import { livingTask, mandated, stepMark } from '../life/task.ts'
import type { Room } from '../room.ts'
import { bindingsOf, invalid, type Terms, termsAsked, termsWithin } from '../terms.ts'
import { checkPurpose, draftRoot, registered } from './draft.ts'

type Of<K extends Instruction['kind']> = Extract<Instruction, { kind: K }>

export async function proposeComplete(i: Of<'task.complete'>, room: Room): Promise<Proposal> {
  const { root } = await mandated(i, room)
  return { kind: 'task.complete', grant: root, reason: i.reason }
}

export async function proposeSuspend(i: Of<'task.suspend'>, room: Room): Promise<Proposal> {
  const task = await mandated(i, room)
  if (task.state === 'suspended') throw invalid(`the task ${task.id} is suspended already`)
  return { kind: 'task.suspend', grant: task.root, reason: 'suspended' }
}

/** By whoever has the task, or by a holder that works on this very step. */
export async function proposeStepComplete(i: Of<'task.step_complete'>, room: Room): Promise<Proposal> {
  const isOwnStep = 'holder' in i.by && i.by.holder.task.id === i.task && i.by.holder.step === i.step
  const { root } = isOwnStep ? await livingTask(i.tenant, i.task, room) : await mandated(i, room)
  const mark = stepMark(i.task, i.step)
  const living = await room.store.grantsOf(i.tenant, i.task)
  if (!living.some(({ marks }) => marks.includes(mark))) {
    throw new GatewayError(
      'step_unknown',
      'No living grant of the task belongs to a step of this name: it has ended already, or never was.',
    )
  }
  return { kind: 'task.step_complete', grant: root, step: i.step, reason: 'step_completed' }
}

/**
 * A new declared intent; policy decides afresh. The human may authorise something else; a holder stays within what was
 * authorised for the task, within the old expiry, and with the key, step and prompt that it has.
 */
export async function proposeIntent(i: Of<'task.intent'>, room: Room): Promise<Proposal> {
  const task = await mandated(i, room)
  const { root, ceiling } = task
  if (task.state === 'suspended') throw invalid(`the task ${task.id} is suspended; resume it first`)
  checkPurpose(i.purpose)
  const plan = planOf(i.plan, room.knowsOperation)
  const nowMs = room.clock.nowMs()
  if ('human' in i.by) {
    checkHuman(i.by.human, root)
    const terms = termsAsked({ ...keptTerms(root, room), ...i.request }, room, nowMs, root.authority)
    const cnf = i.request.cnf ?? root.cnf
    const intent = { purpose: i.purpose, ...planAfter(root.task, plan, true) }
    return { ...replacing('intent_changed', { root, terms, intent, cnf }, room), ceiling: terms.authority }
  }
  const bound = {
    // What was narrowed away does not come back where it had a budget: nobody knows what of it was spent.
    above: isBudgeted(ceiling) ? root : { ...root, authority: ceiling },
    depth: 0,
    held: root.authority,
    name: `what its task was opened for`,
  }
  const { terms } = termsWithin(bound, i.request, room, nowMs)
  const intent = { purpose: i.purpose, ...planAfter(root.task, plan, false) }
  return replacing('intent_changed', { root, terms, intent, cnf: root.cnf }, room)
}

/** The workload proves itself again; for one that is started from the socket, its owner vouches. Then policy decides again. */
export async function proposeResume(i: Of<'task.resume'>, room: Room): Promise<Proposal> {
  const { tenant, by } = i
  const task = await livingTask(tenant, i.task, room)
  const { root } = task
  if ('human' in by) checkHuman(by.human, root)
  const workload = 'human' in by ? undefined : await returning(await room.identities.client(by.client), root)
  if (task.state !== 'suspended') throw invalid(`the task ${task.id} is not suspended, so there is nothing to resume`)
  const cnf = 'human' in by ? root.cnf : provedAgain(workload, by.jkt, root)
  const until = cnf?.['x5t#S256'] === undefined ? undefined : workload?.expiresAt
  const request: GrantRequest = { ...keptTerms(root, room), ...(i.ttlS !== undefined && { ttlS: i.ttlS }) }
  const terms = termsAsked(request, room, room.clock.nowMs(), root.authority)
  return replacing('resumed', { root, terms, intent: root.task, cnf, until, workload }, room)
}

/**
 * The same again for longer, by the human alone. What is not bound to a key can be handed to whoever the human runs; the holder of
 * a key, and what is bound to a step or prompt, lives no longer than it was given.
 */
export async function proposeRenewal(i: Of<'task.renew'>, room: Room): Promise<Proposal> {
  const { root, state } = await mandated(i, room)
  if (!('human' in i.by))
    throw new GatewayError(
      'delegation_refused',
      'A holder cannot lengthen its own grant. The human who authorised the task renews it, or opens another.',
    )
  checkHuman(i.by.human, root)
  if (state === 'suspended') throw invalid(`the task ${root.task.id} is suspended; resume it first`)
  const preset = root.preset ?? 'per-task'
  if (root.cnf !== undefined || preset !== 'per-task')
    throw invalid(
      `the task ${root.task.id} is ${root.cnf ? 'bound to a key' : `of the preset ${preset}`}, and lives as long as it was given; open another`,
    )
  const request: GrantRequest = { ...keptTerms(root, room), ...(i.ttlS !== undefined && { ttlS: i.ttlS }) }
  const terms = termsAsked(request, room, room.clock.nowMs(), root.authority)
  return replacing('renewed', { root, terms, intent: root.task, cnf: undefined }, room)
}

/** Another human cannot give in this one's name. */
function checkHuman(human: Human, { human: own, task }: Grant): void {
  if (human.iss === own.iss && human.sub === own.sub) return
  throw new GatewayError(
    'delegation_refused',
    `The task ${task.id} was authorised by somebody else, who alone can authorise it anew. It can be completed or suspended from here.`,
  )
}

function returning(client: Workload | undefined, { agent, task }: Grant): Workload {
  if (client?.id === agent.id) return client
  if (client === undefined) {
    throw new GatewayError(
      'client_invalid',
      'Nothing proves that the workload is back. Send its identity as a client assertion.',
    )
  }
  throw new GatewayError('task_unknown', `There is no task ${task.id} of the client ${client.id}.`)
}

/**
 * Coming back without a key would loosen what was bound to one. A certificate counts where the grant was bound to one, or where
 * no other key is proved: a door that sees no certificates must not lose a grant that it knew.
 */
function provedAgain(
  workload: Workload | undefined,
  jkt: string | undefined,
  { cnf: before, task }: Grant,
): Confirmation | undefined {
  if (before === undefined) return jkt === undefined ? undefined : { jkt }
  const isCertified = before['x5t#S256'] !== undefined || jkt === undefined
  const cnf = { ...(isCertified && workload?.cnf), ...(jkt !== undefined && { jkt }) }
  if (Object.keys(cnf).length > 0) return cnf
  throw new GatewayError(
    'dpop_invalid',
    `The grants of task ${task.id} are bound to a key. Prove one with DPoP, or come with a client certificate.`,
  )
}

/** What a grant keeps that takes the place of another, unless something else is asked for. */
function keptTerms(root: Grant, room: Room): GrantRequest {
  const { delegable, maxDepth } = root
  return { ...bindingsOf(root), delegable, maxDepth: Math.min(maxDepth, room.maxDepth) }
}

type Replaced = Extract<Proposal, { kind: 'grant.replace' }>

interface Replacement {
  readonly root: Grant
  readonly terms: Terms
  readonly intent: Pick<Task, 'purpose' | 'plan'>
  readonly cnf: Confirmation | undefined
  readonly until?: number | undefined
  readonly workload?: Workload | undefined
}

function replacing(reason: Replaced['reason'], r: Replacement, room: Room): Replaced {
  const { root: old, terms, intent, cnf, until, workload } = r
  const { tenant, human, instance, attested, workload: proved } = old
  const agent = registered(old.agent.id, room.agents)
  const { id, counted } = old.task
  const { purpose, plan } = intent
  const task = { id, purpose, ...(plan && { plan }), ...(counted && { counted }) }
  const draft = draftRoot({ tenant, human, agent, task, cnf, until, workload }, terms, room.clock.nowMs())
  const isSame = workload === undefined // the workload goes on, so what it proved stands
  const grant: Grant = {
    ...draft,
    ...(isSame && instance !== undefined && { instance }),
    ...(isSame && attested && { attested }),
    ...(isSame && proved && { workload: proved }),
  }
  return {
    kind: 'grant.replace',
    reason,
    old,
    grant,
    authority: grant.authority,
    agent,
    ttlS: grant.expiresAt - grant.issuedAt,
    ...(workload !== undefined && { workload }),
  }
}
