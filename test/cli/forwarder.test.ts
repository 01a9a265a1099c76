import { createServer, request } from 'node:http'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Forwarder, openForwarder } from '../../gateway/cli/run/forwarder.ts'
import { type FixtureGateway, GRANT, startFixtureGateway } from './gateway.fixture.ts'

let gateway: FixtureGateway
let forwarder: Forwarder

beforeEach(async () => {
  gateway = await startFixtureGateway()
  forwarder = await openForwarder({ gateway: { host: '127.0.0.1', port: gateway.port }, authorization: GRANT })
})
afterEach(async () => {
  await forwarder.close()
  await gateway.close()
})

const own = () => `Basic ${Buffer.from(`agent:${forwarder.secret}`).toString('base64')}`

describe('who may use it', () => {
  it('challenges a CONNECT without the secret, and takes the retry on the same connection', async () => {
    const client = await open()
    client.write('CONNECT api.demo.test:443 HTTP/1.1\r\nHost: api.demo.test:443\r\n\r\n')
    expect(await until(client, /other secret|password\.$/)).toMatch(
      /^HTTP\/1\.1 407 .*\r\nProxy-Authenticate: Basic realm=/,
    )
    client.write(
      `CONNECT api.demo.test:443 HTTP/1.1\r\nHost: api.demo.test:443\r\nProxy-Authorization: ${own()}\r\n\r\n`,
    )
    expect(await until(client, /\r\n\r\n$/)).toMatch(/^HTTP\/1\.1 200 /)
    client.destroy()
  })

  it('challenges again and again on one connection, without a listener left behind each time', async () => {
    const warnings: Error[] = []
    const record = (warning: Error) => warnings.push(warning)
    process.on('warning', record)
    const client = await open()
    for (let attempt = 0; attempt < 25; attempt++) {
      client.write(
        'CONNECT api.demo.test:443 HTTP/1.1\r\nHost: api.demo.test:443\r\nProxy-Authorization: Basic YWdlbnQ6bm8=\r\n\r\n',
      )
      expect(await until(client, /password\.$/)).toContain('407')
    }
    await new Promise(setImmediate)
    process.off('warning', record)
    expect(warnings).toEqual([])
    expect(gateway.seen).toEqual([])
    client.destroy()
  })

  it.each([
    ['nothing', undefined],
    ['another password', `Basic ${Buffer.from('agent:0000').toString('base64')}`],
    [
      'the right password under another name',
      () => `Basic ${Buffer.from(`root:${forwarder.secret}`).toString('base64')}`,
    ],
    ['the secret as Bearer', () => `Bearer ${forwarder.secret}`],
    ['the grant itself', GRANT],
  ])('refuses a request that shows %s', async (_what, shown) => {
    const authorization = typeof shown === 'function' ? shown() : shown
    const answer = await send({
      path: 'http://api.demo.test/',
      headers: ['Connection', 'keep-alive', ...(authorization ? ['Proxy-Authorization', authorization] : [])],
    })
    expect(answer.status).toBe(407)
    expect(answer.headers['proxy-authenticate']).toMatch(/^Basic /)
    expect(answer.headers.connection).not.toBe('close')
    expect(gateway.seen).toEqual([])
  })

  it('is no server for requests that are not meant for a proxy', async () => {
    expect((await send({ path: '/etc/passwd', headers: ['Proxy-Authorization', own()] })).status).toBe(400)
    expect(gateway.seen).toEqual([])
  })
})

