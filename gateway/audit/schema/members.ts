/** Members that several kinds of entries of `ar/1` share. Values are described as they are written, cut and sealed forms included. */
import { z } from 'zod'
import { VERSION } from '../canonical.ts'

/** In place of a member that would not fit: how large it was, and its hash. */
const stump = z.strictObject({ cut: z.literal(true), bytes: z.int(), sha256: z.string() }).meta({
  id: 'cut',
  description: 'In place of a member that did not fit: how large it was, and the hash of its RFC 8785 form.',
})

/** A member that a giant entry may have cut. */
const whole = <S extends z.ZodType>(schema: S) => z.union([schema, stump])

export const text = (says: string) => z.string().describe(says)
export const count = (says: string) => z.int().min(0).describe(says)
export const texts = (says: string) => z.array(z.string()).describe(says)
export const epoch = (says: string) => z.number().describe(`${says} Epoch seconds.`)
export const millis = (says: string) => z.int().min(0).describe(`${says} Milliseconds.`)

const HASH = /^sha256:[\w-]{43}$/
const KEYED = /^hmac:[\w-]{43}$/
export const digest = (says: string) => z.string().regex(HASH).describe(says)
export const keyed = (says: string) =>
  z.string().regex(KEYED).describe(`${says} HMAC-SHA-256 under the gateway's own key.`)

export const base = {
  v: z.literal(VERSION).describe('Version of the shape of entries.'),
  seq: z.int().min(0).describe('Index in the log. With `log` it names the entry.'),
  ts: z
    .string()
    .regex(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/)
    .describe('RFC 3339, UTC: when the entry got its place.'),
  log: text('Name of the log.'),
}

export const gw = z
  .strictObject({
    boot: text('This run of the process.'),
    node: text('Replica.'),
    ver: text('Version of the program.'),
  })
  .meta({ id: 'gw', description: 'Which gateway wrote it.' })

export const tenant = text('Tenant.')
export const req = text('UUIDv7 of the call or instruction: links its entries, and is the `instance` of a refusal.')
export const trace = z
  .string()
  .regex(/^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/)
  .describe('`traceparent` (W3C) as the caller sent it, if it sent one that is well formed.')

export const human = whole(
  z.strictObject({
    iss: text('Issuer that vouches for the human.'),
    sub: text('Name of the human at that issuer.'),
    auth_time: epoch('When the human proved to be it.').optional(),
    amr: texts('How (RFC 8176).').optional(),
    acr: text('With what assurance.').optional(),
  }),
).meta({
  id: 'human',
  description: 'Who stands behind it. Sealed under a key of this human with `audit.personal: sealed`.',
})

const step = z.union([
  z.strictObject({
    n: count('Place in the chain; 0 is the human.'),
    type: z.enum(['human', 'ai_agent']),
    id: text('The human, or the id of the agent.'),
    grant: text('Grant under which this step acts; absent for the human.').optional(),
    on_behalf: z.literal(true).describe('The gateway attested this delegation for a holder without a key.').optional(),
    att: digest('Hash of the attestation of this step. Not in the entries of calls.').optional(),
  }),
  z.strictObject({ cut: count('In place of steps that did not fit: how many.') }),
])

export const lineage = whole(z.array(step)).meta({
  id: 'lineage',
  description: 'Everybody through whom authority came, the human first, whoever acts last.',
})
export const lineageHash = text('base64url SHA-256 of the RFC 8785 form of the whole lineage, without `att`.')

export const task = whole(
  z.strictObject({
    id: text('Task.'),
    purpose: text('Declared intent, in the words of whoever opened the task.'),
    intent_hash: text('base64url SHA-256 of the intent. Not in the entries of calls.').optional(),
    plan: texts('Operations that the intent foresees. Not in the entries of calls. Absent: nobody said.').optional(),
  }),
).meta({ id: 'task', description: 'For what.' })

export const client = z
  .strictObject({
    auth: z.enum(['basic', 'bearer', 'dpop', 'slot']).describe('How the grant was presented.').optional(),
    grant: text('Grant that was presented and refused; one that was accepted is in the lineage.').optional(),
    ip: text('Address of the caller.'),
    mode: z.enum(['forward', 'intercept', 'reverse']).describe('By which way the call came.'),
    prompt_hash: digest('Of the prompt behind the call, as the caller gave it in `keyless-prompt-hash`.').optional(),
    ua: text('User-Agent.').optional(),
  })
  .meta({ id: 'client', description: 'Where the call came from.' })

