/** What reaches an HTTP/2 upstream, and what comes back from one. The agent's side is HTTP/1.1 here. */
import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage } from 'node:http'
import { constants, sensitiveHeaders } from 'node:http2'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import { type Http2Origin, openHttp2Door, openHttp2Origin, openTlsOrigin, type ServeStream } from './http2.fixture.ts'
import { CANARY, type Door, type DoorOptions, exchange, get, HOST, service } from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

async function between(
  serve: ServeStream,
  options: Partial<DoorOptions> = {},
  server: Parameters<typeof openHttp2Origin>[1] = {},
): Promise<{ origin: Http2Origin; door: Door }> {
  const origin = await openHttp2Origin(serve, server)
  const door = await openHttp2Door(origin.port, options)
  closing.push(origin.close, door.close)
  return { origin, door }
}

async function send(door: Door, method: string, body: string | Buffer, headers: Record<string, string> = {}) {
  const request = httpRequest({ port: door.port, method, headers: { host: HOST, ...headers }, maxHeaderSize: 131_072 })
  request.end(body)
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  return { response, body: Buffer.concat(await response.toArray()) }
}

describe('a request that came over HTTP/2', () => {
  it('arrives with its fields in order, with the credential, and without what belongs to the connection', async () => {
    const { origin, door } = await between((stream, _headers, raw) => {
      stream.respond({ ':status': 200 })
      stream.end(JSON.stringify({ raw }))
    })
    const answer = await get(door.port, '/a%2Fb//c;x?q=1&&', [
      'X-One: 1',
      'x-two: 2',
      'X-One: 3',
      'Keep-Alive: timeout=5',
      'Proxy-Authorization: Basic aaaa',
      'Authorization: Bearer own',
      'Cookie: a=1',
      'TE: gzip, trailers',
      'X-Latin: caf\xe9',
      'X-Empty:',
    ])
    const text = answer.body.toString()
    const seen = JSON.parse(text.slice(text.indexOf('{'), text.lastIndexOf('}') + 1))
    expect(seen.raw).toEqual([
      ...[':method', 'GET', ':scheme', 'https', ':authority', `${HOST}:${origin.port}`, ':path', '/a%2Fb//c;x?q=1&&'],
      ...[
        'x-one',
        '1',
        'x-two',
        '2',
        'x-one',
        '3',
        'cookie',
        'a=1',
        'te',
        'trailers',
        'x-latin',
        'caf\xe9',
        'x-empty',
        '',
      ],
      ...['authorization', `Bearer ${'*'.repeat(CANARY.length)}`],
    ])
    expect(door.outcomes[0]).toMatchObject({ status: 200, scrubbed: 1, address: '127.0.0.1', error: undefined })
  })

  it.each([
    ['a header', [{ in: 'header', name: 'X-Api-Key' }], ['authorization', 'cookie', 'x-api-key']],
    ['the query', [{ in: 'query', name: 'key' }], [':path', 'authorization', 'cookie']],
    ['a cookie', [{ in: 'cookie', name: 'session' }], ['authorization', 'cookie']],
  ] as const)('never lets a credential in %s into a compression table', async (_, slots, names) => {
    const seen: string[][] = []
    const { door } = await between(
      (stream, headers) => {
        seen.push((headers as { [sensitiveHeaders]?: string[] })[sensitiveHeaders] ?? [])
        stream.respond({ ':status': 204 }, { endStream: true })
      },
      { service: service({ scheme: 'https', slots }), secrets: [] },
    )
    await get(door.port, '/?key=1', [
      ...names.filter((name) => !name.startsWith(':')).map((name) => `${name}: value-of-${name}`),
    ])
    const sent = names.filter((name) => name === ':path' || name === 'cookie')
    expect(new Set(seen[0])).toEqual(new Set(sent))
  })

  it.each(['DELETE', 'GET', 'PATCH', 'POST', 'PUT'])('carries a body with %s, short and streamed', async (method) => {
    const { door } = await between(async (stream, headers) => {
      const chunks: Buffer[] = []
      for await (const chunk of stream) chunks.push(chunk as Buffer)
      stream.respond({ ':status': 200 })
      stream.end(`${headers[':method']} ${headers['content-length'] ?? 'none'} ${Buffer.concat(chunks).toString()}`)
    })
    expect((await send(door, method, 'hello', { 'content-length': '5' })).body.toString()).toBe(`${method} 5 hello`)
    const chunked = await send(door, method, 'hello world', { 'transfer-encoding': 'chunked' })
    expect(chunked.body.toString()).toBe(`${method} none hello world`)
    expect(door.outcomes.map((outcome) => outcome.sentBytes)).toEqual([5, 11])
  })

  it('with 60 KB of fields arrives, and so does an answer with 60 KB', async () => {
    const { door } = await between(
      (stream, headers) => {
        stream.respond({ ':status': 200, 'x-large': 'y'.repeat(60_000), 'x-got': String(headers['x-large']).length })
        stream.end()
      },
      {},
      { settings: { maxHeaderListSize: 128 * 1024 }, maxHeaderSize: 128 * 1024 } as never,
    )
    const { response } = await send(door, 'GET', '', { 'x-large': 'x'.repeat(60_000) }).catch((cause) => {
      throw new Error('no answer', { cause })
    })
    expect(response.headers['x-got']).toBe('60000')
  })

  it('goes over HTTP/1.1 where the upstream offers nothing else, on the very connection that found out', async () => {
    const origin = await openTlsOrigin((request, response) => response.end(request.httpVersion))
    const door = await openHttp2Door(origin.port)
    closing.push(origin.close, door.close)
    for (let i = 0; i < 3; i += 1) expect((await send(door, 'GET', '')).body.toString()).toBe('1.1')
    expect(origin.connections()).toBe(1)
    await Promise.all(Array.from({ length: 20 }, () => send(door, 'GET', '')))
    expect(door.outcomes).toHaveLength(23)
  })

  it('goes over HTTP/1.1 where settings say so, and so does every other request', async () => {
    const versions: string[] = []
    const origin = await openHttp2Origin(() => {}, { allowHTTP1: true })
    origin.server.on('request', (request, response) => {
      versions.push(request.httpVersion)
      response.end()
    })
    const off = await openHttp2Door(origin.port, { upstream: { http2: false } })
    const plain = await openHttp2Door(origin.port, { isHttp2: false })
    closing.push(origin.close, off.close, plain.close)
    await send(off, 'GET', '')
    await send(plain, 'GET', '')
    expect(versions).toEqual(['1.1', '1.1'])
  })
})

