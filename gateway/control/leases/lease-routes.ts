/** Credentials by hand, on the unix socket alone: have them lie ready, revoke them, see which could not be revoked yet. */
import type { FastifyInstance } from 'fastify'
import type { PendingRevocationView, RevokeLeasesBody, WarmBody, WarmedView } from '../../protocol/control-leases.ts'
import type { Human } from '../../protocol/grant.ts'
import { leaseAnswers, revokeLeasesBody, warmBody } from './lease-shapes.ts'

export interface LeaseDoor {
  readonly human: Human
  readonly leases: {
    /** @throws {GatewayError} `task_unknown`, `grant_invalid`, … */
    warm(body: WarmBody): Promise<readonly WarmedView[]>
    /** Fetch what the plan of a new task names, in the background. Never throws. */
    warmPlan(grant: string): void
    /** @returns how many. @throws {GatewayError} `task_unknown`, `grant_invalid`, `audit_unavailable`, … */
    revoke(body: RevokeLeasesBody, by: Human): Promise<number>
    pending(): readonly PendingRevocationView[]
  }
}

export function addLeaseRoutes(app: FastifyInstance, { leases, human }: LeaseDoor): void {
  app.post<{ Body: WarmBody }>(
    '/leases/warm',
    {
      schema: {
        summary: 'Fetch credentials ahead of the calls of a task or grant',
        description: 'Decided like those calls. No credential is shown, and the calls are decided anew.',
        tags: ['leases'],
        body: warmBody,
        response: { 200: leaseAnswers.warmed },
      },
    },
    async ({ body }) => ({ warmed: await leases.warm(body) }),
  )
  app.post<{ Body: RevokeLeasesBody }>(
    '/leases/revoke',
    {
      schema: {
        summary: 'Drop and revoke credentials of living grants, which may get others',
        tags: ['leases'],
        body: revokeLeasesBody,
        response: { 200: leaseAnswers.revoked },
      },
    },
    async ({ body }) => ({ revoked: await leases.revoke(body, human) }),
  )
  app.get(
    '/leases/pending',
    {
      schema: {
        summary: 'Credentials whose issuer has not confirmed their end, and until when they live',
        tags: ['leases'],
        response: { 200: leaseAnswers.pending },
      },
    },
    async () => ({ pending: leases.pending() }),
  )
}
