/**
 * Requests for more access. Agents ask on either listener, by the grant that they present; humans decide on the socket, whose owner they
 * are, and programs of approvers over TCP, each by a token.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { AccessRequests, AccessView, AskingForAccess, Wanted } from '../../protocol/access.ts'
import type { Decider } from '../../protocol/approval.ts'
import type { Clock } from '../../protocol/clock.ts'
import { type AccessAskBody, type AccessStatusView, accessRequestView } from '../../protocol/control-access.ts'
import { INTERVAL_S } from '../../protocol/control-approvals.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { IssuedGrant } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { createPace } from '../pace.ts'
import { answers, emptyBody } from '../shapes.ts'
import { type HolderDoor, holderOf } from '../tasks/holder.ts'
import { issuedView } from '../tasks/task-views.ts'
import { accessAnswers, accessAskBody, accessDecisionBody, accessEditBody, accessParams } from './access-shapes.ts'

export interface AccessDoor extends HolderDoor {
  readonly access: {
    readonly requests: AccessRequests & AskingForAccess
    /** Make what was granted. @param event id of the instruction. */
    make(event: string, holder: Grant, id: string): Promise<IssuedGrant>
  }
  readonly publicUrl: string
  readonly clock: Clock
}

interface OfRequest {
  Params: { readonly id: string }
}

/** Questions of one grant. */
const PACE = { n: 60, perMs: 10_000 } as const

const tags = ['access requests']
const PRESENTED = 'With the grant of the task: Authorization: Bearer <grant>, or DPoP with a proof.'

/** For agents. */
export function addAccessAsking(app: FastifyInstance, door: AccessDoor): void {
  const { requests, make } = door.access
  const pace = createPace({ ...PACE, clock: door.clock })
  const presented = async (request: FastifyRequest): Promise<Grant> => {
    const holder = await holderOf(request, door)
    if (holder === undefined)
      throw new GatewayError(
        'grant_missing',
        'Nothing says who asks. Send the grant of the task: Authorization: Bearer <grant>.',
      )
    pace.admit(holder.id)
    return holder
  }
  const statusOf = (view: AccessView): AccessStatusView => statusView(view, door.publicUrl)
  app.post<{ Body: AccessAskBody }>(
    '/access-requests',
    {
      schema: {
        summary: 'Ask a human for more access',
        description: PRESENTED,
        tags,
        body: accessAskBody,
        response: { 202: accessAnswers.status },
      },
    },
    async (request, reply) => {
      const view = await requests.ask(await presented(request), request.body)
      return reply.status(202).headers(waiting(view)).send(statusOf(view))
    },
  )
  app.get<OfRequest>(
    '/access-requests/:id/status',
    {
      schema: {
        summary: 'How a request for access stands',
        description: PRESENTED,
        tags,
        params: accessParams,
        response: { 200: accessAnswers.status },
      },
    },
    async (request, reply) => {
      const view = await requests.ofHolder(await presented(request), request.params.id)
      return reply.headers(waiting(view)).send(statusOf(view))
    },
  )
  app.post<OfRequest>(
    '/access-requests/:id/grant',
    {
      schema: {
        summary: 'Fetch what was granted, once',
        description: `${PRESENTED} The new grant comes beside it and ends no later.`,
        tags,
        params: accessParams,
        body: emptyBody,
        response: { 201: answers.issued },
      },
    },
    async (request, reply) => {
      const issued = await make(request.id, await presented(request), request.params.id)
      return reply
        .status(201)
        .header('cache-control', 'no-store')
        .send(issuedView(issued, door.clock.nowMs() / 1000))
    },
  )
}

/** For humans. @param deciderOf throws for who may not even look. */
export function addAccessDeciding(
  app: FastifyInstance,
  { access }: Pick<AccessDoor, 'access'>,
  deciderOf: (request: FastifyRequest) => Decider | Promise<Decider>,
): void {
  const { requests } = access
  const visible = async (request: FastifyRequest, id: string) => {
    const { human } = await deciderOf(request)
    const view = await requests.get(id)
    if (requests.hindrance(view, human) === undefined) return view
    throw new GatewayError('approval_unknown', 'There is no such request for access that you may decide on.')
  }
  app.get(
    '/access-requests',
    { schema: { summary: 'Requests for access that wait', tags, response: { 200: accessAnswers.list } } },
    async (request) => {
      const { human } = await deciderOf(request)
      const pending = await requests.pending()
      const own = pending.filter((view) => requests.hindrance(view, human) === undefined)
      return { requests: own.map(accessRequestView) }
    },
  )
  app.get<OfRequest>(
    '/access-requests/:id',
    { schema: { summary: 'One of them', tags, params: accessParams, response: { 200: accessAnswers.one } } },
    async (request) => accessRequestView(await visible(request, request.params.id)),
  )
  app.post<OfRequest & { Body: Wanted }>(
    '/access-requests/:id/edit',
    {
      schema: {
        summary: 'Put something else in place of what is asked for',
        tags,
        params: accessParams,
        body: accessEditBody,
        response: { 200: accessAnswers.one },
      },
    },
    async (request) => {
      const by = await deciderOf(request)
      return accessRequestView(await requests.edit(request.params.id, request.body, by))
    },
  )
  app.post<OfRequest & { Body: { readonly verdict: 'grant' | 'deny' } }>(
    '/access-requests/:id/decision',
    {
      schema: {
        summary: 'Grant or deny it',
        tags,
        params: accessParams,
        body: accessDecisionBody,
        response: { 200: accessAnswers.one },
      },
    },
    async (request) => {
      const by = await deciderOf(request)
      return accessRequestView(await requests[request.body.verdict](request.params.id, by))
    },
  )
}

function waiting({ state }: AccessView): Record<string, string> {
  return { 'cache-control': 'no-store', ...(state === 'pending' && { 'retry-after': String(INTERVAL_S) }) }
}

function statusView({ id, state, wanted, expiresAt }: AccessView, publicUrl: string): AccessStatusView {
  const base = `${publicUrl}/access-requests/${id}`
  return {
    id,
    state,
    ...wanted,
    status_url: `${base}/status`,
    interval: INTERVAL_S,
    expires_at: expiresAt,
    ...(state === 'granted' && { grant_url: `${base}/grant` }),
  }
}
