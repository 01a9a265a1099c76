/** HTTP/2 upstreams that break off, refuse, or attack. Every answer is either whole, or visibly broken, or refused by a code. */
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { afterEach, describe, expect, it } from 'vitest'
import {
  block,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type Frame,
  frame,
  number,
  openFrameOrigin,
  openHttp2Door,
  setting,
} from './http2.fixture.ts'
import { type Door, type DoorOptions, HOST } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const NO_ERROR = 0
const PROTOCOL_ERROR = 1
const INTERNAL_ERROR = 2
const REFUSED_STREAM = 7
const CANCEL = 8
const ENHANCE_YOUR_CALM = 11

/** @param serve called with each request's HEADERS; `nth` counts them over all connections, from 1. */
async function against(
  serve: (socket: TLSSocket, stream: number, nth: number) => void,
  options: Partial<DoorOptions> = {},
) {
  let requests = 0
  const origin = await openFrameOrigin((socket, { type, stream }) => {
    if (type !== FRAME.headers) return
    requests += 1
    serve(socket, stream, requests)
  })
  const door = await openHttp2Door(origin.port, options)
  closing.push(origin.close, door.close)
  return { origin, door, requests: () => requests }
}

const ok = block([[':status', '200']])
const head = (stream: number, flags = END_HEADERS) => frame(FRAME.headers, flags, stream, ok)
const data = (stream: number, text: string, flags = 0) => frame(FRAME.data, flags, stream, Buffer.from(text))
const whole = (stream: number, text: string) => Buffer.concat([head(stream), data(stream, text, END_STREAM)])
const reset = (stream: number, code: number) => frame(FRAME.reset, 0, stream, number(code))
const goaway = (last: number, code: number) => frame(FRAME.goaway, 0, 0, Buffer.concat([number(last), number(code)]))

interface Seen {
  readonly status: number | undefined
  readonly code: string | undefined
  readonly body: string
  readonly isBroken: boolean
}

async function call(door: Door, method = 'GET', body?: string | Buffer): Promise<Seen> {
  const request = httpRequest({ port: door.port, method, headers: { host: HOST }, maxHeaderSize: 131_072 })
  if (typeof body === 'string') request.setHeader('content-length', body.length)
  request.end(body)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  const chunks: Buffer[] = []
  let isBroken = false
  try {
    for await (const chunk of response) chunks.push(chunk as Buffer)
  } catch {
    isBroken = true
  }
  const code = response.headers['x-code'] as string | undefined
  return { status: response.statusCode, code, body: Buffer.concat(chunks).toString(), isBroken }
}

describe('an answer over HTTP/2 that is reset', () => {
  it.each([
    ['with an error', INTERNAL_ERROR],
    ['with no error', NO_ERROR],
    ['by cancellation', CANCEL],
    ['as refused, after its head', REFUSED_STREAM],
  ])('%s reaches the agent broken off', async (_, code) => {
    const { door } = await against(
      (socket, stream) => {
        socket.write(Buffer.concat([head(stream), data(stream, 'only this')]))
        setTimeout(() => socket.write(reset(stream, code)), 20)
      },
      { secrets: [] },
    )
    expect(await call(door)).toMatchObject({ status: 200, body: 'only this', isBroken: true })
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ status: 200, error: 'upstream_broken' })
  })

  it('with no error, in one write with its last byte, reaches the agent broken off all the same', async () => {
    const { door } = await against((socket, stream) => {
      socket.write(Buffer.concat([head(stream), data(stream, 'only this'), reset(stream, NO_ERROR)]))
    })
    await call(door).catch(() => {})
    await door.ended(1)
    expect([...door.outcomes, ...door.refusals]).toEqual([
      expect.objectContaining(door.outcomes.length > 0 ? { error: 'upstream_broken' } : { code: 'upstream_broken' }),
    ])
  })

  it('after it was complete, because the rest of the request is not wanted, is whole', async () => {
    const { door } = await against((socket, stream) => {
      socket.write(Buffer.concat([whole(stream, 'enough'), reset(stream, NO_ERROR)]))
    })
    const request = httpRequest({ port: door.port, method: 'POST', headers: { host: HOST } })
    request.on('error', () => {})
    request.write('x'.repeat(1000))
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(Buffer.concat(await response.toArray()).toString()).toBe('enough')
    request.destroy()
    await door.ended(1)
    expect(door.outcomes[0]?.error).toBeUndefined()
  })

  it('leaves its session to the others', async () => {
    const { origin, door } = await against((socket, stream, nth) => {
      if (nth === 1) socket.write(reset(stream, INTERNAL_ERROR))
      else socket.write(whole(stream, 'fine'))
    })
    expect(await call(door)).toMatchObject({ code: 'upstream_broken' })
    expect(await call(door)).toMatchObject({ body: 'fine' })
    expect(origin.connections()).toBe(1)
  })
})

