/** Pages of requests for access: what an agent asks for, changed or as it is, is granted or denied in the session that it was shown to. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { AccessRequests, AccessView, Wanted } from '../../protocol/access.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { formOf, HIDDEN, redirect, sendPage } from '../page.ts'
import { accessListWords, accessWords } from './access-words.ts'
import { type ApprovalPagesDoor, requireProof, type Visit, type Visited } from './approval-pages.ts'

export interface AccessPagesDoor extends Pick<ApprovalPagesDoor, 'sessions' | 'publicUrl'> {
  readonly requests: AccessRequests
}

/** Forms of these pages may be posted (guard.ts). */
export const ACCESS_FORMS: readonly string[] = ['/approve/access/:id']

export function addAccessPages(pages: FastifyInstance, door: AccessPagesDoor, visited: Visited): void {
  pages.get(
    '/approve/access',
    HIDDEN,
    visited(async (_request, reply, { session, who, signOut }) => {
      const pending = await door.requests.pending()
      const own = pending.filter((view) => door.requests.hindrance(view, session.human) === undefined)
      return sendPage(reply, 200, accessListWords(who, own, signOut))
    }),
  )
  pages.get(
    '/approve/access/:id',
    HIDDEN,
    visited(async (request, reply, visit) => show(request, reply, visit, door)),
  )
  pages.post(
    '/approve/access/:id',
    HIDDEN,
    visited(async (request, reply, visit) => act(request, reply, visit, door)),
  )
}

async function show(request: FastifyRequest, reply: FastifyReply, visit: Visit, door: AccessPagesDoor) {
  const view = await concerning(request, visit, door)
  const proof = door.sessions.proof(visit.session, aboutOf(view))
  return sendPage(reply, 200, accessWords({ view, proof }, visit.who, visit.signOut))
}

async function act(request: FastifyRequest, reply: FastifyReply, visit: Visit, door: AccessPagesDoor) {
  const view = await concerning(request, visit, door)
  requireProof(request, visit.session, aboutOf(view), door)
  const form = formOf(request)
  const by = { human: visit.session.human, via: 'page' }
  switch (form.get('verdict')) {
    case 'grant':
      await door.requests.grant(view.id, by, view.wanted)
      break
    case 'deny':
      await door.requests.deny(view.id, by)
      break
    case 'edit':
      await door.requests.edit(view.id, wantedIn(form), by)
      break
    default:
      throw new GatewayError('instruction_invalid', 'The form says neither grant nor deny nor edit.')
  }
  return redirect(reply, `/approve/access/${view.id}`)
}

/** @throws {GatewayError} `approval_unknown`, also to whom it is no business of. */
async function concerning(
  request: FastifyRequest,
  { session }: Visit,
  { requests }: AccessPagesDoor,
): Promise<AccessView> {
  const { id } = request.params as { readonly id: string }
  const view = await requests.get(id)
  if (requests.hindrance(view, session.human) === undefined) return view
  throw new GatewayError('approval_unknown', 'There is no such request for access that you may decide on.')
}

/** A yes is to exactly what was shown: what was edited since has to be looked at again. */
function aboutOf({ id, wanted, state }: AccessView): string {
  return JSON.stringify(['access', id, state, wanted])
}

function wantedIn(form: URLSearchParams): Wanted {
  const [scope, details, ttl] = ['scope', 'authorization_details', 'ttl_s'].map((name) => form.get(name)?.trim() ?? '')
  return {
    ...(scope && { scope }),
    ...(details && { authorization_details: listIn(details) }),
    ...(ttl && { ttl_s: Number(ttl) }),
  }
}

function listIn(text: string): object[] {
  try {
    const list: unknown = JSON.parse(text)
    if (Array.isArray(list)) return list
  } catch {
    // said below
  }
  throw new GatewayError(
    'invalid_details',
    'What stands under authorization_details is no JSON array of keyless_access objects.',
  )
}
