/**
 * The API behind the demo's authorization server: notes, files, a stream of events, and two routes that misbehave on
 * purpose. `/echo` gives the caller's own headers back, the credential among them; `POST /tokens` answers with a credential.
 */
import { createHash, randomUUID } from 'node:crypto'
import type { IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import { setTimeout as pause } from 'node:timers/promises'
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib'

/** The verified claims of an access token. */
export interface Access {
  readonly clientId: string
  readonly scopes: ReadonlySet<string>
}

export interface ApiOptions {
  /** Resource indicator of this API. */
  readonly resource: string
  /** @returns undefined for a token that does not verify, has expired, is for somebody else, or was revoked. */
  verify(token: string): Promise<Access | undefined>
  /** A further credential for `POST /tokens`. */
  mint(access: Access): string
}

export interface Api {
  readonly listener: RequestListener
  /** `GET /notes` → requests that were answered there, 401 and 403 included. */
  readonly counts: ReadonlyMap<string, number>
}

interface Call {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  /** What stood in the place of `:id` or `:name`. */
  readonly name: string
  readonly access: Access
}

interface Route {
  readonly scope: string | undefined
  serve(call: Call): void | Promise<void>
}

interface Note {
  readonly id: string
  readonly text: string
}

const CHUNK = Buffer.alloc(65_536, 'All work and no key makes Keyless a good gateway.\n')
const MAX_NOTE_BYTES = 65_536

export function createApi(options: ApiOptions): Api {
  const routes = { ...noteRoutes(), ...fileRoutes, ...oddRoutes(options) }
  const counts = new Map<string, number>()
  const listener: RequestListener = (request, response) => {
    serve({ request, response, options, routes, counts }).catch((cause: unknown) => {
      if (isGone(request, response)) return
      console.error('demo api:', cause)
      if (response.headersSent) response.destroy()
      else answer(response, 500, { error: 'internal' })
    })
  }
  return { listener, counts }
}

interface Serving {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly options: ApiOptions
  readonly routes: Readonly<Record<string, Route>>
  readonly counts: Map<string, number>
}

async function serve({ request, response, options, routes, counts }: Serving): Promise<void> {
  const url = new URL(request.url ?? '/', options.resource)
  const [, first = '', name = ''] = url.pathname.split('/')
  const method = request.method === 'HEAD' ? 'GET' : request.method
  const place = `/${first}${name === '' ? '' : first === 'files' ? '/:name' : '/:id'}`
  const key = `${method} ${place}`
  counts.set(key, (counts.get(key) ?? 0) + 1)
  const token = /^Bearer +(\S+)$/i.exec(request.headers.authorization ?? '')?.[1]
  const access = token === undefined ? undefined : await options.verify(token)
  if (!access) return challenge(response, token === undefined ? '' : ', error="invalid_token"', 401)
  const route = routes[key]
  if (!route) return answer(response, 404, { error: 'no such route' })
  if (route.scope !== undefined && !access.scopes.has(route.scope)) {
    return challenge(response, `, error="insufficient_scope", scope="${route.scope}"`, 403)
  }
  await route.serve({ request, response, url, name: decodeURIComponent(name), access })
}

function noteRoutes(): Record<string, Route> {
  const notes = new Map<string, Note>()
  for (const text of ['Buy oat milk', 'Agents need access, not keys', 'Read the log']) {
    notes.set(String(notes.size + 1), { id: String(notes.size + 1), text })
  }
  let last = notes.size
  return {
    'GET /notes': { scope: 'notes:read', serve: ({ response }) => answer(response, 200, [...notes.values()]) },
    'GET /notes/:id': {
      scope: 'notes:read',
      serve({ response, name }) {
        const note = notes.get(name)
        answer(response, note ? 200 : 404, note ?? { error: 'no such note' })
      },
    },
    'POST /notes': {
      scope: 'notes:write',
      async serve({ request, response }) {
        const text = await noteText(request)
        if (text === undefined) return answer(response, 400, { error: 'expected JSON: {"text": "…"}' })
        const note = { id: String(++last), text }
        notes.set(note.id, note)
        answer(response, 201, note)
      },
    },
    'DELETE /notes/:id': {
      scope: 'notes:write',
      serve({ response, name }) {
        if (notes.delete(name)) response.writeHead(204).end()
        else answer(response, 404, { error: 'no such note' })
      },
    },
  }
}

async function noteText(request: IncomingMessage): Promise<string | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > MAX_NOTE_BYTES) return undefined
    chunks.push(chunk)
  }
  try {
    const body: unknown = JSON.parse(Buffer.concat(chunks).toString())
    return typeof body === 'object' && body !== null && 'text' in body && typeof body.text === 'string'
      ? body.text
      : undefined
  } catch {
    return undefined
  }
}

