/** Passes one absolute-form request to the gateway and its answer back, streaming, with every end-to-end field as it came. */
import { type Agent, type ClientRequest, type IncomingMessage, request, type ServerResponse } from 'node:http'
import {
  endToEnd,
  type Forwarding,
  MAX_HEADER_BYTES,
  UNREACHABLE,
  unreachable,
  withoutField,
} from './forwarder-wire.ts'

export interface Exchange {
  readonly asked: IncomingMessage
  readonly answer: ServerResponse
  /** Kept-alive connections to the gateway. */
  readonly agent: Agent
  readonly options: Forwarding
  /** How often a request without a body may go again over a fresh connection. */
  readonly retries: number
}

export function relayRequest(exchange: Exchange): void {
  const { asked, answer, agent, options } = exchange
  const sent = request({
    ...options.gateway,
    agent,
    method: asked.method,
    path: asked.url,
    headers: withGrant(asked, options.grant.authorization),
    maxHeaderSize: MAX_HEADER_BYTES,
  })
  const leave = () => sent.destroy()
  answer.once('close', leave)
  sent.on('continue', () => answer.writeContinue())
  sent.on('response', (received) => relayResponse(received, answer))
  sent.on('error', (cause) => {
    answer.off('close', leave)
    failed(exchange, sent, cause)
  })
  if (hasBody(asked)) {
    sent.flushHeaders() // `Expect: 100-continue`: the body may be waiting for an answer to the head
    asked.pipe(sent)
  } else sent.end()
}

function hasBody(asked: IncomingMessage): boolean {
  return asked.headers['transfer-encoding'] !== undefined || (asked.headers['content-length'] ?? '0') !== '0'
}

function withGrant(asked: IncomingMessage, authorization: string): string[] {
  const headers = endToEnd(asked.rawHeaders, asked.headers.connection)
  const { 'transfer-encoding': coding, 'content-length': length } = asked.headers
  if (coding !== undefined) headers.push('Transfer-Encoding', coding)
  // Without either field Node would announce a chunked body for a method that may have one.
  else if (length === undefined && !['GET', 'HEAD', 'DELETE', 'OPTIONS'].includes(asked.method ?? '')) {
    headers.push('Content-Length', '0')
  }
  headers.push('Proxy-Authorization', authorization)
  return headers
}

function failed(exchange: Exchange, sent: ClientRequest, cause: NodeJS.ErrnoException): void {
  const { asked, answer, options } = exchange
  if (answer.destroyed || answer.headersSent) {
    answer.destroy()
    return
  }
  // The gateway may close a kept-alive connection in the moment it is used; what has no body can simply go again.
  if (sent.reusedSocket && cause.code === 'ECONNRESET' && !hasBody(asked) && exchange.retries > 0) {
    relayRequest({ ...exchange, retries: exchange.retries - 1 })
    return
  }
  asked.unpipe(sent)
  asked.resume()
  const { type, body } = unreachable(options.gateway, asked.headers['user-agent'])
  answer.writeHead(502, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'keyless-error': UNREACHABLE,
    connection: 'close',
  })
  answer.end(body)
}

function relayResponse(received: IncomingMessage, answer: ServerResponse): void {
  // Cut short there is cut short here: ending properly would make a broken body look whole.
  received.once('error', () => answer.destroy())
  try {
    writeHead(received, answer)
  } catch {
    // Nothing that comes from an upstream may end this process, and with it the run.
    answer.destroy()
    return
  }
  answer.flushHeaders() // an event stream may be silent for long after its head
  received.once('end', () => {
    if (received.rawTrailers.length > 0) answer.addTrailers(pairs(received.rawTrailers))
  })
  received.pipe(answer)
}

function writeHead(received: IncomingMessage, answer: ServerResponse): void {
  const headers = endToEnd(received.rawHeaders, received.headers.connection)
  // Node refuses to announce trailers where no chunks carry them: to HTTP/1.0, and in answers to HEAD.
  const fields =
    answer.req.httpVersionMinor === 0 || answer.req.method === 'HEAD' ? withoutField(headers, 'trailer') : headers
  answer.sendDate = false
  // The client's own credentials are right; the grant behind them is not. A 407 would ask it to try others.
  if (received.statusCode === 407) answer.writeHead(403, 'Forbidden', fields)
  else answer.writeHead(received.statusCode ?? 502, received.statusMessage ?? '', fields)
}

function pairs(flat: readonly string[]): [string, string][] {
  return Array.from({ length: flat.length / 2 }, (_, index) => [flat[2 * index] ?? '', flat[2 * index + 1] ?? ''])
}
