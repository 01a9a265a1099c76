/** The HTTP side of `keyless witness`: one route, bounded in size, time and connections. Whoever reaches it may try. */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { MAX_BODY_BYTES, type Witness } from '../audit/witness/witness.ts'

export interface Address {
  readonly host: string
  /** 0 for any free port. */
  readonly port: number
}

export interface WitnessDoor {
  /** As logs write it in their settings. */
  readonly url: string
  /** Finish what is under way, for two seconds at most. */
  close(): Promise<void>
}

/** A whole request must have arrived by then. */
const REQUEST_TIMEOUT_MS = 10_000
const GRACE_MS = 2_000
const MAX_CONNECTIONS = 256

/** @throws {Error} when the address cannot be listened on. */
export async function openWitnessDoor(witness: Witness, { host, port }: Address): Promise<WitnessDoor> {
  const server = createServer(
    { requestTimeout: REQUEST_TIMEOUT_MS, headersTimeout: REQUEST_TIMEOUT_MS, connectionsCheckingInterval: 1_000 },
    (request, response) => {
      answer(witness, request, response).catch(() => response.destroy()) // the client broke off
    },
  )
  server.maxConnections = MAX_CONNECTIONS
  const { promise, resolve, reject } = Promise.withResolvers<void>()
  server.once('error', reject).listen(port, host, resolve)
  await promise.catch((cause: Error) => {
    throw new Error(`The witness cannot listen on ${host}:${port}: ${cause.message}. Name another address: --listen.`)
  })
  const bound = server.address() as AddressInfo
  return {
    url: `http://${bound.family === 'IPv6' ? `[${bound.address}]` : bound.address}:${bound.port}`,
    async close() {
      const closed = new Promise((done) => server.close(done))
      server.closeIdleConnections()
      const timer = setTimeout(() => server.closeAllConnections(), GRACE_MS)
      await closed
      clearTimeout(timer)
    },
  }
}

async function answer(witness: Witness, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.url !== '/add-checkpoint')
    return send(response, 404, 'This is a C2SP tlog-witness. It has one route: POST /add-checkpoint.\n')
  if (request.method !== 'POST') {
    response.setHeader('allow', 'POST')
    return send(response, 405, 'Checkpoints are sent with POST.\n')
  }
  const body = await read(request)
  if (!body) {
    response.setHeader('connection', 'close') // the rest is not read
    return send(response, 413, `A request has at most ${MAX_BODY_BYTES} bytes.\n`)
  }
  const { status, type, body: text } = await witness.addCheckpoint(body)
  response.setHeader('content-type', type)
  send(response, status, text)
}

/** Undefined when it is too large. */
async function read(request: IncomingMessage): Promise<Buffer | undefined> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of request.iterator({ destroyOnReturn: false })) {
    size += chunk.length
    if (size > MAX_BODY_BYTES) return undefined
    chunks.push(chunk)
  }
  return Buffer.concat(chunks)
}

function send(response: ServerResponse, status: number, text: string): void {
  if (!response.hasHeader('content-type')) response.setHeader('content-type', 'text/plain; charset=utf-8')
  response.writeHead(status, { 'cache-control': 'no-store', 'content-length': Buffer.byteLength(text) }).end(text)
}
