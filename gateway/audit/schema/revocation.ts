/** What entries say of orders that end access, and of what the gateway noticed by itself. */
import { z } from 'zod'
import { behind, count, facts, gw, millis, perhapsBehind, tenant, text } from './members.ts'

const own = { gw, tenant }
const order = text('Id of the order.')

const about = {
  order,
  target: z.enum(['grant', 'task', 'agent', 'human', 'service', 'credential', 'policy_set', 'everything']),
  name: text('Of the target. Of a human it is not said here: `human` is them.').optional(),
  by: z
    .enum(['human', 'signal', 'automatic'])
    .describe('`signal`: a security event of a trusted issuer. `automatic`: a rule of the settings.'),
  from: text('Issuer of the signal, or what the rule is about.').optional(),
}

const who = perhapsBehind.human

export const revocationKinds = {
  'revocation.ordered': {
    written:
      'before access ends, by a human, who is `human` unless the target is one. While the log cannot be written it ends all the same, and this is written later',
    members: {
      ...own,
      human: who,
      facts: facts({
        ...about,
        detail: text('Why, in the words of whoever ordered it; for a human as target, also who that was.'),
        until: z
          .number()
          .nullable()
          .describe('What comes anew is refused until then, epoch seconds; null: until it is lifted.')
          .optional(),
      }),
    },
  },
  'revocation.completed': {
    written: 'when what lived under an order has ended',
    members: {
      ...own,
      facts: facts({
        order,
        tasks: count('That ended.'),
        grants: count('That ended.'),
        leases: count('Credentials that nobody uses any more; each has a `lease.revoked`.'),
        ms: millis('Since it was ordered.'),
      }),
    },
  },
  'revocation.failed': {
    written:
      'when an order could not be carried out wholly: it is in force at this gateway, and tried again for the others',
    members: { ...own, facts: facts({ order, code: text('Why: a code of docs/errors.md.') }) },
  },
  'revocation.lifted': {
    written: 'before something that was blocked is let in again; what was ended stays ended',
    members: { ...own, human: who, facts: facts(about) },
  },
  'revocation.anomaly': {
    written: 'when an agent does what it never did, or far more than it ever did',
    members: {
      ...own,
      ...behind,
      facts: facts({
        grant: text('Under which it happened.'),
        agent: text('Agent.'),
        rule: z.enum(['calls_per_minute', 'new_operations']),
        detail: text('What was seen, and what it was held against.'),
        action: z.enum(['log', 'suspend', 'revoke']).describe('What the settings want done.'),
      }),
    },
  },
} as const
