/**
 * Pages that a human connects a service with, over TCP. A link is made on the socket for one human; the browser that agrees first gets a
 * cookie, and what comes back from the authorization server counts in that browser alone. No script runs here, nothing is framed, and
 * every value is escaped where it is written.
 */
import { createHmac, randomBytes } from 'node:crypto'
import type { FastifyInstance } from 'fastify'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { createPace } from '../pace.ts'
import { cookieNamed, formOf, HIDDEN, isSame, redirect, requireOwnPage, sendPage, takeForms } from '../page.ts'
import { doneWords, explainWords, offerWords, refusedWords, type ShownOffer } from './words.ts'

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
  /** As `OauthDoor.report`. */
  report?(cause: unknown, id: string): void
}

/** A form of this door alone may post here; what else comes from a page is refused as everywhere (guard.ts). */
export const OWN_FORM = '/connect/t/:ticket'

/** Of one address, behind which many may be. */
const PACE = { n: 240, perMs: 10_000 } as const
const COOKIE_BYTES = 32
/** Longer than a ticket lives. */
const COOKIE_S = 3600

export function addConnectPages(app: FastifyInstance, door: ConnectPagesDoor): void {
  const pace = createPace({ ...PACE, clock: door.clock })
  const cookie = cookieNamed('keyless-connect', door.publicUrl, /^[\w-]{43}$/)
  void app.register(async (pages) => {
    takeForms(pages, { refused: refusedWords, report: door.report })
    pages.addHook('onRequest', async (request) => pace.admit(request.ip))
    pages.get<{ Params: { readonly credential: string } }>(
      '/connect/:credential',
      HIDDEN,
      async ({ params }, reply) => {
        if (!door.isConnectable(params.credential))
          throw new GatewayError('route_unknown', 'No credential of this name is connected by humans.')
        return sendPage(reply, 200, explainWords(params.credential))
      },
    )
    pages.get<Ticketed>(OWN_FORM, HIDDEN, async (request, reply) => {
      const offer = await door.flow.offer(request.params.ticket)
      const browser = cookie.read(request) ?? randomBytes(COOKIE_BYTES).toString('base64url')
      void reply.header('set-cookie', cookie.write(browser, COOKIE_S))
      return sendPage(reply, 200, offerWords(offer, proofOf(browser, request.params.ticket)))
    })
    pages.post<Ticketed>(OWN_FORM, HIDDEN, async (request, reply) => {
      const { ticket } = request.params
      requireOwnPage(request, door.publicUrl)
      const browser = cookie.read(request)
      const proof = formOf(request).get('proof') ?? ''
      // Only a page that this door has shown to this browser has the proof (CSRF).
      if (browser === undefined || !isSame(proof, proofOf(browser, ticket)))
        throw new GatewayError(
          'policy_denied',
          'Open the link itself in this browser, with cookies allowed, and agree there.',
        )
      return redirect(reply, await door.flow.leave(ticket, browser))
    })
    pages.get('/connect/callback', HIDDEN, async (request, reply) => {
      const { searchParams } = new URL(request.raw.url ?? '', 'http://callback.invalid')
      const connector = await door.flow.callback(searchParams, cookie.read(request))
      return sendPage(reply, 200, doneWords(connector))
    })
  })
}

interface Ticketed {
  Params: { readonly ticket: string }
}

function proofOf(browser: string, ticket: string): string {
  return createHmac('sha256', browser).update(ticket).digest('base64url')
}
