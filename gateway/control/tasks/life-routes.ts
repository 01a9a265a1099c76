/**
 * What happens to a task after it was opened: on the socket for its owner, who may say it of any task, and on both listeners for
 * the holder of the task's grant, who presents it.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { serveInstruction } from '../../instruction.ts'
import type { CompletionReason, IntentBody, RenewBody, ResumeBody } from '../../protocol/control.ts'
import type { Human } from '../../protocol/grant.ts'
import type { Instruction, Mandate } from '../../protocol/instruction.ts'
import { evidenceOf, provedKey } from '../oauth/client.ts'
import { orRecord } from '../refused.ts'
import {
  answers,
  completeTaskBody,
  emptyBody,
  intentBody,
  renewBody,
  resumeBody,
  stepParams,
  taskParams,
} from '../shapes.ts'
import { mandateOf } from './holder.ts'
import { issue, type TaskDoor } from './task-routes.ts'
import { heartbeatView, requestOf } from './task-views.ts'

interface OfTask {
  Params: { readonly id: string }
}

/** The part of an instruction that its request names. */
interface About {
  readonly id: string
  readonly tenant: string
  readonly task: string
}

interface Life {
  readonly door: TaskDoor
  /** Owner of the socket; undefined over TCP. */
  readonly human: Human | undefined
  about(request: FastifyRequest<OfTask>): About
  /** The instruction by whoever gives it. Who cannot say who it is, is refused in the log too. */
  given(request: FastifyRequest<OfTask>, reply: FastifyReply, as: (by: Mandate) => Instruction): Promise<Instruction>
}

/** @param human owner of the socket; undefined over TCP. */
export function addLifeRoutes(app: FastifyInstance, door: TaskDoor, human: Human | undefined): void {
  const life: Life = {
    door,
    human,
    about: ({ id, params }) => ({ id, tenant: door.tenant, task: params.id }),
    given: (request, reply, as) =>
      orRecord(as({ client: {} }), door.rooms, async () => as(await mandateOf(request, reply, { door, human }))),
  }
  app.post<OfTask>(
    '/tasks/:id/heartbeat',
    { schema: { ...of('Say that a task is alive'), body: emptyBody, response: { 200: answers.heartbeat } } },
    async (request, reply) => {
      const about = life.about(request)
      const bare = { kind: 'task.heartbeat', ...about, by: { client: {} } } as const
      const by = await orRecord(bare, door.rooms, () => mandateOf(request, reply, life))
      const beat = () => door.grants.heartbeat({ ...about, by })
      return heartbeatView(await orRecord({ ...bare, by }, door.rooms, beat))
    },
  )
  addEndings(app, life)
  addRenewals(app, life)
}

/** What only takes away. */
function addEndings(app: FastifyInstance, { door, about, given }: Life): void {
  const end = async (reply: FastifyReply, instruction: Instruction) => {
    await serveInstruction(instruction, door.rooms)
    return reply.status(204).send()
  }
  app.post<OfTask & { Params: { readonly step: string } }>(
    '/tasks/:id/steps/:step/complete',
    { schema: { ...of('End a step: its grants die at once'), params: stepParams, ...ENDING } },
    async (request, reply) => {
      const { step } = request.params
      return end(
        reply,
        await given(request, reply, (by) => ({ kind: 'task.step_complete', ...about(request), by, step })),
      )
    },
  )
  app.post<OfTask>(
    '/tasks/:id/suspend',
    { schema: { ...of('Suspend a task: its grants are parked, its credentials dropped'), ...ENDING } },
    async (request, reply) =>
      end(reply, await given(request, reply, (by) => ({ kind: 'task.suspend', ...about(request), by }))),
  )
  app.post<OfTask & { Body: { readonly reason: CompletionReason } }>(
    '/tasks/:id/complete',
    { schema: { ...of('End a task: all its grants die at once'), ...ENDING, body: completeTaskBody } },
    async (request, reply) => {
      const { reason } = request.body
      return end(reply, await given(request, reply, (by) => ({ kind: 'task.complete', ...about(request), by, reason })))
    },
  )
}

/** What puts a fresh root grant in the place of the old one, after policy has decided afresh. */
function addRenewals(app: FastifyInstance, life: Life): void {
  const { door, human, about, given } = life
  if (human !== undefined) addRenewal(app, life)
  app.post<OfTask & { Body: IntentBody }>(
    '/tasks/:id/intent',
    {
      schema: { ...of('Declare another intent, for a new grant'), body: intentBody, response: { 201: answers.issued } },
    },
    async (request, reply) => {
      const { purpose, plan } = request.body
      const asked = requestOf(request.body)
      const instruction = await given(request, reply, (by) => ({
        kind: 'task.intent',
        ...about(request),
        by,
        purpose,
        ...(plan && { plan }),
        request: asked,
      }))
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send(await issue(instruction, door))
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
      const { body } = request
      if (request.headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce())
      const ttl = body?.ttl_s === undefined ? {} : { ttlS: body.ttl_s }
      const bare = { kind: 'task.resume', ...about(request), ...ttl, by: { client: {} } } as const
      const instruction = await orRecord(bare, door.rooms, async () => ({
        ...bare,
        by: await returnerOf(request, door, human),
      }))
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send(await issue(instruction, door))
    },
  )
}

/** On the socket alone: a holder cannot lengthen its own grant. */
function addRenewal(app: FastifyInstance, { door, about, given }: Life): void {
  app.post<OfTask & { Body: RenewBody | null }>(
    '/tasks/:id/renew',
    {
      schema: {
        ...of('Let a task go on as it is, for a new grant beside the old one'),
        description: 'The old grant lives on until its own expiry; what was spent stays spent.',
        body: renewBody,
        response: { 201: answers.issued },
      },
    },
    async (request, reply) => {
      const ttl = request.body?.ttl_s === undefined ? {} : { ttlS: request.body.ttl_s }
      const instruction = await given(request, reply, (by) => ({ kind: 'task.renew', ...about(request), by, ...ttl }))
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send(await issue(instruction, door))
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
