/**
 * The shape of `keyless.yaml` as people write it: one strict schema, every field with unit, default and reason. It knows
 * nothing of files or of the machine; `settings.ts` turns a valid document into `Settings`.
 */
import { isIP } from 'node:net'
import { z } from 'zod'
import { trustSchema } from '../identity/trust.ts'
import { regionsSchema } from '../policy/catalogue/regions.ts'
import { selectionSchema } from '../policy/selection.ts'
import { credentialSchema } from '../provider/registry.ts'
import { vaultConnectionSchema } from '../provider/vault/schema.ts'
import { read } from './advice.ts'
import { approvalsSchema } from './approvals.ts'
import { auditSchema, postgresSchema } from './audit.ts'
import { breakGlassSchema } from './break-glass.ts'
import { caSchema } from './ca.ts'
import { leaksSchema } from './leaks.ts'
import { cleanUrl, hasPassword, listenSchema } from './listen.ts'
import { policySchema } from './policy.ts'
import { upstreamProxySchema } from './proxy.ts'
import { revocationSchema } from './revocation.ts'
import { signalsSchema, webhooksSchema } from './signals-schema.ts'

/** Ceiling of a grant's life, seconds: a person's attention span, and the longest a stolen grant can be of use (DESIGN §2). */
export const HARD_TTL_S = 3600

function redisUrl(text: string): string | null {
  if (!URL.canParse(text)) return null
  const url = new URL(text)
  return (url.protocol === 'redis:' || url.protocol === 'rediss:') && !hasPassword(url) ? text : null
}

const seconds = (max: number) => z.int().min(1).max(max)
const text = (max: number) => z.string().trim().min(1).max(max)
const path = () => z.string().min(1)

const agent = z.strictObject({
  id: z
    .string()
    .max(255)
    .regex(/^[\x21-\x7e]+$/)
    .describe('Registered id, by preference a SPIFFE ID; no spaces. Appears in every record.'),
  owner: text(255).describe('Person or team that answers for this agent.'),
  purpose: text(500).describe('What the agent is for, in one sentence. Policies and records carry it.'),
  risk_tier: z
    .enum(['low', 'medium', 'high'])
    .optional()
    .describe('Default low. Policies may be stricter with higher tiers.'),
  orchestrators: z
    .array(text(255))
    .max(64)
    .optional()
    .describe('Ids of clients that may exchange tokens for this agent, besides itself. Default: none.'),
  labels: z
    .array(z.string().regex(/^[a-z0-9][a-z0-9_-]{0,39}$/, 'lower-case letters, digits and hyphens'))
    .max(64)
    .optional()
    .describe('Words by which policies choose: `principal.labels.contains("finance")`. Default: none.'),
})

const redis = z
  .strictObject({
    url: z
      .union([
        z.string().transform(
          read(redisUrl, {
            allowed: 'redis://host:port/db or rediss://…, without a password',
            fix: 'keep the password out of this file: write url: { env: REDIS_URL }',
          }),
        ),
        z.strictObject({ env: z.string().min(1) }),
        z.strictObject({ file: path() }),
      ])
      .describe(
        'Address of Redis or Valkey. With a password, by reference: { env: REDIS_URL } or { file: /run/secrets/redis-url }.',
      ),
  })
  .describe(
    'Shared leases, grants and counters for several replicas. Omit for one process: everything stays in memory and SQLite.',
  )

const grants = z
  .strictObject({
    ttl_s: seconds(HARD_TTL_S)
      .optional()
      .describe(
        'Seconds a grant lives when the task asks for nothing. Default 900: long enough for one piece of work.',
      ),
    max_ttl_s: seconds(HARD_TTL_S)
      .optional()
      .describe(`Longest life a task may ask for, seconds. Default ${HARD_TTL_S}, which is also the ceiling.`),
    max_depth: z
      .int()
      .min(0)
      .max(8)
      .optional()
      .describe('Delegations below a root grant, 0 to 8. Default 3. A grant may ask for fewer.'),
    heartbeat_s: seconds(300)
      .optional()
      .describe('A task opened with heartbeats ends when none arrives for twice this many seconds. Default 15.'),
  })
  .describe('What a task is given.')

const milliseconds = (min: number, max: number) => z.int().min(min).max(max)

const limits = z
  .strictObject({
    agent_concurrency: z
      .int()
      .min(1)
      .max(1_000_000)
      .optional()
      .describe(
        'Calls of one agent under way at once, over all its tasks, at this replica; a stream or WebSocket is one until it ends. Default 1024.',
      ),
    agent_queue: z
      .int()
      .min(0)
      .max(1_000_000)
      .optional()
      .describe('Calls of one agent that wait for one of them to end; more are refused. Default 1024.'),
    queue_timeout_ms: milliseconds(1, 600_000)
      .optional()
      .describe('Milliseconds that a call waits for its turn before it is refused. Default 10000.'),
    connections: z
      .int()
      .min(16)
      .max(1_000_000)
      .optional()
      .describe(
        'Connections to the proxy door at once; beyond, the oldest without a call under way is closed. Keep it well below the file descriptors of the process. Default 10000.',
      ),
  })
  .describe('What one agent may take of the gateway, so that there is something left for the others.')

