/** Entries about the consent of humans: what was asked for, what they said, and that a call took it up. */
import { z } from 'zod'
import { behind, count, epoch, facts, gw, keyed, perhapsBehind, tenant, text, texts } from './members.ts'
import type { Kind } from './own.ts'

const own = { gw, tenant }

const approval = text('Approval, UUIDv7.')
const fingerprint = keyed('Of everything that was asked for, in canonical form.')
const grant = text('Grant that asks.')
const operation = text('Operation; `mint` or `delegate` where it is about a grant.')
const about = { approval, fingerprint, operation, agent: text('Agent that asks.'), task: text('Task.'), grant }

export const approvalKinds: Readonly<Record<string, Kind>> = {
  'approval.requested': {
    written: 'before anybody is asked to approve a call or an instruction',
    members: {
      ...own,
      ...behind,
      facts: facts({
        ...{ approval, fingerprint, operation, grant },
        call: text('The call or instruction: `req` of its entries.'),
        access: z.enum(['read', 'write', 'admin']),
        sensitivity: z.string(),
        from: texts('Groups of which somebody has to consent; `human` is the human of the task.'),
        count: count('Different people altogether.'),
        reuse_s: count('Seconds for which the same call may be repeated; absent: it counts once.').optional(),
        expires: epoch('When it can be decided no longer.'),
        service: text('Service.').optional(),
        method: z.string().optional(),
        host: text('Host.').optional(),
        path: text('Without the query.').optional(),
      }),
    },
  },
  'approval.decided': {
    written: 'before what a human said about an approval counts; `human` is who said it',
    members: {
      ...own,
      human: perhapsBehind.human,
      facts: facts({
        ...about,
        verdict: z.enum(['approve', 'deny']),
        via: text('By which way it came: `socket`, `page`, …'),
        needed: count('People who have to consent yet; 0: it was the last one, or a no.'),
      }),
    },
  },
  'approval.expired': {
    written: 'when nobody decided in time, or nobody can use it any more',
    members: {
      ...own,
      facts: facts({ ...about, why: z.enum(['time', 'grant_ended']).describe('`time`: nobody said no either.') }),
    },
  },
  'approval.used': {
    written: 'before the decision on the call, or the instruction, that takes the approval up',
    members: {
      ...own,
      ...behind,
      facts: facts({ approval, fingerprint, grant, call: text('The call or instruction: `req` of its entries.') }),
    },
  },
}
