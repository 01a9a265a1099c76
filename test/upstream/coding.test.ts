/** Answers that an upstream compressed although nobody asked for it: searched all the same, coded again for an agent that offered it, never a bomb. */
import { request } from 'node:http'
import type { Socket } from 'node:net'
import type { Transform } from 'node:stream'
import * as zlib from 'node:zlib'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { isAccepted } from '../../gateway/upstream/outlet.ts'
import { CANARY, type Door, type DoorOptions, HOST, openDoor, openOrigin, openRawOrigin } from './upstream.fixture.ts'

interface Coding {
  readonly pack: (bytes: Buffer) => Buffer
  readonly unpack: (bytes: Buffer) => Buffer
  readonly stream: () => Transform
}

const CODINGS: Readonly<Record<string, Coding>> = {
  gzip: { pack: zlib.gzipSync, unpack: zlib.gunzipSync, stream: () => zlib.createGzip({ level: 9 }) },
  'x-gzip': { pack: zlib.gzipSync, unpack: zlib.gunzipSync, stream: () => zlib.createGzip({ level: 9 }) },
  deflate: { pack: zlib.deflateSync, unpack: zlib.inflateSync, stream: () => zlib.createDeflate({ level: 9 }) },
  br: {
    pack: zlib.brotliCompressSync,
    unpack: zlib.brotliDecompressSync,
    stream: () => zlib.createBrotliCompress({ params: { [zlib.constants.BROTLI_PARAM_QUALITY]: 5 } }),
  },
  zstd: { pack: zlib.zstdCompressSync, unpack: zlib.zstdDecompressSync, stream: () => zlib.createZstdCompress() },
}
const names = Object.keys(CODINGS)
const codingOf = (name: string): Coding => CODINGS[name] as Coding

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0)) await close()
})

async function doorTo(port: number, options: Partial<DoorOptions> = {}): Promise<Door> {
  const door = await openDoor({ port, ...options })
  closing.push(door.close)
  return door
}

async function serving(serve: Parameters<typeof openOrigin>[0]): Promise<Door> {
  const origin = await openOrigin(serve)
  closing.push(origin.close)
  return doorTo(origin.port)
}

interface Got {
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: Buffer
  readonly isComplete: boolean
}

function get(door: Door, acceptEncoding?: string, onPiece: (piece: Buffer) => void = () => {}): Promise<Got> {
  return new Promise((resolve, reject) => {
    const headers = { host: HOST, ...(acceptEncoding !== undefined && { 'accept-encoding': acceptEncoding }) }
    const asked = request({ port: door.port, host: '127.0.0.1', agent: false, headers }, (answer) => {
      const pieces: Buffer[] = []
      const settle = () =>
        resolve({ headers: answer.headers, body: Buffer.concat(pieces), isComplete: answer.complete })
      answer.on('data', (piece: Buffer) => {
        pieces.push(piece)
        onPiece(piece)
      })
      answer.on('end', settle).on('error', settle)
    })
    asked.on('error', reject).end()
  })
}

const MASKED = '*'.repeat(CANARY.length)

describe.each(names)('an answer in %s', (name) => {
  const { pack, unpack } = codingOf(name)
  const plain = Buffer.from(`{"echo":"${CANARY}","pad":"${'x'.repeat(50_000)}"}`)
  const clean = plain.toString().replace(CANARY, MASKED)
  const answer = () =>
    serving((_, response) => {
      const bytes = pack(plain)
      const fields = { etag: '"v1"', vary: 'Accept-Encoding', 'content-md5': 'x', digest: 'y' }
      response.writeHead(200, { 'content-encoding': name, 'content-length': bytes.length, ...fields }).end(bytes)
    })

  it('is coded again for an agent that offered it, without what was true of the other bytes', async () => {
    const door = await answer()
    const { headers, body } = await get(door, `identity;q=0.5, ${name}`)
    expect(headers).toMatchObject({ 'content-encoding': name, etag: 'W/"v1"', vary: 'Accept-Encoding' })
    for (const gone of ['content-length', 'content-md5', 'digest']) expect(headers[gone]).toBeUndefined()
    expect(unpack(body).toString()).toBe(clean)
    expect(body.length).toBeLessThan(5_000)
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1, leaks: { body: 1 } })
  })

  it.each([undefined, 'identity', `${name};q=0`, `*;q=0, compress`])(
    'is sent plain to one that sent %s',
    async (offered) => {
      const { headers, body } = await get(await answer(), offered)
      expect(headers['content-encoding']).toBeUndefined()
      expect(body.toString()).toBe(clean)
    },
  )

  it('reaches the agent broken off when it ends too early, coded again or not', async () => {
    const bytes = pack(plain)
    for (const offered of [name, 'identity']) {
      const door = await serving((_, response) => {
        response.writeHead(200, { 'content-encoding': name })
        response.end(bytes.subarray(0, bytes.length - 5))
      })
      await get(door, offered).then(
        ({ isComplete }) => expect(isComplete).toBe(false),
        () => undefined, // before the head: refused
      )
      await door.ended(1)
      expect(door.outcomes[0]?.error ?? door.refusals[0]?.code).toMatch(/^upstream_/)
    }
  })

  it('passes every event on when it comes', async () => {
    let encoder: Transform | undefined
    const send = (n: number) => {
      encoder?.write(`data: ${n} ${CANARY}\n\n`)
      ;(encoder as zlib.Gzip).flush()
    }
    const door = await serving((_, response) => {
      encoder = codingOf(name).stream()
      response.writeHead(200, { 'content-encoding': name, 'content-type': 'text/event-stream' })
      encoder.pipe(response)
      send(1)
    })
    let seen = 0
    const { body } = await get(door, name, () => {
      seen += 1
      if (seen < 6)
        send(seen + 1) // the next one is not even written before this one has arrived
      else if (seen === 6) encoder?.end()
    })
    expect(unpack(body).toString()).toMatch(/^(data: \d \*+\n\n){6}$/)
  })
})

