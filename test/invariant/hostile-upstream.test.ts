/** Upstreams that do their worst to a gateway process: it stays up, its memory stays bounded, and other agents notice nothing. */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import type { Duplex, Writable } from 'node:stream'
import { setTimeout as pause } from 'node:timers/promises'
import type { TLSSocket } from 'node:tls'
import { brotliCompressSync, constants, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { basic, codeOf, reverse } from './agent.fixture.ts'
import { type Besieged, openBesieged } from './besieged.fixture.ts'
import { type ScriptedUpstream, startScripted } from './scripted.fixture.ts'
import { dial, openHttp2Tunnel, shapes, type Way } from './shapes.fixture.ts'

const SEATS = 600

let upstream: ScriptedUpstream
let site: Besieged
let way: Way
/** Another grant of the same agent. */
let innocent: string

beforeAll(async () => {
  upstream = await startScripted(['held.keyless.test'])
  site = await openBesieged(upstream, {
    services: [
      {
        name: 'held',
        operations: {
          chat: { match: ['GET /chat'], access: 'write', websocket: true },
          token: { match: ['GET /token'], access: 'admin', returns_secret: true, captures: ['/token', '/keys/*'] },
          all: { match: ['GET /{any}', 'POST /{any}'], access: 'write' },
        },
      },
    ],
    credentials: { held: 'a-standing-key-of-some-length' },
    policies: {
      text: '@id("mint") @owner("test") permit (principal, action == Action::"held:token", resource);',
    },
    settings: { limits: { agent_concurrency: SEATS } },
  })
  way = {
    port: site.gateway.port,
    handle: site.handle,
    ca: site.gateway.ca,
    tls: `held.keyless.test:${upstream.port}`,
    cleartext: '',
  }
  innocent = (await site.gateway.control.openTask({ scope: 'held:*', purpose: 'work', agent: 'attacker' })).handle
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

const ask = (path = '/x', fields = '', handle = way.handle) =>
  reverse(way.port, handle, {
    path: `/held${path}`,
    fields: `Proxy-Authorization: ${basic(handle)}\r\n${fields}`,
  })

const FINE = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'
const serves = async () => {
  upstream.act = (socket) => void socket.write(FINE)
  expect((await ask()).bytes.toString()).toMatch(/\r\n\r\nok$/)
}

/** Write for as long as the other side takes it. */
function pour(socket: Writable, piece: Buffer, bytes = Number.POSITIVE_INFINITY): void {
  for (let left = bytes; !socket.destroyed && left > 0; ) {
    left -= piece.length
    if (socket.write(piece)) continue
    socket.once('drain', () => pour(socket, piece, left))
    return
  }
}

describe('an answer that breaks off', () => {
  const begun: Readonly<Record<string, string>> = {
    'with a length, too short': 'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nonly this',
    'in a chunk': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n99\r\nonly this',
    'between chunks': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n',
    'before its trailers': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n0\r\nX-Sum: 1\r\n',
  }
  const cuts = {
    'a FIN': (socket: TLSSocket) => void socket.end(),
    'a reset': (socket: TLSSocket) => void setTimeout(() => upstream.reset(socket), 30), // what was written gets there first
  } as const
  const cases = Object.keys(begun).flatMap((how) => Object.keys(cuts).map((cut) => [how, cut] as const))

  const breakOff = (how: string, cut: string) => {
    upstream.act = (socket) => {
      socket.write(begun[how] as string)
      cuts[cut as keyof typeof cuts](socket)
    }
  }

  it.each(cases)('%s, with %s, reaches every client over HTTP/1.1 broken off', async (how, cut) => {
    breakOff(how, cut)
    const some = ['in absolute form, https://', 'on a reverse route', 'in a tunnel with TLS', 'over SOCKS5'] as const
    await Promise.all(
      some.map(async (shape) => {
        const { wire, head } = await (shapes[shape] as (typeof shapes)[string])(way)
        wire.write(`${head('GET', '/x')}\r\n`)
        let text = ''
        wire.on('data', (chunk) => {
          text += chunk
        })
        await once(wire, 'close')
        expect(text, shape).not.toMatch(/\r\n0\r\n/)
        const length = /^content-length: (\d+)/im.exec(text)?.[1]
        if (!text.startsWith('HTTP/1.1 502')) expect(length ?? '99', shape).toBe('99')
      }),
    )
  })

  it.each(cases)('%s, with %s, reaches a client over HTTP/2 as a reset', async (how, cut) => {
    breakOff(how, cut)
    const { wire } = await openHttp2Tunnel(way)
    const session = connectHttp2(`https://${way.tls}`, { createConnection: () => wire })
    const stream = session.request({ ':path': '/x' })
    const status = once(stream, 'response').then(([{ ':status': status }]) => status)
    const end = await new Promise((resolve) => {
      stream
        .on('error', () => {})
        .on('close', () => resolve(stream.rstCode))
        .resume()
    })
    if ((await status) !== 502) expect(end).not.toBe(0)
    session.destroy()
  })
})

describe('an upstream that speaks unasked', () => {
  const poison = 'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'
  it.each([
    ['twice at once', (socket: Duplex): void => void socket.write(`${FINE}${poison}`)],
    [
      'twice, one after the other',
      (socket: Duplex): void => {
        socket.write(FINE)
        setTimeout(() => socket.write(poison), 5)
      },
    ],
    [
      'half of a second answer',
      (socket: Duplex): void => void socket.write(`${FINE}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n`),
    ],
    ['more than it said', (socket: Duplex): void => void socket.write(`${FINE}${'x'.repeat(50)}`)],
    ['before it is asked', undefined],
  ] as const)('%s poisons no call of another grant', async (_, answer) => {
    if (answer === undefined) upstream.act = (socket) => void socket.write(`${FINE}${poison}`)
    else upstream.act = answer
    for (let i = 0; i < 12; i++) await ask() // over this grant's connections it can say what it likes
    upstream.act = (socket) => void socket.write(FINE)
    for (let i = 0; i < 12; i++) {
      const { bytes } = await ask('/x', '', innocent)
      expect(bytes.toString()).toMatch(/\r\n\r\nok$/)
      await ask()
    }
  })
})

describe('field names that are members of every object', () => {
  const names = [
    '__proto__',
    'constructor',
    'toString',
    'hasOwnProperty',
    'valueOf',
    '__defineGetter__',
    'prototype',
    'length',
  ]
  const fields = names.map((name) => `${name}: polluted\r\n`).join('')

  it('are fields like any other, in both directions, once and twice, and in trailers', async () => {
    let seen = ''
    upstream.act = (socket, head) => {
      seen = head
      socket.write(
        `HTTP/1.1 200 OK\r\n${fields}${fields}Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n${fields}${fields}\r\n`,
      )
    }
    const { status, bytes } = await ask('/x', `${fields}${fields}`)
    expect(status).toBe(200)
    for (const name of names) {
      expect(seen.match(new RegExp(`^${name}: polluted`, 'gim')), name).toHaveLength(2)
      expect(bytes.toString().match(new RegExp(`^${name}: polluted`, 'gim')), name).toHaveLength(4)
    }
    await serves()
  })

  it('in the answer to a client over HTTP/2 as well', async () => {
    upstream.act = (socket) => void socket.write(`HTTP/1.1 200 OK\r\n${fields}${fields}Content-Length: 0\r\n\r\n`)
    const { wire } = await openHttp2Tunnel(way)
    const session = connectHttp2(`https://${way.tls}`, { createConnection: () => wire })
    const stream = session.request({ ':path': '/x', ...Object.fromEntries(names.map((name) => [name, 'polluted'])) })
    const [headers] = await once(stream, 'response')
    expect(headers[':status']).toBe(200)
    session.destroy()
  })
})

const HEAD_CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'

/** What is written after the request, and what its client gets. */
const floods: Readonly<Record<string, (socket: Duplex) => void>> = {
  'a line of 100 MB in its head': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nX-Long: ')
    pour(socket, Buffer.alloc(65_536, 'x'), 100_000_000)
  },
  'fields without an end': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\n')
    pour(socket, Buffer.from('X-More: and more\r\n'.repeat(1_000)))
  },
  'interim answers without an end': (socket) =>
    pour(socket, Buffer.from('HTTP/1.1 103 Early Hints\r\n\r\n'.repeat(1_000))),
  'trailers without an end': (socket) => {
    socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n')
    pour(socket, Buffer.from('X-More: and more\r\n'.repeat(1_000)))
  },
  'a bomb of gzip': (socket) => bomb(socket, 'gzip', bombs.gzip),
  'a bomb of br': (socket) => bomb(socket, 'br', bombs.br),
  'a bomb of zstd': (socket) => bomb(socket, 'zstd', bombs.zstd),
  'a bomb within a bomb': (socket) => bomb(socket, 'gzip, gzip', gzipSync(bombs.gzip)),
}

const zeros = Buffer.alloc(16 * 1024 * 1024)
const bombs = {
  gzip: gzipSync(zeros),
  br: brotliCompressSync(zeros, { params: { [constants.BROTLI_PARAM_QUALITY]: 3 } }),
  zstd: zstdCompressSync(zeros),
}

function bomb(socket: Duplex, coding: string, bytes: Buffer): void {
  socket.write(`HTTP/1.1 200 OK\r\nContent-Encoding: ${coding}\r\nContent-Length: ${bytes.length}\r\n\r\n`)
  socket.write(bytes)
}

describe('an upstream that sends', () => {
  it.each(Object.keys(floods))('%s is cut off', { timeout: 60_000 }, async (what) => {
    upstream.act = floods[what] as (typeof floods)[string]
    await site.during(what, async () => {
      const answers = await Promise.all(Array.from({ length: 4 }, () => ask()))
      for (const answer of answers) {
        const isWhole = answer.status === 200 && /\r\n0\r\n\r\n$/.test(answer.bytes.toString('latin1'))
        expect(isWhole ? 'whole' : (codeOf(answer) ?? 'broken off')).toMatch(/upstream_|broken off/)
        expect(answer.bytes.length).toBeLessThan(4 * 1024 * 1024) // a hundred times what came, after the first MiB
      }
    })
    await serves()
  })

  it.each([
    ['extensions of a chunk', `${HEAD_CHUNKED}2;`, 'x'],
    ['zeros before the size of a chunk', HEAD_CHUNKED, '0'],
    ['a reason phrase', 'HTTP/1.1 200 ', 'x'],
  ])(
    '%s without an end costs no memory, and stops when its client leaves',
    { timeout: 60_000 },
    async (what, head, piece) => {
      const stopped = Promise.withResolvers<void>()
      upstream.act = (socket) => {
        socket.once('close', () => stopped.resolve())
        socket.write(head)
        pour(socket, Buffer.alloc(65_536, piece), 200_000_000)
      }
      await site.during(what, async () => {
        const raw = await dial(way.port)
        raw.write(`GET /held/x HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${basic(way.handle)}\r\n\r\n`)
        await pause(300)
        raw.resetAndDestroy()
        await stopped.promise
      })
      await serves()
    },
  )

  const depth = 100_000
  const long = 'x'.repeat(1_000_000)
  const many = (count: number, bytes: number) =>
    Array.from({ length: count }, () => randomBytes(bytes).toString('hex').slice(bytes))
  it.each([
    ['nested JSON', `${'['.repeat(depth)}${']'.repeat(depth)}`, 'answer_withheld'],
    ['nested objects', `${'{"token":'.repeat(depth)}1${'}'.repeat(depth)}`, 'answer_withheld'],
    ['a string of 1 MB', `{"token":"${long}"}`, 'answer_withheld'],
    ['a string of 1 MB in escapes', `{"token":"${'\\\\'.repeat(500_000)}"}`, 'answer_withheld'],
    ['half a string of 1 MB', `{"token":"${'\\"'.repeat(500_000)}`, 'answer_withheld'],
    [
      'a credential like its text',
      `{"token":"${long.slice(0, 30_000)}","text":"${long.slice(0, 900_000)}"}`,
      'answer_withheld',
    ],
    ['a hundred credentials', JSON.stringify({ keys: many(100, 320) }), undefined],
    ['a hundred long credentials', JSON.stringify({ keys: many(100, 3_200) }), 'answer_withheld'],
    ['100,000 keys', `{${Array.from({ length: 100_000 }, (_, i) => `"k${i}":1`).join()}}`, 'answer_withheld'],
    ['a __proto__ for its own', '{"__proto__":{"token":"a-token-of-some-length"}}', 'answer_withheld'],
  ])('%s where a credential is captured is answered or withheld', { timeout: 60_000 }, async (what, body, code) => {
    upstream.act = (socket) =>
      void socket.write(
        `HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
      )
    await site.during(`captured: ${what}`, async () => {
      const answers = await Promise.all(Array.from({ length: 4 }, () => ask('/token')))
      for (const answer of answers) {
        expect(codeOf(answer), answer.bytes.toString('latin1', 0, 600)).toBe(code)
        expect(answer.bytes.includes(long.slice(0, 1000))).toBe(false)
      }
    })
    await serves()
  })
})

describe('an upstream that', () => {
  it('accepts 300 calls and answers none holds its own callers alone', { timeout: 60_000 }, async () => {
    let asked = 0
    upstream.act = () => {
      asked += 1
    }
    await site.during(
      '300 calls without an answer',
      async () => {
        const callers = await Promise.all(Array.from({ length: 300 }, () => dial(way.port)))
        for (const raw of callers)
          raw.write(`GET /held/x HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${basic(way.handle)}\r\n\r\n`)
        await expect.poll(() => asked, { timeout: 12_000 }).toBe(300)
        for (const raw of callers) raw.resetAndDestroy()
      },
      256,
    )
    await serves()
  })

  it.each([
    [
      'one byte in each frame',
      (socket: Duplex): void => pour(socket, Buffer.from('810178'.repeat(20_000), 'hex'), 6_000_000),
    ],
    [
      'fragments of one byte',
      (socket: Duplex): void => {
        socket.write(Buffer.from('010178', 'hex'))
        pour(socket, Buffer.from('000178'.repeat(20_000), 'hex'), 6_000_000)
      },
    ],
    ['pings', (socket: Duplex): void => pour(socket, Buffer.from('8900'.repeat(30_000), 'hex'), 6_000_000)],
    ['a frame of 2^62 bytes', (socket: Duplex): void => void socket.write(Buffer.from('827f4000000000000000', 'hex'))],
  ] as const)('floods a WebSocket with %s is carried or cut off', { timeout: 60_000 }, async (what, flood) => {
    upstream.act = (socket, head) => {
      const key = /^sec-websocket-key: (.*)$/im.exec(head)?.[1] ?? ''
      void import('../../gateway/protocol/websocket.ts').then(({ acceptOf }) => {
        socket.write(
          `HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${acceptOf(key.trim())}\r\n\r\n`,
        )
        flood(socket)
      })
    }
    await site.during(`WebSocket: ${what}`, async () => {
      const raw = await dial(way.port)
      raw.write(
        `GET /held/chat HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${basic(way.handle)}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: ${Buffer.alloc(16, 1).toString('base64')}\r\n\r\n`,
      )
      await once(raw, 'data') // and reads no more for now
      await pause(200)
      raw.resume()
      await pause(200)
      raw.destroy()
    })
    await serves()
  })
})
