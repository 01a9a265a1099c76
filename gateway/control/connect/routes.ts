/** Connections, on the unix socket alone: its owner says for whom one is made, sees how each is doing, and ends it. */
import type { FastifyInstance } from 'fastify'
import type { BegunView, ConnectBody, ConnectionView, ProgressView } from '../../protocol/control-connect.ts'
import type { Human } from '../../protocol/grant.ts'

export interface ConnectDoor {
  /** Owner of the socket. */
  readonly human: Human
  readonly connections: {
    begin(body: ConnectBody, human: Human): Promise<BegunView>
    progress(ticket: string): Promise<ProgressView>
    list(): Promise<readonly ConnectionView[]>
    disconnect(body: ConnectBody, human: Human): Promise<{ readonly revoked: boolean | null }>
  }
}

const name = { type: 'string', minLength: 1, maxLength: 2048 } as const
const text = { type: 'string' } as const
const seconds = { type: 'integer', description: 'epoch seconds' } as const

const whose = {
  credential: { ...name, description: 'name of a credential of provider oauth_refresh_token' },
  sub: { ...name, description: 'the human, as their issuer names them' },
  iss: { ...name, description: 'who calls them so' },
} as const
const body = (more: object = {}) => ({
  type: 'object',
  required: ['credential'],
  additionalProperties: false,
  properties: { ...whose, ...more },
})
const answer = (description: string, properties: object, required: readonly string[]) => ({
  200: { description, type: 'object', required, properties },
})
const BEGUN = answer(
  'Where the human goes. Whoever opens the link first connects: it is a secret until then',
  { ticket: text, url: text, user_code: text, interval_s: { type: 'integer' } },
  ['ticket', 'url'],
)
const PROGRESS = answer(
  'What has become of it',
  { state: { type: 'string', enum: ['pending', 'done', 'failed'] }, interval_s: { type: 'number' }, why: text },
  ['state'],
)
const CONNECTION = {
  type: 'object',
  required: ['credential', 'human', 'state', 'scope', 'connected_at', 'refreshed_at'],
  properties: {
    credential: text,
    human: { type: ['object', 'null'], required: ['iss', 'sub'], properties: { iss: text, sub: text } },
    state: { type: 'string', enum: ['connected', 'reauthorize', 'unused'] },
    scope: { type: ['string', 'null'] },
    connected_at: seconds,
    refreshed_at: { type: ['integer', 'null'] },
  },
} as const
const tags = ['connections']

export function addConnectRoutes(app: FastifyInstance, { connections, human }: ConnectDoor): void {
  app.get(
    '/connections',
    {
      schema: {
        summary: 'Connections of humans to services',
        tags,
        response: answer('All of them', { connections: { type: 'array', items: CONNECTION } }, ['connections']),
      },
    },
    async () => ({ connections: await connections.list() }),
  )
  app.post<{ Body: ConnectBody }>(
    '/connections',
    {
      schema: {
        summary: 'Begin to connect a human',
        tags,
        body: body({ device: { type: 'boolean' } }),
        response: BEGUN,
      },
    },
    async (request, reply) =>
      reply.header('cache-control', 'no-store').send(await connections.begin(request.body, human)),
  )
  app.post<{ Body: { readonly ticket: string } }>(
    '/connections/progress',
    {
      schema: {
        summary: 'Ask what has become of it; a device code is asked after by this',
        tags,
        body: { type: 'object', required: ['ticket'], additionalProperties: false, properties: { ticket: name } },
        response: PROGRESS,
      },
    },
    (request) => connections.progress(request.body.ticket),
  )
  app.post<{ Body: ConnectBody }>(
    '/connections/disconnect',
    {
      schema: {
        summary: 'Forget a connection, and end it at its server',
        tags,
        body: body(),
        response: answer(
          'Whether its server has ended it; null: it offers nothing for that',
          { revoked: { type: ['boolean', 'null'] } },
          ['revoked'],
        ),
      },
    },
    (request) => connections.disconnect(request.body, human),
  )
}
