/** A proxy door with honest, small rooms behind it, and a real upstream that says what it received. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CallEvent, Receipt } from '../../gateway/audit/entries/event.ts'
import { type CertificateAuthority, loadAuthority } from '../../gateway/ingress/certificate.ts'
import type { TlsComplaint } from '../../gateway/ingress/intercept.ts'
import type { Proofs } from '../../gateway/ingress/line.ts'
import { openProxyDoor, type ProxyDoor, type ProxyDoorParts } from '../../gateway/ingress/listener.ts'
import { writeRefusal } from '../../gateway/ingress/refusal.ts'
import type { Lease } from '../../gateway/lease/lease.ts'
import { type Clock, systemClock } from '../../gateway/protocol/clock.ts'
import { NO_NEEDS } from '../../gateway/protocol/decision.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Inbound, Outbound, Outcome, Reply } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import type { Dialect, Endpoint, Service, Slot } from '../../gateway/protocol/service.ts'
import type { RequestRooms } from '../../gateway/request-rooms.ts'

export const HANDLE = 'kh_good'

/** What the upstream got, as it says in its answer. */
export interface Echo {
  readonly method: string
  readonly url: string
  readonly headers: readonly string[]
  readonly bytes: number
}

export interface OpenDoor {
  readonly port: number
  readonly door: ProxyDoor
  readonly authority: CertificateAuthority
  readonly caFile: string
  /** Every call and tunnel refusal that was opened as an event. */
  readonly calls: Inbound[]
  readonly refused: { readonly id: string; readonly code: string }[]
  readonly complaints: TlsComplaint[]
  readonly upstream: Upstream
  /** Grants are dead from now on. */
  revoke(): void
  close(): Promise<void>
}

interface Upstream {
  readonly port: number
  /** Requests whose connection broke before they were complete. */
  aborted: number
  received: number
  close(): Promise<void>
}

const FLOW = Buffer.alloc(16 * 1024, 'x')

const BEARER: Slot = { in: 'header', name: 'authorization', prefix: 'Bearer ' }

export const services: readonly Service[] = [
  service('github', ['api.github.test', 'github.test'], 'github', [BEARER, { in: 'basic', username: 'x' }]),
  service('openai', ['api.openai.test'], 'openai', [BEARER]),
  service('anthropic', ['api.anthropic.test'], 'anthropic', [{ in: 'header', name: 'x-api-key' }, BEARER]),
  service('gitlab', ['gitlab.test'], 'problem', [{ in: 'header', name: 'private-token' }]),
  service('maps', ['maps.test'], 'problem', [{ in: 'query', name: 'key' }]),
  service('shop', ['shop.test'], 'problem', [{ in: 'cookie', name: 'session' }]),
  service('chat', ['chat.test'], 'problem', [{ in: 'subprotocol', prefix: 'key.' }]),
  service('slack', ['slack.test'], 'slack', [BEARER]),
  service('stripe', ['api.stripe.test'], 'stripe', [{ in: 'basic', username: '' }]),
]

function service(name: string, hosts: readonly string[], dialect: Dialect, slots: readonly Slot[]): Service {
  const rest = {
    title: name,
    ports: [443],
    operations: [],
    addresses: [],
    placeholders: {},
    baseUrls: [],
    tools: [],
    credential: name,
  }
  return { name, hosts, dialect, slots, scheme: 'https', ...rest }
}

interface DoorOptions extends Pick<ProxyDoorParts, 'tls' | 'verifyClient' | 'announcedBy' | 'maxConnections'> {
  readonly clock?: Clock
  readonly url?: string
  readonly proofs?: Proofs
}

export async function openDoor(options: DoorOptions = {}): Promise<OpenDoor> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-ingress-'))
  const { clock = systemClock, ...more } = options
  const authority = await loadAuthority(dir, clock, { hosts: undefined, days: 90 })
  const upstream = await openUpstream()
  const calls: Inbound[] = []
  const refused: { id: string; code: string }[] = []
  const complaints: TlsComplaint[] = []
  const state = { isRevoked: false }
  const door = await openProxyDoor({
    host: '127.0.0.1',
    port: 0,
    tenant: 'default',
    rooms: rooms({ calls, refused, upstream, state, clock }),
    route: (name) => services.find((candidate) => candidate.name === name),
    authority,
    clock,
    ...more,
    onTlsError: (complaint) => complaints.push(complaint),
  })
  return {
    port: door.port,
    door,
    authority,
    caFile: join(dir, 'ca.pem'),
    calls,
    refused,
    complaints,
    upstream,
    revoke() {
      state.isRevoked = true
    },
    async close() {
      await door.drain(0)
      await upstream.close()
      await rm(dir, { recursive: true })
    },
  }
}

