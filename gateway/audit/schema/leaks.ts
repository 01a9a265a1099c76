/** Kinds of entries about what turned up where no credential may be: reports of scanners, and canaries. */
import { z } from 'zod'
import { count, facts, gw, perhapsBehind, req, tenant, text, trace } from './members.ts'
import type { Kind } from './own.ts'

const own = { gw, tenant }

export const leakKinds: Readonly<Record<string, Kind>> = {
  'leak.reported': {
    written:
      'before what was reported to be leaked is ended; once for a report of nothing that is ours. While the log cannot be written it is ended all the same, and this is written later',
    members: {
      ...own,
      ...perhapsBehind,
      facts: facts({
        from: text('Reporter in the settings, `github`, or `socket`: whoever may open it.'),
        what: z
          .enum(['handle', 'grant', 'break_glass', 'credential', 'canary', 'unknown'])
          .describe('What it is to this gateway.'),
        count: count('Of those that are unknown.').optional(),
        type: text('What the reporter calls it. In its words, cut.').optional(),
        source: text('In what it stood. In its words, cut.').optional(),
        url: text('Where it stood, without query. In its words, cut.').optional(),
        grant: text('Grant that it is, or that the credential was leased under.').optional(),
        agent: text('Agent of that grant.').optional(),
        credential: text('Name in the settings.').optional(),
        cred_id: text('Keyed hash of the credential.').optional(),
        ephemeral: z.boolean().describe('False: a standing key.').optional(),
        canary: text('Name in the settings.').optional(),
        action: z
          .enum(['revoke', 'block', 'alert', 'none'])
          .describe('What is done. `alert`: somebody has to change it. `none`: it is over already, or not ours.'),
      }),
    },
  },
  'leak.canary_used': {
    written: 'when bait was seen that nothing legitimate uses: in a request, at a door, or in a report',
    members: {
      ...own,
      req: req.optional(),
      trace: trace.optional(),
      ...perhapsBehind,
      facts: facts({
        canary: text('Name in the settings.'),
        where: text('Where it stood; `report`: a scanner found it.'),
        host: text('To which it was to go.').optional(),
        address: text('Of the caller.').optional(),
        grant: text('Under which it was used.').optional(),
        agent: text('Agent of that grant.').optional(),
        from: text('Who reported it.').optional(),
        action: z.enum(['nothing', 'grant', 'task', 'agent']).describe('What ends.'),
      }),
    },
  },
}
