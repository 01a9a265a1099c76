/**
 * Pages that a human connects a service with, over TCP. A link is made on the socket for one human; the browser that agrees first gets a
 * cookie, and what comes back from the authorization server counts in that browser alone. No script runs here, nothing is framed, and
 * every value is escaped where it is written.
 */
import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Clock } from '../protocol/clock.ts'
import { asGatewayError, GatewayError, problems } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import { doneWords, explainWords, offerWords, page, refusedWords, type ShownOffer } from './connect-words.ts'
import { createPace } from './pace.ts'

export interface ConnectPagesDoor {
  readonly flow: {
    offer(ticket: string): Promise<ShownOffer>
    leave(ticket: string, browser: string): Promise<string>
    callback(parameters: URLSearchParams, browser: string | undefined): Promise<ShownOffer['connector']>
  }
  isConnectable(credential: string): boolean
  /** Of the control door, as browsers know it. */
  readonly publicUrl: string
  readonly clock: Clock
}

/** A form of this door alone may post here; what else comes from a page is refused as everywhere (door.ts). */
export const OWN_FORM = '/connect/t/:ticket'

/** Of one address, behind which many may be. */
const PACE = { n: 240, perMs: 10_000 } as const
const MAX_FORM_BYTES = 4096
const COOKIE_BYTES = 32
/** Longer than a ticket lives. */
const COOKIE_S = 3600

export function addConnectPages(app: FastifyInstance, door: ConnectPagesDoor): void {
  const pace = createPace({ ...PACE, clock: door.clock })
  const cookie = cookieOf(door.publicUrl)
  void app.register(async (pages) => {
    pages.removeAllContentTypeParsers()
    pages.addContentTypeParser(
      'application/x-www-form-urlencoded',
      { parseAs: 'string', bodyLimit: MAX_FORM_BYTES },
      (_request, text, done) => done(null, new URLSearchParams(String(text))),
    )
    pages.setErrorHandler<Error>(async (error, _request, reply) => {
      const refusal = asGatewayError(error)
      const { status } = problems[refusal.code]
      return send(
        reply,
        status === 407 ? 401 : status,
        refusedWords(refusal.code === 'internal' ? undefined : refusal.detail),
      )
    })
    pages.addHook('onRequest', async (request) => pace.admit(request.ip))
    pages.get<{ Params: { readonly credential: string } }>(
      '/connect/:credential',
      HIDDEN,
      async ({ params }, reply) => {
        if (!door.isConnectable(params.credential))
          throw new GatewayError('route_unknown', 'No credential of this name is connected by humans.')
        return send(reply, 200, explainWords(params.credential))
      },
    )
    pages.get<Ticketed>(OWN_FORM, HIDDEN, async (request, reply) => {
      const offer = await door.flow.offer(request.params.ticket)
      const browser = cookie.read(request) ?? randomBytes(COOKIE_BYTES).toString('base64url')
      void reply.header('set-cookie', cookie.write(browser))
      return send(reply, 200, offerWords(offer, proofOf(browser, request.params.ticket)))
    })
    pages.post<Ticketed>(OWN_FORM, HIDDEN, async (request, reply) => {
      const { ticket } = request.params
      requireOwnPage(request, door.publicUrl)
      const browser = cookie.read(request)
      const proof = request.body instanceof URLSearchParams ? (request.body.get('proof') ?? '') : ''
      // Only a page that this door has shown to this browser has the proof (CSRF).
      if (browser === undefined || !isSame(proof, proofOf(browser, ticket)))
        throw new GatewayError(
          'policy_denied',
          'Open the link itself in this browser, with cookies allowed, and agree there.',
        )
      return reply
        .header('cache-control', 'no-store')
        .header('referrer-policy', 'same-origin')
        .redirect(await door.flow.leave(ticket, browser), 303)
    })
    pages.get('/connect/callback', HIDDEN, async (request, reply) => {
      const { searchParams } = new URL(request.raw.url ?? '', 'http://callback.invalid')
      const connector = await door.flow.callback(searchParams, cookie.read(request))
      return send(reply, 200, doneWords(connector))
    })
  })
}

interface Ticketed {
  Params: { readonly ticket: string }
}

const HIDDEN = { schema: { hide: true } } as const

function send(reply: FastifyReply, status: number, words: string): FastifyReply {
  return reply
    .status(status)
    .headers({
      'cache-control': 'no-store',
      'content-security-policy':
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
      'cross-origin-opener-policy': 'same-origin',
      // The link is a secret until it is used: it is told to no other server. (With no-referrer, our own form would say Origin: null.)
      'referrer-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
    .type('text/html; charset=utf-8')
    .send(page(words))
}

/** Browsers say where a form stood. */
function requireOwnPage(request: FastifyRequest, publicUrl: string): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  const isOwn = origin === undefined || isOwnOrigin(origin, request, publicUrl)
  if (isOwn && (site === undefined || site === 'same-origin')) return
  throw new GatewayError('policy_denied', 'A form of another page is not taken.')
}

/** By the name it is published under, or by the one it was just called by (which `guardNames` has let in). */
function isOwnOrigin(origin: string, request: FastifyRequest, publicUrl: string): boolean {
  if (origin === new URL(publicUrl).origin) return true
  const [host] = valuesOf(request.raw.rawHeaders, 'host')
  return URL.canParse(origin) && new URL(origin).host === host
}

function proofOf(browser: string, ticket: string): string {
  return createHmac('sha256', browser).update(ticket).digest('base64url')
}

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}

/** Over TLS with the prefix by which browsers keep others from setting it (RFC 6265bis §4.1.3.2). */
function cookieOf(publicUrl: string) {
  const isTls = publicUrl.startsWith('https:')
  const name = isTls ? '__Host-keyless-connect' : 'keyless-connect'
  return {
    read(request: FastifyRequest): string | undefined {
      const fields = valuesOf(request.raw.rawHeaders, 'cookie').flatMap((field) => field.split(/; ?/))
      const own = fields.filter((field) => field.startsWith(`${name}=`)).map((field) => field.slice(name.length + 1))
      // Two of one name: one of them was set by somebody else.
      return own.length === 1 && /^[\w-]{43}$/.test(own[0] ?? '') ? own[0] : undefined
    },
    // Lax: the callback is a link of another site.
    write: (value: string) =>
      `${name}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${COOKIE_S}${isTls ? '; Secure' : ''}`,
  }
}
