/** Answers by which an upstream, on its own or because an agent asked it to, gives a credential away unseen (standards.md H9, H10). */
import { deflateSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { findCanary, newCanary } from '../rig/canary.ts'
import { reverse } from './agent.fixture.ts'
import { type ScriptedUpstream, startScripted } from './scripted.fixture.ts'
import { type OpenSite, type Operations, openSite } from './services.fixture.ts'

const key = newCanary()
const session = newCanary().replaceAll(/["+/]/g, '')
const operations: Operations = { 'x.read': { match: ['GET /x'], access: 'read' } }

let upstream: ScriptedUpstream
let site: OpenSite
let port: number
let handle: string

beforeAll(async () => {
  upstream = await startScripted(['victim.keyless.test', 'cookie.keyless.test', 'pass.keyless.test'])
  site = await openSite(upstream, {
    services: [
      { name: 'victim', operations },
      { name: 'cookie', operations, slots: [{ in: 'cookie', name: 'session' }] },
      { name: 'pass', operations, slots: [{ in: 'cookie', name: 'session' }], cookies: 'pass' },
    ],
    credentials: { victim: key, cookie: session, pass: session },
  })
  port = site.gateway.proxyPort
  handle = (await site.gateway.openTask('victim:* cookie:* pass:*')).handle
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

const ask = (path: string, fields = '') =>
  reverse(port, handle, { path, fields: `Proxy-Authorization: Bearer ${handle}\r\n${fields}` })

const answerWith = (fields: readonly string[], body: Buffer, line = '200 OK') => {
  upstream.act = (socket) => {
    socket.write(`HTTP/1.1 ${line}\r\n${fields.map((field) => `${field}\r\n`).join('')}\r\n`)
    socket.end(body)
  }
}

const chunked = (bytes: Buffer) =>
  Buffer.concat([Buffer.from(`${bytes.length.toString(16)}\r\n`), bytes, Buffer.from('\r\n0\r\n\r\n')])

describe('a body under a transfer coding that nobody here undoes', () => {
  const echo = Buffer.from(`{"seen":"${key}"}`)
  it.each([
    ['gzip, chunked', chunked(gzipSync(echo))],
    ['deflate, chunked', chunked(deflateSync(echo))],
    ['gzip', gzipSync(echo)],
  ])('%s is refused', async (coding, body) => {
    answerWith([`Transfer-Encoding: ${coding}`], body)
    const { status, bytes } = await ask('/victim/x')
    expect(status).toBe(502)
    expect(bytes.toString('latin1')).toContain('keyless-error: upstream_encoding')
  })
})

describe('a body in a character set in which ASCII is not ASCII', () => {
  it.each([
    ['UTF-16LE', (text: string) => Buffer.from(text, 'utf16le')],
    ['UTF-16BE', (text: string) => Buffer.from(text, 'utf16le').swap16()],
  ])('%s is searched', async (_, encode) => {
    const body = encode(`{"seen":"${key}"}`)
    answerWith([`Content-Length: ${body.length}`], body)
    const { status, bytes } = await ask('/victim/x')
    expect(status).toBe(200)
    const plain = bytes.toString('latin1').replaceAll('\0', '')
    expect(plain).toContain('{"seen":"')
    expect(findCanary(plain, key)).toEqual([])
  })

  it.each(['utf-32', '"utf-32"', 'IBM037', 'utf-7', 'utf-8; charset=ebcdic-us'])('%s is refused', async (charset) => {
    answerWith([`Content-Type: text/plain; charset=${charset}`, 'Content-Length: 2'], Buffer.from('ok'))
    expect((await ask('/victim/x')).bytes.toString('latin1')).toContain('keyless-error: upstream_encoding')
  })

  it.each(['', '; charset=utf-8', '; charset="UTF-8"', '; charset=iso-8859-1', '; boundary=charset'])(
    'text/plain%s passes',
    async (parameter) => {
      answerWith([`Content-Type: text/plain${parameter}`, 'Content-Length: 2'], Buffer.from('ok'))
      expect((await ask('/victim/x')).status).toBe(200)
    },
  )
})

it('leads nobody past the gateway: Alt-Svc stays here', async () => {
  answerWith(['Alt-Svc: h3=":443"; ma=86400', 'X-Kept: 1', 'Content-Length: 0'], Buffer.alloc(0))
  const text = (await ask('/victim/x')).bytes.toString('latin1')
  expect(text).toContain('X-Kept: 1')
  expect(text).not.toMatch(/alt-svc/i)
})

describe('a part that nobody asked for', () => {
  it.each([
    ['206 Partial Content', 'Content-Range: bytes 0-1/9'],
    ['200 OK', 'Content-Range: bytes 0-1/9'],
    ['206 Partial Content', 'Content-Type: multipart/byteranges; boundary=x'],
    ['200 OK', 'Content-Type: multipart/byteranges; boundary=x'],
  ])('%s with %s is refused', async (line, field) => {
    answerWith([field, 'Content-Length: 2'], Buffer.from('ok'), line)
    const answer = await ask('/victim/x')
    expect(answer.status).toBe(502)
    expect(answer.bytes.toString('latin1')).toContain('upstream_encoding')
  })
})

describe('a session that the upstream opens or renews for the credential', () => {
  it.each([
    ['Set-Cookie', 'session=NEW; Path=/'],
    ['Set-Cookie', ' session = NEW'],
    ['Set-Cookie', 'other=NEW; HttpOnly'],
    ['set-cookie2', 'session=NEW'],
  ])('%s: %s stays here, and is no leak', async (name, cookie) => {
    for (const place of ['cookie', 'victim']) {
      answerWith([`${name}: ${cookie}`, 'X-Kept: 1', 'Content-Length: 0'], Buffer.alloc(0))
      const text = (await ask(`/${place}/x`)).bytes.toString('latin1')
      expect(text).toContain('X-Kept: 1')
      expect(text).not.toContain('NEW')
    }
  })

  it('reaches the agent where the service file says that cookies are no credentials, but for the credential itself', async () => {
    answerWith(['Set-Cookie: session=NEW', 'Set-Cookie: theme=dark', 'Content-Length: 0'], Buffer.alloc(0))
    const text = (await ask('/pass/x')).bytes.toString('latin1')
    expect(text).toContain('Set-Cookie: theme=dark')
    expect(text).not.toContain('NEW')
  })

  it('in the trailers too', async () => {
    const body = Buffer.from('2\r\nok\r\n0\r\nSet-Cookie: session=NEW\r\nX-Sum: 1\r\n\r\n')
    answerWith(['Transfer-Encoding: chunked', 'Trailer: Set-Cookie, X-Sum'], body)
    const text = (await ask('/cookie/x')).bytes.toString('latin1')
    expect(text).toContain('X-Sum: 1')
    expect(text).not.toContain('NEW')
  })
})
