/**
 * A root grant from a delegation chain of another kind (standards.md 1.8): what its newest token allows is the most that may be
 * asked for, under the key that the token is bound to.
 */

import { uuidv7 } from '../../protocol/id.ts'
import type { PresentedToken, Workload } from '../../protocol/identity.ts'
import type { Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type AatChain, readAatChain } from '../chain/aat.ts'
import { planOf } from '../life/plan.ts'
import type { Room } from '../room.ts'
import { termsWithin } from '../terms.ts'
import { checkPurpose, draftRoot, registered } from './draft.ts'
import { certificateAsked, checkExchanger, checkNamed, countedFrom, opened } from './root.ts'

/** @throws {GatewayError} `subject_invalid`, `actor_invalid`, `invalid_scope`, … */
export async function proposeImported(
  i: Extract<Instruction, { kind: 'grant.request' }>,
  subject: PresentedToken,
  client: Workload | undefined,
  room: Room,
): Promise<Proposal> {
  const { purpose } = i
  checkPurpose(purpose)
  const workload = i.actor === undefined ? client : await room.identities.workload(i.actor)
  if (workload === undefined)
    throw new GatewayError(
      'actor_invalid',
      'Nothing proves which agent is to act. Send its workload identity as actor_token.',
    )
  const agent = registered(workload.id, room.agents)
  checkNamed(i.requestedActor, agent)
  checkExchanger(client, agent)
  const nowMs = room.clock.nowMs()
  const nowS = Math.floor(nowMs / 1000)
  const chain = await readAatChain(subject.token, {
    rootKey: room.chainKey,
    audience: room.issuer,
    proved: i.jkt,
    nowS,
  })
  const { terms } = termsWithin(boundOf(chain, nowS, room.maxDepth), i.request, room, nowMs)
  const human = { iss: chain.issuer, sub: subjectOf(chain) }
  const task = { id: `task_${uuidv7(nowMs)}`, purpose, ...planOf(i.plan, room.knowsOperation), ...countedFrom(room) }
  const cnf = { jkt: chain.holder, ...certificateAsked(i.request, client, agent) }
  const grant = draftRoot({ tenant: i.tenant, human, agent, task, cnf, workload }, terms, nowMs)
  return opened(grant, { workload })
}

function boundOf(chain: AatChain, nowS: number, maxDepth: number) {
  const { authority, expiresAt, depthLeft } = chain
  const deepest = Math.min(depthLeft, maxDepth)
  const above = { authority, issuedAt: nowS, expiresAt, maxDepth: deepest, delegable: deepest > 0 }
  return { above, depth: 0, held: authority, name: 'what the chain allows' }
}

/** There is no grant without a human behind it. */
function subjectOf({ subject, issuer }: AatChain): string {
  if (subject !== undefined) return subject
  throw new GatewayError(
    'subject_invalid',
    `The root token of ${issuer} names no subject, so nobody can be said to have authorised it.`,
  )
}