const fileRoutes: Readonly<Record<string, Route>> = {
  'GET /files/:name': { scope: 'files', serve: sendFile },
  'PUT /files/:name': {
    scope: 'files',
    async serve({ request, response, name }) {
      const hash = createHash('sha256')
      let bytes = 0
      for await (const chunk of request as AsyncIterable<Buffer>) {
        bytes += chunk.length
        hash.update(chunk)
      }
      answer(response, 200, { name, bytes, sha256: hash.digest('hex') })
    },
  },
  'POST /files/:name': {
    scope: 'files',
    async serve({ request, response }) {
      response.writeHead(200, { 'content-type': request.headers['content-type'] ?? 'application/octet-stream' })
      response.flushHeaders()
      await pipeline(request, response)
    },
  },
}

/** `?bytes=N` (default 1024); `?chunked=1` leaves the length out. Sends no faster than it is read. */
async function sendFile({ request, response, url }: Call): Promise<void> {
  let left = Math.max(0, Math.floor(Number(url.searchParams.get('bytes') ?? 1024)) || 0)
  const length = url.searchParams.has('chunked') ? {} : { 'content-length': left }
  response.writeHead(200, { 'content-type': 'application/octet-stream', ...length })
  if (request.method === 'HEAD') left = 0
  while (left > 0 && !response.destroyed) {
    const chunk = left < CHUNK.length ? CHUNK.subarray(0, left) : CHUNK
    left -= chunk.length
    if (!response.write(chunk)) await roomIn(response)
  }
  response.end()
}

/** Until it takes more, or is gone. */
function roomIn(response: ServerResponse): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      response.off('drain', done).off('close', done)
      resolve()
    }
    response.once('drain', done).once('close', done)
  })
}

function oddRoutes(options: ApiOptions): Record<string, Route> {
  return {
    'GET /echo': { scope: undefined, serve: echo },
    'GET /stream': { scope: undefined, serve: streamEvents },
    'POST /tokens': {
      scope: 'tokens',
      serve: ({ response, access }) => answer(response, 201, { id: randomUUID(), token: options.mint(access) }),
    },
  }
}

/**
 * Leaks, as real APIs do when they debug, fail or redirect. `?as=base64|base64url|hex|percent` spells the credential so,
 * `?encoding=gzip|deflate|br` compresses the body, `?header=1` also puts it into a response header.
 */
function echo({ request, response, url }: Call): void {
  const credential = request.headers.authorization ?? ''
  const spelled = spell(credential, url.searchParams.get('as'))
  const body = JSON.stringify({
    method: request.method,
    url: request.url,
    headers: request.headers,
    raw_headers: request.rawHeaders,
    spelled,
  })
  const encoding = url.searchParams.get('encoding') ?? ''
  const encode = encoders[encoding]
  const bytes = encode ? encode(body) : Buffer.from(body)
  response.writeHead(200, {
    'content-type': 'application/json',
    'content-length': bytes.length,
    ...(encode ? { 'content-encoding': encoding } : {}),
    ...(url.searchParams.has('header') ? { 'x-echo-authorization': credential } : {}),
  })
  response.end(bytes)
}

const encoders: Readonly<Record<string, (text: string) => Buffer>> = {
  gzip: (text) => gzipSync(text),
  deflate: (text) => deflateSync(text),
  br: (text) => brotliCompressSync(text),
}

function spell(text: string, as: string | null): string | undefined {
  if (as === 'base64' || as === 'base64url' || as === 'hex') return Buffer.from(text).toString(as)
  return as === 'percent' ? encodeURIComponent(text) : undefined
}

/** Server-sent events: `?n=` of them (default 5), `?interval_ms=` apart (default 100); `?leak=1` puts the credential into each. */
async function streamEvents({ request, response, url }: Call): Promise<void> {
  const count = Number(url.searchParams.get('n') ?? 5)
  const intervalMs = Number(url.searchParams.get('interval_ms') ?? 100)
  const leaked = url.searchParams.has('leak') ? { authorization: request.headers.authorization } : {}
  const gone = new AbortController()
  response.once('close', () => gone.abort())
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  for (let n = 1; n <= count && !gone.signal.aborted; n++) {
    response.write(`id: ${n}\ndata: ${JSON.stringify({ n, ...leaked })}\n\n`)
    if (n < count && intervalMs > 0) await pause(intervalMs, undefined, { signal: gone.signal }).catch(() => undefined)
  }
  response.end()
}

function challenge(response: ServerResponse, error: string, status: number): void {
  response.setHeader('www-authenticate', `Bearer realm="keyless demo"${error}`)
  answer(response, status, { error: status === 401 ? 'a valid access token is needed' : 'the token lacks the scope' })
}

function answer(response: ServerResponse, status: number, body: object): void {
  const bytes = Buffer.from(`${JSON.stringify(body)}\n`)
  response.writeHead(status, { 'content-type': 'application/json', 'content-length': bytes.length })
  response.end(bytes)
}

function isGone(request: IncomingMessage, response: ServerResponse): boolean {
  return request.destroyed || response.destroyed
}