interface Backing {
  readonly calls: Inbound[]
  readonly refused: { id: string; code: string }[]
  readonly upstream: Upstream
  readonly state: { isRevoked: boolean }
  readonly clock: Clock
}

function rooms({ calls, refused, upstream, state, clock }: Backing): RequestRooms {
  return {
    audit: {
      openCall(inbound) {
        calls.push(inbound)
        return callEvent(inbound, refused)
      },
    },
    catalogue: { locate, veiled: (inbound) => inbound },
    grants: {
      async authenticate({ presented }) {
        await Promise.resolve()
        if (presented === null) throw new GatewayError('grant_missing', 'Nobody is named.')
        if (presented.token !== HANDLE) throw new GatewayError('grant_invalid', 'The handle is not known here.')
        if (state.isRevoked) throw new GatewayError('grant_revoked', 'The task has ended.')
        return grant(clock)
      },
      seat: () => ({ [Symbol.dispose]() {} }),
      debit: () => undefined,
      afford: async () => {},
      settle() {},
      past: () => undefined,
      left: () => ({}),
    },
    policy: {
      digest: 'sha256:00',
      needs: () => NO_NEEDS,
      informed: (ask) => ask,
      again: async () => {},
      evaluate({ endpoint }) {
        const isDenied = endpoint.path.startsWith('/denied')
        const obligations = { ttlS: undefined, singleUse: false }
        const rest = { policyIds: [], policySet: 'sha256:00', errors: [], obligations, levels: [] }
        return isDenied
          ? { effect: 'deny', code: 'policy_denied', detail: `${endpoint.operation.name} is not allowed.`, ...rest }
          : { effect: 'allow', code: undefined, detail: '', ...rest }
      },
    },
    revocations: { require: () => {}, still: () => {} },
    approvals: { sought: async () => true, approved: () => undefined },
    leases: { acquire: () => lease() },
    upstream: { inspect: () => undefined, forward: (outbound, reply) => forward(outbound, reply, upstream.port) },
    refusals: { write: writeRefusal },
    nowMs: () => clock.nowMs(),
  }
}

function callEvent(inbound: Inbound, refused: { id: string; code: string }[]): CallEvent {
  let endpoint: Endpoint | undefined
  return {
    id: inbound.id,
    get endpoint() {
      return endpoint
    },
    grant: undefined,
    located(found) {
      endpoint = found
      return found
    },
    authenticated: (given) => given,
    decided: (decision) => decision,
    approved: (approved) => approved,
    commit: async () => ({ event: inbound.id, seq: 0 }) as Receipt,
    inspected: (given) => given,
    leased: (given) => given,
    burnt() {},
    closed() {},
    async refused(refusal) {
      refused.push({ id: inbound.id, code: refusal.code })
      return refusal
    },
  }
}

function locate(inbound: Inbound): Endpoint {
  const found = services.find(({ hosts }) => hosts.includes(inbound.host))
  const known = found ?? service('unmanaged', [inbound.host], 'problem', [])
  const operation = {
    id: 'any',
    name: `${known.name}:any`,
    access: 'read',
    sensitivity: 'public',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
  } as const
  const { scheme, host, port, rawPath } = inbound
  return { service: known, operation, scheme, host, port, path: rawPath.split('?')[0] ?? '', rawPath, params: {} }
}

function grant(clock: Clock): Grant {
  const issuedAt = Math.floor(clock.nowMs() / 1000)
  const agent = { id: 'spiffe://test/agent', owner: 'ana', purpose: 'tests', riskTier: 'low' } as const
  const task = { id: 't', purpose: 'tests' }
  const human = { iss: 'local:test', sub: 'ana' }
  const root = { depth: 0, maxDepth: 3, delegable: true, ancestry: [], attestations: [] }
  const rest = { ...root, authority: [], lineage: [], lineageHash: '', issuedAt, expiresAt: issuedAt + 900 }
  return { id: 'g', tenant: 'default', human, agent, task, ...rest }
}

function lease(): Lease {
  const facts = {
    provider: 'none',
    credential: 'none',
    credentialId: '',
    ephemeral: true,
    expiresAt: 0,
    cache: 'miss',
  } as const
  return { facts, attach: (plain) => plain, reissue: async () => null, burn: () => 'standing', [Symbol.dispose]() {} }
}

