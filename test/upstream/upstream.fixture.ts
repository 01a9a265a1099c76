/** A door in front of a real upstream: what ingress, policy and lease do in the house is done here in ten lines. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer as createTcpServer, type Socket } from 'node:net'
import { systemClock } from '../../gateway/protocol/clock.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Inbound, Outbound, Outcome } from '../../gateway/protocol/message.ts'
import { Meter } from '../../gateway/protocol/meter.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Endpoint, Service } from '../../gateway/protocol/service.ts'
import { createUpstream, type UpstreamOptions } from '../../gateway/upstream/forward.ts'
import { cleanse } from '../../gateway/upstream/headers.ts'
import { permitted } from '../rig/permitted.ts'

export const CANARY = 'sk-canary-9f8e7d6c5b4a39281706f5e4d3c2b1a0'
export const HOST = 'api.example.test'

export function service(change: Partial<Service> = {}): Service {
  return {
    name: 'example',
    title: 'Example',
    hosts: [HOST],
    ports: [443],
    scheme: 'http',
    slots: [{ in: 'header', name: 'Authorization', prefix: 'Bearer ' }],
    operations: [],
    addresses: ['127.0.0.0/8'],
    dialect: 'problem',
    placeholders: {},
    baseUrls: [],
    tools: [],
    credential: 'example',
    ...change,
  }
}

export function grant(id = 'grant-1', tenant = 'default'): Grant {
  return {
    id,
    tenant,
    human: { iss: 'local:test', sub: 'ana' },
    agent: { id: 'spiffe://test/agent', owner: 'ana', purpose: 'test', riskTier: 'low' },
    task: { id: 'task-1', purpose: 'test' },
    authority: [],
    issuedAt: 0,
    expiresAt: 1,
    lineage: [],
    lineageHash: '',
    depth: 0,
    maxDepth: 3,
    delegable: true,
    ancestry: [],
    attestations: [],
  }
}

export function endpoint(change: Partial<Endpoint> = {}): Endpoint {
  const operation = {
    id: 'unlisted',
    name: 'example:unlisted',
    access: 'read',
    sensitivity: 'internal',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
  } as const
  return {
    service: service(),
    operation,
    scheme: 'http',
    host: HOST,
    port: 80,
    path: '/',
    rawPath: '/',
    params: {},
    ...change,
  }
}

export function inbound(change: Partial<Inbound> = {}): Inbound {
  return {
    id: '018f0000-0000-7000-8000-000000000000',
    tenant: 'default',
    mode: 'forward',
    method: 'GET',
    scheme: 'http',
    host: HOST,
    port: 80,
    rawPath: '/',
    rawHeaders: [],
    hostHeader: HOST,
    presented: null,
    client: { address: '127.0.0.1', userAgent: undefined },
    body: null,
    reply: {} as Inbound['reply'],
    ...change,
  }
}

export interface DoorOptions {
  /** Port of the upstream. */
  readonly port: number
  readonly service?: Service
  readonly host?: string
  readonly upstream?: Partial<UpstreamOptions>
  /** Credentials in the order in which a 401 uses them up; none: the service's answer is not scrubbed. */
  readonly secrets?: readonly string[]
  /** What a 401 leads to. Default: the next of `secrets`. */
  readonly reissue?: () => Promise<Outbound | null>
  readonly isRejection?: Outbound['isRejection']
  /** Bytes that a call may carry in both directions together. Default: any. */
  readonly byteLimit?: number
  /** Whether calls are taken to have come over HTTP/2, unless they say `X-Http1`. Default no. */
  readonly isHttp2?: boolean
}

export interface Door {
  readonly port: number
  readonly outcomes: Outcome[]
  /** One for each time that a call said at once that a credential came back. */
  readonly leaks: number[]
  readonly refusals: GatewayError[]
  readonly unexpected: unknown[]
  /** What each call with a limit carried. */
  readonly settled: { readonly sent: number; readonly received: number }[]
  /** Resolves when this many calls have ended, whichever way. */
  ended(count: number): Promise<void>
  readonly upstream: ReturnType<typeof createUpstream>
  close(): Promise<void>
}

/** Under which grant a call says that it is made. */
function grantOf({ headers }: IncomingMessage): Grant {
  return grant(String(headers['x-grant'] ?? 'grant-1'), String(headers['x-tenant'] ?? 'default'))
}

