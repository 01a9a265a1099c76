/** JSON Schemas of the routes of leases. `description` is what a refusal tells as the allowed value. */
import { closed, grantParams, taskParams } from '../shapes.ts'

const text = { type: 'string' } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const
const count = { type: 'integer' } as const
const name = { type: 'string', minLength: 1, maxLength: 200, description: 'a name of at most 200 characters' } as const
const whose = { task: idOf(taskParams), grant: idOf(grantParams) }

function idOf({ properties: { id } }: typeof taskParams): object {
  return id ?? text
}

export const warmBody = {
  description: 'a JSON object',
  ...closed(
    {
      ...whose,
      targets: {
        type: 'array',
        minItems: 1,
        maxItems: 64,
        items: { type: 'string', minLength: 1, maxLength: 2048, description: 'a service, an operation, or METHOD URL' },
        description: 'an array of 1 to 64 services, operations, or requests such as "GET https://api.github.com/user"',
      },
    },
    ['targets'],
  ),
}

export const revokeLeasesBody = {
  description: 'a JSON object that says at least one of task, grant, credential, service',
  ...closed({ ...whose, credential: name, service: name }, []),
  minProperties: 1,
}

const pendingView = {
  ...{ credential: text, provider: text, service: text, cred_id: text, grant: text, task: text, reason: text },
  attempts: count,
  next_attempt_at: seconds,
  expires_at: seconds,
}

const warmedView = { target: text, ready: count, fetched: count, code: text, detail: text }

export const leaseAnswers = {
  warmed: {
    description: 'What lies ready now, and why the rest does not',
    ...closed({ warmed: { type: 'array', items: closed(warmedView, ['target', 'ready', 'fetched']) } }),
  },
  revoked: { description: 'How many credentials nobody uses any more', ...closed({ revoked: count }) },
  pending: {
    description: 'Used no more, and alive until their issuer confirms the end or they expire',
    ...closed({ pending: { type: 'array', items: closed(pendingView) } }),
  },
} as const
