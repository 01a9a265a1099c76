/**
 * One HTTP message as an `Inbound`. Reads the raw header list once and refuses what two readers could take for two things;
 * where a request goes is worked out by `forward`, `reverse` and `tunnel`, which differ in nothing else.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { uuidv7 } from '../protocol/id.ts'
import type { Inbound, Presented } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { readPromptHash } from '../protocol/prompt-hash.ts'
import { traceparentIn, traceparentOf } from '../protocol/trace.ts'
import { type Fields, hasBody, parseCredentials, presentedWithProof, readFields, requireVersion } from './fields.ts'
import { forwardTarget } from './forward.ts'
import type { Door, Line } from './line.ts'
import type { Target } from './place.ts'
import { reverseTarget } from './reverse.ts'
import { tunnelTarget } from './tunnel.ts'

/**
 * The request as an `Inbound`.
 * @throws {GatewayError} `request_malformed`, `target_mismatch`, `route_unknown`, and what the connection itself is refused for.
 */
export function readInbound(door: Door, line: Line, reply: ServerResponse): Inbound {
  const { req } = reply
  if (line.refusal !== undefined) throw line.refusal
  const fields = readFields(req.rawHeaders)
  if (req.httpVersion !== '1.1' || fields.host === undefined) requireVersion(req, fields)
  const url = req.url as string
  if (url.includes('#'))
    throw new GatewayError('request_malformed', 'The request target holds a fragment. Send it without `#`.')
  const target = targetOf(door, line, req, fields)
  return {
    id: uuidv7(door.nowMs()),
    tenant: door.tenant,
    mode: target.mode,
    method: req.method as string,
    scheme: target.scheme,
    host: target.host,
    port: target.port,
    rawPath: target.rawPath,
    rawHeaders: req.rawHeaders,
    hostHeader: target.hostHeader,
    presented: target.presented,
    proof: line.proof,
    route: target.route,
    client: { address: line.address, userAgent: fields.userAgent },
    trace: traceparentOf(fields.traceparent),
    promptHash: readPromptHash(fields.promptHash),
    body: hasBody(fields) ? req : null,
    reply,
  }
}

function targetOf(door: Door, line: Line, req: IncomingMessage, fields: Fields): Target {
  const url = req.url as string
  if (line.tunnel !== null) return tunnelTarget(line, line.tunnel, url, fields)
  if (url.charCodeAt(0) === 0x2f) {
    const presented = presentedOn(line, fields) ?? presentedWithProof(fields, req.rawHeaders)
    return reverseTarget(door, req, url, presented)
  }
  return forwardTarget(door, req, fields, presentedOn(line, fields))
}

/** A request that could not be read, with as much as is certain: enough to record and answer the refusal. */
export function unreadInbound(door: Door, line: Line, reply: ServerResponse): Inbound {
  const { req } = reply
  const { tunnel } = line
  const isReverse = tunnel === null && req.url?.startsWith('/') === true
  const hasFraming = req.rawHeaders.some(
    (text, i) => i % 2 === 0 && /^(?:content-length|transfer-encoding)$/i.test(text),
  )
  return {
    id: uuidv7(door.nowMs()),
    tenant: door.tenant,
    mode: tunnel !== null ? 'intercept' : isReverse ? 'reverse' : 'forward',
    method: req.method as string,
    scheme: tunnel?.scheme ?? 'http',
    host: tunnel?.host ?? '',
    port: tunnel?.port ?? 0,
    rawPath: tunnel !== null || isReverse ? (req.url as string) : '',
    rawHeaders: req.rawHeaders,
    hostHeader: undefined,
    presented: tunnel?.presented ?? null,
    client: { address: line.address, userAgent: req.headers['user-agent'] },
    trace: traceparentIn(req.rawHeaders),
    body: hasFraming && req.method !== 'CONNECT' ? req : null,
    reply,
  }
}

function presentedOn(line: Line, { proxyAuthorization }: Fields): Presented | null {
  if (proxyAuthorization === undefined) return null
  if (line.credentialText !== proxyAuthorization) {
    line.presented = parseCredentials(proxyAuthorization)
    line.credentialText = proxyAuthorization
  }
  return line.presented
}
