/**
 * Clients that leave, at every moment and in every shape, with FIN and with RST: the upstream is told, the record says so
 * once, and a gateway process holds afterwards what it held before. `KEYLESS_LEAVERS=1000` lets a thousand of each leave.
 */
import { once } from 'node:events'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { type ClientHttp2Session, type ClientHttp2Stream, connect as connectHttp2, constants } from 'node:http2'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { basic } from './agent.fixture.ts'
import { type Holding, openHolding } from './holding.fixture.ts'
import { dial, greeting, openHttp2Tunnel, shapes, socksConnect, socksLogin, type Way } from './shapes.fixture.ts'
import { openWatched, type Watched } from './watched.fixture.ts'

const LEAVERS = Number(process.env.KEYLESS_LEAVERS ?? 4)
/** No more than there are seats: a seat that is not given back is missed at once. */
const SEATS = 100
const TIMEOUT = { timeout: 20_000 + LEAVERS * 500 }
/** Of heap, for each client that left; 18,000 of them left none. A connection that is kept costs 30,000. */
const BYTES_EACH = 4_000

let upstream: Holding
let gateway: Watched
let way: Way
let dir: string
let settled: { readonly sockets: number; readonly bytes: number }
let left = 0

beforeAll(async () => {
  upstream = await openHolding(['held.keyless.test'])
  dir = await mkdtemp(join(tmpdir(), 'keyless-leaving-'))
  const door = await throwAwayTls(['localhost'])
  await writeFile(join(dir, 'door.pem'), door.cert)
  await writeFile(join(dir, 'door.key'), door.key, { mode: 0o600 })
  const match = ['GET /{any}', 'POST /{any}']
  gateway = await openWatched(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'held',
          operations: {
            chat: { match: ['GET /chat'], access: 'write', websocket: true },
            all: { match, access: 'write' },
          },
        },
        {
          name: 'plain',
          ports: [upstream.cleartextPort],
          unsafe_cleartext: true,
          slots: [],
          operations: {
            chat: { match: ['GET /chat'], access: 'write', websocket: true },
            all: { match, access: 'write' },
          },
        },
      ],
      credentials: { held: 'a-standing-key-of-some-length' },
      settings: {
        listen: {
          proxy: '127.0.0.1:0',
          control: '127.0.0.1:0',
          proxy_tls: { cert: join(dir, 'door.pem'), key: join(dir, 'door.key') },
        },
        limits: { agent_concurrency: SEATS, agent_queue: 0 },
        audit: { durability: 'relaxed' },
      },
    },
  )
  const { handle } = await gateway.control.openTask({ scope: 'held:* plain:*', purpose: 'leave' })
  way = {
    port: gateway.port,
    handle,
    ca: `${gateway.ca}\n${door.caPem}`,
    tls: `held.keyless.test:${upstream.tlsPort}`,
    cleartext: `plain.keyless.test:${upstream.cleartextPort}`,
  }
}, 60_000)

afterAll(async () => {
  await gateway?.stop()
  await upstream?.stop()
  await rm(dir, { recursive: true, force: true })
})

const ways = {
  'a FIN': (raw: Socket) => void raw.end(),
  'a reset': (raw: Socket) => void raw.resetAndDestroy(),
} as const

const CANCEL = constants.NGHTTP2_CANCEL
const LONG = 'x'.repeat(200_000)
const KEY = Buffer.alloc(16, 1).toString('base64')

/** What a client has said when it leaves, where it said it, and whether it waits for an answer first. */
const moments = {
  'before the head of an answer': { method: 'GET', path: '/silent', rest: '\r\n' },
  'with requests of its waiting behind one another': { method: 'GET', path: '/silent', rest: '\r\n', times: 3 },
  'in the middle of an answer': { method: 'GET', path: '/half', rest: '\r\n', waits: true },
  'in the middle of events': { method: 'GET', path: '/events', rest: '\r\n', waits: true },
  'in the middle of an upload': { method: 'POST', path: '/deaf', rest: `Content-Length: 9000000\r\n\r\n${LONG}` },
  'in the middle of a chunked upload': {
    method: 'POST',
    path: '/deaf',
    rest: `Transfer-Encoding: chunked\r\n\r\n40000\r\n${LONG}`,
  },
  'in the middle of a WebSocket': {
    method: 'GET',
    path: '/chat',
    rest: `Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${KEY}\r\n\r\n`,
    waits: true,
  },
} as const

