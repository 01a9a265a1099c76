/** Agents, and whoever reaches the port, do their worst to a gateway process: another agent's calls go on, in bounded memory. */
import { once } from 'node:events'
import { request as httpRequest } from 'node:http'
import { connect as connectHttp2 } from 'node:http2'
import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, codeOf, forward, reverse } from './agent.fixture.ts'
import { type Besieged, openBesieged } from './besieged.fixture.ts'
import { type Holding, openHolding } from './holding.fixture.ts'
import { dial, openHttp2Tunnel, shapes, type Way } from './shapes.fixture.ts'

const SEATS = 64

let upstream: Holding
let site: Besieged
let way: Way
/** A grant that looks into bodies. */
let judged: string

beforeAll(async () => {
  upstream = await openHolding(['held.keyless.test'])
  site = await openBesieged(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'held',
          operations: {
            chat: { match: ['GET /chat'], access: 'write', websocket: true },
            all: { match: ['GET /{any}', 'POST /{any}'], access: 'write' },
          },
        },
      ],
      credentials: { held: 'a-standing-key-of-some-length' },
      settings: { limits: { agent_concurrency: SEATS, agent_queue: SEATS, queue_timeout_ms: 60_000 } },
    },
  )
  const { gateway, handle } = site
  way = {
    port: gateway.port,
    handle,
    ca: gateway.ca,
    tls: `held.keyless.test:${upstream.tlsPort}`,
    cleartext: '',
  }
  const opened = await gateway.control.openTask({
    purpose: 'be judged',
    agent: 'attacker',
    authorization_details: [
      {
        type: 'keyless_access',
        operations: ['held:*'],
        constraints: { params: { 'body./model': { one_of: ['small'] } } },
      },
    ],
  } as never)
  judged = opened.handle
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

const serves = async () => expect((await reverse(way.port, way.handle, { path: '/held/ok' })).status).toBe(200)
const connectTo = (authority: string) =>
  `CONNECT ${authority} HTTP/1.1\r\nHost: ${authority}\r\nProxy-Authorization: ${basic(way.handle)}\r\n\r\n`

async function tunnel(authority = way.tls): Promise<Socket> {
  const raw = await dial(way.port)
  raw.write(connectTo(authority))
  await once(raw, 'data')
  return raw
}

/** A ClientHello of TLS 1.2 with this for a server name, and nothing else that could be wrong. */
function hello(name: Buffer): Buffer {
  const u16 = (value: number) => Buffer.from([value >> 8, value & 255])
  const entry = Buffer.concat([Buffer.from([0]), u16(name.length), name])
  const sni = Buffer.concat([u16(0), u16(entry.length + 2), u16(entry.length), entry])
  const body = Buffer.concat([
    Buffer.from('0303', 'hex'),
    Buffer.alloc(32, 7),
    Buffer.from('000002c02f0100', 'hex'),
    u16(sni.length),
    sni,
  ])
  const handshake = Buffer.concat([Buffer.from([1, body.length >> 16]), u16(body.length & 0xffff), body])
  const records: Buffer[] = []
  for (let at = 0; at < handshake.length; at += 16_000) {
    const part = handshake.subarray(at, at + 16_000)
    records.push(Buffer.from('160301', 'hex'), u16(part.length), part)
  }
  return Buffer.concat(records)
}