describe('an answer over HTTP/2', () => {
  it('keeps its fields in order and repeated', async () => {
    const { door } = await between((stream) => {
      stream.respond([':status', '529', 'x-b', '1', 'link', '<a>', 'x-a', '2', 'link', '<b>'] as never)
      stream.end('no')
    })
    const answer = await get(door.port)
    expect(answer.head.split('\r\n').filter((line) => !/^(?:date|connection|transfer)/i.test(line))).toEqual([
      'HTTP/1.1 529 ',
      'x-b: 1',
      'link: <a>',
      'x-a: 2',
      'link: <b>',
    ])
  })

  it.each([
    ['HEAD', 200, { 'content-length': '1234' }],
    ['GET', 304, { etag: '"x"' }],
    ['GET', 204, { 'x-is': 'empty' }],
  ])('%s with %i has no body', async (method, status, fields) => {
    const { door } = await between((stream) => {
      stream.respond({ ':status': status, ...fields }, { endStream: true })
    })
    const answer = await exchange(door.port, `${method} / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`)
    expect(answer.head).toContain(`HTTP/1.1 ${status}`)
    expect(answer.head).toContain(Object.keys(fields)[0])
    expect(answer.head).not.toContain('chunked')
    expect(answer.body.length).toBe(0)
  })

  it('carries trailers, scrubbed', async () => {
    const { door } = await between((stream) => {
      stream.respond({ ':status': 200, trailer: 'x-sum, x-echo' }, { waitForTrailers: true })
      stream.on('wantTrailers', () => stream.sendTrailers({ 'x-sum': '5', 'x-echo': CANARY }))
      stream.end('hi')
    })
    const answer = await get(door.port)
    expect(answer.body.toString()).toBe(`2\r\nhi\r\n0\r\nx-sum: 5\r\nx-echo: ${'*'.repeat(CANARY.length)}\r\n\r\n`)
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1, receivedBytes: 2 })
  })

  it('is scrubbed across frames, and decoded where it is compressed', async () => {
    const { door } = await between((stream, headers) => {
      if (headers[':path'] === '/gzip') {
        stream.respond({ ':status': 200, 'content-encoding': 'gzip' })
        stream.end(gzipSync(`a ${CANARY} b`))
        return
      }
      stream.respond({ ':status': 200 })
      stream.write(`a ${CANARY.slice(0, 10)}`)
      setImmediate(() => stream.end(`${CANARY.slice(10)} b`))
    })
    for (const path of ['/', '/gzip']) {
      const answer = await get(door.port, path)
      expect(answer.body.toString()).not.toContain(CANARY.slice(0, 12))
      expect(answer.body.toString().replace(/[\r\n\da-f]+\r\n/g, '')).toContain('*'.repeat(20))
    }
    expect(door.outcomes.map((outcome) => outcome.scrubbed)).toEqual([1, 1])
  })

  it('passes on events as they come', async () => {
    let push: ((text: string) => void) | undefined
    const { door } = await between((stream) => {
      stream.respond({ ':status': 200, 'content-type': 'text/event-stream' })
      push = (text) => stream.write(text)
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    for (let i = 0; i < 5; i += 1) {
      push?.(`data: ${i}\n\n`)
      const [chunk] = await once(response, 'data')
      expect(String(chunk)).toBe(`data: ${i}\n\n`)
    }
    request.destroy()
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ error: 'client_left', status: 200 })
  })

  it('may begin before the request has ended: both flow at once', async () => {
    const { door } = await between((stream) => {
      stream.respond({ ':status': 200 })
      stream.on('data', (chunk) => stream.write(`echo ${chunk}`))
      stream.on('end', () => stream.end())
    })
    const request = httpRequest({ port: door.port, method: 'POST', headers: { host: HOST } })
    request.write('1')
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    for (let i = 1; i < 5; i += 1) {
      const [chunk] = await once(response, 'data')
      expect(String(chunk)).toBe(`echo ${i}`)
      if (i < 4) request.write(String(i + 1))
    }
    request.end()
    await once(response, 'end')
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ sentBytes: 4, receivedBytes: 24, error: undefined })
  })

  it('that is complete before the request is reaches the agent whole', async () => {
    const { door } = await between((stream) => {
      stream.respond({ ':status': 413 })
      stream.end('too much')
    })
    const request = httpRequest({ port: door.port, method: 'POST', headers: { host: HOST } })
    request.on('error', () => {})
    request.write('x'.repeat(100_000))
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    expect(response.statusCode).toBe(413)
    expect(Buffer.concat(await response.toArray()).toString()).toBe('too much')
    request.destroy()
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ status: 413, error: undefined })
  })

  it('ignores interim answers', async () => {
    const { door } = await between((stream) => {
      stream.additionalHeaders({ ':status': 103, link: '</a>' })
      stream.additionalHeaders({ ':status': 102 })
      stream.respond({ ':status': 200 })
      stream.end('ok')
    })
    const answer = await get(door.port)
    expect(answer.head.startsWith('HTTP/1.1 200 OK')).toBe(true)
    expect(answer.head).not.toContain('link')
  })

  it.each([
    ['with its connection', (stream: Parameters<ServeStream>[0]) => stream.session?.socket.destroy()],
    ['with its session', (stream: Parameters<ServeStream>[0]) => stream.session?.destroy()],
    [
      'with a session in error',
      (stream: Parameters<ServeStream>[0]) => stream.session?.destroy(undefined, constants.NGHTTP2_INTERNAL_ERROR),
    ],
  ])('that breaks off %s reaches the agent broken off', async (_, breakOff) => {
    const { door } = await between((stream) => {
      stream.respond({ ':status': 200 })
      stream.write('only this', () => setImmediate(() => breakOff(stream)))
    })
    const error = await new Promise<unknown>((resolve, reject) => {
      const request = httpRequest({ port: door.port, headers: { host: HOST } }, (response) => {
        response
          .on('data', () => {})
          .on('end', () => reject(new Error('ended cleanly')))
          .on('error', resolve)
      })
      request.on('error', resolve).end()
    })
    expect(error).toMatchObject({ code: 'ECONNRESET' })
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ status: 200, error: 'upstream_broken' })
  })

  it('says when the upstream does not answer, or stops in the middle', async () => {
    const { door } = await between(
      (stream, headers) => {
        if (headers[':path'] !== '/stop') return
        stream.respond({ ':status': 200 })
        stream.write('x')
      },
      { upstream: { headersTimeoutMs: 100, bodyTimeoutMs: 100 } },
    )
    expect((await get(door.port, '/silent')).head).toContain('x-code: upstream_timeout')
    await get(door.port, '/stop')
    await door.ended(2)
    expect(door.outcomes[0]).toMatchObject({ status: 200, error: 'upstream_timeout' })
  })
})

