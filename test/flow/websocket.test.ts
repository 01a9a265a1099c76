/** SECURITY.md 5, 8, 9: a WebSocket client works unmodified in every shape, and neither it nor its upstream gets more than HTTP gives. */
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { WebSocket } from 'ws'
import { acceptOf } from '../../gateway/protocol/websocket.ts'
import { BEARER, entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import {
  closed,
  type Handshake,
  opened,
  said,
  shapes,
  startWebSockets,
  type Through,
  type WebSocketUpstream,
} from '../rig/websocket.ts'
import { frameBytes, readFrames } from '../upstream/frames.fixture.ts'

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
        {
          name: 'chat',
          operations: structuredClone(operations) as never,
          slots: [BEARER, { in: 'subprotocol', prefix: 'key.' }],
        },
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

const HANDSHAKE =
  'Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'

/** Each text once the answer to the one before has begun, until the gateway closes or a moment has passed after the last answer. */
async function converse(port: number, ...texts: readonly string[]): Promise<string> {
  const socket = connect(port, '127.0.0.1')
  let got = ''
  socket.on('data', (chunk: Buffer) => {
    got += chunk.toString('latin1')
  })
  for (const [i, text] of texts.entries()) {
    socket.write(text)
    await expect.poll(() => got.match(/HTTP\/1\.1 \d{3} /g)?.length ?? 0).toBe(i + 1)
  }
  socket.destroy()
  return got
}

const rawOf = (ws: WebSocket) => (ws as unknown as { _socket: Socket })._socket

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

describe('a handshake that is refused', () => {
  it('because the operation is no WebSocket is a 426 in the words of the service, and the connection goes on', async () => {
    const { handle } = await site.gateway.openTask('chat:*')
    const { proxyPort } = site.gateway
    const fields = `Host: x\r\nAuthorization: Bearer ${handle}\r\n`
    const answer = await converse(
      proxyPort,
      `GET /chat/read HTTP/1.1\r\n${fields}${HANDSHAKE}\r\n`,
      `GET /chat/read HTTP/1.1\r\n${fields}Connection: close\r\n\r\n`,
    )
    expect(answer).toMatch(/^HTTP\/1\.1 426 /)
    expect(answer).toMatch(/\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n/i)
    expect(answer).toContain('"code":"upgrade_refused"')
    expect(answer).toContain('plain GET')
  })

  it.each([
    ['without a grant', '', 401, 'grant_missing'],
    ['without a key', HANDSHAKE.replace(/Sec-WebSocket-Key.*\r\n/, ''), 400, 'request_malformed'],
    ['with half a key', HANDSHAKE.replace(/Key: .*\r\n/, 'Key: eA==\r\n'), 400, 'request_malformed'],
    ['with two keys', `${HANDSHAKE}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n`, 400, 'request_malformed'],
    ['in version 8', HANDSHAKE.replace('Version: 13', 'Version: 8'), 426, 'upgrade_refused'],
    ['with content', `${HANDSHAKE}Content-Length: 5\r\n`, 426, 'upgrade_refused'],
    ['with chunks', `${HANDSHAKE}Transfer-Encoding: chunked\r\n`, 426, 'upgrade_refused'],
  ])('%s is answered as HTTP', async (how, fields, status, code) => {
    const { handle } = await site.gateway.openTask('chat:*')
    const who = how === 'without a grant' ? HANDSHAKE : `Authorization: Bearer ${handle}\r\n${fields}`
    const answer = await converse(site.gateway.proxyPort, `GET /chat/echo HTTP/1.1\r\nHost: x\r\n${who}\r\n`)
    expect(answer).toMatch(new RegExp(`^HTTP/1\\.1 ${status} [\\s\\S]*keyless-error: ${code}`))
    expect(upstream.open).toBe(0)
  })

  it('by the upstream reaches the agent as it is, without the credential', async () => {
    const ws = await through('CONNECT and TLS', '/refuse/403')
    const answer = await opened(ws)
    expect(answer.status).toBe(403)
    expect(answer.body).toContain('"refused":"403"')
    expect(answer.body).not.toContain(KEY)
    const again = await opened(await through('reverse route', '/refuse/401'))
    expect([again.status, again.headers['keyless-upstream-status']]).toEqual([403, '401'])
  })

  it('an offer of h2c is none of it: the request is served', async () => {
    const { handle } = await site.gateway.openTask('chat:*')
    const answer = await converse(
      site.gateway.proxyPort,
      `GET /chat/read HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
    )
    expect(answer).toContain('plain GET')
  })
})

describe('the credential', () => {
  it.each(['text', 'text 1', 'text 7', 'binary', 'binary 3', 'base64', 'ping', 'close'])(
    'does not come back as %s',
    async (how) => {
      const ws = await through('CONNECT and TLS', '/leak')
      await opened(ws)
      const seen: string[] = []
      ws.on('message', (message) => seen.push(String(message)))
      ws.on('ping', (payload) => seen.push(String(payload)))
      const ending = closed(ws)
      ws.send(how)
      if (how !== 'close') {
        await expect.poll(() => seen.length).toBe(1)
        ws.close(1000)
      }
      const { reason } = await ending
      const all = `${seen.join()}${reason}`
      expect(all).toContain('*'.repeat(20))
      expect(all).not.toContain(KEY)
      expect(all).not.toContain(Buffer.from(`Bearer ${KEY}`).toString('base64').slice(12, 40))
      if (how === 'text') expect(all).toMatch(/^it is \*+, is it not$/)
      const { outcome } =
        (await entriesOf(site.gateway.settings.dataDir)).findLast(({ kind }) => kind === 'call.outcome') ?? {}
      expect(JSON.stringify(outcome)).toMatch(/"scrubbed":1/)
    },
  )

  it('of the agent is taken out of its subprotocols, and the one chosen is one that it offered', async () => {
    const { handle } = await site.gateway.openTask('chat:*')
    const ws = await through('reverse route', '/echo', {
      protocols: ['realtime', `key.${handle}`],
      headers: { authorization: '' },
    })
    expect((await opened(ws)).status).toBe(101)
    expect(ws.protocol).toBe('realtime')
    const { headers } = upstream.handshakes.at(-1) ?? {}
    expect(headers?.['sec-websocket-protocol']).toBe('realtime')
    expect(headers?.authorization).toBe(`Bearer ${KEY}`)
    ws.close()
    await closed(ws)
  })
})

describe('an upstream that', () => {
  const accepting = (handshake: Handshake, fields = '') =>
    `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(handshake.headers['sec-websocket-key'] ?? '')}\r\n${fields}\r\n`

  it.each([
    [
      'answers another key',
      (handshake: Handshake) => accepting({ ...handshake, headers: { 'sec-websocket-key': 'x' } }),
    ],
    [
      'wants an extension',
      (handshake: Handshake) => accepting(handshake, 'Sec-WebSocket-Extensions: permessage-deflate\r\n'),
    ],
    [
      'chooses a subprotocol that was not offered',
      (handshake: Handshake) => accepting(handshake, 'Sec-WebSocket-Protocol: other\r\n'),
    ],
    [
      'switches to something else',
      (handshake: Handshake) => accepting(handshake).replace('Upgrade: websocket', 'Upgrade: h2c'),
    ],
    ['hangs up', () => ''],
  ])('%s is refused as broken', async (_, answer) => {
    const raw = upstream.nextRaw()
    const ws = await through('reverse route', '/raw')
    const answered = opened(ws)
    const { socket, handshake } = await raw
    socket.end(answer(handshake))
    const { status, headers } = await answered
    expect([status, headers['keyless-error']]).toEqual([502, 'upstream_broken'])
    await expect.poll(() => upstream.open).toBe(0)
  })

  it('speaks with its handshake is heard, and what the agent sends early is kept', async () => {
    const raw = upstream.nextRaw()
    const { handle } = await site.gateway.openTask('chat:*')
    const early = frameBytes({ opcode: 1, isFinal: true, payload: Buffer.from('early') }, 'agent')
    const agent = connect(site.gateway.proxyPort, '127.0.0.1')
    const got: Buffer[] = []
    agent.on('data', (chunk: Buffer) => got.push(chunk))
    agent.write(
      Buffer.concat([
        Buffer.from(`GET /chat/raw HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\n${HANDSHAKE}\r\n`),
        early,
      ]),
    )
    const { socket, handshake } = await raw
    const heard: Buffer[] = []
    socket.on('data', (chunk: Buffer) => heard.push(chunk))
    const first = frameBytes({ opcode: 1, isFinal: true, payload: Buffer.from('first') }, 'upstream')
    socket.write(Buffer.concat([Buffer.from(accepting(handshake)), first]))
    await expect.poll(() => Buffer.concat(heard).equals(early)).toBe(true)
    await expect.poll(() => Buffer.concat(got).toString('latin1').endsWith(first.toString('latin1'))).toBe(true)
    agent.destroy()
    await expect.poll(() => upstream.open).toBe(0)
  })

  it.each([
    ['a masked frame', frameBytes({ opcode: 1, isFinal: true, payload: Buffer.from('x') }, 'agent'), 1002],
    ['a compressed frame that was not agreed on', Buffer.from([0xc1, 0x01, 0x78]), 1002],
    ['a frame of 2^40 bytes', Buffer.from([0x82, 0x7f, 0, 0, 1, 0, 0, 0, 0, 0]), 1009],
  ])('sends %s loses its connection, and the agent is told', async (_, bytes, code) => {
    const raw = upstream.nextRaw()
    const ws = await through('reverse route', '/raw')
    const answered = opened(ws)
    const { socket, handshake } = await raw
    socket.resume()
    socket.write(accepting(handshake))
    await answered
    const ending = closed(ws)
    socket.write(bytes)
    expect(await ending).toMatchObject({ code, reason: expect.stringContaining('upstream_broken') })
    await expect.poll(() => upstream.open).toBe(0)
  })

  it('breaks off, between frames or within one, is abnormal to the agent, after all that it sent', async () => {
    for (const rest of [Buffer.alloc(0), Buffer.from([0x81, 0x05, 0x68])]) {
      const raw = upstream.nextRaw()
      const ws = await through('reverse route', '/raw')
      const answered = opened(ws)
      const { socket, handshake } = await raw
      socket.write(accepting(handshake))
      await answered
      const message = said(ws)
      const ending = closed(ws)
      socket.end(
        Buffer.concat([frameBytes({ opcode: 1, isFinal: true, payload: Buffer.from('last words') }, 'upstream'), rest]),
      )
      expect(await message).toBe('last words')
      expect((await ending).code).toBe(1006)
    }
  })
})

describe('an agent that', () => {
  it('breaks the protocol is told so, and the upstream is left', async () => {
    const ws = await through('reverse route', '/echo')
    await opened(ws)
    const ending = closed(ws)
    rawOf(ws).write(Buffer.from([0x81, 0x01, 0x78]))
    expect(await ending).toEqual({ code: 1002, reason: 'request_malformed: a frame is not masked' })
    await expect.poll(() => upstream.closes.at(-1)?.code).toBe(1001)
  })

  it('vanishes takes its upstream connection along, forty times', async () => {
    const { handle } = await site.gateway.openTask('chat:*')
    const all = await Promise.all(
      Array.from({ length: 40 }, async () => {
        const ws = await through('reverse route', '/echo', { handle })
        await opened(ws)
        return ws
      }),
    )
    expect(upstream.open).toBeGreaterThanOrEqual(40)
    for (const ws of all) rawOf(ws).resetAndDestroy()
    await expect.poll(() => upstream.open).toBe(0)
    const outcomes = (await entriesOf(site.gateway.settings.dataDir))
      .filter(({ kind }) => kind === 'call.outcome')
      .slice(-40)
    expect(outcomes.map(({ outcome }) => (outcome as { error?: string }).error)).toEqual(Array(40).fill('client_left'))
  })

  it('does not read stops its upstream, and gets everything once it does', async () => {
    const raw = upstream.nextRaw()
    const ws = await through('CONNECT and TLS', '/raw')
    const answered = opened(ws)
    const { socket, handshake } = await raw
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(handshake.headers['sec-websocket-key'] ?? '')}\r\n\r\n`,
    )
    await answered
    ws.pause()
    const frame = frameBytes({ opcode: 2, isFinal: true, payload: Buffer.alloc(1024 * 1024, 'x') }, 'upstream')
    for (let sent = 0; sent < 24; sent += 1) socket.write(frame)
    let got = 0
    ws.on('message', (message) => {
      got += (message as Buffer).length
    })
    // All of it waits at the upstream, and not a second time in the gateway.
    await expect.poll(() => (socket as Socket).writableLength).toBeLessThan(24 * 1024 * 1024)
    expect((socket as Socket).writableLength).toBeGreaterThan(8 * 1024 * 1024)
    ws.resume()
    await expect.poll(() => got, { timeout: 10_000 }).toBe(24 * 1024 * 1024)
    ws.terminate()
  })
})

