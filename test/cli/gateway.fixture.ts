/**
 * The two doors of a gateway, as little of them as the launcher touches: a proxy that takes CONNECT (ending TLS itself) and
 * absolute form, answers from memory and remembers what it was sent; and a control socket that remembers what it was asked.
 */
import { X509Certificate } from 'node:crypto'
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createSecureContext, type SecureContext, TLSSocket } from 'node:tls'
// The order matters: @peculiar/x509 expects what reflect.ts provides.
import '../../gateway/protocol/reflect.ts'
import * as x509 from '@peculiar/x509'
import type { StatusView } from '../../gateway/protocol/control-status.ts'

export interface Seen {
  /** CONNECT requests, and requests outside or inside a tunnel. */
  readonly via: 'connect' | 'absolute' | 'tunnel'
  readonly method: string
  readonly url: string
  readonly rawHeaders: readonly string[]
  readonly authorization: string | undefined
  readonly proxyAuthorization: string | undefined
}

export interface Instruction {
  readonly path: string
  readonly body: Record<string, unknown>
}

export interface FixtureGateway {
  readonly port: number
  readonly caPem: string
  readonly seen: Seen[]
  readonly instructions: Instruction[]
  readonly dataDir: string
  /** What the proxy does with a request it accepted; default: 200 and a JSON echo of the request. */
  serve: (asked: IncomingMessage, answer: ServerResponse) => void
  /** Set to refuse: status and reason for every CONNECT and absolute-form request. */
  refusal: { readonly status: number; readonly reason: string; readonly body: string } | undefined
  status: StatusView
  /** What `POST /tasks` answers instead of 201. */
  taskProblem: Record<string, unknown> | undefined
  /** What heartbeats tell of the task: its root grant, and whether it is suspended. */
  life: { grant: string; state: 'active' | 'suspended' }
  /** Seconds that a grant lives. */
  ttlS: number
  /** What orders have blocked. */
  blocks: readonly object[]
  /** What waits for a human. */
  approvals: readonly object[]
  /** Resolves when an instruction whose path matches has arrived. */
  instructed(path: RegExp): Promise<Instruction>
  stopProxy(): Promise<void>
  startProxy(): Promise<void>
  close(): Promise<void>
}

export const HANDLE = 'kh_fixture-handle-0123456789abcdefghijklmnopqrs'
export const TASK = '01990000-0000-7000-8000-000000000001'
export const GRANT = `Basic ${Buffer.from(`${TASK}:${HANDLE}`).toString('base64')}`
/** What a renewed task has instead. */
export const RENEWED = `Basic ${Buffer.from(`${TASK}:${HANDLE}-renewed`).toString('base64')}`

export async function startFixtureGateway(): Promise<FixtureGateway> {
  const authority = await makeAuthority()
  const dataDir = await mkdtemp(join(tmpdir(), 'kl-fixture-'))
  const sockets = new Set<Socket>()
  const waiting: { path: RegExp; resolve: (instruction: Instruction) => void }[] = []
  let proxy = createServer()
  const control = createServer()
  const fixture: FixtureGateway = {
    port: 0,
    caPem: authority.caPem,
    seen: [],
    instructions: [],
    dataDir,
    serve: echo,
    refusal: undefined,
    status: statusOf('http://127.0.0.1:1', dataDir, authority.caPem),
    taskProblem: undefined,
    life: { grant: TASK, state: 'active' },
    ttlS: 900,
    blocks: [],
    approvals: [],
    instructed(path) {
      const found = fixture.instructions.find((instruction) => path.test(instruction.path))
      if (found) return Promise.resolve(found)
      return new Promise((resolve) => waiting.push({ path, resolve }))
    },
    async startProxy() {
      proxy = openProxy(fixture, authority, sockets)
      const port = await listen(proxy, fixture.port)
      Object.assign(fixture, { port, status: { ...fixture.status, proxy: `http://127.0.0.1:${port}` } })
    },
    async stopProxy() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => proxy.close(resolve))
    },
    async close() {
      await fixture.stopProxy()
      control.closeAllConnections()
      await new Promise((resolve) => control.close(resolve))
      await rm(dataDir, { recursive: true, force: true })
    },
  }
  control.on('request', (asked, answer) => instruct(fixture, waiting, asked, answer))
  await new Promise<void>((resolve) => control.listen(join(dataDir, 'control.sock'), resolve))
  await fixture.startProxy()
  return fixture
}

