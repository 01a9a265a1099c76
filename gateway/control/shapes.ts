/** JSON Schemas of bodies, parameters and answers. `description` is what a refusal tells as the allowed value. */

const text = { type: 'string' } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const
const flag = { type: 'boolean' } as const
const texts = { type: 'array', items: text } as const

/** A closed object: members that are not named are refused in bodies and left out of answers. */
export function closed(properties: Record<string, object>, required: readonly string[] = Object.keys(properties)) {
  return { type: 'object', additionalProperties: false, properties, required } as const
}

const wholeSeconds = {
  type: 'integer',
  minimum: 1,
  maximum: 3600,
  description: 'a whole number of seconds, 1 to 3600',
} as const
const trueOrFalse = { type: 'boolean', description: 'true or false' } as const
const agent = { type: 'string', minLength: 1, maxLength: 2048, description: 'the id of a registered agent' } as const
const purpose = {
  type: 'string',
  minLength: 1,
  maxLength: 500,
  description: 'a text of 1 to 500 characters that says what the task is for',
} as const

const plan = {
  type: 'array',
  minItems: 1,
  maxItems: 100,
  items: { type: 'string', minLength: 1, maxLength: 200 },
  description: 'an array of 1 to 100 operations that the task foresees, such as ["github:issues.read"]',
} as const

/** What may be asked for in any grant. */
export const grantBody = {
  scope: {
    type: 'string',
    minLength: 1,
    maxLength: 4096,
    description: 'operation names separated by spaces, at most 4096 characters, such as "github:issues.read"',
  },
  authorization_details: {
    type: 'array',
    minItems: 1,
    maxItems: 64,
    items: { type: 'object' },
    description: 'an array of 1 to 64 keyless_access objects',
  },
  ttl_s: wholeSeconds,
  preset: {
    type: 'string',
    enum: ['per-task', 'per-session', 'per-prompt', 'training-batch', 'sensitive'],
    description: 'per-task, per-session, per-prompt, training-batch or sensitive',
  },
  trace: { type: 'string', pattern: '^[0-9a-f]{32}$', description: 'a W3C trace id: 32 lower-case hex digits' },
  step: {
    type: 'string',
    pattern: '^[A-Za-z0-9._-]{1,64}$',
    description: '1 to 64 of the characters A-Z a-z 0-9 . _ -',
  },
  delegable: trueOrFalse,
  max_depth: { type: 'integer', minimum: 0, maximum: 8, description: 'a whole number, 0 to 8' },
  dpop_jkt: {
    type: 'string',
    pattern: '^[A-Za-z0-9_-]{43}$',
    description: 'an RFC 7638 thumbprint: 43 characters of base64url',
  },
} as const

export const openTaskBody = {
  description: 'a JSON object',
  ...closed({ agent, purpose, plan, ...grantBody, heartbeat: trueOrFalse, warm: trueOrFalse }, ['purpose']),
}

export const intentBody = { description: 'a JSON object', ...closed({ purpose, plan, ...grantBody }, ['purpose']) }

export const renewBody = {
  description: 'a JSON object, or no body',
  type: ['object', 'null'],
  additionalProperties: false,
  properties: { ttl_s: wholeSeconds },
} as const

export const resumeBody = {
  description: 'a JSON object, or no body',
  type: ['object', 'null'],
  additionalProperties: false,
  properties: {
    ttl_s: wholeSeconds,
    client_id: { type: 'string', maxLength: 2048, description: 'the id of the client, at most 2048 characters' },
    client_assertion_type: { type: 'string', maxLength: 200, description: 'a client assertion type of the metadata' },
    client_assertion: {
      type: 'string',
      maxLength: 16_384,
      description: 'a JWT of at most 16 KiB that authenticates the client',
    },
  },
} as const

const token = {
  type: 'string',
  minLength: 1,
  maxLength: 16_384,
  description: 'a handle, a signed grant, or the id of a grant',
} as const

export const delegateBody = {
  description: 'a JSON object',
  ...closed({ parent: token, agent, ...grantBody, allow_narrowing: trueOrFalse }, ['parent', 'agent']),
}

export const revokeBody = { description: 'a JSON object', ...closed({ grant: token }) }

export const completeTaskBody = {
  description: 'a JSON object',
  ...closed({
    reason: {
      type: 'string',
      enum: ['completed', 'crashed', 'revoked'],
      description: '"completed", "crashed" or "revoked"',
    },
  }),
}

/** No body, or an empty object. */
export const emptyBody = {
  type: ['object', 'null'],
  additionalProperties: false,
  properties: {},
  description: 'an empty JSON object, or no body',
} as const

export const taskParams = closed({
  id: { type: 'string', pattern: '^task_[0-9a-f-]{36}$', description: 'a task id: task_ and a UUID' },
})

