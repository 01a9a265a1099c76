/**
 * The one writer of refusals: status, challenge, headers and body by the mode of the request, in the dialect of the service.
 * Nothing that an agent sent is repeated in a header, and an answer that has begun is cut, never completed.
 */
import { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Readable } from 'node:stream'
import { DPOP_ALGORITHMS } from '../protocol/identity.ts'
import type { Inbound, Reply } from '../protocol/message.ts'
import { asGatewayError, GatewayError, type ProblemCode, problems, type Remedy } from '../protocol/problem.ts'
import type { Dialect, Endpoint } from '../protocol/service.ts'
import type { RequestRooms } from '../request-rooms.ts'
import { renderProblem } from './dialect.ts'
import { dialectFor } from './dialect-choice.ts'
import { fieldValue } from './fields.ts'
import { grpcTypeOf, renderGrpc } from './grpc.ts'

/** A body of up to this many bytes is read to its end, so that the connection stays usable. */
const DRAIN_BYTES = 256 * 1024
/** After a refusal that closes, this much more is read, so that a client which reads only after writing gets its answer. */
const LINGER_BYTES = 64 * 1024 * 1024
const LINGER_MS = 5_000

const PROXY_CHALLENGE = 'Basic realm="keyless"'
const SLOT_CHALLENGE = 'Basic realm="keyless", Bearer'
/** RFC 9449 §7.1, §9. */
const PROOF_ERRORS: Partial<Record<ProblemCode, string>> = {
  dpop_nonce_required: 'use_dpop_nonce',
  dpop_invalid: 'invalid_dpop_proof',
}

/**
 * Answer `inbound` with a refusal. Never throws; does nothing when the answer is complete or the client is gone.
 * @param endpoint where the request was going, if that was found out: it decides the dialect.
 */
export function writeRefusal(inbound: Inbound, refusal: GatewayError, endpoint: Endpoint | undefined): void {
  const { reply, body } = inbound
  if (reply.destroyed || reply.writableEnded) return
  if (reply.headersSent) {
    // The client must see that the answer is incomplete: no final chunk, no short length.
    reply.destroy()
    return
  }
  const { status, headers, text } = compose(inbound, refusal, dialectFor(inbound, endpoint))
  if (body === null || body.readableEnded || reply.mayAnswerEarly) {
    send(inbound, status, headers)
    reply.end(text)
  } else if (isSmall(inbound, body)) {
    send(inbound, status, headers)
    discard(body)
    reply.end(text)
  } else {
    reply.shouldKeepAlive = false
    send(inbound, status, [...headers, 'Connection', 'close'])
    if (inbound.method !== 'HEAD') reply.write(text)
    linger(reply, body)
  }
}

/** Refuse before the flow begins: recorded like every other refusal. Never rejects. */
export async function turnAway(inbound: Inbound, cause: unknown, rooms: RequestRooms): Promise<void> {
  try {
    const event = rooms.audit.openCall(inbound)
    await rooms.refusals.write(inbound, await event.refused(asGatewayError(cause)))
  } catch {
    inbound.reply.destroy()
  }
}

/** What a door that closes says to everyone who still comes. */
export function draining(): GatewayError {
  return new GatewayError('draining', 'The gateway is shutting down. Try again; another instance takes over.')
}

/** Answer bytes that never became a request, and close. There is nobody to record. */
export function writeBadRequest(socket: Socket, detail: string): void {
  const { text, head } = rawProblem(new GatewayError('request_malformed', detail))
  endWith(
    socket,
    `HTTP/1.1 400 Bad Request\r\n${head}Connection: close\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`,
  )
}

/** The last words on a connection. */
export function endWith(socket: Socket, words: string | Buffer): void {
  socket.end(words)
  socket.resume()
  // What is still on its way is read and dropped for a moment: closing on unread bytes would reset our answer away.
  const timer = setTimeout(() => socket.destroy(), 1_000)
  timer.unref()
  socket.once('close', () => clearTimeout(timer))
}

function rawProblem({ code, detail }: GatewayError): { text: string; head: string } {
  const { status, title, remedy, proxyError } = problems[code]
  const text = JSON.stringify({ type: typeOf(code), title, status, detail, code, remedy })
  const head = `Content-Type: application/problem+json\r\nCache-Control: no-store\r\nkeyless-error: ${code}\r\nProxy-Status: ${proxyStatus(proxyError, code)}\r\n`
  return { text, head }
}

