import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import { CANARY, exchange, get, HOST, openDoor, openOrigin, service } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function answering(coding: string, body: Buffer, pieces = 1, secrets?: readonly string[]) {
  const origin = await openOrigin(async (_, response) => {
    response.writeHead(200, { 'content-encoding': coding })
    const size = Math.ceil(body.length / pieces)
    for (let at = 0; at < body.length; at += size) {
      await new Promise<void>((resolve) => response.write(body.subarray(at, at + size), () => setImmediate(resolve)))
    }
    response.end()
  })
  const slots = secrets?.length === 0 ? { slots: [] } : {}
  const door = await openDoor({
    port: origin.port,
    service: service(slots),
    ...(secrets === undefined ? {} : { secrets }),
  })
  closing.push(origin.close, door.close)
  return door
}

/** HTTP/1.0, so that the body comes without chunks. */
const plain = (port: number) => exchange(port, `GET / HTTP/1.0\r\nHost: ${HOST}\r\n\r\n`)

const text = Buffer.from(`${'The quick brown fox. '.repeat(500)}${CANARY}${'jumps over the lazy dog. '.repeat(500)}`)
const expected = text.toString().replace(CANARY, '*'.repeat(CANARY.length))

describe('an answer compressed although identity was asked for', () => {
  it.each([
    ['gzip', gzipSync(text)],
    ['x-gzip', gzipSync(text)],
    ['GZIP', gzipSync(text)],
    ['deflate', deflateSync(text)],
    ['deflate', deflateRawSync(text)],
    ['br', brotliCompressSync(text)],
    ['zstd', zstdCompressSync(text)],
  ])('by %s is decoded, scrubbed and sent on plain', async (coding, body) => {
    const door = await answering(coding, body, 7)
    const answer = await plain(door.port)
    expect(answer.head).not.toMatch(/content-encoding/i)
    expect(answer.body.toString()).toBe(expected)
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1, receivedBytes: text.length, error: undefined })
  })

  it.each(['gzip, br', 'compress', 'aes128gcm', 'gzip, identity'])('by %s is refused', async (coding) => {
    const door = await answering(coding, gzipSync(text))
    expect((await plain(door.port)).head).toContain('x-code: upstream_encoding')
  })

  it('is passed on as it is when no credential was attached', async () => {
    const body = gzipSync(text)
    const door = await answering('gzip', body, 1, [])
    const answer = await plain(door.port)
    expect(answer.head).toContain('content-encoding: gzip')
    expect(answer.body.equals(body)).toBe(true)
  })

  it('that breaks off or is damaged reaches the agent broken off', async () => {
    const whole = gzipSync(Buffer.from(Array.from({ length: 200_000 }, (_, i) => (i * 2654435761) >>> 24)))
    const cut = await answering('gzip', whole.subarray(0, -20), 3)
    const answer = await get(cut.port)
    expect(answer.body.toString('latin1')).not.toContain('\r\n0\r\n\r\n')
    await cut.ended(1)
    expect(cut.outcomes[0]).toMatchObject({ error: 'upstream_broken' })

    const noise = await answering('gzip', Buffer.from('not gzip at all'))
    await get(noise.port)
    await noise.ended(1)
    expect([...noise.outcomes.map((o) => o.error), ...noise.refusals.map((r) => r.code)]).toEqual(['upstream_broken'])
  })

  it('that unfolds beyond reason is cut off', async () => {
    const door = await answering('gzip', gzipSync(Buffer.alloc(64 * 1024 * 1024)), 50)
    const answer = await get(door.port)
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ error: 'upstream_encoding' })
    expect(answer.body.length).toBeLessThan(8 * 1024 * 1024)
  })

  it('comes event by event', async () => {
    const { createGzip, constants } = await import('node:zlib')
    let emit: ((event: string) => void) | undefined
    const origin = await openOrigin((_, response) => {
      const gzip = createGzip({ flush: constants.Z_SYNC_FLUSH })
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-type': 'text/event-stream' })
      gzip.pipe(response)
      emit = (event) => gzip.write(event)
      emit('data: 0\n\n')
    })
    const door = await openDoor({ port: origin.port })
    closing.push(origin.close, door.close)
    let asked = 0
    const answer = await exchange(door.port, `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`, (received) => {
      if (received.includes('data: 2')) return true
      if (received.includes(`data: ${asked}`)) {
        asked += 1
        emit?.(`data: ${asked}\n\n`)
      }
      return false
    })
    expect(answer.body.toString()).toContain('data: 2')
  })
})

describe('what follows a packed answer', () => {
  it.each([
    ['gzip', gzipSync(text), 0],
    ['deflate', deflateSync(text), 0x41],
    ['deflate', deflateRawSync(text), 0x41],
    ['br', brotliCompressSync(text), 0x41],
    ['zstd', zstdCompressSync(text), 0x41],
  ] as const)('by %s is nobody\u2019s, and the call lasts for as long as it comes', async (coding, body, filler) => {
    const stop = Promise.withResolvers<void>()
    let [sent, isLeft] = [0, false]
    const origin = await openOrigin(async (_, response) => {
      response.writeHead(200, { 'content-encoding': coding, trailer: 'x-sum' })
      response.write(body)
      const timer = setInterval(() => response.write(Buffer.alloc(1_000, filler), () => void sent++), 2)
      response.on('close', () => {
        isLeft = true
        clearInterval(timer)
      })
      await stop.promise
      clearInterval(timer)
      response.addTrailers({ 'x-sum': '1' })
      response.end()
    })
    const door = await openDoor({ port: origin.port })
    closing.push(origin.close, door.close)
    const answered = exchange(door.port, `GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`)
    await expect.poll(() => sent).toBeGreaterThan(20)
    expect([door.outcomes.length, isLeft]).toEqual([0, false])
    stop.resolve()
    expect((await answered).body.toString()).toContain('x-sum: 1')
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1, receivedBytes: text.length, error: undefined })
  })
})
