/**
 * What an agent finds at the desk inside its proxy: who it is, how its approvals stand, and how to ask for more. The same routes as on
 * the listeners of the control door, for the grant of the connection: an agent under `keyless run` holds none that it could present.
 */
import type { FastifyRequest } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import { DESK_URL, type Desk, type DeskAnswer } from '../../protocol/desk.ts'
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { createApp } from '../app.ts'
import { refusalOf } from '../problem.ts'
import type { HolderDoor } from '../tasks/holder.ts'
import { type AccessDoor, addAccessAsking } from './access-routes.ts'
import { type ApprovalDoor, addApprovalStatus } from './approval-routes.ts'
import { deskWords } from './desk-words.ts'

export interface DeskDoor extends Omit<HolderDoor, 'known' | 'publicUrl'> {
  readonly tenant: string
  readonly approvals: ApprovalDoor['approvals']
  readonly access: AccessDoor['access']
  readonly clock: Clock
}

/** Ours alone: nothing that an agent sends becomes a field of this name. */
const CALL = 'keyless-call'
/** Fields of an answer that agents are told. */
const TOLD = ['content-type', 'cache-control', 'retry-after', 'x-content-type-options']

interface Asked {
  readonly grant: Grant
  refusal?: GatewayError
}

/** Listens nowhere: it is handed calls whose grant is settled. */
export function createDesk(door: DeskDoor): Desk {
  /** number of a call that is under way → who asks */
  const calls = new Map<string, Asked>()
  const callOf = ({ headers }: FastifyRequest) => calls.get(String(headers[CALL]))
  const own = { ...door, known: (request: FastifyRequest) => callOf(request)?.grant, publicUrl: DESK_URL }
  let last = 0
  const app = createApp(door.clock, undefined)
  const refuse = (request: FastifyRequest, refusal: GatewayError) => {
    const asked = callOf(request)
    if (asked) asked.refusal = refusal
  }
  app.setErrorHandler<Error>(async (error, request, reply) => {
    refuse(request, refusalOf(error))
    return reply.status(500).send() // whoever asked throws what was refused
  })
  app.setNotFoundHandler(async (request, reply) => {
    refuse(request, unknownRoute())
    return reply.status(404).send()
  })
  app.addHook('onRequest', async (request) => refuseWhoMayNot(request, callOf(request)?.grant))
  app.get('/', async (request, reply) => {
    const grant = callOf(request)?.grant
    if (grant === undefined) throw new TypeError('a call without a grant came to the desk')
    return reply
      .type('text/plain; charset=utf-8')
      .headers({ 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' })
      .send(deskWords(grant))
  })
  addApprovalStatus(app, own)
  addAccessAsking(app, own)

  return async ({ method, path, fields, body, grant }) => {
    if (!/^\/(?!\/)/.test(path)) throw unknownRoute() // `//name` would be read as a place
    last += 1
    const number = String(last)
    const asked: Asked = { grant }
    calls.set(number, asked)
    try {
      const headers = { ...fields, [CALL]: number, host: new URL(DESK_URL).host }
      const answer = await app.inject({
        ...{ method: method as 'GET', url: path, headers },
        ...(body.length > 0 && { payload: body }),
      })
      if (asked.refusal !== undefined) throw asked.refusal
      return answerOf(answer)
    } finally {
      calls.delete(number)
    }
  }
}

function answerOf(answer: {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, unknown>>
  readonly rawPayload: Buffer
}): DeskAnswer {
  const headers = TOLD.flatMap((name) => {
    const value = answer.headers[name]
    return typeof value === 'string' ? [name, value] : []
  })
  return { status: answer.statusCode, headers, body: answer.rawPayload }
}

/** A page in an agent's browser is not the agent; and emergency access is what its custodians signed, nothing more. */
function refuseWhoMayNot({ method, headers }: FastifyRequest, grant: Grant | undefined): void {
  if (method === 'GET' || method === 'HEAD') return
  if (headers.origin !== undefined || headers['sec-fetch-site'] !== undefined)
    throw new GatewayError('policy_denied', 'Nothing is asked for by web pages. Use a client that sends no Origin.')
  if (grant?.breakGlass !== undefined)
    throw new GatewayError('policy_denied', 'Emergency access is not widened. Custodians can sign another request.')
}

function unknownRoute(): GatewayError {
  return new GatewayError(
    'route_unknown',
    `The gateway has no such route for agents, with this method. GET ${DESK_URL}/ says what there is.`,
  )
}
