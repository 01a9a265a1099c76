/** JSON Schemas of requests for access. `description` is what a refusal tells as the allowed value. */
import { closed, grantBody } from '../shapes.ts'

const text = { type: 'string' } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const
const { scope, authorization_details, ttl_s } = grantBody
const wanted = { scope, authorization_details, ttl_s } as const

export const accessParams = closed({
  id: { type: 'string', pattern: '^[0-9a-f-]{36}$', description: 'the id of a request for access: a UUID' },
})

export const accessAskBody = {
  description: 'a JSON object with scope or authorization_details, and a reason',
  ...closed(
    {
      ...wanted,
      reason: {
        type: 'string',
        minLength: 1,
        maxLength: 500,
        description: 'a text of 1 to 500 characters that says why',
      },
      event: { type: 'string', pattern: '^[0-9a-f-]{36}$', description: 'the instance of a refusal: a UUID' },
    },
    ['reason'],
  ),
}

export const accessEditBody = {
  description: 'a JSON object with scope or authorization_details',
  ...closed(wanted, []),
}

export const accessDecisionBody = {
  description: 'a JSON object',
  ...closed({ verdict: { type: 'string', enum: ['grant', 'deny'], description: '"grant" or "deny"' } }),
}

const details = { type: 'array', items: { type: 'object', additionalProperties: true } } as const
const told = { scope: text, authorization_details: details, ttl_s: { type: 'integer' } } as const
const who = { iss: text, sub: text } as const

const status = {
  id: text,
  state: { type: 'string', enum: ['pending', 'granted', 'denied', 'fetched', 'expired'] },
  status_url: text,
  interval: { type: 'integer', description: 'seconds between two questions' },
  expires_at: seconds,
} as const

const request = {
  id: text,
  state: status.state,
  agent: text,
  agent_owner: text,
  agent_purpose: text,
  risk_tier: text,
  attested: { type: 'boolean' },
  human: closed(who),
  task: text,
  grant: text,
  lineage: { type: 'array', items: text },
  created_at: seconds,
  expires_at: seconds,
  agent_says: {
    description: 'In the words of the agent; nothing of it is verified',
    ...closed({ reason: text, intent: text, event: text }, ['reason', 'intent']),
  },
} as const

const one = closed(
  { ...request, ...told, asked: closed(told, []), decided_by: closed({ ...who, at: seconds, via: text }) },
  Object.keys(request),
)

export const accessAnswers = {
  status: {
    description: 'How it stands',
    ...closed({ ...status, ...told, grant_url: text }, Object.keys(status)),
  },
  one: { description: 'The request', ...one },
  list: { description: 'Those that wait', ...closed({ requests: { type: 'array', items: one } }) },
}