export const stepParams = closed({
  ...taskParams.properties,
  step: { type: 'string', pattern: '^[A-Za-z0-9._-]{1,64}$', description: 'the name of a step' },
})

export const grantParams = closed({
  id: { type: 'string', pattern: '^[0-9a-f-]{36}$', description: 'the id of a grant: a UUID' },
})

const details = { type: 'array', items: { type: 'object', additionalProperties: true } } as const
const task = { task: text, grant: text, agent: text, human: text, scope: text, expires_at: seconds }
const issued = { ...task, authorization_details: details, token: text, expires_in: { type: 'integer' }, lineage: text }
const taskView = {
  ...task,
  purpose: text,
  state: text,
  preset: text,
  created_at: seconds,
  issued_at: seconds,
  heartbeat: flag,
}
const grantView = {
  ...task,
  purpose: text,
  authorization_details: details,
  issued_at: seconds,
  depth: { type: 'integer' },
  max_depth: { type: 'integer' },
  delegable: flag,
  attested: flag,
  preset: text,
  actor_proofs: texts,
  lineage: text,
}
const grant = closed(
  {
    ...grantView,
    parent: text,
    step: text,
    trace: text,
    instance: text,
    cnf: { type: 'object', additionalProperties: text },
  },
  Object.keys(grantView),
)

const service = closed(
  {
    name: text,
    hosts: texts,
    ports: { type: 'array', items: { type: 'integer' } },
    placeholders: { type: 'object', additionalProperties: text },
    base_urls: texts,
    tools: texts,
    credential_configured: flag,
    credential_problem: text,
  },
  ['name', 'hosts', 'ports', 'placeholders', 'base_urls', 'tools', 'credential_configured'],
)

const witness = closed(
  {
    name: text,
    url: text,
    state: text,
    size: { type: 'integer' },
    cosigned_at: { type: ['integer', 'null'], description: 'epoch seconds' },
    trouble: text,
  },
  ['name', 'url', 'state', 'size', 'cosigned_at'],
)

const sentOn = closed(
  {
    name: text,
    lag_entries: { type: 'integer' },
    lag_seconds: { type: 'number' },
    refused: { type: 'integer' },
    trouble: text,
  },
  ['name', 'lag_entries', 'lag_seconds', 'refused'],
)

export const answers = {
  none: { type: 'null', description: 'Done' },
  issued: {
    description: 'The grant. Handle and token are shown this once',
    ...closed({ ...issued, handle: text, heartbeat_s: { type: 'number' }, narrowed: texts }, Object.keys(issued)),
  },
  heartbeat: { description: 'The task is alive', ...closed({ expires_at: seconds, grant: text, state: text }) },
  tasks: { description: 'Living tasks', ...closed({ tasks: { type: 'array', items: closed(taskView) } }) },
  task: {
    description: 'The task as it is now',
    ...closed({ ...taskView, authorization_details: details, grants: { type: 'array', items: grant } }),
  },
  grant: { description: 'The grant', ...grant },
  bundle: {
    description: 'The grant and its chain, as signed',
    ...closed({ token: text, ancestors: texts, actor_proofs: texts }),
  },
  status: {
    description: 'The gateway as it is now',
    ...closed({
      version: text,
      proxy: text,
      control: text,
      data_dir: text,
      audit_dir: text,
      ca_pem: text,
      now: { type: 'number', description: 'epoch seconds' },
      services: { type: 'array', items: service },
      secret_env: texts,
      agents: texts,
      default_agent: { type: ['string', 'null'] },
      redis: closed({ configured: flag, ok: flag }),
      unstored_revocations: { type: 'integer' },
      audit: closed(
        {
          ok: flag,
          size: { type: 'integer' },
          origin: text,
          witnesses: { type: 'array', items: witness },
          exports: { type: 'array', items: sentOn },
          index: closed({ lag_entries: { type: 'integer' }, lag_seconds: { type: 'number' }, trouble: text }, [
            'lag_entries',
            'lag_seconds',
          ]),
          witness_key: text,
        },
        ['ok', 'size', 'origin', 'witnesses', 'exports'],
      ),
    }),
  },
  live: { description: 'The process answers', ...closed({ live: flag }) },
  ready: {
    description: 'Whether calls can be served',
    ...closed({ ready: flag, checks: { type: 'object', additionalProperties: flag } }),
  },
  assertionMetadata: {
    description: 'Metadata of an OpenID provider',
    ...closed({
      issuer: text,
      jwks_uri: text,
      ...Object.fromEntries(
        ['response_types', 'subject_types', 'id_token_signing_alg_values', 'claims'].map((what) => [
          `${what}_supported`,
          { type: 'array', items: text },
        ]),
      ),
    }),
  },
  jwks: {
    description: 'RFC 7517 key set',
    ...closed({ keys: { type: 'array', items: { type: 'object', additionalProperties: text } } }),
  },
} as const