describe('a handle', () => {
  it('that an agent says in a frame does not leave', async () => {
    const { handle } = await site.gateway.openTask('chat:*')
    const raw = upstream.nextRaw()
    const ws = await through('reverse route', '/raw', { handle })
    const answered = opened(ws)
    const { socket, handshake } = await raw
    const heard: Buffer[] = []
    socket.on('data', (chunk: Buffer) => heard.push(chunk))
    socket.write(
      `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(handshake.headers['sec-websocket-key'] ?? '')}\r\n\r\n`,
    )
    await answered
    ws.send('hello')
    const ending = closed(ws)
    ws.send(`my key is ${handle}, what is yours`)
    expect(await ending).toEqual({ code: 1008, reason: 'foreign_credential' })
    const payloads = readFrames(Buffer.concat(heard)).map(({ payload }) => payload.toString())
    expect(payloads[0]).toBe('hello')
    expect(payloads.join()).not.toContain(handle)
  })
})

describe('a budget of bytes', () => {
  it('counts frames in both directions, and ends the connection when it is used up', async () => {
    const { handle } = await site.gateway.control.openTask({
      purpose: 'spend bytes',
      authorization_details: [{ type: 'keyless_access', operations: ['chat:*'], constraints: { max_bytes: 10_000 } }],
    })
    const ws = await through('reverse route', '/echo', { handle })
    await opened(ws)
    ws.send('x'.repeat(4_000))
    expect((await said(ws)).length).toBe(4_000)
    const ending = closed(ws)
    ws.send('x'.repeat(4_000))
    expect(await ending).toEqual({ code: 1008, reason: 'limit_exceeded' })
  })
})

