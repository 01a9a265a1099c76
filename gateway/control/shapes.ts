/** JSON Schemas of bodies, parameters and answers. `description` is what a refusal tells as the allowed value. */

const text = { type: 'string' } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const
const flag = { type: 'boolean' } as const
const texts = { type: 'array', items: text } as const

/** A closed object: members that are not named are refused in bodies and left out of answers. */
function closed(properties: Record<string, object>, required: readonly string[] = Object.keys(properties)) {
  return { type: 'object', additionalProperties: false, properties, required } as const
}

export const openTaskBody = {
  description: 'a JSON object',
  ...closed(
    {
      agent: { type: 'string', minLength: 1, maxLength: 2048, description: 'the id of a registered agent' },
      purpose: {
        type: 'string',
        minLength: 1,
        maxLength: 500,
        description: 'a text of 1 to 500 characters that says what the task is for',
      },
      scope: {
        type: 'string',
        minLength: 1,
        maxLength: 4096,
        description: 'operation names separated by spaces, at most 4096 characters, such as "github:issues.read"',
      },
      ttl_s: { type: 'integer', minimum: 1, maximum: 3600, description: 'a whole number of seconds, 1 to 3600' },
      heartbeat: { type: 'boolean', description: 'true or false' },
    },
    ['purpose', 'scope'],
  ),
}

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

const task = { task: text, grant: text, agent: text, human: text, scope: text, expires_at: seconds }

const service = closed(
  {
    name: text,
    hosts: texts,
    placeholders: { type: 'object', additionalProperties: text },
    base_urls: texts,
    credential_configured: flag,
    credential_problem: text,
  },
  ['name', 'hosts', 'placeholders', 'base_urls', 'credential_configured'],
)

export const answers = {
  none: { type: 'null', description: 'Done' },
  openedTask: {
    description: 'The task is open',
    ...closed(
      {
        ...task,
        handle: text,
        token: text,
        expires_in: { type: 'integer' },
        heartbeat_s: { type: 'number' },
        lineage: text,
      },
      [...Object.keys(task), 'handle', 'token', 'expires_in', 'lineage'],
    ),
  },
  heartbeat: { description: 'The task is alive', ...closed({ expires_at: seconds }) },
  tasks: {
    description: 'Living tasks',
    ...closed({
      tasks: { type: 'array', items: closed({ ...task, purpose: text, issued_at: seconds, heartbeat: flag }) },
    }),
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
      audit: closed({ ok: flag, size: { type: 'integer' }, origin: text }),
    }),
  },
  live: { description: 'The process answers', ...closed({ live: flag }) },
  ready: {
    description: 'Whether calls can be served',
    ...closed({ ready: flag, checks: { type: 'object', additionalProperties: flag } }),
  },
  jwks: {
    description: 'RFC 7517 key set',
    ...closed({ keys: { type: 'array', items: { type: 'object', additionalProperties: text } } }),
  },
} as const
