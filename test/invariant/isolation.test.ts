/**
 * SECURITY.md, isolation: what one agent opened towards an upstream carries nobody else, over any protocol; and whatever fails in
 * a call, its seat is given back.
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import {
  connect as connectHttp2,
  createSecureServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
} from 'node:http2'
import type { AddressInfo, Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import type { House } from '../../gateway/house.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { acceptOf } from '../../gateway/protocol/websocket.ts'
import { reverse } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'
import { openHttp2Tunnel, shapes, type Way } from './shapes.fixture.ts'

const SEATS = 6

let site: OpenSite
let close: () => void
let place: { tls: string; cleartext: string }
/** Connection → who was heard on it. */
const heard = new Map<string, Set<string>>()
/** Whose first connection of all went on with a TLS session: somebody else's. */
const resumed: string[] = []

const hear = (request: IncomingMessage | Http2ServerRequest, socket: Socket) => {
  const key = `${socket.localPort} ${socket.remotePort}`
  const who = new URL(request.url ?? '', 'http://x').searchParams.get('who') ?? ''
  const isFirst = ![...heard.values()].some((whos) => whos.has(who))
  if (isFirst && (socket as TLSSocket).isSessionReused?.()) resumed.push(who)
  heard.set(key, (heard.get(key) ?? new Set()).add(who))
}

beforeAll(async () => {
  const tls = await throwAwayTls(['held.keyless.test'])
  const serve = (request: IncomingMessage | Http2ServerRequest, response: ServerResponse | Http2ServerResponse) => {
    hear(
      request,
      request.httpVersionMajor === 2
        ? ((request as Http2ServerRequest).stream.session?.socket as Socket)
        : request.socket,
    )
    ;(response as ServerResponse).end('hello')
  }
  const servers = [
    createSecureServer({ key: tls.key, cert: tls.cert, allowHTTP1: true }, serve),
    createServer(serve),
  ] as const
  const sockets = new Set<Socket>()
  for (const server of servers) {
    server.on('connection', (socket: Socket) => void sockets.add(socket.on('error', () => {})))
    server.on('upgrade', (request: IncomingMessage, socket: Socket) => {
      hear(request, request.socket)
      const accept = acceptOf(request.headers['sec-websocket-key'] ?? '')
      socket.end(
        `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`,
      )
    })
    await once(server.listen(0, '127.0.0.1'), 'listening')
  }
  const [tlsPort, cleartextPort] = servers.map((server) => (server.address() as AddressInfo).port) as [number, number]
  place = { tls: `held.keyless.test:${tlsPort}`, cleartext: `plain.keyless.test:${cleartextPort}` }
  const operations = {
    chat: { match: ['GET /chat'], access: 'write', websocket: true },
    all: { match: ['GET /{any}'], access: 'read' },
  } as const
  site = await openSite(
    { port: tlsPort, caPem: tls.caPem },
    {
      services: [
        { name: 'held', operations: operations as never },
        { name: 'plain', ports: [cleartextPort], unsafe_cleartext: true, slots: [], operations: operations as never },
      ],
      credentials: { held: 'a-standing-key-of-some-length' },
      settings: {
        limits: { agent_concurrency: SEATS, agent_queue: 0 },
        agents: ['a', 'b'].map((id) => ({ id, owner: 'ana', purpose: 'test' })),
      },
    },
  )
  close = () => {
    for (const socket of sockets) socket.destroy()
    for (const server of servers) server.close()
  }
}, 60_000)

afterAll(async () => {
  await site?.stop()
  close?.()
})

const wayOf = async (agent: string): Promise<Way> => ({
  port: site.gateway.proxyPort,
  handle: (await site.gateway.control.openTask({ scope: 'held:* plain:*', purpose: 'test', agent })).handle,
  ca: site.gateway.gateway.house.authority.caPem,
  ...place,
})

const KEY = Buffer.alloc(16, 1).toString('base64')
const HANDSHAKE = `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n`

async function callEverything(way: Way, who: string): Promise<void> {
  const some = ['in absolute form, https://', 'in absolute form, http://', 'on a reverse route', 'in a tunnel with TLS']
  for (const shape of some)
    for (const [path, fields] of [
      ['/ok', ''],
      ['/chat', HANDSHAKE],
    ] as const) {
      const { raw, wire, head } = await (shapes[shape] as (typeof shapes)[string])(way)
      wire.write(`${head('GET', `${path}?who=${who}`)}${fields}\r\n`)
      expect(String((await once(wire, 'data'))[0]), shape).toMatch(/^HTTP\/1\.1 (?:200|101)/)
      raw.destroy()
    }
  const { wire } = await openHttp2Tunnel(way)
  const session = connectHttp2(`https://${way.tls}`, { createConnection: () => wire }).on('error', () => {})
  const stream = session.request({ ':path': `/ok?who=${who}` })
  expect((await once(stream, 'response'))[0][':status']).toBe(200)
  session.destroy()
}

it('no connection to an upstream, and no TLS session, carries two agents, or two grants of one', async () => {
  const whos = [
    ['a', 'first'],
    ['b', 'other'],
    ['a', 'second'],
  ] as const
  const ways = await Promise.all(whos.map(([agent]) => wayOf(agent)))
  for (let round = 0; round < 2; round++) {
    for (const [i, [, who]] of whos.entries()) await callEverything(ways[i] as Way, who)
  }
  await Promise.all(whos.map(([, who], i) => callEverything(ways[i] as Way, who)))
  expect(new Set([...heard.values()].flatMap((who) => [...who]))).toEqual(new Set(['first', 'other', 'second']))
  expect([...heard.values()].filter((who) => who.size !== 1)).toEqual([])
  expect(resumed).toEqual([])
})

describe('a seat is given back when a call fails', () => {
  const steps = {
    locate: ({ catalogue }: House) => vi.spyOn(catalogue, 'locate'),
    evaluate: ({ policy }: House) => vi.spyOn(policy, 'evaluate'),
    inspect: ({ upstream }: House) => vi.spyOn(upstream, 'inspect'),
    debit: ({ grants }: House) => vi.spyOn(grants, 'debit'),
    acquire: ({ leases }: House) => vi.spyOn(leases, 'acquire'),
    forward: ({ upstream }: House) => vi.spyOn(upstream, 'forward'),
    refuse: ({ refusals, catalogue }: House) => {
      vi.spyOn(catalogue, 'locate').mockImplementation(() => {
        throw new Error('a bug')
      })
      return vi.spyOn(refusals, 'write')
    },
  } as const

  afterEach(() => void vi.restoreAllMocks())

  it.each(Object.keys(steps))('in the step "%s", expected or not', async (step) => {
    const { handle } = await wayOf('b')
    const port = site.gateway.proxyPort
    for (const cause of [new Error('a bug'), new GatewayError('store_unavailable', 'The store is away.'), undefined]) {
      const spy = steps[step as keyof typeof steps](site.gateway.gateway.house)
      spy.mockImplementation(() => {
        throw cause
      })
      for (let i = 0; i < SEATS + 1; i++) {
        const { status } = await reverse(port, handle, { path: '/held/ok?who=b' })
        expect(status).not.toBe(200)
      }
      expect(spy.mock.calls.length).toBeGreaterThan(SEATS)
      vi.restoreAllMocks()
      expect((await reverse(port, handle, { path: '/held/ok?who=b' })).status).toBe(200)
    }
  })
})
