/**
 * The shape of every kind of entry in `ar/1`, for readers and for the test that holds the writers to it. docs/log-entries.md and
 * docs/ar-1.schema.json are made of it (`npm run docs:entries`). A new member is an addition; one that changes its meaning, or goes,
 * takes a new version.
 */
import { z } from 'zod'
import { approvalKinds } from './approval.ts'
import { approverKinds } from './approver.ts'
import { breakGlassKinds } from './breakglass.ts'
import { cred, held, lease, outcome, target } from './calls.ts'
import { instructionFacts } from './facts.ts'
import { leakKinds } from './leaks.ts'
import {
  base,
  behind,
  client,
  count,
  decision,
  facts,
  grant,
  gw,
  millis,
  perhapsBehind,
  req,
  tenant,
  text,
  trace,
} from './members.ts'
import { type Kind, ownKinds } from './own.ts'
import { policyKinds } from './policy.ts'
import { revocationKinds } from './revocation.ts'
import { signalKinds } from './signal.ts'

const own = { gw, tenant }
const call = { ...own, req, trace: trace.optional(), ...perhapsBehind }

const cause = z
  .enum(['needed', 'renewal', 'rejected'])
  .describe('`rejected`: the upstream did not take the one before.')
const under = <S extends z.ZodRawShape>(members: S) => ({ ...own, ...behind, facts: facts(members) })

const place = {
  service: text('Service.').optional(),
  operation: text('Operation.').optional(),
  host: text('Host.'),
  grant: text('Grant.').optional(),
}

const instructed = { ...own, req, decision, facts: facts(instructionFacts.performed), grant, ...behind }

/** Kind → its shape. */
export const kinds: Readonly<Record<string, Kind>> = {
  'call.decision': {
    written: 'before a credential is attached, or when a call is refused',
    members: { ...call, client, target, decision },
  },
  'call.outcome': {
    written: 'once for every call that was allowed, when the last byte left or it broke off',
    members: { ...call, cred: cred.optional(), outcome },
  },
  'grant.issued': { written: 'before a root grant is made', members: instructed },
  'grant.delegated': {
    written: 'before a grant below another is made, or one that was signed offline is first used',
    members: instructed,
  },
  'grant.replaced': { written: 'before a root grant takes the place of another', members: instructed },
  'grant.revoked': { written: 'before a grant, or a task, ends with everything below it', members: instructed },
  'task.suspended': { written: 'before a task is parked', members: instructed },
  'task.step_completed': { written: 'before the grants of a step end', members: instructed },
  'grant.denied': {
    written: 'when an instruction was refused, or could not be read as one; also a refused introspection or heartbeat',
    members: { ...own, req, decision, facts: facts(instructionFacts.asked), grant: grant.optional(), ...perhapsBehind },
  },
  'grant.failed': {
    written: 'when what was recorded did not take effect after all',
    members: { ...own, req, facts: facts(instructionFacts.failed), ...perhapsBehind },
  },
  'lease.issued': {
    written: 'before a credential that its issuer gave is used',
    members: under({ ...lease, ...held, cause, ms: millis('That it took.') }),
  },
  'lease.renewed': {
    written: 'the same, ahead of the end of the one before',
    members: under({ ...lease, ...held, cause, ms: millis('That it took.') }),
  },
  'lease.failed': {
    written: 'when the issuer gave none',
    members: under({ ...lease, cause, code: text('Why: a code of docs/errors.md.'), ms: millis('That it took.') }),
  },
  'lease.warmed': {
    written: 'before a credential is fetched ahead of the call that it is for',
    members: under({
      service: lease.service,
      operation: text('Operation that policy was asked about.'),
      grant: lease.grant,
      policy_ids: z.array(z.string()).describe('Policies that decided.'),
    }),
  },
  'lease.captured': {
    written: 'before an answer goes on without the credential that it held',
    members: under({ ...lease, ...held, operation: text('Operation that was answered.') }),
  },
  'lease.revoked': {
    written: 'when a credential was ended, or will not be used again',
    members: under({
      ...lease,
      service: lease.service.optional(),
      ...held,
      expires: held.expires
        .nullable()
        .describe('When the credential itself ends, epoch seconds: a little after its lease.'),
      reason: z
        .enum(['grant_ended', 'single_use', 'unusable', 'unrecorded', 'leaked', 'ordered', 'abandoned'])
        .describe('`ordered`: somebody said so. `abandoned`: the process that held it was killed.'),
      outcome: z
        .enum(['revoked', 'failed', 'expires', 'expired'])
        .describe(
          '`failed`: it is tried again until it succeeds (`revoked`) or the credential has ended by itself (`expired`), which is another entry. `expires`: its issuer cannot end it, so it ends by itself.',
        ),
      ms: millis('That it took.'),
    }),
  },
  'leak.detected': {
    written: 'before the outcome of a call whose answer held its credential, passed on or not',
    members: {
      ...call,
      facts: facts({
        ...place,
        provider: lease.provider.optional(),
        credential: lease.credential.optional(),
        cred_id: held.cred_id.optional(),
        ephemeral: held.ephemeral.optional(),
        count: count('How often it stood there.'),
        where: z
          .partialRecord(z.enum(['head', 'body', 'trailer', 'frame']), z.int())
          .describe('The same by place.')
          .optional(),
        fate: z.enum(['revoked', 'expires', 'standing']).describe('What became of it.'),
        status: z.number().optional(),
        address: z.string().optional(),
      }),
    },
  },
  'leak.foreign': {
    written: 'before the end of a call that carried a credential which is not ours to send',
    members: {
      ...call,
      facts: facts({
        ...place,
        sightings: z.array(
          z.strictObject({
            rule: text('What it looks like; `keyless`: a handle or grant.'),
            where: text('Where it stood.'),
          }),
        ),
      }),
    },
  },
  ...breakGlassKinds,
  ...ownKinds,
  ...revocationKinds,
  ...approvalKinds,
  ...policyKinds,
  ...approverKinds,
  ...signalKinds,
  ...leakKinds,
}

/** Kind → what an entry of it must be. */
export const entrySchemas: ReadonlyMap<string, z.ZodType> = new Map(
  Object.entries(kinds).map(([kind, { written, members }]) => [
    kind,
    z.strictObject({ ...base, kind: z.literal(kind), ...members }).describe(`Written ${written}.`),
  ]),
)

/** JSON Schema (2020-12) of an entry. */
export function entryJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(z.union([...entrySchemas.values()]), {
    target: 'draft-2020-12',
    unrepresentable: 'any',
  })
  return { ...schema, title: 'Keyless log entry (ar/1)' }
}
