import { once } from 'node:events'
import { constants } from 'node:http2'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Echo, HANDLE, type OpenDoor, openDoor } from './door.fixture.ts'
import { answerOf, call, openSession, PLACE, secured } from './http2.fixture.ts'
import { codeOf, END_STREAM, FRAME, type Frame, frame, openFrames, request } from './http2-frames.fixture.ts'

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())

test('a stream is one Inbound: method, path and host of its pseudo-headers, credential of the CONNECT', async () => {
  const session = await openSession(door)
  const answer = await call(session, { ':path': '/user?x=%2F', 'user-agent': 'inner/2' })
  expect(answer.status).toBe(200)
  const inbound = door.calls.at(-1)
  expect(inbound).toMatchObject({
    mode: 'intercept',
    method: 'GET',
    scheme: 'https',
    host: 'api.github.test',
    port: 443,
    rawPath: '/user?x=%2F',
    hostHeader: 'api.github.test:443',
    presented: { token: HANDLE, scheme: 'basic', user: 't' },
    client: { address: '127.0.0.1', userAgent: 'inner/2' },
    body: null,
  })
  expect(inbound?.rawHeaders).toEqual(['user-agent', 'inner/2'])
  session.close()
})

test('repeated fields keep order, and the crumbs of Cookie are one field again', async () => {
  const session = await openSession(door)
  const answer = await call(session, { ':path': '/', 'x-a': ['1', '2'], cookie: ['a=1', 'b=2', 'c=3'] })
  const { headers } = JSON.parse(answer.body) as Echo
  const sent = headers.map((text, i) => (i % 2 === 0 ? `${text}: ${headers[i + 1]}` : '')).filter((text) => text !== '')
  expect(sent).toEqual(expect.arrayContaining(['x-a: 1', 'x-a: 2', 'cookie: a=1; b=2; c=3']))
  session.close()
})

test('a body goes up, with and without Content-Length', async () => {
  const session = await openSession(door)
  const sized = await call(
    session,
    { ':method': 'POST', ':path': '/', 'content-length': '300000' },
    Buffer.alloc(300_000),
  )
  expect((JSON.parse(sized.body) as Echo).bytes).toBe(300_000)
  const unsized = await call(session, { ':method': 'POST', ':path': '/' }, Buffer.alloc(300_000))
  expect((JSON.parse(unsized.body) as Echo).bytes).toBe(300_000)
  const empty = await call(session, { ':method': 'POST', ':path': '/' }, '')
  expect((JSON.parse(empty.body) as Echo).bytes).toBe(0)
  session.close()
})

test('cookies stay apart in an answer, nothing of a connection is in it, and its trailers follow', async () => {
  const session = await openSession(door)
  const answer = await call(session, { ':path': '/trailers' })
  expect(answer.headers['set-cookie']).toEqual(['a=1', 'b=2'])
  expect(answer.raw.filter((_, i) => i % 2 === 0)).toEqual([':status', 'trailer', 'set-cookie', 'set-cookie', 'date'])
  expect(answer.body).toBe('body')
  expect(answer.trailers?.['x-sum']).toBe('42')
  expect(answer.rstCode).toBe(0)
  session.close()
})

test('8 MiB come down whole, to a client that reads at once and to one that waits', async () => {
  const session = await openSession(door)
  expect((await call(session, { ':path': '/large' })).body.length).toBe(8 * 1024 * 1024)
  const stream = session.request({ ':path': '/large' })
  await once(stream, 'response')
  let length = 0
  for await (const chunk of stream) {
    length += (chunk as Buffer).length
    await new Promise((resolve) => setImmediate(resolve))
  }
  expect(length).toBe(8 * 1024 * 1024)
  session.close()
})

