/** Kinds of entries about emergency access. */
import { z } from 'zod'
import { cred, outcome, target } from './calls.ts'
import {
  behind,
  client,
  count,
  decision,
  digest,
  facts,
  grant,
  gw,
  json,
  perhapsBehind,
  req,
  tenant,
  text,
  texts,
  trace,
} from './members.ts'
import type { Kind } from './own.ts'

const own = { gw, tenant }
const request = text('Id of the request that custodians signed.')

export const breakGlassKinds: Readonly<Record<string, Kind>> = {
  'breakglass.opened': {
    written: 'before emergency access is opened; `human` is who asked for it, and `task` why',
    members: {
      ...own,
      req,
      decision,
      grant,
      ...behind,
      facts: facts({
        request,
        digest: digest('Of what they signed.'),
        custodians: texts('Who signed it.'),
        threshold: count('How many have to.'),
        opened_by: text('Who opened it at this gateway: issuer and name.'),
        ttl_s: count('Seconds.'),
        hosts: texts('Gateways where it may be opened; empty: any.'),
      }),
    },
  },
  'breakglass.refused': {
    written: 'when emergency access was asked for and not opened',
    members: {
      ...own,
      req,
      facts: facts({
        request,
        code: text('Why: a code of docs/errors.md.'),
        detail: text('The same in words.'),
        opened_by: text('Who asked at this gateway: issuer and name.'),
      }),
    },
  },
  'breakglass.used': {
    written:
      'with every call that emergency access lets through, after its decision and before a credential is attached',
    members: {
      ...own,
      req,
      ...behind,
      facts: facts({
        grant: text('Grant.'),
        request,
        service: text('Service.'),
        operation: text('Operation.'),
        method: z.string(),
        host: z.string(),
      }),
    },
  },
  'breakglass.closed': {
    written: 'when emergency access has ended',
    members: {
      ...own,
      req,
      grant,
      ...behind,
      facts: facts({
        request,
        reason: z.enum(['closed', 'expired', 'revoked']),
        closed_by: text('Who closed it: issuer and name.').optional(),
        uses: count('Calls that this run of the gateway let through.'),
      }),
    },
  },
  'breakglass.recorded_late': {
    written:
      'for each entry that the journal kept while the log could not be written; members are those of the entry, `facts` says which it is',
    members: {
      ...own,
      req: req.optional(),
      trace: trace.optional(),
      client: client.optional(),
      target: target.optional(),
      decision: decision.optional(),
      cred: cred.optional(),
      outcome: outcome.optional(),
      grant: grant.optional(),
      ...perhapsBehind,
      facts: facts({
        of: text('Its kind.'),
        at: text('RFC 3339: when it happened.'),
        boot: text('The run of the process in which it did.').optional(),
        node: text('Replica.').optional(),
        journal: text('Which journal kept it.'),
        n: count('Its number there: each is here once, and none is left out.'),
        facts: json.describe('Its own `facts`.').optional(),
      }),
    },
  },
  'breakglass.journal_damaged': {
    written: 'at start, when the journal is not what was written into it',
    members: {
      ...own,
      facts: facts({
        journal: z.string(),
        whole: count('Entries in front of the damage; they are recorded.'),
        kept_in: text('File that keeps all of it.'),
      }),
    },
  },
}