function compose(inbound: Inbound, refusal: GatewayError, dialect: Dialect) {
  const { code, detail } = refusal
  const { title, remedy, proxyError, status: tabled } = problems[code]
  const status = tabled === 407 || code in PROOF_ERRORS ? adapted(inbound) : tabled
  const body = { type: typeOf(code), title, status, detail, code, remedy, instance: inbound.id, ...refusal.advice }
  const grpcType = status === 407 ? undefined : grpcTypeOf(fieldValue(inbound.rawHeaders, 'content-type'))
  const rendered = grpcType === undefined ? renderProblem(body, dialect) : renderGrpc(body, grpcType)
  const headers = [
    'Content-Type',
    rendered.contentType,
    'Cache-Control',
    'no-store',
    'keyless-error',
    code,
    'Proxy-Status',
    proxyStatus(proxyError, code),
  ]
  if (rendered.headers === undefined) headers.push('Content-Length', String(Buffer.byteLength(rendered.text)))
  else headers.push(...rendered.headers) // without content: gRPC's
  if (remedy !== 'retry') headers.push('x-should-retry', 'false')
  // RFC 9110 §10.2.3
  if (refusal.retryAfterMs !== undefined && isPassing(remedy))
    headers.push('Retry-After', String(Math.ceil(refusal.retryAfterMs / 1000)))
  if (rendered.status === 407) headers.push('Proxy-Authenticate', proofChallenge(inbound, code) ?? PROXY_CHALLENGE)
  if (rendered.status === 401) headers.push('WWW-Authenticate', proofChallenge(inbound, code) ?? SLOT_CHALLENGE)
  // RFC 9110 §15.5.22, RFC 6455 §4.4: what there is to upgrade to, where it may be asked for.
  if (rendered.status === 426) headers.push(...upgradeFields(inbound))
  if (rendered.status === 405) headers.push('Allow', 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS') // RFC 9110 §15.5.6
  return { status: rendered.status, headers, text: rendered.text }
}

/** What time, or a human, may change. An SDK does not wait for the latter by itself: `x-should-retry` says so. */
function isPassing(remedy: Remedy): boolean {
  return remedy === 'retry' || remedy === 'request_approval'
}

/** `Connection` is ours to write here, so a close has to be in it: what the agent asked for, or what no handshake is ends with. */
function upgradeFields({ rawHeaders, upgrade }: Inbound): string[] {
  const isLast = upgrade === undefined || /\bclose\b/i.test(fieldValue(rawHeaders, 'connection') ?? '')
  return ['Upgrade', 'websocket', 'Connection', isLast ? 'close, Upgrade' : 'Upgrade', 'Sec-WebSocket-Version', '13']
}

/** For whoever tried DPoP where it can be used. */
function proofChallenge({ presented }: Inbound, code: ProblemCode): string | undefined {
  if (presented?.scheme !== 'dpop') return undefined
  return `DPoP realm="keyless", error="${PROOF_ERRORS[code] ?? 'invalid_token'}", algs="${DPOP_ALGORITHMS.join(' ')}"`
}

/** Inside a tunnel 401 starts logins and 407 is a network error, so identity is a 403 there (clients.md §0.2). */
function adapted(inbound: Inbound): number {
  if (inbound.mode === 'forward') return 407
  return inbound.mode === 'reverse' ? 401 : 403
}

/** Most clients show nothing of a refused CONNECT but its reason phrase (clients.md §3), so the code stands there. */
function send(inbound: Inbound, status: number, headers: string[]): void {
  const code = headers[headers.indexOf('keyless-error') + 1] as ProblemCode
  if (inbound.method === 'CONNECT')
    inbound.reply.writeHead(status, `${problems[code].title} (keyless ${code})`, headers)
  else inbound.reply.writeHead(status, headers)
}

function typeOf(code: ProblemCode): string {
  return `urn:keyless:error:${code}`
}

/** RFC 9209 §2. */
function proxyStatus(error: string, code: ProblemCode): string {
  return `keyless; error=${error}; details="${code}"`
}

/** A body still to come that is worth reading. One that waits for `100 Continue` may never come: the next request would be read as it. */
function isSmall({ rawHeaders }: Inbound, body: Readable): boolean {
  if (body instanceof IncomingMessage && body.complete) return true // it is here, and what is behind it may be served already
  if (!body.readableDidRead && fieldValue(rawHeaders, 'expect') !== undefined) return false
  const length = fieldValue(rawHeaders, 'content-length')
  return length !== undefined && Number(length) <= DRAIN_BYTES
}

function discard(body: Readable): void {
  body.on('error', () => {}) // the client may leave while we read on
  body.resume()
}

/** The answer is out and announces a close; its end is held back while the client is still writing. */
function linger(reply: Reply, body: Readable): void {
  let left = LINGER_BYTES
  const timer = setTimeout(finish, LINGER_MS)
  function finish(): void {
    clearTimeout(timer)
    if (!reply.writableEnded) reply.end()
  }
  body.on('data', (chunk: Buffer) => {
    left -= chunk.length
    if (left < 0) finish()
  })
  body.on('end', finish)
  body.on('close', finish)
  discard(body)
}