describe('absolute-form requests', () => {
  it('adds the grant, takes its own secret away, and keeps order, case and duplicates of all other fields', async () => {
    const headers = [
      'Host',
      'api.demo.test',
      'X-Odd',
      'b',
      'accept',
      '*/*',
      'X-ODD',
      'a',
      'Connection',
      'keep-alive, X-Hop',
      'X-Hop',
      '1',
      'Proxy-Connection',
      'keep-alive',
    ]
    await send({ path: 'http://api.demo.test/a%2Fb//c?q=%20&', headers: [...headers, 'Proxy-Authorization', own()] })
    const [seen] = gateway.seen
    expect(seen?.url).toBe('http://api.demo.test/a%2Fb//c?q=%20&')
    expect(seen?.rawHeaders).toEqual([
      'Host',
      'api.demo.test',
      'X-Odd',
      'b',
      'accept',
      '*/*',
      'X-ODD',
      'a',
      'Proxy-Authorization',
      GRANT,
      'Connection',
      'keep-alive',
    ])
  })

  it('carries bodies with a length, chunked, and none at all', async () => {
    const counted = await send({
      method: 'POST',
      path: 'http://api.demo.test/',
      headers: ['Proxy-Authorization', own(), 'Content-Length', '4'],
      body: 'abcd',
    })
    expect(JSON.parse(counted.body)).toMatchObject({ body: 'abcd', headers: { 'content-length': '4' } })
    const chunked = await send({
      method: 'POST',
      path: 'http://api.demo.test/',
      headers: ['Proxy-Authorization', own(), 'Transfer-Encoding', 'chunked'],
      body: 'xyz',
    })
    expect(JSON.parse(chunked.body)).toMatchObject({ body: 'xyz', headers: { 'transfer-encoding': 'chunked' } })
    const client = await open()
    client.write(
      `POST http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nConnection: close\r\n\r\n`,
    )
    expect(await closed(client)).toContain('"content-length":"0"')
  })

  it('answers Expect: 100-continue with the word of the gateway', async () => {
    gateway.serve = (asked, answer) => {
      answer.writeContinue()
      asked.on('data', (chunk) => answer.write(chunk)).on('end', () => answer.end())
    }
    const client = await open()
    client.write(
      `PUT http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nContent-Length: 5\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n`,
    )
    expect(await until(client, /\r\n\r\n$/)).toMatch(/^HTTP\/1\.1 100 /)
    client.write('hello')
    expect(await closed(client)).toContain('hello')
  })

  it('hands on events one by one, and trailers', async () => {
    const next = Promise.withResolvers<void>()
    gateway.serve = (_asked, answer) => {
      answer.writeHead(200, { 'content-type': 'text/event-stream', trailer: 'x-sum' })
      answer.write('data: 1\n\n')
      next.promise.then(() => {
        answer.addTrailers({ 'x-sum': 'ok' })
        answer.end('data: 2\n\n')
      })
    }
    const client = await open()
    client.write(
      `GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nConnection: close\r\n\r\n`,
    )
    expect(await until(client, /data: 1\n\n/)).not.toContain('data: 2')
    next.resolve()
    expect(await closed(client)).toMatch(/data: 2\n\n\r\n0\r\nx-sum: ok\r\n\r\n$/)
  })

  it('shows a broken answer as broken', async () => {
    gateway.serve = (_asked, answer) => {
      answer.writeHead(200)
      answer.write('half')
      setImmediate(() => answer.destroy())
    }
    const client = await open()
    client.write(`GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\n\r\n`)
    expect(await closed(client)).not.toContain('0\r\n\r\n')
  })

  it('lives on when trailers are announced to a client that can have none', async () => {
    gateway.serve = (_asked, answer) => {
      answer.writeHead(200, { trailer: 'x-sum' })
      answer.write('ok')
      answer.addTrailers({ 'x-sum': '1' })
      answer.end()
    }
    const client = await open()
    client.write(`GET http://api.demo.test/ HTTP/1.0\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\n\r\n`)
    expect(await closed(client)).toMatch(/^HTTP\/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)*\r\nok$/)
  })

  it.each(['GET', 'POST', 'DELETE'])(
    'frames the body of a %s even if Connection names its length: it is no second request',
    async (method) => {
      const hidden = 'GET http://hidden.test/ HTTP/1.1\r\nHost: hidden.test\r\n\r\n'
      const headers = [
        'Host',
        'api.demo.test',
        'Content-Length',
        String(hidden.length),
        'Connection',
        'content-length, host',
      ]
      const path = 'http://api.demo.test/'
      const { body } = await send({ method, path, headers: [...headers, 'Proxy-Authorization', own()], body: hidden })
      expect(JSON.parse(body)).toMatchObject({ body: hidden, headers: { host: 'api.demo.test' } })
      await send({ path, headers: ['Proxy-Authorization', own()] })
      expect(gateway.seen.map(({ url }) => url)).toEqual([path, path])
    },
  )

  it('ends the call at the gateway when the client goes away', async () => {
    const left = Promise.withResolvers<void>()
    gateway.serve = (_asked, answer) => {
      answer.write('first')
      answer.once('close', () => left.resolve())
    }
    const client = await open()
    client.write(`GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\n\r\n`)
    await until(client, /first/)
    client.destroy()
    await left.promise
  })

  it('reads a 407 of the gateway as 403: the client’s own credentials are right', async () => {
    gateway.refusal = { status: 407, reason: 'Proxy Authentication Required', body: '{"code":"grant_expired"}' }
    const answer = await send({ path: 'http://api.demo.test/', headers: ['Proxy-Authorization', own()] })
    expect(answer.status).toBe(403)
    expect(answer.headers).not.toHaveProperty('proxy-authenticate')
    expect(answer.body).toBe('{"code":"grant_expired"}')
  })

  it('ignores an offer of h2c', async () => {
    const client = await open()
    client.write(
      `GET http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n`,
    )
    expect(await until(client, /\}$|0\r\n\r\n$/)).toMatch(/^HTTP\/1\.1 200 /)
    expect(gateway.seen[0]?.rawHeaders.map((field) => field.toLowerCase())).not.toContain('http2-settings')
    client.destroy()
  })

  it.each([
    ['two lengths', 'Content-Length: 1\r\nContent-Length: 2\r\n'],
    ['length and coding', 'Content-Length: 1\r\nTransfer-Encoding: chunked\r\n'],
    ['a space before the colon', 'X : 1\r\n'],
  ])('refuses a request with %s', async (_what, fields) => {
    const client = await open()
    client.write(
      `POST http://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\n${fields}\r\n`,
    )
    expect(await closed(client)).toMatch(/^HTTP\/1\.1 400 /)
    expect(gateway.seen).toEqual([])
  })
})

