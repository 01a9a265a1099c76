/** Kinds of entries about approvers that sign in, and about access that agents ask for. */
import { z } from 'zod'
import { behind, count, facts, gw, perhapsBehind, tenant, text } from './members.ts'

const wanted = {
  scope: z.string().optional(),
  operations: z.array(z.string()).describe('All that is named, at most 64.'),
  ttl_s: count('Seconds that the grant would live, if that was said.').optional(),
}
const byHuman = { gw, tenant, human: perhapsBehind.human }

export const approverKinds = {
  'admin.approver_signed_in': {
    written: 'before somebody is signed in at the pages of approvals',
    members: { ...byHuman, facts: facts({ address: z.string() }) },
  },
  'approval.access_requested': {
    written: 'before a request for more access can be decided',
    members: {
      gw,
      tenant,
      ...behind,
      facts: facts({
        access_request: text('Its id.'),
        grant: text('Of the agent that asks.'),
        ...wanted,
        event: text('Refused call that it is about; as the agent has it.').optional(),
        agent_says: z.string().describe('In the words of the agent, cut to 500 characters; nothing of it is verified.'),
      }),
    },
  },
  'admin.access_edited': {
    written: 'before a human puts something else in place of what an agent asked for',
    members: { ...byHuman, facts: facts({ access_request: text('Its id.'), via: z.string(), ...wanted }) },
  },
  'admin.access_decided': {
    written:
      'before a request for more access is granted or denied; the grant is made, and recorded, when its agent fetches it',
    members: {
      ...byHuman,
      facts: facts({
        access_request: text('Its id.'),
        verdict: z.enum(['grant', 'deny']),
        via: z.string(),
        agent: z.string(),
        task: z.string(),
        ...wanted,
      }),
    },
  },
} as const