/** The other side over `http`, with the few rules these tests depend on. */
async function forward(outbound: Outbound, reply: Reply, port: number): Promise<Outcome> {
  const { method, path, headers, body } = outbound
  const outgoing = request({ host: '127.0.0.1', port, method, path, headers: headers as string[], agent: false })
  reply.on('close', () => outgoing.destroy())
  const answered = new Promise<IncomingMessage>((resolve, reject) => {
    outgoing.on('response', resolve)
    outgoing.on('error', (cause) => reject(new GatewayError('upstream_broken', 'The upstream broke off.', { cause })))
  })
  answered.catch(() => {})
  if (body === null || Buffer.isBuffer(body)) outgoing.end(body)
  else {
    body.on('error', () => outgoing.destroy())
    body.pipe(outgoing)
  }
  const answer = await answered
  reply.writeHead(answer.statusCode ?? 502, endToEnd(answer.rawHeaders))
  try {
    for await (const chunk of answer) {
      if (!reply.write(chunk as Buffer)) await drained(reply)
    }
    reply.addTrailers(pairs(answer.rawTrailers))
    reply.end()
  } catch (cause) {
    throw new GatewayError('upstream_broken', 'The upstream broke off.', { cause })
  }
  return {
    status: answer.statusCode ?? 0,
    sentBytes: 0,
    receivedBytes: 0,
    scrubbed: 0,
    address: undefined,
    error: undefined,
  }
}

function drained(reply: Reply): Promise<void> {
  return new Promise((resolve) => {
    const settle = (): void => {
      reply.off('drain', settle)
      reply.off('close', settle)
      resolve()
    }
    reply.on('drain', settle)
    reply.on('close', settle)
  })
}

function pairs(flat: readonly string[]): [string, string][] {
  return flat.flatMap((name, i): [string, string][] => (i % 2 === 0 ? [[name, flat[i + 1] as string]] : []))
}

function endToEnd(rawHeaders: readonly string[]): string[] {
  return rawHeaders.filter(
    (_, i) => !/^(?:connection|keep-alive|transfer-encoding|date)$/i.test(rawHeaders[i - (i % 2)] ?? ''),
  )
}

/** `/slow` answers after 300 ms of silence, `/silent` never answers, `/endless` never ends, `/broken` promises more than it sends; `/flowing` sends as fast as it is read; `/trailers`, `/large`; the rest is echoed. */
async function openUpstream(): Promise<Upstream> {
  const server = createServer({ maxHeaderSize: 1 << 20 }, (req, res) => {
    state.received += 1
    req.on('error', () => {})
    res.on('close', () => {
      if (!res.writableFinished) state.aborted += 1
    })
    if (req.url === '/silent') return
    if (req.url === '/endless') {
      res.writeHead(200)
      const timer = setInterval(() => res.write('x'.repeat(1024)), 5)
      res.on('close', () => clearInterval(timer))
      return
    }
    if (req.url === '/trailers') {
      res.writeHead(200, { trailer: 'X-Sum', 'set-cookie': ['a=1', 'b=2'] })
      res.write('body')
      res.addTrailers({ 'X-Sum': '42' })
      res.end()
      return
    }
    if (req.url === '/large') {
      res.writeHead(200)
      res.end(Buffer.alloc(8 * 1024 * 1024, 'x'))
      return
    }
    if (req.url === '/flowing') {
      res.writeHead(200)
      const more = (): void => {
        while (res.write(FLOW));
      }
      res.on('drain', more)
      more()
      return
    }
    if (req.url === '/broken') {
      res.writeHead(200, { 'content-length': '1000' })
      res.write('half', () => res.destroy())
      return
    }
    echo(req, res)
  })
  server.maxHeadersCount = 0
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const state = {
    port: (server.address() as AddressInfo).port,
    aborted: 0,
    received: 0,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
  return state
}

function echo(req: IncomingMessage, res: ServerResponse): void {
  let bytes = 0
  req.on('data', (chunk: Buffer) => {
    bytes += chunk.length
  })
  req.on('end', () => {
    const said: Echo = { method: req.method ?? '', url: req.url ?? '', headers: req.rawHeaders, bytes }
    const text = JSON.stringify(said)
    const answer = (): void => {
      res.writeHead(200, { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) })
      res.end(text)
    }
    if (req.url === '/slow') setTimeout(answer, 300)
    else answer()
  })
}

export const basic = (user: string, password: string): string =>
  `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}`
