import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import { type DoorOptions, exchange, get, HOST, openDoor, openOrigin } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

/** An upstream that keeps what arrived and answers with `answer` bytes. */
async function between(answer: number, options: Partial<DoorOptions>) {
  const arrived: number[] = []
  const origin = await openOrigin((request, response) => {
    const n = arrived.push(0) - 1
    request.on('data', (chunk: Buffer) => {
      arrived[n] = (arrived[n] ?? 0) + chunk.length
    })
    request.on('end', () => response.end(Buffer.alloc(answer, 'x')))
    request.on('error', () => {})
  })
  const door = await openDoor({ port: origin.port, ...options })
  closing.push(origin.close, door.close)
  return { arrived, door }
}

function put(port: number, body: string): ReturnType<typeof exchange> {
  return exchange(
    port,
    `PUT / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
  )
}

describe('a call that may carry so many bytes', () => {
  it('carries exactly as many, both directions together', async () => {
    const { arrived, door } = await between(60, { byteLimit: 100 })
    expect((await put(door.port, 'y'.repeat(40))).body.toString()).toBe('x'.repeat(60))
    expect(arrived).toEqual([40])
    expect(door.outcomes).toMatchObject([{ status: 200, sentBytes: 40, receivedBytes: 60, error: undefined }])
    expect(door.settled).toEqual([{ sent: 40, received: 60 }])
  })

  it('is refused before anything is sent when its body alone is more', async () => {
    const { arrived, door } = await between(0, { byteLimit: 100 })
    expect((await put(door.port, 'y'.repeat(101))).head).toContain('x-code: limit_exceeded')
    expect(arrived).toEqual([])
    expect(door.settled).toEqual([{ sent: 0, received: 0 }])
  })

  it('is refused when the answer is one byte too long, and no byte of it is passed on', async () => {
    const { door } = await between(61, { byteLimit: 100 })
    const answer = await put(door.port, 'y'.repeat(40))
    expect(answer.head).toContain('x-code: limit_exceeded')
    expect(answer.body.toString()).not.toContain('xxx')
    expect(door.settled).toEqual([{ sent: 40, received: 0 }]) // what went up is spent all the same
  })

  it('is cut when an upload without a length passes it, and what was sent is spent', async () => {
    const { arrived, door } = await between(0, { byteLimit: 300_000 })
    const request = httpRequest({ port: door.port, method: 'PUT', headers: { host: HOST } })
    const sent = pipeline(Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(65_536, 'y'))), request)
    sent.catch(() => {}) // its connection is closed on it
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(response.headers['x-code']).toBe('limit_exceeded')
    response.resume()
    const [{ sent: spent, received }] = door.settled as [{ sent: number; received: number }]
    expect([spent > 200_000, spent <= 300_000, received]).toEqual([true, true, 0])
    expect(arrived[0]).toBeLessThanOrEqual(300_000)
  })

  it('is cut in the middle of a long answer, so that the agent sees it is incomplete', async () => {
    const { door } = await between(4_000_000, { byteLimit: 1_000_000 })
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    await expect(buffer(response)).rejects.toThrow('aborted')
    await door.ended(1)
    expect(door.outcomes).toMatchObject([{ status: 200, error: 'limit_exceeded' }])
    expect(door.settled[0]?.received).toBeLessThanOrEqual(1_000_000)
    expect(door.settled[0]?.received).toBeGreaterThan(500_000)
  })

  it('pays for what an answer unpacks to', async () => {
    const packed = gzipSync(Buffer.alloc(1_000_000, 'x'))
    const origin = await openOrigin((_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': packed.length })
      response.end(packed)
    })
    const door = await openDoor({ port: origin.port, byteLimit: 10_000 })
    closing.push(origin.close, door.close)
    expect(packed.length).toBeLessThan(10_000)
    expect((await get(door.port)).body.length).toBeLessThanOrEqual(10_000)
    await door.ended(1)
    expect(door.settled[0]?.received).toBeLessThanOrEqual(10_000)
  })

  it('pays once for a body that is sent again with a better credential', async () => {
    let asked = 0
    const origin = await openOrigin((request, response) => {
      request.resume().on('end', () => {
        response.writeHead(++asked === 1 ? 401 : 200, { 'content-length': 2 })
        response.end('ok')
      })
    })
    const door = await openDoor({
      port: origin.port,
      byteLimit: 12,
      secrets: ['an-old-credential', 'a-new-credential'],
    })
    closing.push(origin.close, door.close)
    expect((await put(door.port, 'y'.repeat(10))).body.toString()).toBe('ok')
    expect([asked, door.settled]).toEqual([2, [{ sent: 10, received: 2 }]])
  })
})
