/** Everything by which approvers come over TCP, and agents to them: pages where settings name a provider, and tokens for programs. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Decider } from '../../protocol/approval.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import { redirect } from '../page.ts'
import { createReaders } from '../records/reader.ts'
import type { HolderDoor } from '../tasks/holder.ts'
import { addAccessPages } from './access-pages.ts'
import { type AccessDoor, addAccessAsking, addAccessDeciding } from './access-routes.ts'
import { type ApprovalPagesDoor, addApprovalPages } from './approval-pages.ts'
import { type ApprovalDoor, addApprovalRoutes } from './approval-routes.ts'

export interface ApproverDoor extends HolderDoor {
  readonly tenant: string
  readonly approvers: {
    readonly approvals: ApprovalDoor['approvals']
    /** Undefined: settings name no provider to sign in at. */
    readonly pages: Pick<ApprovalPagesDoor, 'sessions' | 'signIn' | 'recordSignIn'> | undefined
    readonly access: AccessDoor['access']
    /** Name of an approver → SHA-256 of its token. */
    readonly tokens: ReadonlyMap<string, Buffer>
    decider(name: string): Decider
  }
  readonly publicUrl: string
  readonly clock: Clock
  /** As `OauthDoor.report`. */
  report?(cause: unknown, id: string): void
}

/** On the socket, whose owner decides. */
export function addLocalAccess(app: FastifyInstance, door: ApproverDoor, human: Human): void {
  const { access } = door.approvers
  addAccessAsking(app, { ...door, access })
  addAccessDeciding(app, { access }, () => ({ human, via: 'socket' }))
}

/** Over TCP: nobody is known by the connection. */
export function addApprovers(app: FastifyInstance, door: ApproverDoor): void {
  const { access, approvals, pages } = door.approvers
  addAccessAsking(app, { ...door, access })
  const deciderOf = tokenDecider(door)
  void app.register(async (routes) => {
    if (pages !== undefined) routes.addHook('onRequest', leadToPages)
    addApprovalRoutes(routes, { ...door, approvals }, deciderOf)
    addAccessDeciding(routes, { access }, deciderOf)
  })
  if (pages === undefined) return
  const own = { ...door, approvals, ...pages }
  addApprovalPages(app, own, (more, visited) => addAccessPages(more, { ...own, requests: access.requests }, visited))
}

/** A person who opens what programs ask is shown the page of it. */
async function leadToPages({ method, headers, url }: FastifyRequest, reply: FastifyReply): Promise<void> {
  const isPerson = headers.authorization === undefined && headers.accept?.includes('text/html') === true
  if (method !== 'GET' || !isPerson || !url.startsWith('/')) return
  const [path = ''] = url.split('?', 1)
  return redirect(reply, path.replace('/access-requests', '/approve/access').replace('/approvals', '/approve'))
}

const WANTED =
  'Approvers are known by their token: send "Authorization: Bearer" and one of approvals.tokens, or sign in at /approve.'

/** Who comes with a token of `approvals.tokens`. @throws {GatewayError} `client_invalid` (401), `too_many_requests`. */
function tokenDecider({ approvers, clock }: Pick<ApproverDoor, 'approvers' | 'clock'>) {
  const holderOf = createReaders(approvers.tokens, clock, WANTED)
  return async (request: FastifyRequest): Promise<Decider> => approvers.decider((await holderOf(request)).name)
}
