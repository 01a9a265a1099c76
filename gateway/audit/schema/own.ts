/** Kinds of entries about the gateway and its log: under no grant, and of no call. */
import { z } from 'zod'
import { count, digest, facts, gw, json, millis, perhapsBehind, tenant, text, texts } from './members.ts'

/** A kind of entry: when it is written, and its members besides `v`, `seq`, `ts`, `log`, `kind`. */
export interface Kind {
  readonly written: string
  readonly members: z.ZodRawShape
}

const own = { gw, tenant }
const itself = <S extends z.ZodRawShape>(members: S) => ({ facts: facts(members) })

const connection = facts({ credential: text('Name in the settings.') })

export const ownKinds: Readonly<Record<string, Kind>> = {
  'settings.loaded': {
    written: 'at start',
    members: {
      ...own,
      facts: facts({
        digest: digest('Of the values in the settings file as RFC 8785 JSON; secrets stand in it by reference.'),
        file: z.string().nullable(),
        names: texts('Settings in it, two levels deep; all others have their defaults.'),
      }),
    },
  },
  'admin.personal_forgotten': {
    written: 'before the key of a human is destroyed',
    members: {
      ...own,
      human: perhapsBehind.human,
      facts: facts({ keys: texts('Ids of the keys; not whose they were.') }),
    },
  },
  'admin.records_read': {
    written: 'before somebody is shown what is in the log',
    members: {
      ...own,
      facts: facts({
        log: text('That was read.'),
        reader: text('Name in the settings.'),
        address: z.string(),
        filter: json.describe('What was asked for.'),
        found: count('Entries that were shown.'),
      }),
    },
  },
  'admin.secret_set': {
    written: 'before a secret of a new name is sealed',
    members: { ...own, human: perhapsBehind.human, facts: facts({ name: text('Of the secret.') }) },
  },
  'admin.secret_rotated': {
    written: 'before another value takes the place of a sealed secret',
    members: { ...own, human: perhapsBehind.human, facts: facts({ name: text('Of the secret.') }) },
  },
  'admin.secret_removed': {
    written: 'before a sealed secret is removed',
    members: { ...own, human: perhapsBehind.human, facts: facts({ name: text('Of the secret.') }) },
  },
  'admin.secrets_resealed': {
    written: 'before all sealed values are sealed anew under a new key',
    members: { ...own, human: perhapsBehind.human, facts: facts({}) },
  },
  'admin.connected': {
    written: 'before the connection of a human to a service can be used; `human` is whose it is',
    members: { ...own, human: perhapsBehind.human, facts: connection },
  },
  'admin.connection_lost': {
    written: 'when the server of a connection does not take its refresh token any more: the human has to connect again',
    members: { ...own, human: perhapsBehind.human, facts: connection },
  },
  'admin.disconnected': {
    written: 'before a connection is removed, and revoked where its server offers that',
    members: { ...own, human: perhapsBehind.human, facts: connection },
  },
  'admin.leases_revoked': {
    written: 'before upstream credentials of living grants are dropped and revoked; each has a `lease.revoked`',
    members: {
      ...own,
      human: perhapsBehind.human,
      facts: facts({
        task: text('Only those of its living grants.').optional(),
        grant: text('Only those of this grant.').optional(),
        credential: text('Only those of this name in the settings.').optional(),
        service: text('Only those for this service.').optional(),
      }),
    },
  },
  'admin.ca_rotated': {
    written: 'when the CA of the gateway is another one',
    members: { ...own, facts: facts({ before: texts('SHA-256 of each certificate.'), after: texts('The same.') }) },
  },
  'admin.bodies_pruned': {
    written: 'before the text of old entries is removed; their hashes stay',
    members: itself({
      first: count('Index of the first.'),
      count: count('How many.'),
      keep_days: count('The setting.'),
    }),
  },
  'log.opened': {
    written: 'as the first entry of a process',
    members: itself({
      previous_size: count('Entries before it.'),
      previous_root: text('Root of their tree, base64.'),
      shared: z.boolean().describe('Credentials may come from the logs of other replicas.').optional(),
    }),
  },
  'log.sealed': { written: 'as the last entry of a process', members: itself({}) },
  'log.heartbeat': {
    written: 'every `audit.heartbeat_s`',
    members: {
      gw,
      facts: facts({
        allowed: count('Calls, since the start of the process.'),
        refused: count('The same.'),
        open: count('Calls that have not ended.'),
        turned_away: z
          .partialRecord(
            z.enum(['malformed', 'unanswered', 'connections', 'protocol', 'web_page', 'host', 'busy']),
            z.int(),
          )
          .describe('What never became a request or an instruction, since the start of the process.'),
        kept: count('Entries that wait for the disk.'),
        up_ms: millis('Since the start, on a clock that never goes back.'),
        every_ms: millis('To the next one.'),
      }),
    },
  },
  'log.recovered': {
    written: 'after a crash, or when a failing disk works again',
    members: itself({
      reason: z.enum(['torn_tail', 'write_failed']),
      cut_bytes: count('Half an entry that was cut off.').optional(),
      cut_sha256: text('Its hash.').optional(),
      kept_in: text('File that keeps it.').optional(),
      error: text('Of the disk.').optional(),
      since_ms: z.number().describe('When it began, epoch milliseconds.').optional(),
      refused: count('Calls and instructions meanwhile.').optional(),
    }),
  },
  'log.clock_set_back': {
    written: 'when the clock went back by more than 30 s',
    members: itself({
      from_ms: z.number().describe('Epoch milliseconds.'),
      to_ms: z.number().describe('Epoch milliseconds.'),
    }),
  },
  'log.stalled': {
    written: 'after entries that the disk took more than a second to store',
    members: itself({
      from_ms: z.number().describe('Their time, epoch milliseconds.'),
      ms: count('Milliseconds until they were stored, and took effect.'),
      refused: count('Calls and instructions meanwhile; after 5 s they are refused.'),
    }),
  },
  'log.segment_damaged': {
    written: 'when a closed file of entries is not what it was',
    members: itself({ first: count('Index of its first entry.'), error: z.string() }),
  },
  'log.key_rotated': {
    written: 'as the last entry before another key signs',
    members: itself({ old_key: text('Verifier key.'), new_key: text('Verifier key.') }),
  },
  'log.witness_conflict': {
    written: 'when a witness knows another history of this log',
    members: {
      ...own,
      facts: facts({
        witness: z.string(),
        divergence: text('`fork`, `rollback`, `truncation`.'),
        size: count('Entries here.'),
        witness_size: count('Entries that the witness knows.'),
      }),
    },
  },
}
