/** The sealed store, on the unix socket alone: names are shown, values only taken. */
import type { FastifyInstance } from 'fastify'
import type { SecretsView } from '../../protocol/control-connect.ts'
import type { Human } from '../../protocol/grant.ts'

export interface SecretDoor {
  /** Owner of the socket. */
  readonly human: Human
  readonly secrets: {
    list(): Promise<SecretsView>
    set(name: string, value: string, human: Human): Promise<void>
    rotate(name: string, value: string, human: Human): Promise<void>
    remove(name: string, human: Human): Promise<void>
    reseal(human: Human): Promise<{ readonly values: number }>
  }
}

interface Named {
  Params: { readonly name: string }
}

interface Valued extends Named {
  Body: { readonly value: string }
}

const params = {
  type: 'object',
  required: ['name'],
  properties: { name: { type: 'string', minLength: 1, maxLength: 128, description: 'name of a secret' } },
} as const
const body = {
  type: 'object',
  required: ['value'],
  additionalProperties: false,
  properties: { value: { type: 'string', minLength: 1, description: 'the secret' } },
} as const
const listed = {
  type: 'object',
  required: ['secrets', 'missing'],
  properties: {
    secrets: {
      type: 'array',
      items: {
        type: 'object',
        required: ['name', 'used'],
        properties: { name: { type: 'string' }, used: { type: 'boolean' } },
      },
    },
    missing: { type: 'array', items: { type: 'string' } },
  },
} as const
const done = { 204: { description: 'done', type: 'null' } } as const
const tags = ['secrets']

export function addSecretRoutes(app: FastifyInstance, { secrets, human }: SecretDoor): void {
  app.get('/secrets', { schema: { summary: 'Names of sealed secrets', tags, response: { 200: listed } } }, () =>
    secrets.list(),
  )
  app.post<Valued>(
    '/secrets/:name',
    { schema: { summary: 'Seal a secret under a new name', tags, params, body, response: done } },
    async ({ params: { name }, body: { value } }, reply) => {
      await secrets.set(name, value, human)
      return reply.status(204).send()
    },
  )
  app.put<Valued>(
    '/secrets/:name',
    { schema: { summary: 'Put another value in the place of the one there is', tags, params, body, response: done } },
    async ({ params: { name }, body: { value } }, reply) => {
      await secrets.rotate(name, value, human)
      return reply.status(204).send()
    },
  )
  app.delete<Named>(
    '/secrets/:name',
    { schema: { summary: 'Remove a secret', tags, params, response: done } },
    async ({ params: { name } }, reply) => {
      await secrets.remove(name, human)
      return reply.status(204).send()
    },
  )
  app.post(
    '/reseal',
    {
      schema: {
        summary: 'Seal everything anew under a new key',
        tags,
        response: { 200: { type: 'object', required: ['values'], properties: { values: { type: 'integer' } } } },
      },
    },
    () => secrets.reseal(human),
  )
}