describe('a bomb', () => {
  it.each(names)('of a gigabyte in %s is cut off, coded again or not, in bounded memory', async (name) => {
    for (const offered of [name, undefined]) {
      const sockets: Socket[] = []
      const door = await serving((_, response) => {
        if (response.socket) sockets.push(response.socket)
        response.writeHead(200, { 'content-encoding': name })
        const encoder = codingOf(name).stream()
        encoder.pipe(response)
        response.on('close', () => encoder.destroy())
        const zeros = Buffer.alloc(1024 * 1024)
        let left = 1024
        const pour = () => {
          while (left > 0 && !encoder.destroyed) {
            left -= 1
            if (!encoder.write(zeros)) return
          }
          if (!encoder.destroyed) encoder.end()
        }
        encoder.on('drain', pour).on('error', () => {})
        pour()
      })
      const before = process.memoryUsage().rss
      let most = 0
      await get(door, offered, () => {
        most = Math.max(most, process.memoryUsage().rss - before)
      }).catch(() => undefined)
      await door.ended(1)
      expect(door.outcomes[0]?.error ?? door.refusals[0]?.code).toBe('upstream_encoding')
      expect(door.outcomes[0]?.receivedBytes ?? 0).toBeLessThan(64 * 1024 * 1024)
      expect(most).toBeLessThan(256 * 1024 * 1024)
    }
  })

  it.each(['gzip, gzip', 'br, gzip', 'gzip,zstd'])('within another one (%s) is refused unopened', async (nested) => {
    const bytes = zlib.gzipSync(zlib.gzipSync(Buffer.alloc(1_000_000)))
    const door = await serving((_, response) => {
      response.writeHead(200, { 'content-encoding': nested }).end(bytes)
    })
    await get(door, 'gzip, br, zstd').catch(() => undefined)
    expect(door.refusals[0]?.code).toBe('upstream_encoding')
  })
})

it('leaves no credential, however it is spelled, coded and cut', async () => {
  const spelled: readonly ((v: string) => string)[] = [
    (v) => v,
    (v) => btoa(`me:${v}`),
    (v) => Buffer.from(v).toString('hex'),
    (v) => encodeURIComponent(v),
    (v) => [...v].reverse().join(''),
    (v) => v.replaceAll('-', '\\u002d'),
    (v) => v.replaceAll('-', '&#45;'),
  ]
  let body = Buffer.alloc(0)
  let coding = ''
  let cuts: number[] = []
  const origin = await openRawOrigin((socket) => {
    const coded = coding === 'identity' ? body : codingOf(coding).pack(body)
    const field = coding === 'identity' ? '' : `content-encoding: ${coding}\r\n`
    socket.setNoDelay(true)
    socket.write(`HTTP/1.1 200 OK\r\n${field}content-type: text/event-stream\r\nconnection: close\r\n\r\n`)
    const at = [...new Set(cuts.map((cut) => cut % coded.length))].toSorted((a, b) => a - b)
    for (const [i, start] of [0, ...at].entries()) socket.write(coded.subarray(start, at[i] ?? coded.length))
    socket.end()
  })
  closing.push(origin.close)
  const door = await doorTo(origin.port)
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom('identity', ...names),
      fc.constantFrom(...spelled),
      fc.boolean(),
      fc.array(fc.nat(), { maxLength: 6 }),
      fc.nat({ max: 3000 }),
      async (name, spell, isOffered, places, before) => {
        ;[coding, cuts] = [name, places]
        const text = spell(CANARY)
        body = Buffer.from(`data: ${'.'.repeat(before)} ${text} and so on\n\n`)
        const got = await get(door, isOffered ? name : 'identity')
        const isCoded = got.headers['content-encoding'] !== undefined
        const shown = (isCoded ? codingOf(name).unpack(got.body) : got.body).toString()
        expect(isCoded).toBe(isOffered && name !== 'identity')
        expect(shown.length).toBe(body.length)
        expect(shown).not.toContain(text)
        expect(shown).toMatch(/\*{8}/)
      },
    ),
    { numRuns: 60 },
  )
})

describe('an agent that sends', () => {
  it.each([
    ['gzip', 'gzip', true],
    ['GZIP ; q=1.0', 'gzip', true],
    ['gzip', 'x-gzip', true],
    ['x-gzip', 'x-gzip', true],
    ['br;q=0.1', 'br', true],
    ['*', 'zstd', true],
    ['*;q=0, br', 'br', true],
    ['gzip, *;q=0', 'br', false],
    ['gzip;q=0.000', 'gzip', false],
    ['gzip;q=0, *', 'gzip', false],
    ['', 'gzip', false],
    [undefined, 'gzip', false],
    ['gzipped', 'gzip', false],
  ] as const)('%s is held to it for %s: %s', (sent, coding, isOffered) => {
    expect(isAccepted(sent, coding)).toBe(isOffered)
  })
})
