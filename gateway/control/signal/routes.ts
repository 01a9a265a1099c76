/**
 * Shared Signals at the control door, over TCP: security event tokens that are pushed to us (RFC 8935), and the streams of ours that
 * others read (SSF 1.0: configuration, status, verification; RFC 8936: poll). Each receiver of ours is known by a bearer token.
 */
import { hash, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { valuesOf } from '../../protocol/raw-headers.ts'
import { issuerPath } from '../oauth/metadata.ts'
import { createPace } from '../pace.ts'
import { pollBody, signalAnswers, streamQuery, verificationBody } from './shapes.ts'

export interface SignalDoor {
  readonly publicUrl: string
  readonly clock: Clock
  readonly signals: {
    /** Undefined: nobody's tokens are taken. */
    readonly receive: SignalReceiver | undefined
    /** Stream's id → stream. Empty: there are none. */
    readonly streams: ReadonlyMap<string, SignalStream>
    /** SSF 1.0 §7.1, of all streams. */
    readonly metadata: object
  }
}

export interface SignalReceiver {
  /** @param bearer as shown; undefined for none. Rejects with an error that has `err` (RFC 8935 §2.4) for what will never be taken. */
  push(token: string, bearer: string | undefined): Promise<void>
}

export interface SignalStream {
  /** SHA-256 of the receiver's token; undefined: it has none, and reads nothing here. */
  readonly digest: Buffer | undefined
  /** SSF 1.0 §8.1.1 */
  readonly configuration: object
  /** Undefined where tokens are pushed. */
  readonly poll: ((request: PollRequest) => Promise<PollAnswer>) | undefined
  /** Puts a verification event into the stream. */
  verify(state: string | undefined): Promise<void>
}

/** RFC 8936 §2.4. */
export interface PollRequest {
  readonly maxEvents?: number
  readonly returnImmediately?: boolean
  readonly ack?: readonly string[]
  readonly setErrs?: Readonly<Record<string, { readonly err: string; readonly description?: string }>>
}

export interface PollAnswer {
  /** `jti` → token. */
  readonly sets: Readonly<Record<string, string>>
  readonly moreAvailable: boolean
}

const SET_TYPE = 'application/secevent+jwt'
const MAX_SET_BYTES = 32 * 1024
const ATTEMPTS = { n: 60, perMs: 10_000 } as const
/** SSF 1.0 `min_verification_interval`, seconds. */
export const VERIFICATION_EVERY_S = 30

export function addSignalRoutes(app: FastifyInstance, door: SignalDoor): void {
  const { receive, streams } = door.signals
  if (receive !== undefined) addPush(app, door, receive)
  if (streams.size === 0) return
  const path = issuerPath(door.publicUrl)
  for (const place of new Set([`/.well-known/ssf-configuration${path}`, '/.well-known/ssf-configuration'])) {
    const schema = { summary: 'Who sends security events (OpenID Shared Signals)', tags: ['signals'] }
    app.get(place, { schema }, async (_request, reply) =>
      reply.header('cache-control', 'public, max-age=300').send(door.signals.metadata),
    )
  }
  addStreams(app, door)
}

function addPush(app: FastifyInstance, { clock }: SignalDoor, receive: SignalReceiver): void {
  const attempts = createPace({ ...ATTEMPTS, clock })
  app.register(async (routes) => {
    routes.removeAllContentTypeParsers()
    routes.addContentTypeParser(SET_TYPE, { parseAs: 'string', bodyLimit: MAX_SET_BYTES }, (_request, body, done) =>
      done(null, body),
    )
    const schema = { summary: 'Take a security event token (RFC 8935)', tags: ['signals'], consumes: [SET_TYPE] }
    routes.post('/signals/events', { schema, bodyLimit: MAX_SET_BYTES }, async (request, reply) => {
      try {
        await receive.push(typeof request.body === 'string' ? request.body.trim() : '', bearerOf(request))
        return reply.status(202).header('cache-control', 'no-store').send()
      } catch (cause) {
        const { err, detail } = cause as { readonly err?: unknown; readonly detail?: string }
        if (typeof err !== 'string') throw cause
        attempts.admit(request.ip)
        return reply
          .status(400)
          .header('content-language', 'en')
          .header('cache-control', 'no-store')
          .send({ err, description: detail })
      }
    })
  })
}

function addStreams(app: FastifyInstance, door: SignalDoor): void {
  const { own, find } = createLookup(door)
  const tags = ['signals']
  const one = { tags, querystring: streamQuery(false) }
  app.get<{ Querystring: { stream_id?: string } }>(
    '/signals/streams',
    { schema: { ...one, summary: 'Settings of a stream, or of all that the receiver has (SSF 1.0)' } },
    async (request, reply) => {
      const { stream_id: id } = request.query
      const all = () => [...own(request).values()].map(({ configuration }) => configuration)
      return unstored(reply).send(id === undefined ? all() : find(request, id).configuration)
    },
  )
  const asked = { tags, querystring: streamQuery(true), response: { 200: signalAnswers.status } }
  app.get<{ Querystring: { stream_id: string } }>(
    '/signals/status',
    { schema: { ...asked, summary: 'Whether a stream is sent (SSF 1.0)' } },
    async (request, reply) => {
      find(request, request.query.stream_id)
      return unstored(reply).send({ stream_id: request.query.stream_id, status: 'enabled' })
    },
  )
  addWork(app, door, find)
}

type Find = ReturnType<typeof createLookup>['find']

function addWork(app: FastifyInstance, { clock }: SignalDoor, find: Find): void {
  const verifications = createPace({ n: 1, perMs: VERIFICATION_EVERY_S * 1000, clock })
  const tags = ['signals']
  app.post<{ Body: { stream_id: string; state?: string } }>(
    '/signals/verification',
    { schema: { summary: 'Ask for a verification event (SSF 1.0)', tags, body: verificationBody } },
    async (request, reply) => {
      const { stream_id: id, state } = request.body
      const stream = find(request, id)
      verifications.admit(id)
      await stream.verify(state)
      return unstored(reply).status(204).send()
    },
  )
  const polled = { tags, body: pollBody, response: { 200: signalAnswers.polled } }
  app.post<{ Params: { id: string }; Body: PollRequest }>(
    '/signals/streams/:id/poll',
    { schema: { ...polled, summary: 'Fetch and acknowledge security event tokens (RFC 8936)' } },
    async (request, reply) => {
      const { poll } = find(request, request.params.id)
      if (poll === undefined) throw new GatewayError('stream_unknown', 'Tokens of this stream are pushed, not fetched.')
      return unstored(reply).send(await poll(request.body))
    },
  )
}

function createLookup({ signals: { streams }, clock }: SignalDoor) {
  const attempts = createPace({ ...ATTEMPTS, clock })
  /** The streams whose token was shown; there may be several. */
  const own = (request: FastifyRequest): ReadonlyMap<string, SignalStream> => {
    const shown = hash('sha256', bearerOf(request) ?? '', 'buffer')
    // Every stream is compared, also after one was found.
    const found = [...streams].filter(([, { digest }]) => digest !== undefined && timingSafeEqual(digest, shown))
    if (found.length > 0) return new Map(found)
    attempts.admit(request.ip)
    throw new GatewayError(
      'client_invalid',
      'A stream is shown to its receiver: send "Authorization: Bearer" and its token.',
    )
  }
  const find = (request: FastifyRequest, id: string): SignalStream => {
    const stream = own(request).get(id)
    if (stream !== undefined) return stream
    throw new GatewayError('stream_unknown', 'This receiver has no stream of that id.')
  }
  return { own, find }
}

function unstored(reply: FastifyReply): FastifyReply {
  return reply.header('cache-control', 'no-store')
}

function bearerOf(request: FastifyRequest): string | undefined {
  const [field, ...more] = valuesOf(request.raw.rawHeaders, 'authorization')
  return more.length === 0 ? /^bearer +([A-Za-z0-9._~+/-]+=*)$/i.exec(field ?? '')?.[1] : undefined
}