describe('two grants', () => {
  it('never share a connection to the upstream, nor do two WebSockets of one', async () => {
    await expect.poll(() => upstream.open).toBe(0)
    const { handle } = await site.gateway.openTask('chat:*')
    const all = await Promise.all(
      [{ handle }, { handle }, {}].map(async (changes) => {
        const ws = await through('reverse route', '/echo', changes)
        await opened(ws) // before the others: nobody would hear of it afterwards
        return ws
      }),
    )
    expect(upstream.open).toBe(3)
    for (const ws of all) ws.terminate()
  })
})

describe('a grant that limits what bodies say', () => {
  it('opens no WebSocket: frames are not judged one by one', async () => {
    const { handle } = await site.gateway.control.openTask({
      purpose: 'say little',
      authorization_details: [
        {
          type: 'keyless_access',
          operations: ['chat:*'],
          constraints: { params: { 'body./model': { equals: 'small' } } },
        },
      ],
    })
    const { status, headers } = await opened(await through('reverse route', '/echo', { handle }))
    expect([status, headers['keyless-error']]).toEqual([403, 'constraint_unmet'])
  })
})

describe('a gateway that stops', () => {
  it('says so with 1001 to both sides at once, and does not wait for them', async () => {
    const own = await openSite(
      { port: upstream.tlsPort, caPem: upstream.caPem },
      {
        services: [
          { name: 'chat', operations: { socket: { match: ['GET /echo'], access: 'write', websocket: true } } },
        ],
        credentials: { chat: KEY },
      },
    )
    const { handle } = await own.gateway.openTask('chat:*')
    const ws = await through('reverse route', '/echo', { handle, port: own.gateway.proxyPort })
    await opened(ws)
    const ending = closed(ws)
    using watch = stopwatch()
    await Promise.all([own.stop(), ending])
    expect(await ending).toEqual({ code: 1001, reason: 'draining' })
    expect(watch.ms).toBeLessThan(5_000)
    await expect.poll(() => upstream.closes.at(-1)?.code).toBe(1001)
  })
})
