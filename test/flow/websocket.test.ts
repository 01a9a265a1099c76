/** SECURITY.md 5, 8, 9: a WebSocket client works unmodified in every shape, and neither it nor its upstream gets more than HTTP gives. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import {
  closed,
  opened,
  said,
  shapes,
  startWebSockets,
  type Through,
  type WebSocketUpstream,
} from '../rig/websocket.ts'

const KEY = 'sk-canary-0a1b2c3d4e5f60718293a4b5c6d7e8f9'
let upstream: WebSocketUpstream
let site: OpenSite
let ca: string

beforeAll(async () => {
  upstream = await startWebSockets(['chat.keyless.test', 'plain.keyless.test'])
  const operations = {
    socket: {
      match: ['GET /echo', 'GET /silent', 'GET /leak', 'GET /raw', 'GET /refuse/{status}'],
      access: 'write',
      websocket: true,
    },
    read: { match: ['GET /read'], access: 'read' },
  } as const
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        { name: 'chat', operations: structuredClone(operations) as never },
        {
          name: 'plain',
          operations: structuredClone(operations) as never,
          ports: [upstream.cleartextPort],
          unsafe_cleartext: true,
          slots: [],
        },
      ],
      credentials: { chat: KEY },
    },
  )
  ca = (await site.gateway.control.status()).ca_pem
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

const chat = () => `chat.keyless.test:${upstream.tlsPort}`
const plain = () => `plain.keyless.test:${upstream.cleartextPort}`
const authorityOf = (shape: string) => (/TLS|reverse/.test(shape) ? chat() : plain())

async function through(shape: string, path = '/echo', changes: Partial<Through> = {}): Promise<WebSocket> {
  const { handle } = await site.gateway.openTask('chat:* plain:*')
  const connect = shapes[shape]
  if (connect === undefined) throw new Error(shape)
  return connect({ port: site.gateway.proxyPort, handle, authority: authorityOf(shape), path, ca, ...changes })
}

describe('a WebSocket', () => {
  it.each(Object.keys(shapes))('opens over %s, and carries text, bytes, pings and its close', async (shape) => {
    const ws = await through(shape)
    expect((await opened(ws)).status).toBe(101)
    ws.send('hello')
    expect(await said(ws)).toBe('hello')
    const big = 'x'.repeat(300_000)
    ws.send(Buffer.from(big))
    expect(await said(ws)).toBe(big)
    const pong = new Promise((resolve) => ws.once('pong', resolve))
    ws.ping('are you there')
    expect(String(await pong)).toBe('are you there')
    ws.close(3001, 'done here')
    expect(await closed(ws)).toEqual({ code: 3001, reason: 'done here' })
    await expect.poll(() => upstream.closes.at(-1)).toEqual({ code: 3001, reason: 'done here' })
    const { headers } = upstream.handshakes.at(-1) ?? {}
    if (authorityOf(shape) === chat()) expect(headers?.authorization).toBe(`Bearer ${KEY}`)
    expect(headers?.['proxy-authorization']).toBeUndefined()
    expect(headers?.['sec-websocket-extensions']).toBeUndefined()
  })
})