export async function openDoor(options: DoorOptions): Promise<Door> {
  const host = options.host ?? HOST
  const upstream = createUpstream({
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 10_000,
    bodyTimeoutMs: 10_000,
    ca: [],
    hosts: new Map([[HOST, '127.0.0.1']]),
    clock: systemClock,
    ...options.upstream,
  })
  const target = options.service ?? service()
  const secrets = (options.secrets ?? [CANARY]).map((value) => new Secret(value))
  const door = {
    outcomes: [] as Outcome[],
    leaks: [] as number[],
    refusals: [] as GatewayError[],
    unexpected: [] as unknown[],
    settled: [] as { sent: number; received: number }[],
  }
  const waiting: { count: number; resolve: () => void }[] = []
  const tick = () => {
    const done = door.outcomes.length + door.refusals.length + door.unexpected.length
    for (const waiter of waiting) if (done >= waiter.count) waiter.resolve()
  }
  const server = createServer({ highWaterMark: 65536, maxHeaderSize: 65536 }, (request, response) => {
    void serve(request, response).finally(tick)
  })

  async function serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const hasBody =
      request.headers['content-length'] !== undefined || request.headers['transfer-encoding'] !== undefined
    const { scheme } = target
    const rawPath = request.url ?? '/'
    const place = { scheme, host, port: options.port } as const
    const call = inbound({
      ...place,
      method: request.method ?? 'GET',
      rawPath,
      rawHeaders: request.rawHeaders,
      body: hasBody ? request : null,
      isHttp2: options.isHttp2 === true && request.headers['x-http1'] === undefined,
      reply: response,
    })
    let used = 0
    const attach = (plain: Outbound): Outbound => {
      const secret = secrets[used]
      used += 1
      if (secret === undefined) return plain
      const headers = [...plain.headers, 'Authorization', `Bearer ${secret.reveal()}`]
      return { ...plain, headers, secrets: [secret], isRejection: options.isRejection }
    }
    const { byteLimit } = options
    try {
      using meter =
        byteLimit === undefined
          ? undefined
          : new Meter(byteLimit, (of) => door.settled.push({ sent: of.sentBytes, received: of.receivedBytes }))
      const plain = cleanse(
        call,
        permitted({ endpoint: endpoint({ ...place, service: target, rawPath }), grant: grantOf(request) }),
        meter,
      )
      const reissue = options.reissue ?? (async () => (used < secrets.length ? attach(plain) : null))
      door.outcomes.push(
        await upstream.forward(attach(plain), response, reissue, () => void door.leaks.push(Date.now())),
      )
    } catch (cause) {
      if (!(cause instanceof GatewayError)) door.unexpected.push(cause)
      else door.refusals.push(cause)
      response.writeHead(599, { 'x-code': cause instanceof GatewayError ? cause.code : 'bug' })
      response.end(String(cause))
    }
  }

  const port = await listen(server)
  return {
    ...door,
    port,
    upstream,
    ended: (count) =>
      new Promise((resolve) => {
        waiting.push({ count, resolve })
        tick()
      }),
    async close() {
      await upstream.close()
      await shut(server)
    },
  }
}

export async function listen(server: Server | ReturnType<typeof createTcpServer>): Promise<number> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

export async function shut(server: Server | ReturnType<typeof createTcpServer>): Promise<void> {
  if ('closeAllConnections' in server) server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
}

export interface Origin {
  readonly port: number
  readonly server: Server
  /** Connections accepted so far. */
  connections(): number
  close(): Promise<void>
}

/** A real HTTP upstream. */
export async function openOrigin(serve: (request: IncomingMessage, response: ServerResponse) => void): Promise<Origin> {
  const server = createServer({ maxHeaderSize: 131072 }, serve)
  let connections = 0
  server.on('connection', () => {
    connections += 1
  })
  server.keepAliveTimeout = 60_000
  const port = await listen(server)
  return { port, server, connections: () => connections, close: () => shut(server) }
}

/** An upstream that speaks bytes: `serve` gets each connection and the text of each chunk received on it. */
export async function openRawOrigin(serve: (socket: Socket, text: string, connection: number) => void) {
  const sockets = new Set<Socket>()
  let connections = 0
  const server = createTcpServer((socket) => {
    connections += 1
    const connection = connections
    sockets.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => sockets.delete(socket))
    socket.on('data', (chunk) => serve(socket, chunk.toString('latin1'), connection))
  })
  const port = await listen(server)
  return {
    port,
    connections: () => connections,
    open: () => sockets.size,
    async close() {
      for (const socket of sockets) socket.destroy()
      await shut(server)
    },
  }
}

export interface RawAnswer {
  readonly head: string
  readonly body: Buffer
  /** The other side ended the connection. */
  readonly isClosed: boolean
}

/** Send bytes, and read until the connection ends or `until` is satisfied. */
export function exchange(
  port: number,
  text: string | Buffer,
  until?: (received: string) => boolean,
): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1')
    let received: Buffer = Buffer.alloc(0)
    const finish = (isClosed: boolean) => {
      socket.destroy()
      const split = received.indexOf('\r\n\r\n')
      const head = split === -1 ? received.toString('latin1') : received.subarray(0, split).toString('latin1')
      resolve({ head, body: split === -1 ? Buffer.alloc(0) : received.subarray(split + 4), isClosed })
    }
    socket.on('data', (chunk) => {
      received = Buffer.concat([received, chunk as Buffer])
      if (until?.(received.toString('latin1'))) finish(false)
    })
    socket.on('close', () => finish(true))
    socket.on('error', (error: NodeJS.ErrnoException) => (error.code === 'ECONNRESET' ? finish(true) : reject(error)))
    if (typeof text === 'string') socket.write(text, 'latin1')
    else socket.write(text)
  })
}

/** One request by hand, closed after its answer. */
export function get(port: number, path = '/', headers: readonly string[] = []): Promise<RawAnswer> {
  return exchange(port, [`GET ${path} HTTP/1.1`, `Host: ${HOST}`, 'Connection: close', ...headers, '', ''].join('\r\n'))
}