describe('another agent is served while one', () => {
  it('names garbage in its TLS handshakes', { timeout: 60_000 }, async () => {
    const names = [
      Buffer.from([0xff, 0xfe, 0x80]),
      Buffer.from('held.keyless.test\0.evil'),
      Buffer.alloc(0),
      Buffer.alloc(255, 'a'),
      Buffer.alloc(60_000, 'a'),
      Buffer.from('\x1b[2J\r\n'),
    ]
    await site.during('garbage in SNI', async () => {
      for (let round = 0; round < 10; round++)
        await Promise.all(
          names.map(async (name) => {
            const raw = await tunnel()
            const closed = once(raw, 'close')
            raw.end(hello(name))
            raw.resume()
            await closed
          }),
        )
    })
    expect(site.gateway.stderr).not.toContain('\x1b[2J')
    await serves()
  })

  it('opens 500 connections and says one byte of everything, slowly', { timeout: 60_000 }, async () => {
    const beginnings = [
      'GET http://held',
      connectTo(way.tls).slice(0, 60),
      '\x05',
      '\x16\x03',
      'POST /held/ok HTTP/1.1\r\nHost: x\r\nX-A',
    ]
    await site.during('500 slow connections', async () => {
      const slow = await Promise.all(Array.from({ length: 500 }, () => dial(way.port)))
      for (const [i, raw] of slow.entries())
        raw.write(Buffer.from(beginnings[i % beginnings.length] as string, 'latin1'))
      for (let round = 0; round < 10; round++) {
        await pause(50)
        for (const raw of slow) if (!raw.destroyed) raw.write('a')
      }
      for (const raw of slow) raw.resetAndDestroy()
    })
    await serves()
  })

  it('takes all its seats with bodies that do not end, and leaves as many in the queue', {
    timeout: 60_000,
  }, async () => {
    await site.during('slow bodies', async () => {
      const { head } = await (shapes['on a reverse route'] as (typeof shapes)[string])(way)
      const slow = await Promise.all(Array.from({ length: 3 * SEATS }, () => dial(way.port)))
      for (const raw of slow) raw.write(`${head('POST', '/ok')}Content-Length: 1000\r\n\r\nx`)
      await pause(300)
      expect((await reverse(way.port, way.handle, { path: '/held/ok' })).status).toBe(503)
      for (const raw of slow) raw.resetAndDestroy()
    })
    // Neither a seat nor a place in the queue is left to them.
    await expect.poll(() => reverse(way.port, way.handle, { path: '/held/ok' }).then(({ status }) => status)).toBe(200)
    const after = Array.from({ length: SEATS }, () => reverse(way.port, way.handle, { path: '/held/ok' }))
    expect(new Set((await Promise.all(after)).map(({ status }) => status))).toEqual(new Set([200]))
  })

  it('fills the queue and leaves, again and again', { timeout: 60_000 }, async () => {
    await site.during('queue and leave', async () => {
      const { head } = await (shapes['on a reverse route'] as (typeof shapes)[string])(way)
      const seated = await Promise.all(Array.from({ length: SEATS }, () => dial(way.port)))
      const before = upstream.open
      for (const raw of seated) raw.write(`${head('GET', '/silent')}\r\n`)
      await expect.poll(() => upstream.open, { interval: 5 }).toBe(before + SEATS)
      for (let round = 0; round < 5; round++) {
        const waiting = await Promise.all(Array.from({ length: SEATS }, () => dial(way.port)))
        for (const raw of waiting) raw.write(`${head('GET', '/silent')}\r\n`)
        await pause(50)
        for (const raw of waiting) raw.resetAndDestroy()
        await pause(20)
      }
      // All who waited have left: there is room to wait.
      const last = await dial(way.port)
      last.write(`${head('GET', '/ok')}\r\n`)
      await pause(100)
      for (const raw of seated) raw.resetAndDestroy()
      const [answer] = await once(last, 'data')
      expect(String(answer)).toMatch(/^HTTP\/1\.1 200/)
      last.destroy()
    })
  })

  it('resets HTTP/2 streams as fast as it can, sends PINGs and SETTINGS', { timeout: 60_000 }, async () => {
    await site.during('HTTP/2 floods', async () => {
      const attack = async (flood: (session: ReturnType<typeof connectHttp2>) => void) => {
        const { wire } = await openHttp2Tunnel(way)
        const session = connectHttp2(`https://${way.tls}`, { createConnection: () => wire }).on('error', () => {})
        await new Promise((resolve) => session.once('connect', resolve))
        // Being sent away is what is expected: `once` would take the error that comes with it for a failure.
        const closed = new Promise((resolve) => session.once('close', resolve))
        const timer = setInterval(() => {
          for (let i = 0; i < 500 && !session.destroyed && !session.closed; i++) flood(session)
        }, 5)
        await Promise.race([closed, pause(2_000)])
        clearInterval(timer)
        session.destroy()
      }
      await Promise.all([
        attack((session) =>
          session
            .request({ ':path': '/silent' })
            .on('error', () => {})
            .close(8),
        ),
        attack((session) => void session.ping(() => {})),
        attack((session) => session.pendingSettingsAck || session.settings({ initialWindowSize: 65_535 }, () => {})),
      ])
    })
    await serves()
  })

  it('sends heads of 64 KB and of 5,000 fields', { timeout: 60_000 }, async () => {
    await site.during('large heads', async () => {
      const heads = [
        `X-Long: ${'x'.repeat(60_000)}\r\n`,
        `X-Long: ${'x'.repeat(70_000)}\r\n`,
        'X: y\r\n'.repeat(5_000),
        '__proto__: x\r\nconstructor: y\r\n'.repeat(1_000),
      ]
      for (let round = 0; round < 5; round++) {
        const answers = await Promise.all(
          heads.map((fields) =>
            reverse(way.port, way.handle, {
              path: '/held/ok',
              fields: `Proxy-Authorization: ${basic(way.handle)}\r\n${fields}`,
            }),
          ),
        )
        for (const { status } of answers) expect([200, 400, 431, 502, 0]).toContain(status)
      }
    })
    await serves()
  })

  it('sends JSON that is deep, long, or wide, where it is judged', { timeout: 60_000 }, async () => {
    const bodies = [
      `${'['.repeat(100_000)}${']'.repeat(100_000)}`,
      `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`,
      `{"model":"${'x'.repeat(1_000_000)}"}`,
      `{"model":"small","x":"${'\\"'.repeat(400_000)}"}`,
      `{"model":"small",${Array.from({ length: 60_000 }, (_, i) => `"k${i}":1`).join()}}`,
      `{"model":"small","x":[${'[],'.repeat(300_000)}1]}`,
      `"${'\\"'.repeat(500_000)}`,
    ]
    await site.during('JSON', async () => {
      for (const body of bodies) {
        const asked = httpRequest({
          ...{ port: way.port, method: 'POST', path: '/held/ok', agent: false },
          headers: { 'proxy-authorization': basic(judged), 'content-type': 'application/json' },
        }).on('error', () => {})
        asked.end(body)
        const [answer] = await once(asked, 'response')
        expect([200, 403]).toContain(answer.statusCode)
        answer.resume()
      }
    })
    await serves()
  })

  it('floods a WebSocket with frames of one byte, pings, and lengths that are lies', { timeout: 60_000 }, async () => {
    const masked = (hex: string) => Buffer.from(hex, 'hex')
    const floods = [
      masked('81810000000078').toString('latin1').repeat(100_000),
      masked('898000000000').toString('latin1').repeat(100_000),
      `${masked('01810000000078').toString('latin1')}${masked('00810000000078').toString('latin1').repeat(100_000)}`,
      masked('82ff400000000000000000000000').toString('latin1'),
    ]
    await site.during('WebSocket floods', async () => {
      await Promise.all(
        floods.map(async (flood) => {
          const { raw, wire, head } = await (shapes['on a reverse route'] as (typeof shapes)[string])(way)
          wire.write(
            `${head('GET', '/chat')}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16, 1).toString('base64')}\r\n\r\n`,
          )
          await once(wire, 'data')
          wire.resume()
          wire.write(Buffer.from(flood, 'latin1'))
          await pause(500)
          raw.destroy()
        }),
      )
    })
    await serves()
  })

  it('opens tunnels to 120 hosts, each of which needs a certificate', { timeout: 60_000 }, async () => {
    await site.during('120 hosts', async () => {
      for (let wave = 0; wave < 120; wave += 30)
        await Promise.all(
          Array.from({ length: 30 }, async (_, i) => {
            const host = `host-${wave + i}.example.com`
            const raw = await tunnel(`${host}:443`)
            const secure = connectTls({ socket: raw, servername: host, rejectUnauthorized: false }).on(
              'error',
              () => {},
            )
            await once(secure, 'secureConnect')
            secure.destroy()
          }),
        )
    })
    await serves()
  })

  it('asks for hosts of no service a hundred times', { timeout: 60_000 }, async () => {
    await site.during('unmanaged hosts', async () => {
      const answers = await Promise.all(
        Array.from({ length: 100 }, (_, i) => forward(way.port, way.handle, { url: `http://no-${i}.example.com/` })),
      )
      expect(new Set(answers.map(codeOf)).size).toBe(1)
    })
    await serves()
  })
})
