/**
 * What happens to a task after it was opened: on the socket for its owner, who may say it of any task, and on both listeners for
 * the holder of the task's grant, who presents it.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { serveInstruction } from '../instruction.ts'
import type { CompletionReason, IntentBody, ResumeBody } from '../protocol/control.ts'
import type { Human } from '../protocol/grant.ts'
import type { Instruction, Mandate } from '../protocol/instruction.ts'
import { mandateOf } from './holder.ts'
import { evidenceOf, provedKey } from './oauth-client.ts'
import { answers, completeTaskBody, emptyBody, intentBody, resumeBody, stepParams, taskParams } from './shapes.ts'
import { issue, type TaskDoor } from './task-routes.ts'
import { requestOf } from './task-views.ts'

interface OfTask {
  Params: { readonly id: string }
}

interface Given {
  readonly id: string
  readonly tenant: string
  readonly task: string
  readonly by: Mandate
}

/** @param human owner of the socket; undefined over TCP. */
export function addLifeRoutes(app: FastifyInstance, door: TaskDoor, human: Human | undefined): void {
  const given = async (request: FastifyRequest<OfTask>, reply: FastifyReply): Promise<Given> => ({
    id: request.id,
    tenant: door.tenant,
    task: request.params.id,
    by: await mandateOf(request, reply, { door, human }),
  })
  const end = async (instruction: Instruction) => void (await serveInstruction(instruction, door.rooms))
  app.post<OfTask>(
    '/tasks/:id/heartbeat',
    { schema: { ...of('Say that a task is alive'), body: emptyBody, response: { 200: answers.heartbeat } } },
    async (request, reply) => ({
      expires_at: (await door.grants.heartbeat(await given(request, reply))).expiresAt,
    }),
  )
  app.post<OfTask & { Params: { readonly step: string } }>(
    '/tasks/:id/steps/:step/complete',
    { schema: { ...of('End a step: its grants die at once'), params: stepParams, ...ENDING } },
    async (request, reply) => {
      await end({ kind: 'task.step_complete', ...(await given(request, reply)), step: request.params.step })
      return reply.status(204).send()
    },
  )
  app.post<OfTask>(
    '/tasks/:id/suspend',
    { schema: { ...of('Suspend a task: its grants are parked, its credentials dropped'), ...ENDING } },
    async (request, reply) => {
      await end({ kind: 'task.suspend', ...(await given(request, reply)) })
      return reply.status(204).send()
    },
  )
  app.post<OfTask & { Body: { readonly reason: CompletionReason } }>(
    '/tasks/:id/complete',
    { schema: { ...of('End a task: all its grants die at once'), ...ENDING, body: completeTaskBody } },
    async (request, reply) => {
      await end({ kind: 'task.complete', ...(await given(request, reply)), reason: request.body.reason })
      return reply.status(204).send()
    },
  )
  addRenewals(app, door, { human, given })
}

/** What ends the root grant and puts a fresh one in its place, after policy has decided afresh. */
function addRenewals(
  app: FastifyInstance,
  door: TaskDoor,
  o: { readonly human: Human | undefined; given(request: FastifyRequest<OfTask>, reply: FastifyReply): Promise<Given> },
): void {
  app.post<OfTask & { Body: IntentBody }>(
    '/tasks/:id/intent',
    {
      schema: { ...of('Declare another intent, for a new grant'), body: intentBody, response: { 201: answers.issued } },
    },
    async (request, reply) => {
      const { purpose } = request.body
      const asked = requestOf(request.body)
      const issued = await issue(
        { kind: 'task.intent', ...(await o.given(request, reply)), purpose, request: asked },
        door,
      )
      return reply.status(201).header('cache-control', 'no-store').send(issued)
    },
  )
  app.post<OfTask & { Body: ResumeBody | null }>(
    '/tasks/:id/resume',
    {
      schema: {
        ...of('Resume a task, for a new grant'),
        description: 'Over TCP the workload proves again who it is, by client_assertion or TLS certificate.',
        body: resumeBody,
        response: { 201: answers.issued },
      },
    },
    async (request, reply) => {
      const { id, params, body } = request
      if (request.headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce())
      const by = await returnerOf(request, door, o.human)
      const ttl = body?.ttl_s === undefined ? {} : { ttlS: body.ttl_s }
      const issued = await issue({ kind: 'task.resume', id, tenant: door.tenant, task: params.id, by, ...ttl }, door)
      return reply.status(201).header('cache-control', 'no-store').send(issued)
    },
  )
}

const ENDING = { body: emptyBody, response: { 204: answers.none } } as const

function of(summary: string) {
  return {
    summary,
    description: 'By the owner of the socket, or by the holder: Authorization: Bearer <grant>, or DPoP with a proof.',
    tags: ['tasks'],
    params: taskParams,
  }
}

/** A parked grant is no proof of anything: the workload presents its identity, or the owner of the socket speaks for it. */
async function returnerOf(
  request: FastifyRequest<OfTask & { Body: ResumeBody | null }>,
  door: TaskDoor,
  human: Human | undefined,
): Promise<Extract<Instruction, { kind: 'task.resume' }>['by']> {
  const { ttl_s: _, ...form } = request.body ?? {}
  const client = evidenceOf(request, form)
  if (human !== undefined && Object.keys(client).length === 0) return { human }
  const [path = ''] = request.url.split('?', 1)
  const jkt = await provedKey(request, path, door)
  return { client, ...(jkt !== undefined && { jkt }) }
}