export const decision = whole(
  z.strictObject({
    approval: text('Id of the approval that let it through.').optional(),
    asked: z
      .strictObject({
        fields: texts('Names of the header fields that came, lower case, sorted.'),
        content_type: text('As sent.').optional(),
        content_length: text('As sent.').optional(),
        params: z
          .record(z.string(), z.union([z.string(), z.number(), z.boolean(), z.array(z.string())]))
          .describe('Parameters that the service file names for policy, as the agent wrote them.')
          .optional(),
        protocol: z.enum(['http/1.1', 'h2', 'websocket']),
      })
      .describe('More of the request, where a policy asks for it with `@log("full")`. Written by the agent.')
      .optional(),
    effect: z.enum(['allow', 'deny']),
    code: text('Why it is refused: a code of docs/errors.md.').optional(),
    detail: text('The same in words, as the caller was told.').optional(),
    status: count('Status that the caller got.').optional(),
    cause: text(
      'What stood behind an unexpected refusal: names, codes and places of errors, never their text.',
    ).optional(),
    policy_ids: texts('Policies that decided.').optional(),
    policy_set: text('Digest of all policies, as in `policy.loaded`.').optional(),
    errors: texts('Errors of the policy engine; any of them refuses.').optional(),
    obligations: z
      .strictObject({
        ttl_s: z.number().nullable().describe('Seconds that a credential may be used; null: no limit.'),
        single_use: z.boolean(),
        max_depth: count('Delegations.').optional(),
        foreign_credentials: z.enum(['log', 'refuse']).optional(),
        approval: z
          .strictObject({
            from: texts('Groups of which somebody has to consent; `human`: the root of the lineage.'),
            count: count('Different people.'),
            reuse_s: count('Seconds for which the same request passes again. Absent: once.').optional(),
            fields: texts('Header fields that are approved along.').optional(),
          })
          .describe('Who has to consent.')
          .optional(),
        rates: texts('Calls/seconds of this agent and operation.').optional(),
        read_only: z.boolean().optional(),
        downscope: z
          .enum(['scope', 'resource', 'policy'])
          .describe('How far the credential has to be narrowed.')
          .optional(),
        redact: texts('JSON pointers to what the agent does not get of the answer.').optional(),
        notify: texts('Whom webhooks tell of it.').optional(),
        log: z.enum(['full']).describe('`asked` has more of the request.').optional(),
        revoke: z.enum(['grant', 'task']).describe('What the gateway ends for this refusal.').optional(),
      })
      .describe('Conditions of the policies that decided.')
      .optional(),
  }),
).meta({ id: 'decision', description: 'What was decided, by which policies.' })

const json: z.ZodType = z.json()

export const grant = whole(
  z.strictObject({
    id: text('UUIDv7.'),
    parent: text('Grant above it.').optional(),
    parent_hash: text('Of the signed parent.').optional(),
    depth: count('Delegations between agents.'),
    max_depth: count('The deepest grant that may be derived.'),
    delegable: z.boolean(),
    agent: z.strictObject({
      ...{ id: z.string(), owner: z.string(), purpose: z.string(), risk_tier: z.string() },
      labels: texts('By which policies choose it. Absent in entries from before they were recorded.').optional(),
    }),
    attested: z.boolean().describe('The agent proved who it is.'),
    break_glass: z
      .boolean()
      .describe('Emergency access that custodians opened. Absent in entries from before it was recorded.')
      .optional(),
    instance: text('Which running instance of the agent.').optional(),
    cnf: z.record(z.string(), z.string()).describe('Key that the grant is bound to (RFC 7800).').optional(),
    authority: z.array(z.record(z.string(), json)).describe('What may be done: `keyless_access` objects.'),
    preset: z.string().optional(),
    step: text('Step of the task that it dies with.').optional(),
    trace: text('W3C trace id that requests must carry.').optional(),
    issued: epoch('').describe('Epoch seconds.'),
    expires: epoch('').describe('Epoch seconds.'),
  }),
).meta({ id: 'grant', description: 'The grant that an instruction is about. Never the token.' })

/** Whoever stands behind it; every one of them, or none where nobody is known yet. */
export const behind = { human, lineage, lineage_hash: lineageHash, task }
export const perhapsBehind = {
  human: human.optional(),
  lineage: lineage.optional(),
  lineage_hash: lineageHash.optional(),
  task: task.optional(),
}

/** Facts of a kind. */
export function facts<S extends z.ZodRawShape>(members: S) {
  return whole(z.strictObject(members))
}

export { json }
