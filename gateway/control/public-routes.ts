/** What anyone who reaches either listener may read: health, the keys that verify grants, the CA, the description of the API. */
import type { FastifyInstance } from 'fastify'
import type { ReadyView, StatusView } from '../protocol/control-status.ts'
import { METRICS_TYPE } from './records/metrics.ts'
import { answers } from './shapes.ts'

export interface PublicDoor {
  readonly grants: { jwks(): object | Promise<object> }
  status(): Promise<StatusView>
  ready(): Promise<ReadyView>
  /** Prometheus text format. */
  metrics(): Promise<string>
}

export function addPublicRoutes(app: FastifyInstance, door: PublicDoor): void {
  app.get(
    '/health/live',
    { schema: { summary: 'Is the process alive', tags: ['gateway'], response: { 200: answers.live } } },
    async () => ({ live: true }),
  )
  app.get(
    '/health/ready',
    {
      schema: {
        summary: 'Can calls be served',
        tags: ['gateway'],
        response: { 200: answers.ready, 503: answers.ready },
      },
    },
    async (_request, reply) => {
      const view = await door.ready()
      return reply
        .status(view.ready ? 200 : 503)
        .header('cache-control', 'no-store')
        .send(view)
    },
  )
  app.get(
    '/.well-known/jwks.json',
    { schema: { summary: 'Keys that verify signed grants', tags: ['grants'], response: { 200: answers.jwks } } },
    async (_request, reply) => reply.header('cache-control', 'public, max-age=300').send(await door.grants.jwks()),
  )
  app.get(
    '/ca.pem',
    {
      schema: {
        summary: 'Certificate of the interception CA',
        tags: ['gateway'],
      },
    },
    async (_request, reply) => reply.type('application/x-pem-file').send((await door.status()).ca_pem),
  )
  app.get(
    '/metrics',
    { schema: { summary: 'Numbers for Prometheus', tags: ['gateway'], produces: ['text/plain'] } },
    async (_request, reply) =>
      reply
        .type(METRICS_TYPE)
        .header('cache-control', 'no-store')
        .send(await door.metrics()),
  )
  app.get('/openapi.json', { schema: { hide: true } }, async () => app.swagger())
}