describe('tunnels', () => {
  it('carries TLS end to end between client and gateway, with the grant on the CONNECT alone', async () => {
    const client = await tunnel('api.demo.test:443')
    const tls = connectTls({ socket: client, servername: 'api.demo.test', ca: gateway.caPem })
    tls.write('GET /x HTTP/1.1\r\nHost: api.demo.test\r\nConnection: close\r\n\r\n')
    expect(await closed(tls)).toContain('"url":"/x"')
    expect(gateway.seen.map(({ via, proxyAuthorization }) => [via, proxyAuthorization])).toEqual([
      ['connect', GRANT],
      ['tunnel', undefined],
    ])
  })

  it('moves a large body both ways without losing order, under back-pressure', async () => {
    gateway.serve = (asked, answer) => void asked.pipe(answer)
    const client = await tunnel('api.demo.test:443')
    const tls = connectTls({ socket: client, servername: 'api.demo.test', ca: gateway.caPem })
    const size = 32 * 1024 * 1024
    const sent = request({
      createConnection: () => tls,
      method: 'POST',
      path: '/',
      headers: { host: 'api.demo.test', 'content-length': size },
    })
    const block = Buffer.alloc(1024 * 1024, 'abcdefgh')
    const write = (left: number): void => {
      if (left === 0) return void sent.end()
      if (sent.write(block)) write(left - block.length)
      else sent.once('drain', () => write(left - block.length))
    }
    write(size)
    let received = 0
    await new Promise<void>((resolve, reject) => {
      sent.once('error', reject)
      sent.once('response', (answer) => {
        answer.on('data', (chunk: Buffer) => {
          if (chunk[0] !== 'abcdefgh'.charCodeAt(received % 8)) reject(new Error(`wrong byte at ${received}`))
          received += chunk.length
        })
        answer.once('end', resolve)
      })
    })
    expect(received).toBe(size)
    tls.destroy()
  })

  it('puts the gateway’s refusal into the reason phrase, and never asks for other credentials', async () => {
    gateway.refusal = { status: 407, reason: 'keyless: the grant has expired', body: '{"code":"grant_expired"}' }
    const client = await open()
    client.write(`CONNECT api.demo.test:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${own()}\r\n\r\n`)
    const answer = await closed(client)
    expect(answer).toMatch(/^HTTP\/1\.1 403 keyless: the grant has expired\r\n/)
    expect(answer).toMatch(/\{"code":"grant_expired"\}$/)
    expect(answer.toLowerCase()).not.toContain('proxy-authenticate')
  })

  it('is cut when the forwarder closes', async () => {
    const client = await tunnel('api.demo.test:443')
    const ended = closed(client)
    await forwarder.close()
    await ended
  })
})

