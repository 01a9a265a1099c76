/** The HTTP/1.1 parser of the proxy door: what it accepts, how long it waits, and what is said of bytes that it refuses. */
import { createServer, IncomingMessage, type Server, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { uuidv7 } from '../protocol/id.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Door, Line, Tunnel } from './line.ts'
import { writeBadRequest } from './refusal.ts'
import { isHandshake } from './upgrade.ts'

/** A request head larger than this is refused; a grant is below 2 KB, cookies and SDK headers rarely pass 24 KB. */
const MAX_HEAD_BYTES = 64 * 1024
const HEADERS_TIMEOUT_MS = 60_000
/** Above the idle time of common clients, so that they close first and never write into a closing connection. */
const KEEP_ALIVE_MS = 120_000

/** The server that listens, and its parser apart: which connections are HTTP is not known when they come. */
export function createHttpServer(): { server: Server; parse(socket: Socket): void } {
  const server = createServer({
    insecureHTTPParser: false,
    maxHeaderSize: MAX_HEAD_BYTES,
    highWaterMark: 65_536,
    headersTimeout: HEADERS_TIMEOUT_MS,
    requestTimeout: 0, // an upload may take hours
    keepAliveTimeout: KEEP_ALIVE_MS,
    keepAlive: true, // a peer that vanished without a FIN is noticed
    noDelay: true,
    optimizeEmptyRequests: true,
    requireHostHeader: false, // refused by `readInbound`, and recorded
    shouldUpgradeCallback: isHandshake,
  })
  server.maxHeadersCount = 0 // the default drops fields beyond 2000 silently, and so changes the request
  const parsers = server.listeners('connection')
  server.removeAllListeners('connection')
  return {
    server,
    parse(socket) {
      for (const parser of parsers) parser.call(server, socket)
    },
  }
}

/** What the parser refuses, and connections that break. */
export function onBrokenRequest(door: Door, error: NodeJS.ErrnoException, socket: Socket): void {
  const line = door.lines.get(socket)
  // An answer that has begun, or belongs to an earlier request, must not be mixed with this one.
  const isAnswering =
    line !== undefined && line.busy > 0 && (line.busy > 1 || line.reply?.headersSent || line.reply?.req.complete)
  if (isAnswering || !socket.writable || socket.bytesRead === 0 || error.code === 'ECONNRESET') {
    socket.destroy()
    return
  }
  const detail = whyBroken(error)
  writeBadRequest(socket, detail)
  if (line?.tunnel) void recordBroken(door, line, line.tunnel, { socket, detail })
  else door.rooms.audit.turnedAway?.('malformed')
}

/** Inside a tunnel it is known who sends what cannot be read. */
async function recordBroken(
  { rooms, tenant, nowMs }: Door,
  line: Line,
  tunnel: Tunnel,
  { socket, detail }: { readonly socket: Socket; readonly detail: string },
): Promise<void> {
  const inbound: Inbound = {
    ...{
      id: uuidv7(nowMs()),
      tenant,
      mode: 'intercept',
      method: '',
      scheme: tunnel.scheme,
      rawPath: '',
      rawHeaders: [],
    },
    ...{ host: tunnel.host, port: tunnel.port, hostHeader: undefined, presented: tunnel.presented, proof: line.proof },
    client: { address: line.address, userAgent: tunnel.userAgent },
    body: null,
    reply: new ServerResponse(new IncomingMessage(socket)), // never sent: the answer has been written
  }
  const event = rooms.audit.openCall(inbound)
  try {
    event.authenticated(await rooms.grants.authenticate(inbound))
  } catch {
    // Then nobody is named.
  }
  await event.refused(new GatewayError('request_malformed', detail)).catch(() => undefined)
}

function whyBroken({ code, message }: NodeJS.ErrnoException): string {
  if (code === 'HPE_HEADER_OVERFLOW')
    return `The head of the request is larger than ${MAX_HEAD_BYTES} bytes. Send fewer or shorter header fields.`
  if (code === 'ERR_HTTP_REQUEST_TIMEOUT')
    return `The head of the request did not arrive within ${HEADERS_TIMEOUT_MS / 1000} seconds.`
  if (code === 'HPE_PAUSED_H2_UPGRADE')
    return 'HTTP/2 is spoken inside TLS alone, in a CONNECT tunnel, where ALPN agrees on h2. Begin with HTTP/1.1 here.'
  return `The bytes are not one HTTP/1.1 request: ${message.replace(/^Parse Error: /, '')}.`
}
