/** What entries say about the policies in force, and about the agents that they are for. */
import { z } from 'zod'
import { behind, count, epoch, facts, gw, perhapsBehind, tenant, text, texts } from './members.ts'

const own = { gw, tenant }

export const policyKinds = {
  'policy.loaded': {
    written: 'before these policies decide: at start, and when others are taken up',
    members: {
      ...own,
      facts: facts({
        policy_set: text('Digest of policies, schema and services.'),
        policies: count('How many.'),
        files: texts('Where from.'),
        services: texts('Services that are known.'),
        engines: texts(
          'Engines outside that have to agree: name, kind, and the address or the digest of the file.',
        ).optional(),
        source: z
          .enum(['dir', 'http', 'git'])
          .describe('Of a signed bundle: what kind of place it is from.')
          .optional(),
        place: text('Path or address of the source.').optional(),
        name: text('Of the bundle.').optional(),
        version: count('Of the bundle.').optional(),
        revision: text('Commit or entity tag.').optional(),
        signed_by: texts('Ids of the keys that signed it.').optional(),
        issued_at: epoch('When it was signed.').optional(),
        not_after: epoch('When it ends.').optional(),
      }),
    },
  },
  'policy.refused': {
    written: 'when policies or settings that were offered are not taken up; those before go on',
    members: {
      ...own,
      facts: facts({
        policy_set: text('What goes on.'),
        reason: text('Why.'),
        place: text('Path or address of the source.').optional(),
      }),
    },
  },
  'policy.ended': {
    written: 'before a bundle stops to decide without another in its place: everything is denied then',
    members: { ...own, facts: facts({ policy_set: text('What ends.'), reason: text('Why.') }) },
  },
  'policy.evaluated': {
    written: 'before the gateway answers what it would decide (AuthZEN); nothing comes of it',
    members: {
      ...own,
      facts: facts({
        by: text('Who asked: `reader:NAME`, `approver:NAME`, `grant:ID` or `socket`.'),
        address: text('From where.'),
        decisions: texts('Grant, operation, and `allow` or the code of the refusal; `-` for what was not found.'),
      }),
    },
  },
  'policy.shadow_began': {
    written: 'before a candidate is evaluated beside the policies in force',
    members: {
      ...own,
      facts: facts({
        candidate: text('Its digest.'),
        policies: count('How many.'),
        files: texts('Where from.'),
      }),
    },
  },
  'policy.shadow_differed': {
    written: 'when a candidate would have decided otherwise; once a minute for the same agent, operation and policies',
    members: {
      ...own,
      ...behind,
      facts: facts({
        grant: text('Grant of the call or instruction.'),
        about: text('Operation, or kind of the instruction.'),
        count: count('How often since the entry before about the same.'),
        policy_set: text('Digest of the policies in force.'),
        candidate: text('Digest of the candidate.'),
        effect: z.enum(['allow', 'deny']).describe('What was decided.'),
        candidate_effect: z.enum(['allow', 'deny']).describe('What the candidate would have.'),
        candidate_code: text('Why it would refuse: a code of docs/errors.md.').optional(),
        candidate_errors: texts('Errors of the policy engine.').optional(),
        policy_ids: texts('Policies that decided.'),
        candidate_policy_ids: texts('Policies of the candidate that would have.'),
        obligations: texts('Obligations in which the two differ.').optional(),
      }),
    },
  },
  'admin.agents_reloaded': {
    written: 'before the agents of the settings are others than before',
    members: {
      ...own,
      human: perhapsBehind.human,
      facts: facts({
        added: texts('Ids that are new.'),
        removed: texts('Ids that are registered no more: what they hold ends.'),
        changed: texts('Ids of which something else is said.'),
      }),
    },
  },
} as const