/** So many of each at once, until as many as wanted have left. */
async function waves(kinds: number, leave: (count: number) => Promise<void>): Promise<void> {
  const atOnce = Math.floor(SEATS / kinds)
  for (let gone = 0; gone < LEAVERS; gone += atOnce) await leave(Math.min(atOnce, LEAVERS - gone))
}

const arrivals = () => [...upstream.arrived.values()].reduce((sum, count) => sum + count, 0)

/** `count` more calls have arrived than before. */
const arrived = (before: number, count: number) =>
  expect.poll(arrivals, { interval: 2, timeout: 10_000 }).toBe(before + count)

/** Nothing is under way any more: no call upstream, no socket here. */
async function quiet(): Promise<void> {
  const underWay = () => {
    upstream.listen() // who does not read does not hear that the other side has left
    return upstream.open
  }
  await expect.poll(underWay, { interval: 5, timeout: 10_000 }).toBe(0)
  await expect.poll(gateway.sockets, { interval: 5, timeout: 10_000 }).toBeLessThanOrEqual(settled.sockets)
}

async function ask(shape: string, path = '/ok'): Promise<string> {
  const { raw, wire, head } = await (shapes[shape] as (typeof shapes)[string])(way)
  wire.write(`${head('GET', path)}Connection: close\r\n\r\n`)
  let text = ''
  for await (const chunk of wire) text += chunk
  raw.destroy()
  return text
}

it('every shape is served first', TIMEOUT, async () => {
  for (const shape of Object.keys(shapes)) expect(await ask(shape), shape).toMatch(/^HTTP\/1\.1 200 [\s\S]*hello/)
  await closed((await http2Session()).session)
  // Connections that wait for the next call of this grant, which may be over by the time that is looked.
  settled = { sockets: gateway.sockets(), bytes: (await gateway.weigh()).bytes }
})

describe.each(Object.keys(shapes))('clients that leave, %s', (shape) => {
  const open = shapes[shape] as (typeof shapes)[string]
  const calls = Object.values(moments).flatMap((moment) =>
    Array<typeof moment>('times' in moment ? moment.times : 1).fill(moment),
  )

  it.each(Object.keys(ways))('at every moment, with %s, leave nothing behind', TIMEOUT, async (how) => {
    await waves(calls.length, async (count) => {
      const before = arrivals()
      const leavers = Object.values(moments).flatMap((moment) => Array<typeof moment>(count).fill(moment))
      const sockets = await Promise.all(
        leavers.map(async ({ method, path, rest, ...more }) => {
          const { raw, wire, head } = await open(way)
          wire.write(`${head(method, path)}${rest}`.repeat('times' in more ? more.times : 1))
          if ('waits' in more) await once(wire, 'data')
          return raw
        }),
      )
      await arrived(before, count * calls.length)
      for (const raw of sockets) ways[how as keyof typeof ways](raw)
      await quiet()
      left += count * calls.length
    })
  })
})

async function http2Session(): Promise<{ session: ClientHttp2Session; raw: Socket }> {
  const { raw, wire } = await openHttp2Tunnel(way)
  const session = connectHttp2(`https://${way.tls}`, { createConnection: () => wire }).on('error', () => {})
  return { session, raw }
}

/** As it should: without a stream that was left. */
async function closed(session: ClientHttp2Session): Promise<void> {
  const gone = once(session, 'close')
  session.close()
  await gone
}

describe('clients that leave, over HTTP/2', () => {
  const heads = [
    { ':method': 'GET', ':path': '/silent' },
    { ':method': 'GET', ':path': '/half' },
    { ':method': 'GET', ':path': '/events' },
    { ':method': 'POST', ':path': '/deaf' },
  ]

  async function streams(session: ClientHttp2Session, count: number): Promise<ClientHttp2Stream[]> {
    const all = heads.flatMap((head) => Array<typeof head>(count).fill(head))
    return Promise.all(
      all.map(async (head) => {
        const stream = session.request(head).on('error', () => {})
        if (head[':method'] === 'POST') stream.write(LONG)
        else stream.end()
        if (/half|events/.test(head[':path'])) await once(stream.resume(), 'response')
        return stream
      }),
    )
  }

  it.each(['its streams', ...Object.keys(ways)])('by %s, leave nothing behind', TIMEOUT, async (how) => {
    await waves(heads.length, async (count) => {
      const before = arrivals()
      const { session, raw } = await http2Session()
      const opened = await streams(session, count)
      await arrived(before, count * heads.length)
      if (how === 'its streams') {
        for (const stream of opened) stream.close(CANCEL)
        await expect.poll(() => upstream.open, { interval: 5, timeout: 10_000 }).toBe(0)
        await closed(session) // which went on
      } else ways[how as keyof typeof ways](raw)
      await quiet()
      left += count * heads.length
    })
  })
})

