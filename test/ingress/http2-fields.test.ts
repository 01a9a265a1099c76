/** What two readers of one HTTP/2 request could take for two requests is refused, or normalised before anything is decided. */
import { constants, type OutgoingHttpHeaders } from 'node:http2'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Echo, type OpenDoor, openDoor } from './door.fixture.ts'
import { call, openSession } from './http2.fixture.ts'
import {
  block,
  codeOf,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type Frame,
  frame,
  openFrames,
  request,
} from './http2-frames.fixture.ts'

const { NGHTTP2_PROTOCOL_ERROR, NGHTTP2_ENHANCE_YOUR_CALM } = constants

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

type Fields = readonly (readonly [string, string])[]

const METHOD = [':method', 'GET'] as const
const SCHEME = [':scheme', 'https'] as const
const AUTHORITY = [':authority', 'api.github.test'] as const
const PATH = [':path', '/'] as const

/** How a stream with exactly these fields ends: the code it is reset with, `answered`, or `cut` with its connection. */
async function fate(fields: Fields, ...more: readonly Buffer[]): Promise<number | 'answered' | 'cut'> {
  const wire = await openFrames(door)
  const flags = END_HEADERS | (more.length === 0 ? END_STREAM : 0)
  wire.write(frame(FRAME.HEADERS, flags, 1, block(fields)), ...more)
  const isEnd = ({ type, id }: Frame) => id === 1 && (type === FRAME.RST_STREAM || type === FRAME.HEADERS)
  const end = await wire.next(isEnd).catch(() => undefined)
  wire.socket.destroy()
  if (end === undefined) return 'cut'
  return end.type === FRAME.RST_STREAM ? codeOf(end) : 'answered'
}

const ordinary: Fields = [METHOD, SCHEME, AUTHORITY, PATH]

test('an ordinary request is answered', async () => {
  expect(await fate(ordinary)).toBe('answered')
})

describe('a request is reset, and nothing of it goes on, when', () => {
  test.each<[string, Fields]>([
    ['a pseudo-header is there twice', [...ordinary, [':path', '/other']]],
    ['two authorities are named', [...ordinary, [':authority', 'evil.test']]],
    ['a pseudo-header follows a field', [METHOD, SCHEME, AUTHORITY, ['x', '1'], PATH]],
    ['a pseudo-header is unknown', [...ordinary, [':port', '1']]],
    ['it has the status of an answer', [...ordinary, [':status', '200']]],
    ['it asks for an extended CONNECT', [[':method', 'CONNECT'], [':protocol', 'websocket'], SCHEME, AUTHORITY, PATH]],
    ['it has no method', [SCHEME, AUTHORITY, PATH]],
    ['it has no scheme', [METHOD, AUTHORITY, PATH]],
    ['it has no path', [METHOD, SCHEME, AUTHORITY]],
    ['its path is empty', [METHOD, SCHEME, AUTHORITY, [':path', '']]],
    ['its path has no slash', [METHOD, SCHEME, AUTHORITY, [':path', 'user']]],
    ['its path is a whole URL', [METHOD, SCHEME, AUTHORITY, [':path', 'https://evil.test/']]],
    ['its path is an asterisk', [METHOD, SCHEME, AUTHORITY, [':path', '*']]],
    ['its path has a space', [METHOD, SCHEME, AUTHORITY, [':path', '/a HTTP/1.1']]],
    ['its path has a line break', [METHOD, SCHEME, AUTHORITY, [':path', '/a\r\nX-Evil: 1']]],
    ['its method has a space', [[':method', 'GET /'], SCHEME, AUTHORITY, PATH]],
    ['its authority has a line break', [METHOD, SCHEME, [':authority', 'api.github.test\r\n'], PATH]],
    ['its authority has user information', [METHOD, SCHEME, [':authority', 'u@api.github.test'], PATH]],
    ['it has two Host fields', [...ordinary, ['host', 'api.github.test'], ['host', 'api.github.test']]],
    ['nobody is named as host', [METHOD, SCHEME, PATH]],
    ['a name has upper case', [...ordinary, ['X-Upper', '1']]],
    ['it has Connection', [...ordinary, ['connection', 'close']]],
    ['it has Keep-Alive', [...ordinary, ['keep-alive', '5']]],
    ['it has Proxy-Connection', [...ordinary, ['proxy-connection', 'keep-alive']]],
    ['it has Upgrade', [...ordinary, ['upgrade', 'h2c']]],
    ['it has Transfer-Encoding', [...ordinary, ['transfer-encoding', 'chunked']]],
    ['it has a TE other than trailers', [...ordinary, ['te', 'gzip']]],
    ['it has two lengths', [...ordinary, ['content-length', '1'], ['content-length', '2']]],
    ['its length is no number', [...ordinary, ['content-length', '+3']]],
    ['its length promises what does not come', [...ordinary, ['content-length', '3']]],
  ])('%s', async (_what, fields) => {
    const before = door.upstream.received
    expect(await fate(fields)).toBe(NGHTTP2_PROTOCOL_ERROR)
    expect(door.upstream.received).toBe(before)
  })

  test.each([
    ['less', 'ab', NGHTTP2_PROTOCOL_ERROR],
    ['more', 'abcd', 'cut'],
  ])('it has %s content than Content-Length says', async (_what, content, end) => {
    const aborted = door.upstream.aborted
    const received = door.upstream.received
    const fields: Fields = [[':method', 'POST'], SCHEME, AUTHORITY, PATH, ['content-length', '3']]
    expect(await fate(fields, frame(FRAME.DATA, END_STREAM, 1, content))).toBe(end)
    // It may have been on its way up; then it broke off.
    await expect.poll(() => door.upstream.received - received - (door.upstream.aborted - aborted)).toBe(0)
  })
})

