/**
 * Pages that approvers decide on, over TCP: they sign in at their own provider, see what the gateway has verified, and say yes or no.
 * Whatever opens a link decides nothing: a verdict is a form of ours, in the session that it was shown to, about what was shown.
 */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Approvals, ApprovalView, Verdict } from '../../protocol/approval.ts'
import type { Clock } from '../../protocol/clock.ts'
import type { Human } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { createPace } from '../pace.ts'
import { formOf, HIDDEN, redirect, requireOwnPage, sendPage, takeForms } from '../page.ts'
import { approvalWords, listWords, refusedWords, signedOutWords } from './approval-words.ts'
import type { Session, Sessions, SignedIn } from './approver-session.ts'

export interface ApprovalPagesDoor {
  readonly tenant: string
  readonly approvals: Approvals
  readonly sessions: Sessions<object>
  readonly signIn: {
    leave(redirectUri: string): Promise<{ readonly url: string; readonly leaving: object }>
    arrive(parameters: URLSearchParams, leaving: object, redirectUri: string): Promise<SignedIn>
  }
  /** In the log, before the session begins. @throws {GatewayError} `audit_unavailable` */
  recordSignIn(human: Human, address: string): Promise<void>
  /** Of the control door, as browsers know it. */
  readonly publicUrl: string
  readonly clock: Clock
  /** As `OauthDoor.report`. */
  report?(cause: unknown, id: string): void
}

/** Forms of these pages may be posted; what else comes from a page is refused as everywhere (guard.ts). */
export const APPROVAL_FORMS: readonly string[] = ['/approve/:id', '/approve/sign-out']

/** Of one address, behind which many may be. */
const PACE = { n: 240, perMs: 10_000 } as const

/** Who looks at a page, and where it is. */
export interface Visit {
  readonly session: Session
  /** As pages show who is signed in. */
  readonly who: string
  /** Proof for signing out. */
  readonly signOut: string
}

/** Routes for who is signed in: others sign in first, and come back. */
export type Visited = (
  route: (request: FastifyRequest, reply: FastifyReply, visit: Visit) => Promise<FastifyReply>,
) => (request: FastifyRequest, reply: FastifyReply) => Promise<FastifyReply>

/** @param addMore pages that want the same sign-in. */
export function addApprovalPages(
  app: FastifyInstance,
  door: ApprovalPagesDoor,
  addMore: (pages: FastifyInstance, visited: Visited) => void = () => {},
): void {
  const pace = createPace({ ...PACE, clock: door.clock })
  const visited = visitedIn(door)
  void app.register(async (pages) => {
    takeForms(pages, { refused: refusedWords, report: door.report })
    pages.addHook('onRequest', async (request) => pace.admit(request.ip))
    addSignIn(pages, door, visited)
    pages.get(
      '/approve',
      HIDDEN,
      visited(async (_request, reply, visit) => list(reply, visit, door)),
    )
    pages.get(
      '/approve/:id',
      HIDDEN,
      visited(async (request, reply, visit) => show(request, reply, visit, door)),
    )
    pages.post(
      '/approve/:id',
      HIDDEN,
      visited(async (request, reply, visit) => decide(request, reply, visit, door)),
    )
    addMore(pages, visited)
  })
}

function visitedIn(door: ApprovalPagesDoor): Visited {
  return (route) => async (request, reply) => {
    const session = await door.sessions.of(request)
    if (session !== undefined) {
      const { sub, iss } = session.human
      return route(request, reply, {
        session,
        who: `${sub} (${iss})`,
        signOut: door.sessions.proof(session, 'sign-out'),
      })
    }
    if (request.method === 'POST')
      throw new GatewayError(
        'client_invalid',
        'You are not signed in any more, so nothing was done. Open the page again.',
      )
    const { url, leaving } = await door.signIn.leave(redirectUriOf(door))
    const [path = ''] = request.url.split('?', 1)
    // A request line may name a place of its own (RFC 9112 §3.2.2), which routes do not look at.
    await door.sessions.leave(reply, { leaving, next: path.startsWith('/') ? path : '/approve' })
    return redirect(reply, url)
  }
}

