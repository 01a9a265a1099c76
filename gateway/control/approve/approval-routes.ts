/**
 * Approvals by hand and by program: on the unix socket whoever owns it sees those that wait, and decides; over TCP approvers do by their
 * tokens; on both the holder of a grant asks how its own stands. Nothing is ever decided by GET: links are fetched by whoever previews them.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { Approvals, ApprovalView, Decider } from '../../protocol/approval.ts'
import { approvalJson, approvalStatus, type DecideBody } from '../../protocol/control-approvals.ts'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { closed } from '../shapes.ts'
import { type HolderDoor, holderOf } from '../tasks/holder.ts'

export interface ApprovalDoor extends HolderDoor {
  readonly tenant: string
  readonly approvals: Approvals & {
    /** @returns undefined for one that this grant has no business with. */
    ofGrant(grant: Grant, id: string): Promise<ApprovalView | undefined>
  }
}

interface OfApproval {
  Params: { readonly id: string }
}

const params = closed({
  id: {
    type: 'string',
    pattern: '^[0-9a-f-]{36}$',
    description: 'the id of an approval: 36 characters, as in a refusal',
  },
})

const decideBody = {
  description: 'a JSON object',
  ...closed({ verdict: { type: 'string', enum: ['approve', 'deny'], description: 'approve or deny' } }),
}

const view = { type: 'object', additionalProperties: true } as const

/** @param deciderOf who asks: on the socket its owner. Throws for who may not even look. */
export function addApprovalRoutes(
  app: FastifyInstance,
  { approvals, tenant }: ApprovalDoor,
  deciderOf: (request: FastifyRequest) => Decider | Promise<Decider>,
): void {
  const shown = (found: ApprovalView, { human }: Decider) => approvalJson(found, approvals.hindrance(found, human))
  /** Who owns the socket sees all; others what they may decide on, or have. */
  const sees = ({ human, via }: Decider, found: ApprovalView) =>
    via === 'socket' ||
    approvals.hindrance(found, human) === undefined ||
    found.consents.some((one) => one.human.iss === human.iss && one.human.sub === human.sub)
  app.get(
    '/approvals',
    {
      schema: {
        summary: 'What waits for somebody to approve it, oldest first',
        tags: ['approvals'],
        response: { 200: { description: 'Approvals', ...closed({ approvals: { type: 'array', items: view } }) } },
      },
    },
    async (request) => {
      const by = await deciderOf(request)
      const found = (await approvals.pending(tenant)).filter((one) => sees(by, one))
      return { approvals: found.map((one) => shown(one, by)) }
    },
  )
  app.get<OfApproval>(
    '/approvals/:id',
    {
      schema: {
        summary: 'One approval, whatever has become of it',
        tags: ['approvals'],
        params,
        response: { 200: view },
      },
    },
    async (request) => {
      const by = await deciderOf(request)
      const found = await approvals.get(tenant, request.params.id)
      return shown(found !== undefined && sees(by, found) ? found : unknown(), by)
    },
  )
  app.post<OfApproval & { Body: DecideBody }>(
    '/approvals/:id/decide',
    {
      schema: {
        summary: 'Say yes or no, as the human who owns the socket or whose token it is',
        description:
          'Recorded before it counts. Nobody approves what their own agent asks for, unless `human` is asked.',
        tags: ['approvals'],
        params,
        body: decideBody,
        response: { 200: view },
      },
    },
    async (request) => {
      const by = await deciderOf(request)
      return shown(await approvals.decide(tenant, request.params.id, request.body.verdict, by), by)
    },
  )
}

/** On both listeners. */
export function addApprovalStatus(app: FastifyInstance, door: ApprovalDoor): void {
  app.get<OfApproval>(
    '/approvals/:id/status',
    {
      schema: {
        summary: 'How the approval that a call of this grant waits for stands',
        description: 'With a grant of the task that asked: `Authorization: Bearer <grant>`, or `DPoP` with a proof.',
        tags: ['approvals'],
        params,
        response: { 200: view },
      },
    },
    async (request, reply) => {
      if (request.headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce()) // RFC 9449 §9
      const holder = await holderOf(request, door)
      if (holder === undefined)
        throw new GatewayError('grant_missing', 'Send the grant of the call: `Authorization: Bearer <grant>`.')
      const found = (await door.approvals.ofGrant(holder, request.params.id)) ?? unknown()
      const status = approvalStatus(found)
      void reply.header('cache-control', 'no-store')
      if (status.interval !== undefined) void reply.header('retry-after', String(status.interval))
      return status
    },
  )
}

function unknown(): never {
  throw new GatewayError('approval_unknown', 'No approval has this id here, or it was over long ago.')
}