describe('half a request', () => {
  it.each([
    ['of known length', `Content-Length: 10000000\r\n\r\n${'x'.repeat(5000)}`],
    ['of known length, with more than the upstream takes', `Content-Length: 10000000\r\n\r\n${'x'.repeat(200_000)}`],
    ['in chunks', `Transfer-Encoding: chunked\r\n\r\n1000\r\n${'x'.repeat(4096)}\r\n`],
  ])('%s is cancelled upstream, and never looks whole', async (_, rest) => {
    const { origin, door } = await against(() => {})
    const socket = connect(door.port, '127.0.0.1')
    socket.write(`POST / HTTP/1.1\r\nHost: ${HOST}\r\n${rest}`)
    await origin.saw((one) => one.type === FRAME.data)
    socket.resetAndDestroy()
    const cancelled = await origin.saw((one) => one.type === FRAME.reset)
    expect(cancelled.payload.readUInt32BE()).toBe(CANCEL)
    const ended = origin.received.filter(
      (one) => one.stream > 0 && one.type !== FRAME.reset && (one.flags & END_STREAM) !== 0,
    )
    expect(ended).toEqual([])
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ error: 'client_left' })
  })
})

describe('an HTTP/2 upstream that asks for calm', () => {
  it('gets the next request on another connection', async () => {
    const { origin, door } = await against((socket, stream, nth) => {
      socket.write(nth === 1 ? reset(stream, ENHANCE_YOUR_CALM) : whole(stream, 'fine'))
    })
    expect(await call(door)).toMatchObject({ code: 'upstream_broken' })
    expect(await call(door)).toMatchObject({ body: 'fine' })
    expect(origin.connections()).toBe(2)
  })
})