describe('a field never reaches the upstream with', () => {
  test.each([
    ['a line break', 'x-a', 'one\r\nX-Evil: 1'],
    ['a NUL', 'x-a', 'one\0two'],
    ['whitespace before it', 'x-a', ' one'],
    ['whitespace after it', 'x-a', 'one\t'],
    ['a name with a space', 'x a', 'one'],
    ['a name with a colon', 'x:a', 'one'],
    ['an empty name', '', 'one'],
  ])('%s', async (_what, name, value) => {
    const end = await fate([...ordinary, [name, value]])
    if (end !== 'answered') return
    const sent = door.calls.at(-1)?.rawHeaders ?? []
    expect(sent).toEqual([]) // nghttp2 leaves it out before anybody reads it
  })
})

describe('a request is answered with a refusal when', () => {
  test.each([
    ['its scheme is http', { ':scheme': 'http' }, 400, 'request_malformed'],
    ['its path has a fragment', { ':path': '/a#b' }, 400, 'request_malformed'],
    ['it is a CONNECT', { ':method': 'CONNECT' }, 405, 'method_refused'],
    ['its method is TRACE', { ':method': 'TRACE' }, 405, 'method_refused'],
    ['its method is not in upper case', { ':method': 'get' }, 405, 'method_refused'],
    ['nobody knows its method', { ':method': 'FROBNICATE' }, 405, 'method_refused'],
  ])('%s', async (_what, headers, status, code) => {
    const before = door.upstream.received
    const wire = await openSession(door, 'api.github.test:443')
    const { ':method': method = 'GET' } = headers as Record<string, string>
    const target = method === 'CONNECT' ? { ':authority': 'api.github.test' } : { ':path': '/' }
    const answer = await call(wire, { ...target, ...(headers as OutgoingHttpHeaders) })
    expect(answer).toMatchObject({ status, headers: { 'keyless-error': code } })
    expect(door.refused.at(-1)?.code).toBe(code)
    expect(door.upstream.received).toBe(before)
    wire.destroy()
  })

  test('its fields are more than 64 KiB, said at once or packed', async () => {
    const session = await openSession(door, 'api.github.test:443', { maxSendHeaderBlockLength: 1 << 20 })
    const large = { 'x-large': 'x'.repeat(30_000) }
    expect((await call(session, { ':path': '/', ...large, 'x-also': 'x'.repeat(30_000) })).status).toBe(200)
    const crumbs = Array.from({ length: 1_500 }, (_, i) => `c${i}=${'x'.repeat(40)}`)
    const refused = await call(session, { ':path': '/', cookie: crumbs })
    expect(refused.rstCode).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
    expect((await call(session, { ':path': '/' })).status).toBe(200)
    session.close()
  })
})

test('a head in many frames is one head', async () => {
  const wire = await openFrames(door)
  const bytes = block([...ordinary, ['x-a', 'x'.repeat(20_000)]])
  wire.write(
    frame(FRAME.HEADERS, END_STREAM, 1, bytes.subarray(0, 5_000)),
    frame(FRAME.CONTINUATION, 0, 1, bytes.subarray(5_000, 15_000)),
    frame(FRAME.CONTINUATION, END_HEADERS, 1, bytes.subarray(15_000)),
  )
  await wire.next(({ type, id }) => type === FRAME.HEADERS && id === 1)
  expect(door.calls.at(-1)?.rawHeaders[1]).toHaveLength(20_000)
  wire.socket.destroy()
})

test('trailers of a request are not sent on, and cannot change what was decided', async () => {
  const wire = await openFrames(door)
  wire.write(
    request(1, { method: 'POST' }),
    frame(FRAME.DATA, 0, 1, 'body'),
    frame(FRAME.HEADERS, END_HEADERS | END_STREAM, 1, block([['x-late', '1']])),
  )
  const data = await wire.next(({ type, payload }) => type === FRAME.DATA && payload.length > 0)
  const { headers, bytes } = JSON.parse(data.payload.toString()) as Echo
  expect(bytes).toBe(4)
  expect(headers).not.toContain('x-late')
  wire.socket.destroy()
})

test('what a caller says of trace and prompt is read like over HTTP/1.1', async () => {
  const trace = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
  const hash = 'ab'.repeat(32)
  const session = await openSession(door)
  await call(session, { ':path': '/', traceparent: trace, 'keyless-prompt-hash': `sha256:${hash}` })
  const digest = Buffer.from(hash, 'hex').toString('base64url')
  expect(door.calls.at(-1)).toMatchObject({ trace, promptHash: `sha256:${digest}` })
  await call(session, { ':path': '/', traceparent: [trace, trace] as never })
  expect(door.calls.at(-1)?.trace).toBeUndefined()
  const refused = await call(session, { ':path': '/', 'keyless-prompt-hash': 'canary, in plain words' })
  expect([refused.status, refused.headers['keyless-error']]).toEqual([400, 'request_malformed'])
  expect(refused.body).not.toContain('canary')
  expect(door.calls.at(-1)?.promptHash).toBeUndefined()
  session.destroy()
})
