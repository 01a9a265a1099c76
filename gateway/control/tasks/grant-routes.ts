/** Grants by hand, on the unix socket alone: delegate, revoke, look at. Programs elsewhere use the OAuth endpoints. */
import type { FastifyInstance } from 'fastify'
import { serveInstruction } from '../../instruction.ts'
import type { DelegateBody } from '../../protocol/control.ts'
import { answers, delegateBody, grantParams, revokeBody } from '../shapes.ts'
import { issue, type TaskDoor } from './task-routes.ts'
import { grantView, requestOf } from './task-views.ts'

export function addGrantRoutes(app: FastifyInstance, door: TaskDoor): void {
  const { tenant, human } = door
  app.post<{ Body: DelegateBody }>(
    '/grants/delegate',
    {
      schema: {
        summary: 'Delegate a part of a grant to another agent',
        description: 'The answer is the only time that handle and token are shown. Wider than the parent is refused.',
        tags: ['grants'],
        body: delegateBody,
        response: { 201: answers.issued },
      },
    },
    async ({ id, body }, reply) => {
      const { parent, agent } = body
      const issued = await issue(
        { kind: 'grant.delegate', id, tenant, human, parent, agent, request: requestOf(body) },
        door,
      )
      return reply.status(201).header('cache-control', 'no-store').send(issued)
    },
  )
  app.post<{ Body: { readonly grant: string } }>(
    '/grants/revoke',
    {
      schema: {
        summary: 'Revoke a grant and everything derived from it',
        tags: ['grants'],
        body: revokeBody,
        response: { 204: answers.none },
      },
    },
    async ({ id, body }, reply) => {
      await serveInstruction({ kind: 'grant.revoke', id, tenant, token: body.grant, by: { human } }, door.rooms)
      return reply.status(204).send()
    },
  )
  app.get<{ Params: { readonly id: string } }>(
    '/grants/:id',
    {
      schema: { summary: 'A living grant', tags: ['grants'], params: grantParams, response: { 200: answers.grant } },
    },
    async ({ params }) => grantView(await door.grants.named(tenant, params.id)),
  )
  app.get<{ Params: { readonly id: string } }>(
    '/grants/:id/bundle',
    {
      schema: {
        summary: 'A living grant as signed, with all above it and their attestations',
        description: 'For `keyless grant verify`. As secret as the grant itself, until it expires.',
        tags: ['grants'],
        params: grantParams,
        response: { 200: answers.bundle },
      },
    },
    async ({ params }, reply) =>
      reply.header('cache-control', 'no-store').send(await door.grants.bundle(tenant, params.id)),
  )
}
