import { once } from 'node:events'
import { request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import { connect } from 'node:net'
import { gzipSync } from 'node:zlib'
import { afterEach, describe, expect, it } from 'vitest'
import type { Outbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import {
  CANARY,
  type DoorOptions,
  exchange,
  get,
  HOST,
  openDoor,
  openOrigin,
  openRawOrigin,
  service,
} from './upstream.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

type Serve = Parameters<typeof openOrigin>[0]

async function between(serve: Serve, options: Partial<DoorOptions> = {}) {
  const origin = await openOrigin(serve)
  const door = await openDoor({ port: origin.port, ...options })
  closing.push(origin.close, door.close)
  return { origin, door }
}

async function betweenRaw(serve: Parameters<typeof openRawOrigin>[0], options: Partial<DoorOptions> = {}) {
  const origin = await openRawOrigin(serve)
  const door = await openDoor({ port: origin.port, ...options })
  closing.push(origin.close, door.close)
  return { origin, door }
}

/** Always the same bytes as an answer. */
const always = (answer: string) => (socket: { write(text: string, encoding: 'latin1'): unknown }) =>
  void socket.write(answer, 'latin1')

describe('a request on its way up', () => {
  it('arrives with its headers in order and case, with the credential, and without what belongs to the connection', async () => {
    const { origin, door } = await betweenRaw((socket, text) => {
      socket.end(`HTTP/1.1 200 OK\r\nContent-Length: ${text.length}\r\n\r\n${text}`, 'latin1')
    })
    const answer = await exchange(
      door.port,
      [
        'GET /a%2Fb//c;x?q=1&& HTTP/1.1',
        `Host: ${HOST}`,
        'X-One: 1',
        'x-two: 2',
        'X-One: 3',
        'Connection: keep-alive, X-Hop',
        'X-Hop: secret hop',
        'Keep-Alive: timeout=5',
        'Proxy-Authorization: Basic aaaa',
        'Proxy-Connection: keep-alive',
        'Authorization: Bearer own',
        'Accept-Encoding: gzip, br',
        'Range: bytes=0-1',
        'TE: gzip, trailers',
        'Upgrade: h2c',
        'HTTP2-Settings: AAMAAABkAAQ',
        'X-HTTP-Method-Override: DELETE',
        'Keyless-Event: forged',
        'X-Empty:',
        'X-Latin: caf\xe9',
        '',
        '',
      ].join('\r\n'),
      (received) => received.includes('caf'),
    )
    const port = origin.port
    expect(answer.body.toString('latin1').split('\r\n')).toEqual([
      'GET /a%2Fb//c;x?q=1&& HTTP/1.1',
      `host: ${HOST}:${port}`,
      'connection: keep-alive',
      'X-One: 1',
      'x-two: 2',
      'X-One: 3',
      'Accept-Encoding: identity',
      'TE: trailers',
      'X-Empty: ',
      'X-Latin: caf\xe9',
      `Authorization: Bearer ${'*'.repeat(CANARY.length)}`,
      '',
      '',
    ])
    await door.ended(1)
    expect(door.outcomes[0]).toMatchObject({ status: 200, scrubbed: 1, address: '127.0.0.1', error: undefined })
  })

  it.each(['DELETE', 'GET', 'PATCH', 'POST', 'PROPFIND', 'PUT'])(
    'carries a body with %s, short and chunked',
    async (method) => {
      const { door } = await between(async (request, response) => {
        const chunks: Buffer[] = []
        for await (const chunk of request) chunks.push(chunk)
        response.end(
          JSON.stringify({
            method: request.method,
            length: Buffer.concat(chunks).length,
            te: request.headers['transfer-encoding'],
          }),
        )
      })
      const short = await exchange(
        door.port,
        `${method} / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello`,
      )
      expect(short.body.toString()).toContain(`{"method":"${method}","length":5}`)
      const chunked = await exchange(
        door.port,
        `${method} / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\n\r\n`,
      )
      expect(chunked.body.toString()).toContain(`{"method":"${method}","length":11,"te":"chunked"}`)
      expect(door.outcomes.map((outcome) => outcome.sentBytes)).toEqual([5, 11])
    },
  )

  it('refuses what HTTP does not allow with a code, and answers', async () => {
    const { door } = await between((_, response) => response.end('ok'))
    const answer = await exchange(door.port, `OPTIONS * HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`)
    expect(answer.head).toContain('x-code: request_malformed')
  })
})

describe('an answer on its way down', () => {
  it('keeps status, reason, order, case and repeated fields', async () => {
    const { door } = await betweenRaw(
      always(
        'HTTP/1.1 529 Site is overloaded\r\nX-B: 1\r\nlink: <a>\r\nX-a: 2\r\nLink: <b>\r\nContent-Length: 2\r\nConnection: keep-alive, X-B\r\nDate: d\r\n\r\nno',
      ),
    )
    const answer = await get(door.port)
    expect(answer.head.split('\r\n')).toEqual([
      'HTTP/1.1 529 Site is overloaded',
      'link: <a>',
      'X-a: 2',
      'Link: <b>',
      'Content-Length: 2',
      'Date: d',
      'Connection: close',
    ])
    expect(answer.body.toString()).toBe('no')
  })

  it.each([
    ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n', 'Content-Length: 1234'],
    ['GET', 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\nContent-Length: 99\r\n\r\n', 'ETag: "x"'],
    ['GET', 'HTTP/1.1 204 No Content\r\nX-Is: empty\r\n\r\n', 'X-Is: empty'],
  ])('%s with %j has no body', async (method, text, field) => {
    const { door } = await betweenRaw(always(text))
    const answer = await exchange(door.port, `${method} / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`)
    expect(answer.head).toContain(field)
    expect(answer.head).not.toContain('chunked')
    expect(answer.body.length).toBe(0)
  })

  it('passes a redirect on without following it, with the credential taken out of its location', async () => {
    const { door } = await between((_, response) => {
      response.writeHead(302, { location: `https://elsewhere.test/?t=${CANARY}&u=${encodeURIComponent(CANARY)}` }).end()
    })
    const answer = await get(door.port)
    expect(answer.head).toContain('302 Found')
    expect(answer.head).not.toContain(CANARY)
    expect(door.outcomes[0]).toMatchObject({ status: 302, scrubbed: 2 })
  })

  it('ignores interim answers', async () => {
    const { door } = await betweenRaw(
      always(
        'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
      ),
    )
    const answer = await get(door.port)
    expect(answer.head.startsWith('HTTP/1.1 200 OK')).toBe(true)
    expect(answer.head).not.toContain('Link')
    expect(answer.body.toString()).toBe('ok')
  })

  it('carries trailers, scrubbed, and no fields that may not be there', async () => {
    const { door } = await betweenRaw(
      always(
        `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 5\r\nX-Echo: ${CANARY}\r\nSet-Cookie: a=b\r\n\r\n`,
      ),
    )
    const answer = await get(door.port)
    expect(answer.head).toContain('Trailer: X-Sum')
    expect(answer.body.toString()).toBe(`2\r\nhi\r\n0\r\nX-Sum: 5\r\nX-Echo: ${'*'.repeat(CANARY.length)}\r\n\r\n`)
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1, receivedBytes: 2 })
  })

  it('gives an HTTP/1.0 agent no chunks, and drops the announcement of trailers that it cannot get', async () => {
    const { door } = await betweenRaw(
      always('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 5\r\n\r\n'),
    )
    const answer = await exchange(door.port, `GET / HTTP/1.0\r\nHost: ${HOST}\r\n\r\n`)
    expect(answer.head).not.toMatch(/chunked|trailer/i)
    expect(answer.body.toString()).toBe('hi')
  })

  it('passes on events as they come', async () => {
    let push: ((text: string) => void) | undefined
    const { door } = await between((_, response) => {
      response.writeHead(200, { 'content-type': 'text/event-stream' })
      response.flushHeaders()
      push = (text) => response.write(text)
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

  it('sends the head of a slow answer before its body', async () => {
    const { door } = await betweenRaw((socket) => void socket.write('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n'))
    const answer = await exchange(door.port, `GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`, (received) =>
      received.includes('\r\n\r\n'),
    )
    expect(answer.head).toContain('Content-Length: 10')
  })

  it.each([
    ['of known length', 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this'],
    ['in chunks', 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nonly this\r\n'],
  ])('%s that breaks off reaches the agent broken off', async (_, text) => {
    const { door } = await betweenRaw((socket) => void socket.end(text))
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

  it('that ends with its connection is whole when the connection ends, and broken when it is reset', async () => {
    const { door } = await betweenRaw((socket, text) => {
      socket.write('HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello', () => {
        if (text.startsWith('GET /reset')) setImmediate(() => socket.resetAndDestroy())
        else socket.end()
      })
    })
    const whole = await get(door.port)
    expect(whole.body.toString()).toContain('hello')
    await get(door.port, '/reset')
    await door.ended(2)
    expect(door.outcomes.map((outcome) => outcome.error)).toEqual([undefined, 'upstream_broken'])
  })

  it('that is a 407, an upgrade nobody asked for, or no HTTP at all is refused as broken', async () => {
    const { door } = await betweenRaw((socket, text) => {
      if (text.startsWith('GET /407'))
        socket.end(
          'HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n',
        )
      else if (text.startsWith('GET /101'))
        socket.end('HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n')
      else socket.end('SSH-2.0-OpenSSH_9.2\r\n')
    })
    for (const path of ['/407', '/101', '/ssh']) {
      const answer = await get(door.port, path)
      expect(answer.head, path).toContain('x-code: upstream_broken')
    }
  })

  it('says when the upstream does not answer, is not there, or stops in the middle', async () => {
    const { door } = await betweenRaw(
      (socket, text) => {
        if (text.startsWith('GET /stop')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx')
      },
      { upstream: { headersTimeoutMs: 100, bodyTimeoutMs: 100 } },
    )
    expect((await get(door.port, '/silent')).head).toContain('x-code: upstream_timeout')
    await get(door.port, '/stop')
    await door.ended(2)
    expect(door.outcomes[0]).toMatchObject({ status: 200, error: 'upstream_timeout' })

    const gone = await openRawOrigin(() => {})
    await gone.close()
    const alone = await openDoor({ port: gone.port })
    closing.push(alone.close)
    expect((await get(alone.port)).head).toContain('x-code: upstream_refused')
  })
})

describe('a credential that the upstream refuses', () => {
  const guarded: Serve = (request, response) => {
    const isGood = request.headers.authorization === 'Bearer good-credential-1'
    const chunks: Buffer[] = []
    request.on('data', (chunk) => chunks.push(chunk))
    request.on('end', () => {
      response.writeHead(isGood ? 200 : 401, isGood ? {} : { 'www-authenticate': 'Bearer realm="x"' })
      response.end(isGood ? Buffer.concat(chunks) : 'who are you')
    })
  }

  it('is replaced once, and the request with its body is sent again', async () => {
    const { door } = await between(guarded, { secrets: ['stale-credential-1', 'good-credential-1'] })
    expect((await get(door.port)).head).toContain('200 OK')
    const posted = await exchange(
      door.port,
      `POST / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello`,
    )
    expect(posted.body.toString()).toContain('hello')
    expect(door.outcomes.map((outcome) => outcome.status)).toEqual([200, 200])
  })

  it('and has no successor becomes a 403 without a challenge, so that no client starts a login', async () => {
    const { door } = await between(guarded, { secrets: ['stale-credential-1', 'stale-credential-2'] })
    const answer = await get(door.port)
    expect(answer.head).toContain('403 Forbidden')
    expect(answer.head).toContain('Keyless-Upstream-Status: 401')
    expect(answer.head.toLowerCase()).not.toContain('www-authenticate')
    expect(answer.body.toString()).toContain('who are you')
    expect(door.outcomes[0]).toMatchObject({ status: 401, error: undefined })
  })

  it('was not sent: the upstream speaks with the agent itself', async () => {
    const { door } = await between(guarded, { secrets: [], service: service({ slots: [] }) })
    const answer = await get(door.port)
    expect(answer.head).toContain('401 Unauthorized')
    expect(answer.head).toContain('www-authenticate: Bearer realm="x"')
  })

  it('with a body too large to keep is not sent again', async () => {
    const { door } = await between(guarded, { secrets: ['stale-credential-1', 'good-credential-1'] })
    const size = 100_000
    const answer = await exchange(
      door.port,
      `POST / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`,
    )
    expect(answer.head).toContain('403 Forbidden')
  })

  describe('and that says so in the body alone', () => {
    const isRejection: Outbound['isRejection'] = ({ status, body }) =>
      status !== 400 ? false : body === undefined ? 'body' : body.toString() === 'it has ended'
    const open = (refuse: (response: ServerResponse) => void) => {
      const serve: Serve = (request, response) => {
        if (request.headers.authorization === 'Bearer good-credential-1') return response.end('welcome')
        refuse(response.writeHead(400, { 'x-upstream': 'no' }))
      }
      return between(serve, { secrets: ['stale-credential-1', 'good-credential-1'], isRejection })
    }

    it('is replaced, however the body comes', async () => {
      for (const pieces of [['it has ended'], ['it has', ' ended']]) {
        const { door } = await open((response) => {
          for (const piece of pieces) response.write(piece)
          response.end()
        })
        expect((await get(door.port)).body.toString()).toContain('welcome')
      }
    })

    it.each([
      ['something else', 'not that'],
      ['nothing', ''],
      ['more than is waited for', 'it has ended'.repeat(10_000)],
    ])('stays when that says %s, which the agent gets', async (_what, said) => {
      const { door } = await open((response) => response.end(said))
      const answer = await get(door.port)
      expect(answer.head).toContain('400 Bad Request')
      expect(answer.head).toContain('x-upstream: no')
      expect(answer.body.toString()).toContain(said)
      expect(door.outcomes).toMatchObject([{ status: 400, receivedBytes: said.length, error: undefined }])
    })

    it('stays when the body never ends, and an endless one is not waited for', async () => {
      const broken = await open((response) => {
        response.write('it has ended')
        setImmediate(() => response.destroy())
      })
      expect((await get(broken.door.port)).head).not.toContain('200 OK')
      const endless = await open((response) => void response.write('x'.repeat(20_000)))
      const socket = connect(endless.door.port, '127.0.0.1')
      socket.write(`GET / HTTP/1.1\r\nHost: ${HOST}\r\n\r\n`)
      let came = ''
      for await (const chunk of socket) {
        came += chunk
        if (came.length > 20_000) break
      }
      expect(came).toContain('400 Bad Request')
    })
  })

  it('passes on what asking for a new one throws', async () => {
    const { door } = await between(guarded, {
      secrets: ['stale-credential-1'],
      reissue: () => Promise.reject(new GatewayError('credential_unavailable', 'no')),
    })
    expect((await get(door.port)).head).toContain('x-code: credential_unavailable')
  })
})

describe('the connection to the upstream', () => {
  it('is used again for the same grant and never for another grant or tenant', async () => {
    const { origin, door } = await between((_, response) => response.end('ok'))
    for (let i = 0; i < 3; i += 1) await get(door.port, '/', ['X-Grant: a'])
    expect(origin.connections()).toBe(1)
    await get(door.port, '/', ['X-Grant: b'])
    expect(origin.connections()).toBe(2)
    await get(door.port, '/', ['X-Grant: a'])
    expect(origin.connections()).toBe(2)
  })

  it('is destroyed when the upstream speaks unasked, and its words reach nobody', async () => {
    const { origin, door } = await betweenRaw((socket) => {
      socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison')
      })
    })
    for (let i = 0; i < 10; i += 1) {
      const answer = await get(door.port)
      expect(answer.body.toString()).toBe('ok')
    }
    expect(origin.connections()).toBeGreaterThan(1)
  })

  it('that sends two answers at once gives the first to the one who asked and the second to nobody', async () => {
    const { door } = await betweenRaw(
      always('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison'),
    )
    const answers = await Promise.all(Array.from({ length: 20 }, () => get(door.port)))
    for (const answer of answers) expect(answer.body.toString()).toBe('ok')
  })

  it('that is closed while it is taken up again is replaced for requests that may be sent twice, and no others', async () => {
    const seen = new Set<unknown>()
    const { origin, door } = await betweenRaw((socket, _, connection) => {
      // The second request on the first connection finds it closed.
      if (connection === 1 && seen.has(socket)) socket.destroy()
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      seen.add(socket)
    })
    expect((await get(door.port)).body.toString()).toBe('ok')
    expect((await get(door.port)).body.toString()).toBe('ok')
    expect(origin.connections()).toBe(2)
  })

  it('that is closed under a POST is reported, not repeated', async () => {
    const seen = new Set<unknown>()
    const { origin, door } = await betweenRaw((socket) => {
      if (seen.has(socket)) socket.destroy()
      else socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
      seen.add(socket)
    })
    const post = `POST / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi`
    expect((await exchange(door.port, post)).head).toContain('200 OK')
    expect((await exchange(door.port, post)).head).toContain('x-code: upstream_broken')
    expect(origin.connections()).toBe(1)
  })

  it('closes when the gateway drains', async () => {
    const { origin, door } = await betweenRaw(always('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok'))
    await get(door.port)
    expect(origin.open()).toBe(1)
    await door.upstream.close()
    while (origin.open() > 0) await new Promise((resolve) => setImmediate(resolve))
  })
})

describe('a credential in an answer', () => {
  it.each([
    ['as it is', CANARY],
    ['in base64', Buffer.from(`x-access-token:${CANARY}`).toString('base64')],
    ['in hexadecimal', Buffer.from(CANARY).toString('hex')],
  ])('%s is overwritten, and the length stays true', async (_, echo) => {
    const { door } = await between((_, response) => response.end(`{"echo":"${echo}"}`))
    const answer = await get(door.port)
    expect(answer.body.includes(echo)).toBe(false)
    expect(answer.body.length).toBe(`{"echo":"${echo}"}`.length)
    expect(door.outcomes[0]).toMatchObject({ scrubbed: 1 })
  })

  it('is overwritten when it comes byte by byte, in the reason phrase and in a cookie', async () => {
    const { door } = await betweenRaw((socket) => {
      socket.setNoDelay(true)
      socket.write(`HTTP/1.1 200 ${CANARY}\r\nSet-Cookie: t=${CANARY}\r\nTransfer-Encoding: chunked\r\n\r\n`)
      const letters = [...`<${CANARY}>`]
      const next = () => {
        const letter = letters.shift()
        if (letter === undefined) socket.write('0\r\n\r\n')
        else socket.write(`1\r\n${letter}\r\n`, () => setImmediate(next))
      }
      next()
    })
    const request = httpRequest({ port: door.port, headers: { host: HOST } }).end()
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    const body = Buffer.concat(await response.toArray()).toString()
    expect(body).toBe(`<${'*'.repeat(CANARY.length)}>`)
    expect(JSON.stringify([response.statusMessage, response.rawHeaders])).not.toContain(CANARY)
    expect(door.outcomes[0]).toMatchObject({ leaks: { head: 2, body: 1 } })
  })

  it('is overwritten in a compressed answer, which is sent on uncompressed', async () => {
    const { door } = await between((_, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip', etag: '"v1"', 'content-md5': 'x' })
      response.end(gzipSync(`hello ${CANARY}`))
    })
    const answer = await get(door.port)
    expect(answer.head).not.toMatch(/content-encoding|content-length|content-md5/i)
    expect(answer.head).toContain('W/"v1"')
    const body = answer.body.toString().replaceAll(/(?:^|\r\n)[0-9a-f]+\r\n/g, '')
    expect(body).toContain(`hello ${'*'.repeat(CANARY.length)}`)
  })
})

describe('an upload', () => {
  it('that the upstream refuses before it has read it gets its answer, and the agent can go on', async () => {
    const { door } = await betweenRaw((socket, text) => {
      if (text.startsWith('PUT')) socket.write('HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig')
      else if (text.startsWith('GET')) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    })
    const size = 1_000_000
    const put = `PUT / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`
    const next = `GET / HTTP/1.1\r\nHost: ${HOST}\r\nConnection: close\r\n\r\n`
    const answer = await exchange(door.port, put + next)
    expect(answer.head).toContain('413 Content Too Large')
    expect(answer.body.toString()).toMatch(/^bigHTTP\/1\.1 200 OK[\s\S]*ok$/)
    await door.ended(2)
    expect(door.outcomes.map(({ status, error }) => [status, error])).toEqual([
      [413, undefined],
      [200, undefined],
    ])
  })

  it('to an upstream that is not there leaves the agent a connection that works', async () => {
    const gone = await openRawOrigin(() => {})
    await gone.close()
    const door = await openDoor({ port: gone.port })
    closing.push(door.close)
    const size = 1_000_000
    const put = `PUT / HTTP/1.1\r\nHost: ${HOST}\r\nContent-Length: ${size}\r\n\r\n${'x'.repeat(size)}`
    const answer = await exchange(door.port, put + put.replace('Host', 'Connection: close\r\nHost'))
    expect(answer.head).toContain('x-code: upstream_refused')
    expect(answer.body.toString()).toContain('x-code: upstream_refused')
  })
})

describe('a door of the gateway itself', () => {
  it('is reached by no call, whatever ranges a service lists', async () => {
    const origin = await openOrigin((_, response) => response.end('secret'))
    const isClosed = (address: string, port: number) => address === '127.0.0.1' && port === origin.port
    const door = await openDoor({ port: origin.port, upstream: { isClosed } })
    closing.push(origin.close, door.close)
    expect((await get(door.port)).head).toContain('x-code: address_forbidden')
    expect(origin.connections()).toBe(0)
  })
})
