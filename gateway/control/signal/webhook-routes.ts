/** Webhooks and streams of signals by hand, on the unix socket alone: what waits, what was given up, send it again, send a test. */
import type { FastifyInstance } from 'fastify'
import type { TestedView, WebhookView } from '../../protocol/control-webhooks.ts'
import type { Human } from '../../protocol/grant.ts'
import { retryBody, signalAnswers } from './shapes.ts'

export interface WebhookDoor {
  readonly human: Human
  readonly webhooks: {
    list(): Promise<readonly WebhookView[]>
    /** @param id undefined: all that were given up, and all that wait. @throws {GatewayError} `webhook_unknown` */
    retry(name: string, id: string | undefined, by: Human): Promise<number>
    /** @throws {GatewayError} `webhook_unknown` */
    test(name: string, by: Human): Promise<TestedView>
  }
}

export function addWebhookRoutes(app: FastifyInstance, { webhooks, human }: WebhookDoor): void {
  const tags = ['webhooks']
  app.get(
    '/webhooks',
    {
      schema: {
        summary: 'Webhooks and streams, and what could not be delivered',
        tags,
        response: { 200: signalAnswers.webhooks },
      },
    },
    async () => ({ webhooks: await webhooks.list() }),
  )
  app.post<{ Params: { name: string }; Body: { id?: string } | null }>(
    '/webhooks/:name/retry',
    {
      schema: {
        summary: 'Send again what was given up',
        tags,
        body: retryBody,
        response: { 200: signalAnswers.retried },
      },
    },
    async ({ params: { name }, body }) => ({ retried: await webhooks.retry(name, body?.id, human) }),
  )
  app.post<{ Params: { name: string } }>(
    '/webhooks/:name/test',
    { schema: { summary: 'Send a test message now', tags, response: { 200: signalAnswers.tested } } },
    async ({ params: { name } }) => webhooks.test(name, human),
  )
}
