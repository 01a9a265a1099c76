/**
 * One HTTP/2 stream as an `Inbound` (RFC 9113 §8.3). nghttp2 has refused what breaks the rules of pseudo-headers and of
 * connection-specific fields; what is left that two readers could take for two things is refused or joined here.
 */
import { METHODS } from 'node:http'
import { uuidv7 } from '../protocol/id.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { readPromptHash } from '../protocol/prompt-hash.ts'
import { traceparentIn, traceparentOf } from '../protocol/trace.ts'
import { fieldValue, readFields } from './fields.ts'
import type { StreamBody } from './http2-body.ts'
import type { StreamReply } from './http2-reply.ts'
import type { Door, Line, Tunnel } from './line.ts'
import { requirePlace } from './place.ts'
import { tunnelTarget } from './tunnel.ts'

/** As much as a head over HTTP/1.1 may have. */
export const MAX_HEAD_BYTES = 64 * 1024

/** What a request's HEADERS say, cut apart. */
export interface StreamHead {
  readonly method: string
  readonly scheme: string | undefined
  readonly authority: string | undefined
  readonly path: string
  /** Without pseudo-headers; crumbs of Cookie joined. */
  readonly rawHeaders: readonly string[]
  readonly bytes: number
}

export interface Stream {
  readonly head: StreamHead
  readonly body: StreamBody | null
  readonly reply: StreamReply
}

/** The methods that the HTTP/1.1 parser knows: one set for both, whatever policies and upstreams make of others. */
const KNOWN_METHODS: ReadonlySet<string> = new Set(METHODS)

/** @param raw as Node emits it: lower-case names, pseudo-headers first. */
export function readHead(raw: readonly string[]): StreamHead {
  const pseudo = new Map<string, string>()
  const rawHeaders: string[] = []
  let cookieAt = -1
  let bytes = 0
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] as string
    const value = raw[i + 1] as string
    bytes += name.length + value.length + 4
    if (name.charCodeAt(0) === 0x3a) pseudo.set(name, value)
    else if (name !== 'cookie') rawHeaders.push(name, value)
    else if (cookieAt === -1) cookieAt = rawHeaders.push(name, value) - 1
    else rawHeaders[cookieAt] += `; ${value}` // RFC 9113 §8.2.3
  }
  return {
    method: pseudo.get(':method') ?? '',
    scheme: pseudo.get(':scheme'),
    authority: pseudo.get(':authority'),
    path: pseudo.get(':path') ?? '',
    rawHeaders,
    bytes,
  }
}

/** @throws {GatewayError} `request_malformed`, `method_refused`, `target_mismatch`. */
export function readStream(door: Door, line: Line, tunnel: Tunnel, stream: Stream): Inbound {
  if (line.refusal !== undefined) throw line.refusal
  const { method, scheme, authority, path, rawHeaders, bytes } = stream.head
  if (bytes > MAX_HEAD_BYTES)
    throw malformed(`its head is larger than ${MAX_HEAD_BYTES} bytes. Send fewer or shorter header fields`)
  if (!KNOWN_METHODS.has(method) || method === 'CONNECT')
    throw new GatewayError(
      'method_refused',
      method === 'CONNECT'
        ? 'CONNECT inside a tunnel is not served. Open a second connection to the gateway.'
        : 'The method is not one of HTTP. Methods are written in upper case, such as GET.',
    )
  if (scheme !== tunnel.scheme) throw malformed(`its :scheme is not ${tunnel.scheme}`)
  if (path.charCodeAt(0) !== 0x2f || path.includes('#'))
    throw malformed('its :path is not a path. It begins with a slash and has no fragment')
  if (/[^\x21-\x7e]/.test(path))
    // as the HTTP/1.1 parser has it
    throw malformed('its :path has characters that must be percent-encoded')
  const fields = readFields(rawHeaders)
  if (authority !== undefined && fields.host !== undefined && fields.host !== authority)
    requirePlace(fields.host, tunnel) // RFC 9113 §8.3.1: it must not say otherwise
  const { mode, host, port, rawPath, hostHeader, presented } = tunnelTarget(line, tunnel, path, {
    ...fields,
    host: authority ?? fields.host,
  })
  const promptHash = readPromptHash(fields.promptHash)
  const trace = traceparentOf(fields.traceparent)
  return { ...framed(door, line, tunnel, stream), mode, host, port, rawPath, hostHeader, presented, trace, promptHash }
}

/** A stream that could not be read, with as much as is certain: enough to record and answer the refusal. */
export function unreadStream(door: Door, line: Line, tunnel: Tunnel, stream: Stream): Inbound {
  return { ...framed(door, line, tunnel, stream), trace: traceparentIn(stream.head.rawHeaders) }
}

/** What needs no reading. */
function framed(door: Door, line: Line, tunnel: Tunnel, { head, body, reply }: Stream): Inbound {
  return {
    id: uuidv7(door.nowMs()),
    tenant: door.tenant,
    mode: 'intercept',
    method: head.method,
    scheme: tunnel.scheme,
    host: tunnel.host,
    port: tunnel.port,
    rawPath: head.path,
    rawHeaders: head.rawHeaders,
    hostHeader: head.authority,
    presented: tunnel.presented,
    proof: line.proof,
    isHttp2: true,
    client: { address: line.address, userAgent: fieldValue(head.rawHeaders, 'user-agent') },
    body,
    reply,
  }
}

function malformed(what: string): GatewayError {
  return new GatewayError('request_malformed', `The request cannot be forwarded: ${what}.`)
}
