/**
 * The gateway as a decision point (AuthZEN 1.0): whether a call would be let through now. Only for those who prove who they are: readers
 * of the log and approvers by their tokens, holders of a grant about themselves, and the person at the socket. Nothing is issued here.
 */
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { type AskedBy, type Evaluated, type Evaluation, SEMANTICS, type Semantics } from '../../protocol/authzen.ts'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { presentedGrant } from '../oauth/client.ts'
import { issuerPath } from '../oauth/metadata.ts'
import { createPace } from '../pace.ts'
import { createReaders } from '../records/reader.ts'
import { type HolderDoor, holderOf } from '../tasks/holder.ts'

export interface AuthzenDoor extends HolderDoor {
  readonly publicUrl: string
  readonly clock: Clock
  /** Name → SHA-256 of the token. */
  readonly readers: ReadonlyMap<string, Buffer>
  readonly approvers?: { readonly tokens: ReadonlyMap<string, Buffer> } | undefined
  /** Undefined: it answers nobody. */
  readonly authzen?: {
    evaluate(asked: readonly Evaluation[], by: AskedBy, enough: (answer: Evaluated) => boolean): Promise<Evaluated[]>
  }
}

const WELL_KNOWN = '/.well-known/authzen-configuration'

const MOST = 50
const PACE = { n: 120, perMs: 10_000 } as const
const WANTED =
  'Say who asks: "Authorization: Bearer" and a token of audit.readers or approvals.tokens, or the grant that you ask about.'

const text = { type: 'string', minLength: 1, maxLength: 2_048 } as const
const properties = { type: 'object', additionalProperties: true } as const
const entity = { type: 'object', required: ['type', 'id'], properties: { type: text, id: text, properties } } as const
const action = { type: 'object', required: ['name'], properties: { name: text, properties } } as const
/** §5: what is not known is ignored. */
const tuple = { subject: entity, action, resource: entity, context: properties } as const
const single = { type: 'object', required: ['subject', 'action', 'resource'], properties: tuple } as const
const many = {
  type: 'object',
  properties: {
    ...tuple,
    evaluations: { type: 'array', maxItems: MOST, items: { type: 'object', properties: tuple } },
    options: { type: 'object', properties: { evaluations_semantic: { type: 'string', enum: SEMANTICS } } },
  },
} as const
const answer = {
  type: 'object',
  required: ['decision'],
  properties: { decision: { type: 'boolean' }, context: { type: 'object', additionalProperties: true } },
} as const
const answers = {
  type: 'object',
  properties: { ...answer.properties, evaluations: { type: 'array', items: answer } },
} as const
const tags = ['policy']

interface Boxcar extends Partial<Evaluation> {
  readonly evaluations?: readonly Partial<Evaluation>[]
  readonly options?: { readonly evaluations_semantic?: Semantics }
}

/** @param isLocal whoever asks on the socket, without showing anything, is its owner. */
export function addAuthzenRoutes(app: FastifyInstance, door: AuthzenDoor, isLocal: boolean): void {
  const { authzen } = door
  if (authzen === undefined) return
  addMetadata(app, door.publicUrl)
  const askedBy = askerOf(door, isLocal)
  const never = () => false
  void app.register(async (routes) => {
    routes.addHook('onRequest', async ({ headers }, reply) => {
      const id = headers['x-request-id']
      if (typeof id === 'string' && id.length <= 200) void reply.header('x-request-id', id) // §10.1.3
      void reply.header('cache-control', 'no-store')
      if (headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce()) // RFC 9449 §9
    })
    const known = new WeakMap<FastifyRequest, AskedBy>()
    routes.addHook('preParsing', async (request) => void known.set(request, await askedBy(request))) // before anything is read
    const by = (request: FastifyRequest) => known.get(request) as AskedBy
    routes.post<{ Body: Evaluation }>(
      '/access/v1/evaluation',
      {
        schema: {
          summary: 'Would this call be let through (AuthZEN 1.0)',
          tags,
          body: single,
          response: { 200: answer },
        },
      },
      async (request) => {
        const [one] = await authzen.evaluate([request.body], by(request), never)
        return one
      },
    )
    routes.post<{ Body: Boxcar }>(
      '/access/v1/evaluations',
      { schema: { summary: 'The same of up to 50 calls', tags, body: many, response: { 200: answers } } },
      async (request) => {
        const { evaluations = [], options, ...defaults } = request.body
        const isSingle = evaluations.length === 0 // §7.1: then it is one like the other
        if (isSingle && !(defaults.subject && defaults.action && defaults.resource)) throw incomplete()
        const asked = (isSingle ? [{}] : evaluations).map((one) => complete({ ...defaults, ...one }))
        const found = await authzen.evaluate(asked, by(request), ENOUGH[options?.evaluations_semantic ?? 'execute_all'])
        return isSingle ? found[0] : { evaluations: found }
      },
    )
  })
}

/** What anybody may read: where questions go. §9.1: the path of the identifier comes after the well-known part. */
function addMetadata(app: FastifyInstance, publicUrl: string): void {
  const metadata = {
    policy_decision_point: publicUrl,
    access_evaluation_endpoint: `${publicUrl}/access/v1/evaluation`,
    access_evaluations_endpoint: `${publicUrl}/access/v1/evaluations`,
  }
  for (const path of new Set([WELL_KNOWN, WELL_KNOWN + issuerPath(publicUrl)]))
    app.get(path, { schema: { summary: 'Where to ask for decisions (AuthZEN 1.0)', tags } }, async (_, reply) =>
      reply.header('cache-control', 'public, max-age=300').send(metadata),
    )
}

const ENOUGH: Readonly<Record<Semantics, (answer: Evaluated) => boolean>> = {
  execute_all: () => false,
  deny_on_first_deny: ({ decision }) => !decision,
  permit_on_first_permit: ({ decision }) => decision,
}

function incomplete(): GatewayError {
  return new GatewayError('instruction_invalid', 'An evaluation has subject, action and resource.')
}

/** One that lacks something is refused like one about nothing, and the others are answered (§7.2.1). */
function complete({
  subject = NOTHING,
  action = { name: '' },
  resource = NOTHING,
  context,
}: Partial<Evaluation>): Evaluation {
  return { subject, action, resource, ...(context && { context }) }
}

const NOTHING = { type: '', id: '' }

/** By DPoP, as a handle, or as a signed token: nothing that a reader's token looks like. */
const GRANT = /^(?:dpop +|bearer +(?:kh_|ey[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$))/i

function askerOf(door: AuthzenDoor, isLocal: boolean): (request: FastifyRequest) => Promise<AskedBy> {
  const prefixed = (kind: string, tokens: ReadonlyMap<string, Buffer>) =>
    [...tokens].map(([name, digest]) => [`${kind}:${name}`, digest] as const)
  const tokens = new Map([
    ...prefixed('reader', door.readers),
    ...prefixed('approver', door.approvers?.tokens ?? new Map()),
  ])
  const readerOf = createReaders(tokens, door.clock, WANTED)
  const pace = createPace({ ...PACE, clock: door.clock })
  return async (request) => {
    const field = request.headers.authorization
    const address = request.ip ?? 'unknown'
    if (field === undefined && isLocal) return { name: 'socket', address: 'unknown' }
    if (field === undefined || !GRANT.test(field)) return { name: (await readerOf(request)).name, address }
    const holder = presentedGrant(request) && (await holderOf(request, door))
    if (holder === undefined) throw new GatewayError('client_invalid', WANTED)
    pace.admit(holder.agent.id)
    return { name: `grant:${holder.id}`, address, holder }
  }
}