describe('clients that leave before they have asked anything', () => {
  const hello = Buffer.from('16030100f8010000f40303', 'hex') // the first bytes of a ClientHello
  const connectHead = () => `CONNECT ${way.tls} HTTP/1.1\r\nProxy-Authorization: ${basic(way.handle)}\r\n`
  const steps: Readonly<
    Record<string, (said: (bytes: string | Buffer, answers?: boolean) => Promise<void>) => Promise<void>>
  > = {
    'at once': async () => {},
    'in the head of a request': async (said) => said('GET http://held.keyless'),
    'in the head of a CONNECT': async (said) => said(connectHead()),
    'with a CONNECT that nobody answered yet': async (said) => said(`${connectHead()}\r\n`),
    'after CONNECT': async (said) => said(`${connectHead()}\r\n`, true),
    'in the handshake of TLS': async (said) => {
      await said(`${connectHead()}\r\n`, true)
      await said(hello)
    },
    'in the handshake of TLS to the proxy': async (said) => said(hello),
    'in the greeting of SOCKS5': async (said) => said(greeting.subarray(0, 2)),
    'in the login of SOCKS5': async (said) => {
      await said(greeting, true)
      await said(socksLogin(way.handle).subarray(0, 9))
    },
    'in the request of SOCKS5': async (said) => {
      await said(greeting, true)
      await said(socksLogin(way.handle), true)
      await said(socksConnect(way.tls).subarray(0, 7))
    },
    'after SOCKS5': async (said) => {
      await said(greeting, true)
      await said(socksLogin(way.handle), true)
      await said(socksConnect(way.tls), true)
    },
  }

  it.each(Object.keys(ways))('with %s, leave nothing behind', TIMEOUT, async (how) => {
    const kinds = Object.values(steps)
    await waves(kinds.length, async (count) => {
      const leaving = kinds.flatMap((step) => Array<typeof step>(count).fill(step))
      const sockets = await Promise.all(
        leaving.map(async (step) => {
          const raw = await dial(way.port)
          await step(async (bytes, answers = false) => {
            await new Promise<void>((resolve) => raw.write(bytes, () => resolve()))
            if (answers) await once(raw, 'data')
          })
          return raw
        }),
      )
      for (const raw of sockets) ways[how as keyof typeof ways](raw)
      await quiet()
    })
  })
})

describe('after all of them have left', () => {
  it('every call is in the log with one end, which says that its client left', async () => {
    const entries = (await gateway.entries()).filter(({ target }) => target?.path !== '/ok')
    const calls = entries.filter(({ kind, decision }) => kind === 'call.decision' && decision?.effect === 'allow')
    const ids = new Set(calls.map(({ req }) => req))
    const ends = entries.filter(({ kind, req }) => kind === 'call.outcome' && ids.has(req))
    expect(ids.size).toBe(left)
    expect(ends.length).toBe(left)
    expect(new Set(ends.map(({ req }) => req)).size).toBe(left)
    expect(ends.filter(({ outcome }) => outcome?.error !== 'client_left')).toEqual([])
  })

  it('every seat is free, and not one more', TIMEOUT, async () => {
    const before = arrivals()
    const seated = await Promise.all(Array.from({ length: SEATS }, () => dial(way.port)))
    const { raw: unused, head } = await (shapes['in absolute form, http://'] as (typeof shapes)[string])(way)
    unused.destroy()
    for (const raw of seated) raw.write(`${head('GET', '/silent')}\r\n`)
    await arrived(before, SEATS)
    expect(await ask('on a reverse route')).toMatch(/^HTTP\/1\.1 503 [\s\S]*too_many_requests/)
    for (const raw of seated) raw.resetAndDestroy()
    await quiet()
    expect(await ask('on a reverse route')).toContain('hello')
  })

  it('nothing of them is in memory', TIMEOUT, async () => {
    await quiet()
    const { bytes, resources } = await gateway.weigh()
    expect(bytes - settled.bytes).toBeLessThan(2_000_000 + left * BYTES_EACH)
    expect(resources.TCPSocketWrap ?? 0).toBeLessThanOrEqual(settled.sockets)
  })

  it('calls are served as ever', TIMEOUT, async () => {
    for (let round = 0; round < 4; round++) {
      const answers = await Promise.all(
        Object.keys(shapes).flatMap((shape) => Array.from({ length: 10 }, () => ask(shape))),
      )
      expect(answers.filter((text) => !text.includes('hello'))).toEqual([])
    }
  })
})
