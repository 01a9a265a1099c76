/** How HTTP/1 upstreams really frame their answers: old ones, chatty ones, ones with much to say in their headers. */
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { afterEach, describe, expect, it } from 'vitest'
import { get, HOST, openDoor, openRawOrigin } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function against(serve: Parameters<typeof openRawOrigin>[0]) {
  const origin = await openRawOrigin(serve)
  const door = await openDoor({ port: origin.port, upstream: { headersTimeoutMs: 5000 } })
  closing.push(origin.close, door.close)
  return { origin, door }
}

const whole = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine'
const hint = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'

describe('an HTTP/1 upstream', () => {
  it.each([
    ['without a length', 'HTTP/1.0 200 OK\r\nX-Old: 1\r\n\r\nfine'],
    ['with a length', 'HTTP/1.0 200 OK\r\nX-Old: 1\r\nContent-Length: 4\r\n\r\nfine'],
  ])('of version 1.0 %s is understood, and its connection not used again', async (_, answer) => {
    const { origin, door } = await against((socket) => void socket.end(answer))
    for (let i = 0; i < 2; i += 1) {
      const { head, body } = await get(door.port)
      expect(head).toContain('X-Old: 1')
      expect(body.toString()).toContain('fine')
    }
    expect(origin.connections()).toBe(2)
    expect(door.outcomes.map(({ error }) => error)).toEqual([undefined, undefined])
  })

  it('that closes after its answer is taken at its word', async () => {
    const { origin, door } = await against((socket) => {
      socket.write(whole.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    })
    for (let i = 0; i < 3; i += 1) expect((await get(door.port)).body.toString()).toBe('fine')
    expect(origin.connections()).toBe(3)
  })

  it('may send many interim answers before the one', async () => {
    const { door } = await against((socket) => void socket.write(hint.repeat(50) + whole))
    for (let i = 0; i < 3; i += 1) {
      const { head, body } = await get(door.port)
      expect(head).not.toContain('Link')
      expect(body.toString()).toBe('fine')
    }
  })

  it('that never stops sending them is given up, whether it sends them at once or one by one', async () => {
    const { door } = await against((socket, text) => {
      if (text.startsWith('GET /once')) {
        socket.write(hint.repeat(1000) + whole)
        return
      }
      const drip = setInterval(() => socket.write(hint.repeat(10)), 1)
      socket.on('close', () => clearInterval(drip))
    })
    for (const path of ['/once', '/drip'])
      expect((await get(door.port, path)).head).toContain('x-code: upstream_broken')
  })

  it('has 60 KB for its headers, and not more than 64', async () => {
    const { door } = await against((socket, text) => {
      const size = text.startsWith('GET /more') ? 70_000 : 60_000
      socket.write(`HTTP/1.1 200 OK\r\nX-Large: ${'x'.repeat(size)}\r\nContent-Length: 4\r\n\r\nfine`)
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST }, maxHeaderSize: 131_072 }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(response.headers['x-large']).toHaveLength(60_000)
    response.resume()
    expect((await get(door.port, '/more')).head).toContain('x-code: upstream_broken')
  })
})
