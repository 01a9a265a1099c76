/** What entries say about the policies in force, and about the agents that they are for. */
import { count, facts, gw, human, perhapsBehind, tenant, text, texts } from './schema-members.ts'

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
