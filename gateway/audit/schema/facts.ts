/** What entries about instructions say besides the grant: what took effect, what was asked for, what failed. */
import { z } from 'zod'
import { count, digest, json, text, texts } from './members.ts'

const instruction = text('Which: `task.open`, `grant.request`, …; `unread`: a body that is none.')
const ttl = count('Seconds.').optional()

const workload = z
  .strictObject({ id: z.string(), kind: z.string(), issuer: z.string().optional(), instance: z.string().optional() })
  .describe('By what the agent proved itself.')
  .optional()

export const instructionFacts = {
  performed: {
    instruction,
    ttl_s: ttl,
    workload,
    heartbeat: z.boolean().describe('The opener promised heartbeats.').optional(),
    reason: text('Why it is replaced, parked or ended.').optional(),
    replaces: text('Grant that it takes the place of.').optional(),
    beside: text('Grant whose agent asked for it; it belongs to the same task.').optional(),
    delegator: text('Agent that delegates.').optional(),
    attestation: digest('Of the attestation of this hop.').optional(),
    on_behalf: z.boolean().describe('The gateway attests for a holder without a key.').optional(),
    narrowed: texts('What was cut away on request.').optional(),
    step: text('Step of the task.').optional(),
  },
  /** Nothing of this is verified. */
  asked: {
    instruction,
    route: text('Of what could not be read.').optional(),
    agent: text('Agent.').optional(),
    purpose: text('Declared intent.').optional(),
    plan: texts('Operations that it was to foresee.').optional(),
    task: text('Task.').optional(),
    step: text('Step of the task.').optional(),
    reason: z.string().optional(),
    parent: text('Grant to delegate from, where it was named by id, or is known by the refusal.').optional(),
    grant: text('Grant to end, where it was named by id.').optional(),
    holder: text('Grant of whoever asks.').optional(),
    grant_type: z.string().optional(),
    client_id: z.string().optional(),
    evidence: texts('Kinds of what the client showed of itself.').optional(),
    jkt: text('Thumbprint of the key that was proved.').optional(),
    subject: text('Type of the subject token.').optional(),
    actor: text('Type of the actor token.').optional(),
    requested_actor: z.string().optional(),
    attested: z.boolean().describe('An attestation came with it.').optional(),
    scope: z.string().optional(),
    authorization_details: json.describe('What may be done by them, and the names of all else.').optional(),
    ttl_s: z.number().optional(),
    allow_narrowing: z.boolean().optional(),
    preset: z.string().optional(),
    trace: z.string().optional(),
    delegable: z.boolean().optional(),
    max_depth: z.number().optional(),
    cnf: z.record(z.string(), z.string()).optional(),
    certificate_bound: z.boolean().optional(),
  },
  failed: {
    instruction,
    grant: z.string().optional(),
    code: text('Why: a code of docs/errors.md.'),
    detail: z.string(),
    cause: text('As in `decision`.').optional(),
  },
}