function statusOf(proxy: string, dataDir: string, caPem: string): StatusView {
  return {
    version: '0.0.0',
    proxy,
    control: 'http://127.0.0.1:1',
    data_dir: dataDir,
    audit_dir: join(dataDir, 'audit'),
    ca_pem: caPem,
    now: Math.floor(Date.now() / 1000),
    services: [
      {
        name: 'demo',
        hosts: ['api.demo.test'],
        ports: [443],
        placeholders: { DEMO_API_KEY: 'demo-placeholder' },
        base_urls: [],
        tools: [],
        credential_configured: true,
      },
      {
        name: 'other',
        hosts: ['api.other.test'],
        ports: [443],
        placeholders: { OTHER_TOKEN: 'other-placeholder' },
        base_urls: [],
        tools: [],
        credential_configured: false,
      },
    ],
    secret_env: ['DEMO_REAL_SECRET'],
    agents: ['spiffe://keyless.local/agent/default'],
    default_agent: 'spiffe://keyless.local/agent/default',
    redis: { configured: false, ok: true },
    unstored_revocations: 0,
    audit: { ok: true, size: 1, origin: 'keyless.local/default', witnesses: [], exports: [] },
  }
}

function openProxy(fixture: FixtureGateway, authority: Authority, sockets: Set<Socket>): Server {
  const inner = createServer((asked, answer) => {
    fixture.seen.push(seenAs('tunnel', asked))
    if (asked.method === 'TRACE') return void answer.writeHead(405, { 'keyless-error': 'method_refused' }).end()
    fixture.serve(asked, answer)
  })
  const serve = (asked: IncomingMessage, answer: ServerResponse) => {
    fixture.seen.push(seenAs('absolute', asked))
    const { refusal } = fixture
    if (refusal === undefined) return fixture.serve(asked, answer)
    answer
      .writeHead(refusal.status, refusal.reason, { 'proxy-authenticate': 'Basic realm="gateway"' })
      .end(refusal.body)
  }
  const proxy = createServer(serve)
  proxy.on('checkContinue', serve)
  proxy.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  proxy.on('connect', (asked: IncomingMessage, socket: Socket) => {
    const seen = seenAs('connect', asked)
    fixture.seen.push(seen)
    socket.on('error', () => undefined)
    const { refusal } = fixture
    if (refusal !== undefined || seen.proxyAuthorization === undefined) {
      const { status, reason, body } = refusal ?? { status: 407, reason: 'Proxy Authentication Required', body: '' }
      socket.write(
        `HTTP/1.1 ${status} ${reason}\r\nProxy-Authenticate: Basic realm="gateway"\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      )
      return
    }
    socket.write('HTTP/1.1 200 OK\r\n\r\n')
    socket.once('data', (first) => {
      socket.pause()
      socket.unshift(first)
      // The first byte of a TLS record that opens a handshake.
      if (first[0] !== 0x16) {
        inner.emit('connection', socket)
        return void socket.resume()
      }
      const host = (asked.url ?? '').replace(/:\d+$/, '')
      const tls = new TLSSocket(socket, { isServer: true, secureContext: authority.contextFor(host) })
      tls.on('error', () => undefined)
      inner.emit('connection', tls)
    })
  })
  return proxy
}

function seenAs(via: Seen['via'], asked: IncomingMessage): Seen {
  return {
    via,
    method: asked.method ?? '',
    url: asked.url ?? '',
    rawHeaders: asked.rawHeaders,
    authorization: asked.headers.authorization,
    proxyAuthorization: asked.headers['proxy-authorization'],
  }
}

function echo(asked: IncomingMessage, answer: ServerResponse): void {
  const chunks: Buffer[] = []
  asked.on('data', (chunk: Buffer) => chunks.push(chunk))
  asked.on('end', () => {
    const body = Buffer.concat(chunks).toString('latin1')
    answer.writeHead(200, { 'content-type': 'application/json' })
    answer.end(JSON.stringify({ method: asked.method, url: asked.url, headers: asked.headers, body }))
  })
}

async function instruct(
  fixture: FixtureGateway,
  waiting: { path: RegExp; resolve: (instruction: Instruction) => void }[],
  asked: IncomingMessage,
  answer: ServerResponse,
): Promise<void> {
  let text = ''
  for await (const chunk of asked) text += chunk
  const instruction = {
    path: `${asked.method} ${asked.url}`,
    body: text === '' ? {} : (JSON.parse(text) as Record<string, unknown>),
  }
  fixture.instructions.push(instruction)
  for (const { path, resolve } of waiting) if (path.test(instruction.path)) resolve(instruction)
  const reply = (status: number, body: unknown) => {
    answer
      .writeHead(status, { 'content-type': 'application/json' })
      .end(body === undefined ? undefined : JSON.stringify(body))
  }
  const now = Math.floor(Date.now() / 1000)
  if (asked.url === '/status') return reply(200, fixture.status)
  if (asked.url?.endsWith('/heartbeat')) return reply(200, { expires_at: now + fixture.ttlS, ...fixture.life })
  if (asked.url?.endsWith('/complete')) return reply(204, undefined)
  if (asked.url === '/revocations') return reply(200, { blocks: fixture.blocks })
  if (asked.url === '/approvals') return reply(200, { approvals: fixture.approvals })
  if (fixture.taskProblem !== undefined) return reply(Number(fixture.taskProblem.status), fixture.taskProblem)
  const isRenewal = asked.url?.endsWith('/renew')
  if (isRenewal) fixture.life = { ...fixture.life, grant: `${TASK}-renewed` }
  reply(201, {
    task: TASK,
    grant: fixture.life.grant,
    agent: 'spiffe://keyless.local/agent/default',
    human: 'local',
    scope: instruction.body.scope,
    handle: isRenewal ? `${HANDLE}-renewed` : HANDLE,
    token: 'header.payload.signature',
    expires_at: now + fixture.ttlS,
    expires_in: fixture.ttlS,
    heartbeat_s: 0.3,
    lineage: 'local authorised default for the task',
  })
}

async function listen(server: Server, port: number): Promise<number> {
  await new Promise<void>((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

export interface Authority {
  readonly caPem: string
  contextFor(host: string): SecureContext
}

const ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }

/** A CA made for this test run; leaves are signed ahead, since the TLS callback is synchronous. */
export async function makeAuthority(days = 365): Promise<Authority> {
  x509.cryptoProvider.set(globalThis.crypto)
  const notBefore = new Date(Date.now() - 3_600_000)
  const notAfter = new Date(Date.now() + days * 86_400_000)
  const caKeys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const ca = await x509.X509CertificateGenerator.createSelfSigned({
    name: 'CN=Fixture CA',
    notBefore,
    notAfter,
    keys: caKeys,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.BasicConstraintsExtension(true, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      await x509.SubjectKeyIdentifierExtension.create(caKeys.publicKey),
    ],
  })
  const leafKeys = await crypto.subtle.generateKey(ALGORITHM, true, ['sign', 'verify'])
  const leaf = await x509.X509CertificateGenerator.create({
    subject: 'CN=fixture',
    issuer: ca.subject,
    notBefore,
    notAfter,
    publicKey: leafKeys.publicKey,
    signingKey: caKeys.privateKey,
    signingAlgorithm: ALGORITHM,
    extensions: [
      new x509.SubjectAlternativeNameExtension([
        { type: 'dns', value: 'api.demo.test' },
        { type: 'dns', value: 'api.other.test' },
      ]),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      await x509.AuthorityKeyIdentifierExtension.create(caKeys.publicKey),
    ],
  })
  const key = Buffer.from(await crypto.subtle.exportKey('pkcs8', leafKeys.privateKey))
  const keyPem = x509.PemConverter.encode(key, 'PRIVATE KEY')
  const caPem = new X509Certificate(Buffer.from(ca.rawData)).toString()
  const context = createSecureContext({ key: keyPem, cert: `${leaf.toString('pem')}\n${caPem}` })
  return { caPem, contextFor: () => context }
}