function addSignIn(pages: FastifyInstance, door: ApprovalPagesDoor, visited: Visited): void {
  pages.get('/approve/signed-in', HIDDEN, async (request, reply) => {
    const left = await door.sessions.back(request, reply)
    if (left === undefined)
      throw new GatewayError(
        'subject_invalid',
        'This sign-in was not begun in this browser, or took too long. Begin again.',
      )
    const { searchParams } = new URL(request.raw.url ?? '', 'http://callback.invalid')
    const human = await door.signIn.arrive(searchParams, left.leaving, redirectUriOf(door))
    await door.recordSignIn(human, request.ip)
    await door.sessions.begin(reply, human)
    return redirect(reply, left.next)
  })
  pages.post(
    '/approve/sign-out',
    HIDDEN,
    visited(async (request, reply, { session }) => {
      requireProof(request, session, 'sign-out', door)
      door.sessions.end(reply)
      return sendPage(reply, 200, signedOutWords())
    }),
  )
}

function redirectUriOf({ publicUrl }: ApprovalPagesDoor): string {
  return `${publicUrl}/approve/signed-in`
}

async function list(reply: FastifyReply, { session, who, signOut }: Visit, door: ApprovalPagesDoor) {
  const pending = await door.approvals.pending(door.tenant)
  const own = pending.filter((view) => isConcerned(view, session.human, door))
  return sendPage(reply, 200, listWords(who, own, signOut))
}

async function show(request: FastifyRequest, reply: FastifyReply, visit: Visit, door: ApprovalPagesDoor) {
  const { session, who, signOut } = visit
  const view = await concerning(request, session, door)
  const hindrance = door.approvals.hindrance(view, session.human)
  return sendPage(reply, 200, approvalWords({ view, hindrance, proof: proofOf(view, session, door) }, who, signOut))
}

async function decide(request: FastifyRequest, reply: FastifyReply, { session }: Visit, door: ApprovalPagesDoor) {
  const view = await concerning(request, session, door)
  requireProof(request, session, aboutOf(view), door)
  await door.approvals.decide(door.tenant, view.id, verdictOf(formOf(request).get('verdict')), {
    human: session.human,
    via: 'page',
  })
  return redirect(reply, `/approve/${view.id}`)
}

/** @throws {GatewayError} `route_unknown`, also to whom it is no business of. */
async function concerning(request: FastifyRequest, { human }: Session, door: ApprovalPagesDoor): Promise<ApprovalView> {
  const { id } = request.params as { readonly id: string }
  const view = await door.approvals.get(door.tenant, id)
  if (view !== undefined && isConcerned(view, human, door)) return view
  throw new GatewayError('route_unknown', 'There is no such approval that concerns you. It may be over and forgotten.')
}

/** Whoever may decide, has decided, or is the human behind it. Anybody else whom the provider knows sees nothing. */
function isConcerned(view: ApprovalView, human: Human, { approvals }: ApprovalPagesDoor): boolean {
  const { consents, deniedBy, facts } = view
  const known = [facts.human, ...consents.map((one) => one.human), ...(deniedBy ? [deniedBy.human] : [])]
  return (
    known.some(({ iss, sub }) => iss === human.iss && sub === human.sub) ||
    approvals.hindrance(view, human) === undefined
  )
}

function verdictOf(said: string | null): Verdict {
  if (said === 'approve' || said === 'deny') return said
  throw new GatewayError('instruction_invalid', 'The form says neither approve nor deny.')
}

/** A yes is to exactly what was shown. */
function aboutOf({ id, fingerprint }: ApprovalView): string {
  return `${id} ${fingerprint}`
}

function proofOf(view: ApprovalView, session: Session, { sessions }: ApprovalPagesDoor): string {
  return sessions.proof(session, aboutOf(view))
}

/** Only a page that this door has shown in this session has the proof (CSRF). @throws {GatewayError} `policy_denied` */
export function requireProof(
  request: FastifyRequest,
  session: Session,
  what: string,
  { sessions, publicUrl }: Pick<ApprovalPagesDoor, 'sessions' | 'publicUrl'>,
): void {
  requireOwnPage(request, publicUrl)
  if (sessions.isProof(formOf(request).get('proof') ?? '', session, what)) return
  throw new GatewayError(
    'policy_denied',
    'This form is not of the page that you were shown last. Open it again, and decide there.',
  )
}