test('a request that is complete gets its answer and no reset, one that is not need not go on', async () => {
  const wire = await openFrames(door)
  const isEnd = ({ type, flags }: Frame) => type === FRAME.DATA && (flags & END_STREAM) !== 0
  wire.write(request(1, { method: 'POST' }), frame(FRAME.DATA, END_STREAM, 1, 'all of it'))
  expect((await wire.next(isEnd)).id).toBe(1)
  wire.write(request(3, { method: 'POST', path: '/denied' }), frame(FRAME.DATA, 0, 3, 'some of it'))
  expect((await wire.next(isEnd)).id).toBe(3)
  await wire.next(({ type }) => type === FRAME.RST_STREAM)
  wire.socket.end()
  const resets = (await wire.closed()).filter(({ type }) => type === FRAME.RST_STREAM)
  expect(resets.map((reset) => [reset.id, codeOf(reset)])).toEqual([[3, constants.NGHTTP2_NO_ERROR]])
})

test('HEAD is answered without content', async () => {
  const session = await openSession(door)
  const answer = await call(session, { ':method': 'HEAD', ':path': '/' })
  expect(answer).toMatchObject({ status: 200, body: '', rstCode: 0 })
  expect(Number(answer.headers['content-length'])).toBeGreaterThan(0)
  session.close()
})

test('many streams of one connection are decided one by one', async () => {
  const session = await openSession(door)
  const paths = Array.from({ length: 60 }, (_, i) => (i % 3 === 0 ? `/denied/${i}` : `/allowed/${i}`))
  const answers = await Promise.all(paths.map((path) => call(session, { ':path': path })))
  expect(answers.map(({ status }) => status)).toEqual(paths.map((path) => (path.startsWith('/denied') ? 403 : 200)))
  session.close()
})

test('a truncated answer is a reset stream, never an ended one', async () => {
  const wire = await openFrames(door)
  wire.write(request(1, { path: '/broken', isWhole: true }))
  expect(codeOf(await wire.next(({ type }) => type === FRAME.RST_STREAM))).toBe(constants.NGHTTP2_INTERNAL_ERROR)
  wire.socket.end()
  const ended = (await wire.closed()).filter(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0)
  expect(ended).toEqual([])
  const session = await openSession(door)
  const answer = await call(session, { ':path': '/broken' })
  expect(answer.status).toBe(200)
  expect(answer.rstCode).toBe(constants.NGHTTP2_INTERNAL_ERROR)
  session.close()
})

test('refusals inside are 403 with their code, and the connection goes on', async () => {
  const session = await openSession(door, 'api.openai.test:443')
  const refused = await call(session, { ':method': 'POST', ':path': '/denied' }, 'x'.repeat(1_000_000))
  expect(refused).toMatchObject({
    status: 403,
    headers: { 'keyless-error': 'policy_denied', 'x-should-retry': 'false' },
  })
  expect(JSON.parse(refused.body).error.code).toBe('policy_denied')
  expect((await call(session, { ':path': '/ok' })).status).toBe(200)
  session.close()
})

test('a grant that ends stops the next stream of an open connection', async () => {
  const own = await openDoor()
  const session = await openSession(own)
  expect((await call(session, { ':path': '/' })).status).toBe(200)
  own.revoke()
  const refused = await call(session, { ':path': '/' })
  expect(refused).toMatchObject({ status: 403, headers: { 'keyless-error': 'grant_revoked' } })
  session.close()
  await own.close()
})

test.each([
  ['another host', { ':authority': 'evil.test' }, 421],
  ['the host under another port', { ':authority': 'api.github.test:444' }, 421],
  ['the same place in other words', { ':authority': 'API.GitHub.test:443' }, 200],
  ['a Host field that says otherwise', { host: 'evil.test' }, 421],
  ['a Host field that agrees', { host: 'api.github.test:443' }, 200],
])('an :authority or Host that names %s', async (_what, headers, status) => {
  const session = await openSession(door)
  expect((await call(session, { ':path': '/', ...headers })).status).toBe(status)
  session.close()
})

