/** Tasks and status: on the unix socket alone, because whoever can open that socket is the human whom it names. */
import type { FastifyInstance } from 'fastify'
import type { LiveTask } from '../../grant/grants.ts'
import type { TaskRecord } from '../../grant/store/record.ts'
import { type InstructionRooms, serveInstruction } from '../../instruction.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { GrantBundle, IssuedView, OpenTaskBody } from '../../protocol/control.ts'
import type { StatusView } from '../../protocol/control-status.ts'
import type { Grant, Human } from '../../protocol/grant.ts'
import type { Instruction, Mandate } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { LeaseDoor } from '../leases/lease-routes.ts'
import { answers, openTaskBody, taskParams } from '../shapes.ts'
import type { HolderDoor } from './holder.ts'
import { issuedView, requestOf, taskDetail, taskView } from './task-views.ts'

/** What the door needs of the room of grants. */
export interface ControlGrants {
  readonly defaults: { readonly agent: string | undefined; readonly heartbeatS: number }
  heartbeat(i: { readonly tenant: string; readonly task: string; readonly by: Mandate }): Promise<TaskRecord>
  list(tenant: string): Promise<readonly TaskRecord[]>
  task(tenant: string, id: string): Promise<LiveTask>
  named(tenant: string, name: string): Promise<Grant>
  bundle(tenant: string, id: string): Promise<GrantBundle>
}

export interface TaskDoor extends HolderDoor {
  readonly tenant: string
  /** Owner of the socket: the human behind every task opened here. */
  readonly human: Human
  readonly rooms: InstructionRooms
  readonly grants: ControlGrants & HolderDoor['grants']
  status(): Promise<StatusView>
  /** Undefined: nothing lies ready before its call. */
  readonly leases?: Pick<LeaseDoor['leases'], 'warmPlan'>
  readonly clock: Clock
}

export function addTaskRoutes(app: FastifyInstance, door: TaskDoor): void {
  const { tenant } = door
  app.post<{ Body: OpenTaskBody }>(
    '/tasks',
    {
      schema: {
        summary: 'Open a task',
        description: 'The answer is the only time that handle and token are shown.',
        tags: ['tasks'],
        body: openTaskBody,
        response: { 201: answers.issued },
      },
    },
    async ({ id, body }, reply) => {
      const opened = await openTask(id, body, door)
      return reply.status(201).header('cache-control', 'no-store').send(opened)
    },
  )
  app.get(
    '/tasks',
    { schema: { summary: 'Tasks that are alive, newest first', tags: ['tasks'], response: { 200: answers.tasks } } },
    async () => ({ tasks: (await door.grants.list(tenant)).map(taskView) }),
  )
  app.get<{ Params: { readonly id: string } }>(
    '/tasks/:id',
    {
      schema: {
        summary: 'A task and its living grants',
        tags: ['tasks'],
        params: taskParams,
        response: { 200: answers.task },
      },
    },
    async ({ params }) => {
      const { task, grants } = await door.grants.task(tenant, params.id)
      return taskDetail(task, grants)
    },
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

async function openTask(id: string, body: OpenTaskBody, door: TaskDoor): Promise<object> {
  const { tenant, human, grants } = door
  const { purpose, plan, heartbeat = false, warm = false, agent = grants.defaults.agent } = body
  if (agent === undefined)
    throw new GatewayError('agent_unknown', 'No agent is registered. Add one to `agents` in the settings.')
  const request = requestOf(body)
  const intent = { purpose, ...(plan && { plan }) }
  const issued = await issue({ kind: 'task.open', id, tenant, human, agent, ...intent, request, heartbeat }, door)
  if (warm) door.leases?.warmPlan(issued.grant)
  return { ...issued, ...(heartbeat && { heartbeat_s: grants.defaults.heartbeatS }) }
}

/** Take an instruction that issues a grant through the flow, and show the grant. */
export async function issue(
  instruction: Instruction,
  door: { readonly rooms: InstructionRooms; readonly clock: Clock },
): Promise<IssuedView> {
  const issued = await serveInstruction(instruction, door.rooms)
  if (issued === null) throw new TypeError(`${instruction.kind} issues a grant`)
  return issuedView(issued, door.clock.nowMs() / 1000)
}
