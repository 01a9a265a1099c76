/** Kinds of entries about signals: security events of others, and messages to others. */
import { z } from 'zod'
import { count, facts, gw, perhapsBehind, tenant, text, texts } from './members.ts'
import type { Kind } from './own.ts'

const own = { gw, tenant }
const about = facts({ name: text('Of the webhook or stream.') })

export const signalKinds: Readonly<Record<string, Kind>> = {
  'signal.received': {
    written: 'when a security event token of an issuer in the settings has taken effect',
    members: {
      ...own,
      facts: facts({
        issuer: text('`iss`.'),
        jti: text('`jti`: it counts once.'),
        events: texts('What it tells of: last part of the URI of each event that is understood, the URI of others.'),
        action: z.enum(['end', 'block', 'lift', 'note']).describe('What it asks for. `note`: nothing but this entry.'),
        about: z.enum(['human', 'agent', 'task', 'nobody']).describe('Whom; `nobody`: see `reason`.'),
        reason: text('Why less was done than it asks for.').optional(),
        order: text('Id of the order to revoke, which its entries name.').optional(),
        grants: count('That it ended.').optional(),
      }),
    },
  },
  'signal.refused': {
    written:
      'when a token that names an issuer of the settings is not to be believed; at most ten a minute for each issuer',
    members: {
      ...own,
      facts: facts({ issuer: text('That it names.'), err: text('RFC 8935 §2.4.'), reason: text('Why.') }),
    },
  },
  'signal.undelivered': {
    written: 'when a message to others was given up; it is kept, and can be sent again',
    members: {
      ...own,
      facts: facts({
        to: text('Webhook or stream.'),
        id: text('Of the message.'),
        about: text('Kind of the entry that it tells of.'),
        entry: count('Its number.'),
        attempts: count('How often it was tried.'),
        reason: text('What the last attempt met.').optional(),
      }),
    },
  },
  'admin.webhook_retried': {
    written: 'before messages that were given up are sent again',
    members: {
      ...own,
      human: perhapsBehind.human,
      facts: facts({ name: text('Of the webhook or stream.'), id: text('One message; absent: all.').optional() }),
    },
  },
  'admin.webhook_tested': {
    written: 'before a test message is sent',
    members: { ...own, human: perhapsBehind.human, facts: about },
  },
}