describe('WebSocket', () => {
  it('passes the upgrade with the grant, then bytes both ways', async () => {
    const far = createServer()
    far.on('upgrade', (asked, socket: Socket) => {
      socket.write(
        `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Grant: ${asked.headers['proxy-authorization']}\r\n\r\n`,
      )
      socket.pipe(socket)
    })
    await new Promise<void>((resolve) => far.listen(0, '127.0.0.1', resolve))
    const port = (far.address() as { port: number }).port
    const passing = await openForwarder({ gateway: { host: '127.0.0.1', port }, authorization: GRANT })
    const client = await open(passing.port)
    const secret = Buffer.from(`agent:${passing.secret}`).toString('base64')
    client.write(
      `GET ws://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: Basic ${secret}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n`,
    )
    const head = await until(client, /\r\n\r\n$/)
    expect(head).toMatch(/^HTTP\/1\.1 101 /)
    expect(head).toContain(`X-Grant: ${GRANT}`)
    client.write('ping')
    expect(await until(client, /ping/)).toBe('ping')
    client.destroy()
    await passing.close()
    await new Promise((resolve) => far.close(resolve))
  })

  it('hands back a refusal of the upgrade', async () => {
    gateway.serve = (_asked, answer) => void answer.writeHead(403, 'Forbidden', { 'x-should-retry': 'false' }).end('no')
    const client = await open()
    client.write(
      `GET ws://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    )
    const answer = await closed(client)
    expect(answer).toMatch(/^HTTP\/1\.1 403 Forbidden\r\n/)
    expect(answer).toMatch(/\r\n\r\nno$/)
  })
})

describe('an upgrade whose refusal breaks off', () => {
  it('is cut there, with nothing added that would pass for the rest of it', async () => {
    const reached = Promise.withResolvers<void>()
    gateway.serve = (_asked, answer) => {
      answer.writeHead(403, { 'content-length': '400' })
      answer.write('half')
      reached.promise.then(() => (answer.socket as Socket).resetAndDestroy())
    }
    const client = await open()
    client.write(
      `GET ws://api.demo.test/ HTTP/1.1\r\nHost: api.demo.test\r\nProxy-Authorization: ${own()}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`,
    )
    await until(client, /half$/)
    reached.resolve()
    expect(await closed(client)).not.toContain('502')
  })
})

describe('while the gateway is away', () => {
  it('says so on requests and on CONNECT, and goes on when it is back', async () => {
    const headers = ['Proxy-Authorization', own()]
    expect((await send({ path: 'http://api.demo.test/', headers })).status).toBe(200)
    await gateway.stopProxy()
    const away = await send({ path: 'http://api.demo.test/', headers })
    expect(away.status).toBe(502)
    expect(JSON.parse(away.body)).toMatchObject({ code: 'gateway_unreachable', remedy: 'retry' })
    // Where each kind of client looks for words.
    expect(JSON.parse(away.body)).toMatchObject({
      message: expect.stringContaining('keyless start'),
      error: { message: expect.stringContaining('keyless start') },
    })
    const asked = (agent: string) => send({ path: 'http://api.demo.test/', headers: [...headers, 'User-Agent', agent] })
    expect(JSON.parse((await asked('npm/11.0.0 node/v26')).body).error).toMatch(
      /keyless start.*\(gateway_unreachable\)$/,
    )
    expect((await asked('git/2.39.5')).body).toMatch(/^The Keyless gateway .*\(gateway_unreachable\)\n$/)
    const client = await open()
    client.write(`CONNECT api.demo.test:443 HTTP/1.1\r\nHost: x\r\nProxy-Authorization: ${own()}\r\n\r\n`)
    expect(await closed(client)).toMatch(/^HTTP\/1\.1 502 keyless gateway at 127\.0\.0\.1:\d+ does not answer\r\n/)
    await gateway.startProxy()
    expect((await send({ path: 'http://api.demo.test/', headers })).status).toBe(200)
  })
})

function open(port = forwarder.port): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(port, '127.0.0.1', () => resolve(socket))
    socket.once('error', reject)
  })
}

async function tunnel(target: string): Promise<Socket> {
  const client = await open()
  client.write(`CONNECT ${target} HTTP/1.1\r\nHost: ${target}\r\nProxy-Authorization: ${own()}\r\n\r\n`)
  expect(await until(client, /\r\n\r\n$/)).toMatch(/^HTTP\/1\.1 200 /)
  return client
}

/** Everything received until it matches. */
function until(socket: Socket, pattern: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ''
    const take = (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (!pattern.test(text)) return
      socket.off('data', take).off('close', fail)
      socket.pause()
      resolve(text)
    }
    const fail = () => reject(new Error(`closed after: ${text}`))
    socket.on('data', take).once('close', fail)
    socket.resume()
  })
}

function closed(socket: Socket): Promise<string> {
  return new Promise((resolve) => {
    let text = ''
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1')
    })
    socket.on('error', () => undefined)
    socket.once('close', () => resolve(text))
    socket.resume()
  })
}

interface Sent {
  readonly method?: string
  readonly path: string
  readonly headers?: readonly string[]
  readonly body?: string
}

function send({
  method = 'GET',
  path,
  headers = [],
  body,
}: Sent): Promise<{ status: number; headers: Record<string, unknown>; body: string }> {
  return new Promise((resolve, reject) => {
    const fields = headers.some((field) => field.toLowerCase() === 'host')
      ? [...headers]
      : ['Host', 'api.demo.test', ...headers]
    const sent = request({ port: forwarder.port, host: '127.0.0.1', method, path, headers: fields, agent: false })
    sent.once('error', reject)
    sent.once('response', (answer) => {
      let text = ''
      answer.on('data', (chunk) => {
        text += chunk
      })
      answer.once('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: text }))
    })
    sent.end(body)
  })
}
