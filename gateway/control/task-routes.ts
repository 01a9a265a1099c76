/** Tasks and status: on the unix socket alone, because whoever can open that socket is the human whom it names. */
import type { FastifyInstance } from 'fastify'
import { lineageSentence } from '../grant/lineage.ts'
import { type InstructionRooms, serveInstruction } from '../instruction.ts'
import type { Clock } from '../protocol/clock.ts'
import type { CompletionReason, OpenedTask, OpenTaskBody, StatusView, TaskView } from '../protocol/control.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import type { IssuedGrant } from '../protocol/instruction.ts'
import { GatewayError } from '../protocol/problem.ts'
import { answers, completeTaskBody, emptyBody, openTaskBody, taskParams } from './shapes.ts'

/** What the door needs of the room of grants. */
export interface ControlGrants {
  readonly defaults: { readonly agent: string | undefined; readonly ttlS: number; readonly heartbeatS: number }
  heartbeat(taskId: string, tenant: string): Promise<{ readonly expiresAt: number }>
  list(tenant: string): Promise<readonly { readonly grant: Grant; readonly heartbeat: boolean }[]>
  jwks(): object
}

export interface TaskDoor {
  readonly tenant: string
  /** Owner of the socket: the human behind every task opened here. */
  readonly human: Human
  readonly rooms: InstructionRooms
  readonly grants: ControlGrants
  status(): Promise<StatusView>
  readonly clock: Clock
}

export function addTaskRoutes(app: FastifyInstance, door: TaskDoor): void {
  app.post<{ Body: OpenTaskBody }>(
    '/tasks',
    {
      schema: {
        summary: 'Open a task',
        description: 'The answer is the only time that handle and token are shown.',
        tags: ['tasks'],
        body: openTaskBody,
        response: { 201: answers.openedTask },
      },
    },
    async (request, reply) => {
      const opened = await openTask(request.id, request.body, door)
      return reply.status(201).header('cache-control', 'no-store').send(opened)
    },
  )
  app.post<{ Params: { id: string } }>(
    '/tasks/:id/heartbeat',
    {
      schema: {
        summary: 'Say that a task is alive',
        tags: ['tasks'],
        params: taskParams,
        body: emptyBody,
        response: { 200: answers.heartbeat },
      },
    },
    async (request) => ({ expires_at: (await door.grants.heartbeat(request.params.id, door.tenant)).expiresAt }),
  )
  app.post<{ Params: { id: string }; Body: { reason: CompletionReason } }>(
    '/tasks/:id/complete',
    {
      schema: {
        summary: 'End a task',
        description: 'Its grant dies at once.',
        tags: ['tasks'],
        params: taskParams,
        body: completeTaskBody,
        response: { 204: answers.none },
      },
    },
    async (request, reply) => {
      const { tenant, human } = door
      await serveInstruction(
        {
          kind: 'task.complete',
          id: request.id,
          tenant,
          by: { human },
          task: request.params.id,
          reason: request.body.reason,
        },
        door.rooms,
      )
      return reply.status(204).send()
    },
  )
  app.get(
    '/tasks',
    { schema: { summary: 'Tasks that are alive, newest first', tags: ['tasks'], response: { 200: answers.tasks } } },
    async () => ({
      tasks: (await door.grants.list(door.tenant)).map(({ grant, heartbeat }) => viewOf(grant, heartbeat)),
    }),
  )
  app.get(
    '/status',
    {
      schema: {
        summary: 'What a launcher needs to know of this gateway',
        tags: ['gateway'],
        response: { 200: answers.status },
      },
    },
    () => door.status(),
  )
}

async function openTask(id: string, body: OpenTaskBody, door: TaskDoor): Promise<OpenedTask> {
  const { tenant, human, grants } = door
  const agent = body.agent ?? grants.defaults.agent
  if (agent === undefined)
    throw new GatewayError('agent_unknown', 'No agent is registered. Add one to `agents` in the settings.')
  const ttlS = body.ttl_s ?? grants.defaults.ttlS
  const heartbeat = body.heartbeat ?? false
  const issued = await serveInstruction(
    {
      kind: 'task.open',
      id,
      tenant,
      human,
      agent,
      purpose: body.purpose,
      request: { scope: body.scope, ttlS },
      heartbeat,
    },
    door.rooms,
  )
  if (issued === null) throw new TypeError('opening a task issues a grant')
  return openedOf(issued, {
    nowS: door.clock.nowMs() / 1000,
    ...(heartbeat && { heartbeatS: grants.defaults.heartbeatS }),
  })
}

function openedOf(
  { grant, handle, token }: IssuedGrant,
  o: { readonly nowS: number; readonly heartbeatS?: number },
): OpenedTask {
  return {
    task: grant.task.id,
    grant: grant.id,
    agent: grant.agent.id,
    human: grant.human.sub,
    scope: scopeOf(grant),
    handle: handle ?? '',
    token,
    expires_at: grant.expiresAt,
    expires_in: Math.max(0, Math.floor(grant.expiresAt - o.nowS)),
    ...(o.heartbeatS !== undefined && { heartbeat_s: o.heartbeatS }),
    lineage: lineageSentence(grant),
  }
}

function viewOf(grant: Grant, heartbeat: boolean): TaskView {
  return {
    task: grant.task.id,
    grant: grant.id,
    agent: grant.agent.id,
    human: grant.human.sub,
    purpose: grant.task.purpose,
    scope: scopeOf(grant),
    issued_at: grant.issuedAt,
    expires_at: grant.expiresAt,
    heartbeat,
  }
}

function scopeOf(grant: Grant): string {
  return [...new Set(grant.authority.flatMap(({ operations }) => operations))].join(' ')
}
