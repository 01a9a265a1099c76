/** JSON Schemas of the OAuth endpoints' forms and answers. `description` is what a refusal tells as the allowed value. */

/** A compact token or JSON; larger ones are refused before anything reads them (standards: 16 KiB). */
const token = (description: string) => ({ type: 'string', maxLength: 16_384, description }) as const
const word = (description: string, pattern: string) => ({ type: 'string', pattern, description }) as const
const line = (description: string, maxLength: number) => ({ type: 'string', maxLength, description }) as const
const flag = (what: string) =>
  ({ type: 'string', enum: ['true', 'false'], description: `true or false: ${what}` }) as const
const targets = (description: string) =>
  ({ type: 'array', items: { type: 'string' }, maxItems: 8, description }) as const

const client = {
  client_id: line('the id of the client, at most 2048 characters', 2048),
  client_assertion_type: line('urn:ietf:params:oauth:client-assertion-type:jwt-bearer or …:jwt-spiffe', 200),
  client_assertion: token('a JWT of at most 16 KiB that authenticates the client'),
}

/** Unknown parameters are ignored (RFC 6749 §3.2), so no schema is closed. */
export const tokenForm = {
  type: 'object',
  description: 'a form',
  required: ['grant_type'],
  properties: {
    grant_type: line('client_credentials or urn:ietf:params:oauth:grant-type:token-exchange', 200),
    scope: line('operation names separated by spaces, at most 4096 characters, such as github:issues.read', 4096),
    authorization_details: line('a JSON array of keyless_access objects, at most 32 KiB', 32_768),
    resource: targets('the URL of this gateway, at most 8 times'),
    audience: targets('the URL of this gateway, at most 8 times'),
    requested_token_type: line('urn:ietf:params:oauth:token-type:access_token', 200),
    subject_token: {
      ...token('the token on whose behalf a grant is asked for, at most 32 KiB'),
      maxLength: 32_768, // a chain of several tokens
    },
    subject_token_type: line('a token type URN of the metadata', 200),
    actor_token: token('the identity of the agent that will hold the grant, at most 16 KiB'),
    actor_token_type: line('a token type URN of the metadata', 200),
    actor_proof: token('an attestation signed by the holder of the subject token, at most 16 KiB'),
    requested_actor: line('the id of the agent to delegate to, at most 2048 characters', 2048),
    dpop_jkt: word('an RFC 7638 thumbprint: 43 characters of base64url', '^[A-Za-z0-9_-]{43}$'),
    tls_client_certificate_bound_access_tokens: flag('bind the grant to the TLS certificate of the client'),
    purpose: line('a text of 1 to 500 characters that says what the task is for', 1000),
    plan: line('the operations that the task foresees, separated by spaces', 4096),
    preset: {
      type: 'string',
      enum: ['per-task', 'per-session', 'per-prompt', 'training-batch', 'sensitive'],
      description: 'per-task, per-session, per-prompt, training-batch or sensitive',
    },
    requested_expires_in: word('a whole number of seconds, 1 to 3600', '^[1-9][0-9]{0,5}$'),
    trace: word('a W3C trace id: 32 lower-case hex digits', '^[0-9a-f]{32}$'),
    step: word('the name of a step of the task: 1 to 64 of A-Z a-z 0-9 . _ -', '^[A-Za-z0-9._-]{1,64}$'),
    delegable: flag('may the grant be delegated further'),
    max_depth: word('a whole number: how many delegations deep the chain may become', '^[0-9]{1,2}$'),
    allow_narrowing: flag('cut what is wider than the parent instead of refusing it'),
    ...client,
  },
} as const

/** Forms of revocation and introspection: RFC 7009 §2.1, RFC 7662 §2.1. */
export const aboutTokenForm = {
  type: 'object',
  description: 'a form',
  required: ['token'],
  properties: {
    token: token('a grant or a handle, at most 16 KiB'),
    token_type_hint: line('access_token; hints are not needed and not trusted', 200),
    ...client,
  },
} as const

const text = { type: 'string' } as const
const open = { type: 'object', additionalProperties: true } as const

const answerOf = (description: string, properties: Record<string, object>, required: readonly string[]) =>
  ({ description, type: 'object', additionalProperties: false, properties, required }) as const

export const oauthAnswers = {
  token: answerOf(
    'The grant. Shown this once',
    {
      access_token: text,
      issued_token_type: text,
      token_type: { type: 'string', enum: ['Bearer', 'DPoP'] },
      expires_in: { type: 'integer', description: 'seconds' },
      scope: text,
      authorization_details: { type: 'array', items: open },
      task: text,
      grant: text,
      handle: text,
      lineage: text,
      narrowed: { type: 'array', items: text },
    },
    [
      'access_token',
      'issued_token_type',
      'token_type',
      'expires_in',
      'authorization_details',
      'task',
      'grant',
      'lineage',
    ],
  ),
  revoked: { description: 'The token and everything derived from it is dead, or never was alive', type: 'null' },
  introspected: {
    description: 'RFC 7662 §2.2',
    type: 'object',
    additionalProperties: true,
    required: ['active'],
    properties: { active: { type: 'boolean' } },
  },
  metadata: {
    description: 'RFC 8414 §3.2',
    type: 'object',
    additionalProperties: true,
    required: ['issuer'],
    properties: { issuer: text },
  },
  error: answerOf(
    'RFC 6749 §5.2; keyless_code is the stable code of docs/errors.md',
    { error: text, error_description: text, keyless_code: text, remedy: text, instance: text },
    ['error', 'error_description', 'keyless_code', 'remedy', 'instance'],
  ),
} as const

/** Media types of the bodies. */
export const FORM = ['application/x-www-form-urlencoded']
export const REFUSALS = { 400: oauthAnswers.error, 401: oauthAnswers.error, 503: oauthAnswers.error } as const
