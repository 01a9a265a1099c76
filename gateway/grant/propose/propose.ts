/** What an instruction would do, complete and checked: one line for each kind. Nothing has happened yet. */
import type { Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Room } from '../room.ts'
import { invalid } from '../terms.ts'
import { proposeChild, proposeDelegation } from './child.ts'
import { proposeImported } from './import.ts'
import { proposePresented } from './present.ts'
import { proposeRevoke } from './revoke.ts'
import { proposeAuthorised, proposeAutonomous, proposeOpen } from './root.ts'
import {
  proposeComplete,
  proposeIntent,
  proposeRenewal,
  proposeResume,
  proposeStepComplete,
  proposeSuspend,
} from './task.ts'

/** Instructions that only take away. */
export const TAKING: ReadonlySet<Instruction['kind']> = new Set([
  'grant.revoke',
  'task.complete',
  'task.step_complete',
  'task.suspend',
])

export function propose(i: Instruction, room: Room): Proposal | Promise<Proposal> {
  if (!TAKING.has(i.kind)) room.clockWatch.check()
  switch (i.kind) {
    case 'task.open':
      return proposeOpen(i, room)
    case 'grant.request':
      return proposeRequested(i, room)
    case 'grant.delegate':
      return proposeDelegation(i, room)
    case 'grant.present':
      return proposePresented(i, room)
    case 'grant.revoke':
      return proposeRevoke(i, room)
    case 'task.complete':
      return proposeComplete(i, room)
    case 'task.intent':
      return proposeIntent(i, room)
    case 'task.step_complete':
      return proposeStepComplete(i, room)
    case 'task.suspend':
      return proposeSuspend(i, room)
    case 'task.resume':
      return proposeResume(i, room)
    case 'task.renew':
      return proposeRenewal(i, room)
  }
}

/** The token endpoint: what is asked for depends on what is presented as its subject. */
async function proposeRequested(i: Extract<Instruction, { kind: 'grant.request' }>, room: Room): Promise<Proposal> {
  const client = await room.identities.client(i.client) // first: whoever fails to prove who it is learns nothing else
  if (i.grantType === 'client_credentials') return proposeAutonomous(i, client, room)
  const { subject } = i
  if (subject === undefined)
    throw invalid('a token exchange needs a subject_token: the token of a human, or the parent grant')
  switch (subject.type) {
    case 'access_token':
      return proposeChild(i, subject, client, room)
    case 'id_token':
    case 'jwt':
      return proposeAuthorised(i, subject, client, room)
    case 'aat-chain':
      return proposeImported(i, subject, client, room)
    default:
      throw new GatewayError(
        'subject_invalid',
        `A subject token of the type ${subject.type} gives no authority. Present a human's id_token or jwt, or a grant as access_token.`,
      )
  }
}