const upstream = z
  .strictObject({
    connect_timeout_ms: milliseconds(100, 120_000)
      .optional()
      .describe('Milliseconds to reach an upstream, TLS included. Default 5000.'),
    headers_timeout_ms: milliseconds(1000, 3_600_000)
      .optional()
      .describe('Milliseconds until the answer begins. Default 300000: models think long.'),
    body_timeout_ms: milliseconds(0, 3_600_000)
      .optional()
      .describe('Milliseconds of silence inside an answer; 0 waits for ever. Default 300000.'),
    http2: z
      .boolean()
      .optional()
      .describe('Offer HTTP/2 to upstreams, for requests that came over it. Default true. gRPC needs it.'),
    max_frame_bytes: z
      .int()
      .min(125)
      .max(2 ** 31)
      .optional()
      .describe('Payload of one WebSocket frame. Default 16777216 (16 MiB).'),
    max_message_bytes: z
      .int()
      .min(125)
      .max(2 ** 40)
      .optional()
      .describe('Payload of one WebSocket message, all its frames together. Default 67108864 (64 MiB).'),
    ca: z.array(path()).optional().describe('PEM files of additional root certificates that upstreams may present.'),
    hosts: z
      .record(
        z.string().regex(/^[a-z0-9._-]+$/),
        z.string().transform(
          read((value: string) => (isIP(value) ? value : null), {
            allowed: 'an IP address',
            fix: 'write the address itself, like 192.0.2.7',
          }),
        ),
      )
      .optional()
      .describe('Host name: address, like /etc/hosts. The address is still checked against the service’s ranges.'),
    proxy: upstreamProxySchema.optional(),
  })
  .describe('The far side.')

export const settingsSchema = z.strictObject({
  tenant: z
    .string()
    .regex(/^[a-z0-9][a-z0-9-]{0,62}$/)
    .optional()
    .describe('Every key, record and counter belongs to a tenant. Default "default".'),
  data_dir: path().optional().describe('Keys, log and state of this replica. Default $KEYLESS_HOME or ~/.keyless.'),
  keys_dir: path()
    .optional()
    .describe('CA, grant and lease keys. Default <data_dir>/keys. Replicas of one gateway share these files.'),
  ca: caSchema.optional(),
  listen: listenSchema.optional(),
  public_url: z
    .string()
    .transform(
      read(cleanUrl, {
        allowed: 'an http(s) URL without user, query or fragment',
        fix: 'write "https://keyless.example.com"',
      }),
    )
    .optional()
    .describe(
      'Control door as others see it: issuer of grants. Default http://<listen.control>, https:// with listen.control_tls. The same on all replicas.',
    ),
  services: z
    .array(z.union([path(), selectionSchema]))
    .optional()
    .describe(
      'Upstream APIs: a shipped name (github), a path to a .yaml of your own, or { use: atlassian, hosts: [acme.atlassian.net] }. Hosts of no service are refused.',
    ),
  policies: z
    .array(path())
    .optional()
    .describe(
      'Cedar policies: files, or directories of *.cedar; `shipped` stands for the shipped ones, `pack:NAME` for a pack (keyless policy packs). Default: [shipped].',
    ),
  policy: policySchema.optional(),
  credentials: z
    .record(z.string().regex(/^[a-z0-9][a-z0-9_-]*$/), credentialSchema)
    .optional()
    .describe(
      'Credential per service name. Secrets only by reference: { env: NAME }, { file: PATH } or { exec: [COMMAND, ARG] }.',
    ),
  vault: vaultConnectionSchema
    .optional()
    .describe(
      'Vault or OpenBao: what credentials of provider vault and references { vault: PATH, field: NAME } ask. Default: none.',
    ),
  agents: z
    .array(agent)
    .min(1)
    .optional()
    .describe(
      'Who may be given tasks. The first is the default. Default: one local agent of the user who runs the gateway.',
    ),
  trust: trustSchema.optional(),
  regions: regionsSchema.optional(),
  redis: redis.optional(),
  audit: auditSchema.optional(),
  postgres: postgresSchema.optional(),
  webhooks: webhooksSchema.optional(),
  signals: signalsSchema.optional(),
  grants: grants.optional(),
  break_glass: breakGlassSchema.optional(),
  approvals: approvalsSchema.optional(),
  revocation: revocationSchema.optional(),
  leaks: leaksSchema.optional(),
  limits: limits.optional(),
  upstream: upstream.optional(),
})

export type WrittenSettings = z.output<typeof settingsSchema>

let jsonSchema: Readonly<Record<string, unknown>> | undefined

/** JSON Schema (draft 7, what editors read) of the file as written. Worked out once, when it is first asked for. */
export function settingsJsonSchema(): Readonly<Record<string, unknown>> {
  jsonSchema ??= {
    ...z.toJSONSchema(settingsSchema, { io: 'input', target: 'draft-7', unrepresentable: 'any' }),
    title: 'Keyless settings (keyless.yaml)',
  }
  return jsonSchema
}
