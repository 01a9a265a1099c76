/** The trap of performance.md: clients that leave must not keep upstream connections. */
import { once } from 'node:events'
import { Agent, request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Door, HOST, type Origin, openDoor, openOrigin } from './upstream.fixture.ts'

/** Twice what hangs a pool that never gets its connections back. */
const LEAVERS = 400
/** More would not fit into the queue of a listening socket, and those reset in there never reach anybody. */
const AT_ONCE = 200

let origin: Origin
let door: Door
/** Requests that the upstream is working on. */
let open = 0
let idle = Promise.withResolvers<void>()
/** Requests whose body the upstream does not read; a paused socket does not notice that the other side has left. */
let deaf: IncomingMessage[] = []

beforeEach(async () => {
  open = 0
  idle = Promise.withResolvers()
  deaf = []
  origin = await openOrigin((request, response) => {
    open += 1
    response.on('close', () => {
      open -= 1
      if (open === 0) idle.resolve()
    })
    if (request.url === '/silent') return
    if (request.url === '/unfinished') {
      response.writeHead(200)
      response.write(Buffer.alloc(1024 * 1024, 'x'))
      return
    }
    if (request.url === '/deaf') {
      deaf.push(request.pause())
      return
    }
    request.resume().on('end', () => response.end('hello'))
  })
  door = await openDoor({ port: origin.port })
})

afterEach(async () => {
  await door.close()
  await origin.close()
})

/** Connect, send, wait for the sign, and go without a word. */
async function leave(text: string, sign: 'sent' | 'answered'): Promise<void> {
  const socket = connect(door.port, '127.0.0.1')
  socket.on('error', () => {})
  await once(socket, 'connect')
  if (sign === 'sent') await new Promise((resolve) => socket.write(text, resolve))
  else {
    socket.write(text)
    await once(socket, 'data')
  }
  socket.resetAndDestroy()
}

async function servesAtFullSpeed(door: Door): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 50 })
  const bodies = await Promise.all(
    Array.from({ length: 400 }, async () => {
      const request = httpRequest({ port: door.port, path: '/', agent, headers: { host: HOST } }).end()
      const [response] = await once(request, 'response')
      const chunks: Buffer[] = []
      for await (const chunk of response) chunks.push(chunk)
      return Buffer.concat(chunks).toString()
    }),
  )
  agent.destroy()
  expect(bodies.every((body) => body === 'hello')).toBe(true)
}

const upload = `POST /deaf HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 10000000\r\n\r\n${'x'.repeat(300_000)}`
const chunked = `POST /deaf HTTP/1.1\r\nHost: ${HOST}\r\nTransfer-Encoding: chunked\r\n\r\n1000\r\n${'x'.repeat(4096)}\r\n`
const short = `POST / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: 100\r\n\r\nonly this`

describe('400 clients that leave', { timeout: 60_000 }, () => {
  it.each([
    ['in the middle of an answer', `GET /unfinished HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`, 'answered'],
    ['before the head of an answer', `GET /silent HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`, 'sent'],
    ['in the middle of an upload of known length', upload, 'sent'],
    ['in the middle of a chunked upload', chunked, 'sent'],
    ['in the middle of a body that is small enough to be collected', short, 'sent'],
  ] as const)('%s hang nothing', async (_, text, sign) => {
    for (let left = 0; left < LEAVERS; left += AT_ONCE) {
      await Promise.all(Array.from({ length: AT_ONCE }, () => leave(text, sign)))
      await door.ended(left + AT_ONCE)
    }
    for (const request of deaf) request.resume()
    if (open > 0) await idle.promise
    expect(door.unexpected).toEqual([])
    expect(door.outcomes.filter((outcome) => outcome.error !== 'client_left')).toEqual([])
    await servesAtFullSpeed(door)
  })

  it('or some, while the upstream connection is being opened, hang nothing', async () => {
    const { promise: gate, resolve: openGate } = Promise.withResolvers<readonly string[]>()
    const slow = await openDoor({ port: origin.port, upstream: { hosts: new Map(), resolve: () => gate } })
    const text = `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`
    const leaving = Array.from({ length: AT_ONCE }, async () => {
      const socket = connect(slow.port, '127.0.0.1')
      await new Promise<void>((resolve) => socket.write(text, () => resolve()))
      socket.resetAndDestroy()
    })
    await Promise.all(leaving)
    await slow.ended(AT_ONCE)
    openGate(['127.0.0.1'])
    expect(slow.outcomes.every((outcome) => outcome.error === 'client_left' && outcome.status === 499)).toBe(true)
    await servesAtFullSpeed(slow)
    expect(slow.unexpected).toEqual([])
    await slow.close()
  })
})
