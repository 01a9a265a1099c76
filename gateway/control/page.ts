/**
 * Pages of the control door for people: how each is sent, which forms are taken, and what a browser keeps. No script runs here, nothing
 * is framed, and every value is escaped where it is written.
 */
import { timingSafeEqual } from 'node:crypto'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { GatewayError, problems } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import { refusalOf } from './problem.ts'

const MAX_FORM_BYTES = 4096
const FORMS = `Forms are those of our own pages, of at most ${MAX_FORM_BYTES} bytes.`

/** Of a route that is for browsers, and stands in no description of the API. */
export const HIDDEN = { schema: { hide: true } } as const

export interface Thrown {
  /** Words for it; undefined: unexpected. */
  refused(detail: string | undefined): string
  /** Of what is unexpected the operator is told. */
  readonly report: ((cause: unknown, id: string) => void) | undefined
}

/** Inside one plugin: bodies are forms, and what is thrown becomes a page. */
export function takeForms(pages: FastifyInstance, { refused, report }: Thrown): void {
  pages.removeAllContentTypeParsers()
  pages.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string', bodyLimit: MAX_FORM_BYTES },
    (_request, text, done) => done(null, new URLSearchParams(String(text))),
  )
  pages.setErrorHandler<Error>(async (error, request, reply) => {
    const { code, detail } = refusalOf(error, FORMS)
    if (code === 'internal') report?.(error, request.id)
    const { status } = problems[code]
    return sendPage(reply, status === 407 ? 401 : status, refused(code === 'internal' ? undefined : detail))
  })
}

export function sendPage(reply: FastifyReply, status: number, words: string): FastifyReply {
  return reply
    .status(status)
    .headers({
      'cache-control': 'no-store',
      'content-security-policy':
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'",
      'cross-origin-opener-policy': 'same-origin',
      // The link may be a secret: it is told to no other server. (With no-referrer, our own form would say Origin: null.)
      'referrer-policy': 'same-origin',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
    .type('text/html; charset=utf-8')
    .send(page(words))
}

/** After a form, or to sign in: never kept, and never a second POST. */
export function redirect(reply: FastifyReply, to: string): FastifyReply {
  return reply.header('cache-control', 'no-store').header('referrer-policy', 'same-origin').redirect(to, 303)
}

/** Browsers say where a form stood (CSRF). @throws {GatewayError} `policy_denied` */
export function requireOwnPage(request: FastifyRequest, publicUrl: string): void {
  const { origin, 'sec-fetch-site': site } = request.headers
  const isOwn = origin === undefined || isOwnOrigin(origin, request, publicUrl)
  if (isOwn && (site === undefined || site === 'same-origin')) return
  throw new GatewayError('policy_denied', 'A form of another page is not taken.')
}

/** By the name it is published under, or by the one it was just called by (which the door has let in). */
function isOwnOrigin(origin: string, request: FastifyRequest, publicUrl: string): boolean {
  if (origin === new URL(publicUrl).origin) return true
  const [host] = valuesOf(request.raw.rawHeaders, 'host')
  return URL.canParse(origin) && new URL(origin).host === host
}

/** Members of a form that was sent here; empty when none was. */
export function formOf(request: FastifyRequest): URLSearchParams {
  return request.body instanceof URLSearchParams ? request.body : new URLSearchParams()
}

export function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}

export interface Cookie {
  read(request: FastifyRequest): string | undefined
  /** `Set-Cookie`. @param lifeS seconds; 0 removes it. */
  write(value: string, lifeS: number): string
}

/** Over TLS with the prefix by which browsers keep others from setting it (RFC 6265bis §4.1.3.2). @param form of its value. */
export function cookieNamed(plain: string, publicUrl: string, form: RegExp): Cookie {
  const isTls = publicUrl.startsWith('https:')
  const name = isTls ? `__Host-${plain}` : plain
  return {
    read(request) {
      const fields = valuesOf(request.raw.rawHeaders, 'cookie').flatMap((field) => field.split(/; ?/))
      const own = fields.filter((field) => field.startsWith(`${name}=`)).map((field) => field.slice(name.length + 1))
      // Two of one name: one of them was set by somebody else.
      return own.length === 1 && form.test(own[0] ?? '') ? own[0] : undefined
    },
    // Lax: whoever comes from a message or from where they signed in comes from another site.
    write: (value, lifeS) =>
      `${name}=${value}; Path=/; HttpOnly; SameSite=Lax; Max-Age=${lifeS}${isTls ? '; Secure' : ''}`,
  }
}

const STYLE =
  'body{font:1rem/1.5 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;color:#222;background:#fff}dt{font-weight:600;margin-top:.75rem}dd{margin:0;overflow-wrap:anywhere}button{font:inherit;padding:.5rem 1.25rem;margin:1.5rem .75rem 0 0}code{overflow-wrap:anywhere}pre{white-space:pre-wrap;overflow-wrap:anywhere;margin:0}.says{border:2px dashed #b45309;padding:.25rem 1rem 1rem;margin-top:2rem}form{display:inline}textarea{width:100%;font:.9rem/1.4 ui-monospace,monospace}'

function page(words: string): string {
  return `<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Keyless</title><style>${STYLE}</style></head><body>${words}</body></html>`
}

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&#39;',
}

export function escaped(text: string): string {
  return text.replaceAll(/[&<>"']/g, (character) => ENTITIES[character] ?? '')
}
