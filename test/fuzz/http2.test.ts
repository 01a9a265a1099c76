/** The same over HTTP/2 on the agent's side: paths, fields and lengths that others could take for something else. */
import { once } from 'node:events'
import { type ClientHttp2Session, connect, type OutgoingHttpHeaders } from 'node:http2'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { canonicalPath } from '../../gateway/protocol/target.ts'
import { type Recorder, startRecorder } from './recorder.fixture.ts'
import { tunnelled } from './shapes.fixture.ts'
import { type Fuzzed, openFuzzed } from './site.fixture.ts'
import { AMBIGUOUS, PLAIN, WATCHED } from './wordings.fixture.ts'

let recorder: Recorder
let fuzzed: Fuzzed
let session: ClientHttp2Session

beforeAll(async () => {
  recorder = await startRecorder(['safe.keyless.test', 'modern.keyless.test'])
  fuzzed = await openFuzzed(recorder)
  const { site } = fuzzed
  const raw = await tunnelled(site, `safe.keyless.test:${site.tlsPort}`)
  const secure = connectTls({ socket: raw, servername: 'safe.keyless.test', ca: site.ca, ALPNProtocols: ['h2'] })
  await once(secure, 'secureConnect')
  session = connect(`https://safe.keyless.test:${site.tlsPort}`, { createConnection: () => secure })
})
afterAll(async () => {
  session?.destroy()
  await fuzzed?.stop()
  await recorder?.stop()
})

/** What arrived of one stream, after all of it was decided by method and path. */
async function sent(headers: OutgoingHttpHeaders, body?: string) {
  const before = recorder.requests.length
  const stream = session.request(headers, { endStream: body === undefined })
  stream.on('error', () => {})
  if (body !== undefined) stream.end(body)
  stream.resume()
  await new Promise((resolve) => stream.on('close', resolve))
  const allowed = (await fuzzed.decisions()).filter(({ isAllowed }) => isAllowed)
  const arrived = recorder.requests.slice(before)
  expect(recorder.strange.splice(0)).toEqual([])
  for (const { method, target } of arrived)
    expect(allowed.map((one) => `${one.method} ${one.path}`)).toContain(`${method} ${canonicalPath(target)}`)
  return arrived
}

it.each(AMBIGUOUS)('the path %j is refused', async (path) => {
  expect(await sent({ ':path': path })).toEqual([])
})

it.each(PLAIN)('the path %j is sent as it comes', async (path) => {
  expect((await sent({ ':path': path })).map(({ target }) => target)).toEqual([path])
})

it.each<[string, OutgoingHttpHeaders, readonly string[]]>([
  [
    'ways to another place',
    { 'x-original-url': '/a', 'x-forwarded-host': 'a', x_forwarded_host: 'a', forwarded: 'host=a' },
    [],
  ],
  ['ways to another method', { 'x-http-method-override': 'PUT', 'x-http-method': 'PUT', x_method_override: 'PUT' }, []],
  ['names of Object.prototype', { constructor: '1', tostring: '2' }, ['constructor', 'tostring']],
  ['cookies in crumbs', { cookie: ['a=1', 'b=2'] }, ['cookie']],
  ['a byte of Latin 1', { 'x-a': '\xe9' }, ['x-a']],
])('%s', async (_what, headers, names) => {
  const [one, ...more] = await sent({ ':path': '/x', ...headers })
  expect(more).toEqual([])
  expect(one?.fields.map(([name]) => name).filter((name) => WATCHED.test(name))).toEqual(names)
})

it.each([
  ['5', 'hello', ['hello']],
  ['0005', 'hello', ['hello']],
  ['18446744073709551615', 'hello', []],
  ['9007199254740993', 'hello', []],
])('a length of %s with the content %j', async (length, body, bodies) => {
  expect(
    (await sent({ ':method': 'POST', ':path': '/x', 'content-length': length }, body)).map((one) => one.body),
  ).toEqual(bodies)
})

it('a method in lower case, or one that repeats the request, is refused', async () => {
  for (const method of ['get', 'TRACE', 'TRACK']) expect(await sent({ ':method': method, ':path': '/x' })).toEqual([])
})