describe('a request that an HTTP/2 upstream says it has not processed', () => {
  it.each(['GET', 'POST'])('by REFUSED_STREAM is sent once more, on another connection (%s)', async (method) => {
    const { origin, door, requests } = await against((socket, stream, nth) => {
      socket.write(nth === 1 ? reset(stream, REFUSED_STREAM) : whole(stream, 'second'))
    })
    expect(await call(door, method, method === 'POST' ? 'hello' : undefined)).toMatchObject({ body: 'second' })
    expect(requests()).toBe(2)
    expect(origin.connections()).toBe(2)
  })

  it('and never processes is given up after two', async () => {
    const { door, requests } = await against((socket, stream) => socket.write(reset(stream, REFUSED_STREAM)))
    expect(await call(door)).toMatchObject({ code: 'upstream_broken' })
    expect(requests()).toBe(2)
  })

  it.each([
    ['in peace', NO_ERROR],
    ['in error', PROTOCOL_ERROR],
  ])('by GOAWAY %s is sent once more, on another connection', async (_, code) => {
    const { origin, door, requests } = await against((socket, stream, nth) => {
      socket.write(nth === 1 ? goaway(0, code) : whole(stream, 'second'))
    })
    expect(await call(door, 'POST', 'hello')).toMatchObject({ body: 'second' })
    expect(requests()).toBe(2)
    expect(origin.connections()).toBe(2)
  })

  it('by GOAWAY that names it is not sent again', async () => {
    const { door, requests } = await against((socket, stream) => {
      socket.write(goaway(stream, INTERNAL_ERROR))
    })
    expect(await call(door, 'POST', 'hello')).toMatchObject({ code: 'upstream_broken' })
    expect(requests()).toBe(1)
  })

  it('is answered on the session that is going away, while new ones take another', async () => {
    let finish: (() => void) | undefined
    const { origin, door } = await against((socket, stream, nth) => {
      if (nth > 1) {
        socket.write(whole(stream, 'new'))
        return
      }
      socket.write(Buffer.concat([head(stream), data(stream, 'old '), goaway(stream, NO_ERROR)]))
      finish = () => socket.write(data(stream, 'and done', END_STREAM))
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(await call(door)).toMatchObject({ body: 'new' })
    finish?.()
    expect(Buffer.concat(await response.toArray()).toString()).toBe('old and done')
    expect(origin.connections()).toBe(2)
  })

  it('because its idle session was being closed is sent once more, if that is safe', async () => {
    const { origin, door, requests } = await against((socket, stream, nth) => {
      if (nth === 2 || nth === 5) socket.destroy()
      else socket.write(whole(stream, `answer ${nth}`))
    })
    expect((await call(door)).body).toBe('answer 1')
    expect((await call(door)).body).toBe('answer 3')
    expect((await call(door)).body).toBe('answer 4')
    expect(await call(door, 'POST', 'hello')).toMatchObject({ code: 'upstream_broken' })
    expect(requests()).toBe(5)
    expect(origin.connections()).toBe(2)
  })
})

describe('an HTTP/2 upstream that breaks the rules', () => {
  const large = Array.from({ length: 40 }, (_, i) => [`x-${i}`, 'v'.repeat(2000)] as const)
  const status = [':status', '200'] as const
  const pieces = (stream: number, bytes: Buffer, count: number) =>
    Buffer.concat(
      Array.from({ length: count }, (_, i) => {
        const size = Math.ceil(bytes.length / count)
        const part = bytes.subarray(i * size, (i + 1) * size)
        const flags = i === count - 1 ? END_HEADERS : 0
        return i === 0 ? frame(FRAME.headers, flags, stream, part) : frame(FRAME.continuation, flags, stream, part)
      }),
    )
  const fields =
    (...list: (readonly [string, string])[]) =>
    (stream: number) =>
      Buffer.concat([
        frame(FRAME.headers, END_HEADERS, stream, block([status, ...list])),
        data(stream, 'x', END_STREAM),
      ])

  it.each<[string, (stream: number) => Buffer]>([
    ['a name in upper case', fields(['X-Upper', '1'])],
    ['a field of the connection', fields(['connection', 'close'])],
    ['a transfer coding', fields(['transfer-encoding', 'chunked'])],
    ['an Upgrade', fields(['upgrade', 'websocket'])],
    ['no status', (stream) => frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block([['x', '1']]))],
    ['two statuses', fields(status)],
    [
      'a status that is none',
      (stream) => frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block([[':status', 'abc']])),
    ],
    ['a status of a request', fields([':path', '/'])],
    [
      'an upgrade that HTTP/2 does not have',
      (stream) => frame(FRAME.headers, END_HEADERS, stream, block([[':status', '101']])),
    ],
    ['a 407', (stream) => frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block([[':status', '407']]))],
    ['80 KB of fields', (stream) => pieces(stream, block([status, ...large]), 6)],
    [
      '2,000 fields',
      (stream) => pieces(stream, block([status, ...Array.from({ length: 2000 }, () => ['x', ''] as const)]), 1),
    ],
    [
      'CONTINUATION without end',
      (stream) =>
        pieces(
          stream,
          Buffer.concat([ok, block(Array.from({ length: 1000 }, () => ['x', ''] as const))]),
          1000,
        ).subarray(0, -9),
    ],
    [
      'a thousand interim answers',
      (stream) =>
        Buffer.concat(
          Array.from({ length: 1000 }, () => frame(FRAME.headers, END_HEADERS, stream, block([[':status', '103']]))),
        ),
    ],
    [
      'a thousand changes of settings',
      () => Buffer.concat(Array.from({ length: 3000 }, () => frame(FRAME.settings, 0, 0, setting(4, 65_535)))),
    ],
    [
      'a push',
      (stream) =>
        frame(
          FRAME.push,
          END_HEADERS,
          stream,
          Buffer.concat([
            number(2),
            block([
              [':method', 'GET'],
              [':path', '/'],
            ]),
          ]),
        ),
    ],
    ['an answer nobody asked for', (stream) => whole(stream + 100, 'poison')],
    ['an answer on a stream of its own', () => whole(2, 'poison')],
    ['a frame that is too large', (stream) => frame(FRAME.data, 0, stream, Buffer.alloc(20_000))],
    ['a window that overflows', (stream) => frame(FRAME.window, 0, stream, number(0x7fffffff))],
    ['garbage', () => Buffer.from('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno')],
  ])('by %s is refused, and the next request is served', async (_, attack) => {
    const { door } = await against(
      (socket, stream, nth) => void socket.write(nth === 1 ? attack(stream) : whole(stream, 'fine')),
      { upstream: { headersTimeoutMs: 1000 } },
    )
    // A request that may be repeated would be, where the attack looks like the end of an idle connection.
    expect(await call(door, 'POST', 'hello')).toMatchObject({ code: 'upstream_broken', status: 599 })
    expect(await call(door)).toMatchObject({ body: 'fine', status: 200 })
    expect(door.unexpected).toEqual([])
  })

  it.each<[string, (stream: number) => Buffer]>([
    [
      'fewer bytes than promised',
      (stream) =>
        Buffer.concat([
          frame(FRAME.headers, END_HEADERS, stream, block([status, ['content-length', '100']])),
          data(stream, 'short', END_STREAM),
        ]),
    ],
    [
      'more bytes than promised',
      (stream) =>
        Buffer.concat([
          frame(FRAME.headers, END_HEADERS, stream, block([status, ['content-length', '2']])),
          data(stream, 'longer', END_STREAM),
        ]),
    ],
    [
      'a status among the trailers',
      (stream) =>
        Buffer.concat([head(stream), data(stream, 'x'), frame(FRAME.headers, END_HEADERS | END_STREAM, stream, ok)]),
    ],
    [
      'fields in the middle of the body',
      (stream) =>
        Buffer.concat([
          head(stream),
          data(stream, 'x'),
          frame(FRAME.headers, END_HEADERS, stream, block([['x', '1']])),
          data(stream, 'y', END_STREAM),
        ]),
    ],
    [
      'fields of the connection among the trailers',
      (stream) =>
        Buffer.concat([
          head(stream),
          data(stream, 'x'),
          frame(FRAME.headers, END_HEADERS | END_STREAM, stream, block([['connection', 'close']])),
        ]),
    ],
  ])('by %s after the head never passes for whole', async (_, attack) => {
    const { door } = await against(
      (socket, stream, nth) => void socket.write(nth === 1 ? attack(stream) : whole(stream, 'fine')),
      { upstream: { headersTimeoutMs: 1000, bodyTimeoutMs: 1000 } },
    )
    const seen = await call(door, 'POST', 'hello').catch(() => ({ isBroken: true, status: 0, code: undefined }))
    expect(seen.isBroken || seen.code === 'upstream_broken').toBe(true)
    expect(await call(door)).toMatchObject({ body: 'fine', status: 200 })
    expect(door.unexpected).toEqual([])
  })

  it.each([
    ['line breaks', 'a\r\nset-cookie: b'],
    ['a zero byte', 'a\0b'],
  ])('by %s in a value gets that field left out', async (_, value) => {
    const { door } = await against((socket, stream) => {
      const fields = block([status, ['x-bad', value], ['x-good', '1']])
      socket.write(frame(FRAME.headers, END_HEADERS | END_STREAM, stream, fields))
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.resume()
    expect(response.rawHeaders.filter((name) => /^x-|cookie/.test(name))).toEqual(['x-good'])
  })

  it('by sending on when the agent does not read is cut off, in bounded memory', async () => {
    const { door } = await against((socket, stream, nth) => {
      if (nth > 1) socket.write(whole(stream, 'fine'))
      else
        socket.write(
          Buffer.concat([head(stream), ...Array.from({ length: 500 }, () => data(stream, 'x'.repeat(16_000)))]),
        )
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST } })
      .on('error', () => {})
      .end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.on('error', () => {}).pause()
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ status: 200, error: 'upstream_broken' })
    request.destroy()
    expect(await call(door)).toMatchObject({ body: 'fine', status: 200 })
  })

  it('by bytes after the end disturbs nobody who was answered', async () => {
    const { door } = await against((socket, stream) => {
      socket.write(Buffer.concat([whole(stream, 'fine'), data(stream, 'more'), whole(stream, 'again')]))
    })
    for (let i = 0; i < 3; i += 1) expect(await call(door)).toMatchObject({ body: 'fine', isBroken: false })
  })

  it('may send a few hundred interim answers over many requests', async () => {
    const interim = (stream: number) => frame(FRAME.headers, END_HEADERS, stream, block([[':status', '103']]))
    const { door } = await against((socket, stream) => {
      socket.write(Buffer.concat([...Array.from({ length: 50 }, () => interim(stream)), whole(stream, 'fine')]))
    })
    for (let i = 0; i < 5; i += 1) expect(await call(door)).toMatchObject({ body: 'fine' })
  })

  it('by allowing no streams at all leaves requests waiting for their time, not for ever', async () => {
    const { door } = await against(() => {}, { upstream: { headersTimeoutMs: 300 } })
    const origin = await openFrameOrigin((socket, one: Frame) => {
      if (one.type === FRAME.settings) socket.write(frame(FRAME.settings, 0, 0, setting(3, 0)))
    })
    const closed = await openHttp2Door(origin.port, { upstream: { headersTimeoutMs: 300 } })
    closing.push(origin.close, closed.close)
    expect(await call(door)).toMatchObject({ code: 'upstream_timeout' })
    const answers = await Promise.all(Array.from({ length: 3 }, () => call(closed)))
    expect(answers.map((answer) => answer.code)).toEqual(Array(3).fill('upstream_timeout'))
  })
})
