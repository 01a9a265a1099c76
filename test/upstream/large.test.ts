/** Large bodies each way through a gateway in a process of its own, whose memory is watched. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { Outcome } from '../../gateway/protocol/message.ts'
import { authorityPem, openHttp2Origin } from './http2.fixture.ts'
import { HOST, openOrigin } from './upstream.fixture.ts'

const GIGABYTE = 1024 * 1024 * 1024
/** Far more than memory may grow by. */
const SIZE = GIGABYTE / 4
const MAX_GROWTH_MB = 100
const lengthOf = (size: number) => ({ 'content-length': String(size) })

function* source(size = SIZE): Generator<Buffer> {
  const chunk = Buffer.alloc(256 * 1024, 'all work and no play ')
  for (let sent = 0; sent < size; sent += chunk.length) yield chunk
}

async function count(stream: Readable): Promise<number> {
  let bytes = 0
  for await (const chunk of stream) bytes += (chunk as Buffer).length
  return bytes
}

async function openFar(port: number, ...ca: string[]) {
  const far = fileURLToPath(new URL('./large.fixture.ts', import.meta.url))
  const child = fork(far, [String(port), ...ca], { execArgv: [] })
  const [{ port: door }] = (await once(child, 'message')) as [{ port: number }]
  return {
    port: door,
    async report() {
      child.send('report')
      const [report] = (await once(child, 'message')) as [{ growthMb: number; outcomes: Outcome[] }]
      await once(child, 'exit')
      return report
    },
  }
}

describe('a large body', () => {
  it.each([
    ['of a gigabyte down with a length', GIGABYTE, lengthOf(GIGABYTE)],
    ['down in chunks', SIZE, {}],
  ])(
    '%s passes through in flat memory',
    async (_, size, headers) => {
      const origin = await openOrigin((_request, response) => {
        response.writeHead(200, headers)
        void pipeline(Readable.from(source(size)), response)
      })
      const door = await openFar(origin.port)
      const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      expect(await count(response)).toBe(size)
      const { growthMb, outcomes } = await door.report()
      expect(outcomes).toMatchObject([{ receivedBytes: size, scrubbed: 0 }])
      expect(outcomes[0]).not.toHaveProperty('error')
      expect(growthMb).toBeLessThan(MAX_GROWTH_MB)
      await origin.close()
    },
    60_000,
  )

  it.each([
    ['of a gigabyte up with a length', GIGABYTE, lengthOf(GIGABYTE)],
    ['up in chunks', SIZE, {}],
  ])(
    '%s passes through in flat memory',
    async (_, size, headers) => {
      const origin = await openOrigin(
        (request, response) => void count(request).then((bytes) => response.end(String(bytes))),
      )
      const door = await openFar(origin.port)
      const request = httpRequest({ port: door.port, method: 'PUT', headers: { host: HOST, ...headers } })
      const sent = pipeline(Readable.from(source(size)), request)
      const [response] = (await once(request, 'response')) as [IncomingMessage]
      expect(Buffer.concat(await response.toArray()).toString()).toBe(String(size))
      await sent
      const { growthMb, outcomes } = await door.report()
      expect(outcomes).toMatchObject([{ sentBytes: size }])
      expect(outcomes[0]).not.toHaveProperty('error')
      expect(growthMb).toBeLessThan(MAX_GROWTH_MB)
      await origin.close()
    },
    60_000,
  )

  it('down over HTTP/2 passes through in flat memory', async () => {
    const origin = await openHttp2Origin((stream) => {
      stream.respond({ ':status': 200 })
      void pipeline(Readable.from(source()), stream)
    })
    const door = await openFar(origin.port, await authorityPem())
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(await count(response)).toBe(SIZE)
    const { growthMb, outcomes } = await door.report()
    expect(outcomes).toMatchObject([{ receivedBytes: SIZE, scrubbed: 0 }])
    expect(outcomes[0]).not.toHaveProperty('error')
    expect(growthMb).toBeLessThan(MAX_GROWTH_MB)
    await origin.close()
  }, 60_000)

  it('up over HTTP/2 passes through in flat memory', async () => {
    const origin = await openHttp2Origin(
      (stream) =>
        void count(stream).then((bytes) => {
          stream.respond({ ':status': 200 })
          stream.end(String(bytes))
        }),
    )
    const door = await openFar(origin.port, await authorityPem())
    const request = httpRequest({ port: door.port, method: 'PUT', headers: { host: HOST } })
    const sent = pipeline(Readable.from(source()), request)
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(Buffer.concat(await response.toArray()).toString()).toBe(String(SIZE))
    await sent
    const { growthMb, outcomes } = await door.report()
    expect(outcomes).toMatchObject([{ sentBytes: SIZE }])
    expect(growthMb).toBeLessThan(MAX_GROWTH_MB)
    await origin.close()
  }, 60_000)

  it('waits in the upstream, not in memory, when the agent does not read', async () => {
    let written = 0
    const origin = await openOrigin((_request, response) => {
      const chunk = Buffer.alloc(65536, 'x')
      const more = () => {
        while (written < GIGABYTE && !response.destroyed) {
          written += chunk.length
          if (!response.write(chunk)) return
        }
      }
      response.on('drain', more)
      more()
    })
    const door = await openFar(origin.port)
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.pause()
    let before = -1
    while (before !== written) {
      before = written
      await new Promise((resolve) => setTimeout(resolve, 200)) // until nothing moves any more
    }
    expect(written).toBeLessThan(64 * 1024 * 1024)
    request.destroy()
    const { growthMb } = await door.report()
    expect(growthMb).toBeLessThan(MAX_GROWTH_MB)
    await origin.close()
  })
})