describe('a credential that an HTTP/2 upstream refuses', () => {
  const guarded: ServeStream = async (stream, headers) => {
    const isGood = headers.authorization === 'Bearer good-credential-1'
    const chunks: Buffer[] = []
    for await (const chunk of stream) chunks.push(chunk as Buffer)
    stream.respond(isGood ? { ':status': 200 } : { ':status': 401, 'www-authenticate': 'Bearer' })
    stream.end(isGood ? Buffer.concat(chunks) : 'who are you')
  }

  it('is replaced once, and the request with its body is sent again on the same session', async () => {
    const { origin, door } = await between(guarded, { secrets: ['stale-credential-1', 'good-credential-1'] })
    expect((await send(door, 'POST', 'hello', { 'content-length': '5' })).body.toString()).toBe('hello')
    expect(origin.sessions).toHaveLength(1)
  })

  it.each(['it has ended', 'not that'])('is replaced when only the body says so, which says: %s', async (said) => {
    const { origin, door } = await between(
      (stream, headers) => {
        const isGood = headers.authorization === 'Bearer good-credential-1'
        stream.respond({ ':status': isGood ? 200 : 400 })
        stream.end(isGood ? 'welcome' : said)
      },
      {
        secrets: ['stale-credential-1', 'good-credential-1'],
        isRejection: ({ body }) => (body === undefined ? 'body' : body.toString() === 'it has ended'),
      },
    )
    expect((await get(door.port)).body.toString()).toContain(said === 'not that' ? said : 'welcome')
    expect(origin.sessions).toHaveLength(1)
  })

  it('and has no successor becomes a 403 without a challenge', async () => {
    const { door } = await between(guarded, { secrets: ['stale-credential-1', 'stale-credential-2'] })
    const answer = await get(door.port)
    expect(answer.head).toContain('403 Forbidden')
    expect(answer.head).toContain('Keyless-Upstream-Status: 401')
    expect(answer.body.toString()).toContain('who are you')
  })
})