test('Expect: 100-continue is answered when the body is wanted, and a refusal comes without it', async () => {
  const session = await openSession(door)
  const allowed = session.request({ ':method': 'POST', ':path': '/', expect: '100-continue' })
  await once(allowed, 'continue')
  allowed.end('body')
  expect((JSON.parse((await answerOf(allowed)).body) as Echo).bytes).toBe(4)
  let continued = 0
  const refused = session.request({ ':method': 'POST', ':path': '/denied', expect: '100-continue' })
  refused.on('continue', () => {
    continued += 1
  })
  expect((await answerOf(refused)).status).toBe(403)
  expect(continued).toBe(0)
  session.close()
})

test('a client that leaves one stream stops its upstream and no other', async () => {
  const own = await openDoor()
  const session = await openSession(own)
  const leaving = session.request({ ':path': '/endless' })
  await once(leaving, 'data')
  const staying = session.request({ ':path': '/endless' })
  await once(staying, 'data')
  leaving.close(constants.NGHTTP2_CANCEL)
  await expect.poll(() => own.upstream.aborted).toBe(1)
  await once(staying, 'data')
  session.destroy()
  await expect.poll(() => own.upstream.aborted).toBe(2)
  await own.close()
})

// Node's client ends a stream before it resets it, so these are raw frames.
test.each([
  ['CANCEL', constants.NGHTTP2_CANCEL],
  ['NO_ERROR', constants.NGHTTP2_NO_ERROR],
])('an upload that the client resets with %s never reaches the upstream as a whole one', async (_name, code) => {
  const own = await openDoor()
  const wire = await openFrames(own)
  wire.write(request(1, { method: 'POST' }), frame(FRAME.DATA, 0, 1, 'half of'))
  await expect.poll(() => own.upstream.received).toBe(1)
  wire.write(frame(FRAME.RST_STREAM, 0, 1, Buffer.from([0, 0, 0, code])))
  await expect.poll(() => own.upstream.aborted).toBe(1)
  wire.socket.destroy()
  await own.close()
})

test('a connection is told to go when the gateway drains, and what is in flight is finished', async () => {
  const own = await openDoor()
  const busy = await openSession(own)
  const idle = await openSession(own)
  await call(idle, { ':path': '/' })
  const slow = call(busy, { ':path': '/slow' })
  await expect.poll(() => own.upstream.received).toBe(2)
  const told = [once(busy, 'goaway'), once(idle, 'goaway'), once(idle, 'close')]
  const drained = own.door.drain(5_000)
  await Promise.all(told)
  expect(await slow).toMatchObject({ status: 200, rstCode: 0 })
  await drained
  await own.close()
})

test('what is in flight after the grace is cut, and looks cut', async () => {
  const own = await openDoor()
  const wire = await openFrames(own)
  wire.write(request(1, { path: '/endless', isWhole: true }))
  await wire.next(({ type }) => type === FRAME.DATA)
  await own.door.drain(50)
  const frames = await wire.closed()
  expect(frames.some(({ type }) => type === FRAME.GOAWAY)).toBe(true)
  expect(frames.filter(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0)).toEqual([])
  await own.close()
})

test('a client that closes after the handshake without a word of HTTP/2 is complained of, others are not', async () => {
  const asked = await openSession(door, 'gitlab.test:443')
  await call(asked, { ':path': '/' })
  asked.destroy()
  const idle = await openSession(door, 'maps.test:443') // as Node's WebSocket does before it turns to HTTP/1.1
  await once(idle, 'remoteSettings')
  idle.close()
  const silent = await secured(door, 'shop.test:443')
  silent.destroy()
  await expect.poll(() => door.complaints.some(({ host }) => host === 'shop.test')).toBe(true)
  expect(door.complaints.some(({ host }) => host === 'gitlab.test' || host === 'maps.test')).toBe(false)
})

test('the extended CONNECT is not offered', async () => {
  const session = await openSession(door, PLACE)
  const [settings] = await once(session, 'remoteSettings')
  expect(settings).toMatchObject({ enableConnectProtocol: false, maxConcurrentStreams: 128, maxHeaderListSize: 65_536 })
  session.close()
})
