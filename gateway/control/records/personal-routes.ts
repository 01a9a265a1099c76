/** Forgetting a human, on the unix socket alone: it cannot be undone, so it is the owner's of this gateway to order. */
import type { FastifyInstance } from 'fastify'
import type { Forgotten, Named } from '../../audit/personal/forgetting.ts'
import type { Human } from '../../protocol/grant.ts'

export interface PersonalDoor {
  /** Owner of the socket. */
  readonly human: Human
  /** @throws {GatewayError} `instruction_invalid`, `audit_unavailable`. */
  forget(human: Named, by: Human): Promise<Forgotten>
}

const name = { type: 'string', minLength: 1, maxLength: 2048 } as const

export function addPersonalRoutes(app: FastifyInstance, door: PersonalDoor): void {
  app.post<{ Body: Named }>(
    '/log/forget',
    {
      schema: {
        summary: 'Destroy the key that a human is named under in the log',
        description: 'Needs audit.personal: sealed. Nobody can read these names afterwards; proofs stay valid.',
        tags: ['log'],
        body: {
          type: 'object',
          required: ['sub'],
          additionalProperties: false,
          properties: { sub: name, iss: name },
        },
        response: {
          200: {
            description: 'Number of the entry that says so, and the ids of the keys that are no more',
            type: 'object',
            required: ['seq', 'keys'],
            properties: { seq: { type: 'integer' }, keys: { type: 'array', items: { type: 'string' } } },
          },
        },
      },
    },
    ({ body }) => door.forget(body, door.human),
  )
}
