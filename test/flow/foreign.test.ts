/** Credentials that are not ours in what an agent sends: handles and grants never leave; anybody's key is removed, written down or refused, as policy says. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { basic, codeOf, say } from '../invariant/agent.fixture.ts'
import { type ScriptedUpstream, startScripted } from '../invariant/scripted.fixture.ts'
import { BEARER, entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { findCanary, newCanary } from '../rig/canary.ts'

const NAMES = ['plain', 'logs', 'refuses'] as const
type Name = (typeof NAMES)[number]

/** Made here, in the form of the real thing. */
const letters = (count: number) => randomBytes(count).toString('hex').slice(0, count)
const GITHUB = `ghp_${letters(36)}`
const KEY = generateKeyPairSync('rsa', { modulusLength: 1024 }).privateKey.export({ type: 'pkcs1', format: 'pem' })

let upstream: ScriptedUpstream
let site: OpenSite
let task: OpenedTask
let other: OpenedTask

beforeAll(async () => {
  upstream = await startScripted(NAMES.map((name) => `${name}.keyless.test`))
  const rule = (name: Name, mode: string) =>
    `@id("${name}") @owner("test") @foreign_credentials("${mode}") permit (principal, action, resource in Service::"${name}");`
  site = await openSite(upstream, {
    services: NAMES.map((name) => ({
      name,
      operations: { call: { match: ['GET /x', 'POST /x'], access: 'write' } },
      slots: [
        BEARER,
        { in: 'header', name: 'x-api-key' },
        { in: 'query', name: 'key' },
        { in: 'cookie', name: 'session' },
      ],
      placeholders: { TOKEN: 'sk-made-for-the-sdk' },
    })),
    credentials: Object.fromEntries(NAMES.map((name) => [name, newCanary()])),
    policies: { text: `${rule('logs', 'log')}\n${rule('refuses', 'refuse')}` },
  })
  task = await site.gateway.openTask(NAMES.map((name) => `${name}:*`).join(' '))
  other = await site.gateway.openTask('plain:*')
})

beforeEach(() => {
  upstream.received.length = 0
  upstream.act = (socket) => void socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok')
})

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

interface Sent {
  readonly query?: string
  readonly fields?: string
  readonly body?: string | Buffer
  readonly isChunked?: boolean
}

function send(name: Name, { query = '', fields = '', body, isChunked = false }: Sent) {
  const bytes = Buffer.from(body ?? '')
  const framing =
    body === undefined ? '' : isChunked ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${bytes.length}\r\n`
  const head = `${body === undefined ? 'GET' : 'POST'} /${name}/x${query} HTTP/1.1\r\nHost: gateway\r\nProxy-Authorization: ${basic(task.handle)}\r\n`
  const pieces = isChunked
    ? [
        ...chunks(bytes, 1000).map((one) =>
          Buffer.concat([Buffer.from(`${one.length.toString(16)}\r\n`), one, Buffer.from('\r\n')]),
        ),
        '0\r\n\r\n',
      ]
    : [bytes]
  return say(site.gateway.proxyPort, `${head}${fields}${framing}Connection: close\r\n\r\n`, ...pieces)
}

function chunks(bytes: Buffer, size: number): Buffer[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size))
}

const arrived = () => upstream.received.join('')
const entries = () => entriesOf(site.gateway.settings.dataDir)

/** Where a key may be, and how a refusal names the place. */
const KEYS: readonly [string, Sent, string][] = [
  ['a header', { fields: `X-Note: token ${GITHUB}\r\n` }, 'github in header x-note'],
  ['the query', { query: `?q=${GITHUB}` }, 'github in path or query'],
  ['the query, escaped', { query: `?q=%67hp_${GITHUB.slice(4)}` }, 'github in path or query'],
  ['a body', { body: JSON.stringify({ text: `use ${GITHUB}` }) }, 'github in body'],
  ['a body, escaped', { body: `{"text":"\\u0067hp_${GITHUB.slice(4)}"}` }, 'github in body'],
  ['a body, in Base64', { body: JSON.stringify({ content: btoa(`export TOKEN=${GITHUB}\n`) }) }, 'github in body'],
  ['a private key in JSON', { body: JSON.stringify({ file: KEY }) }, 'privatekey in body'],
  ['a packed body', { body: gzipSync(`token=${GITHUB}`), fields: 'Content-Encoding: gzip\r\n' }, 'github in body'],
  [
    'a streamed body',
    { body: `${'x '.repeat(40_000)}${GITHUB} ${'y '.repeat(40_000)}`, isChunked: true },
    'github in body',
  ],
  ['a slot', { fields: `X-Api-Key: ${letters(32)}\r\n` }, 'slot in x-api-key'],
  ['Authorization', { fields: `Authorization: Bearer ${letters(32)}\r\n` }, 'slot in authorization'],
  [
    'the password of Basic',
    { fields: `Authorization: Basic ${btoa(`me:${letters(20)}`)}\r\n` },
    'slot in authorization',
  ],
  ['a slot in the query', { query: `?key=${letters(32)}` }, 'slot in ?key'],
  ['a slot among cookies', { fields: `Cookie: a=b; session=${letters(32)}\r\n` }, 'slot in cookie session'],
]

describe('a foreign key', () => {
  it.each(KEYS)('in %s is refused where policy says so, by rule and place, without the value', async (_, sent, why) => {
    const answer = await send('refuses', sent)
    expect([answer.status, codeOf(answer)]).toEqual([403, 'foreign_credential'])
    expect(answer.bytes.toString()).toContain(why)
    expect(findCanary(answer.bytes, GITHUB)).toEqual([])
    expect(arrived()).not.toContain(GITHUB)
    expect(JSON.stringify(await entries())).not.toContain(GITHUB)
  })

  it.each(KEYS)('in %s is written down where policy says so, and the call goes on', async (_, sent, why) => {
    const answer = await send('logs', sent)
    expect(answer.status, answer.bytes.toString()).toBe(200)
    const entry = (await entries()).findLast(({ kind }) => kind === 'leak.foreign')
    const [rule, where] = why.split(' in ')
    expect(entry?.facts).toMatchObject({ service: 'logs', sightings: [{ rule, where }] })
    expect(JSON.stringify(entry)).not.toContain(GITHUB)
  })

  it('in a slot is removed where no policy says anything, and passes elsewhere', async () => {
    const key = letters(32)
    expect(
      (await send('plain', { fields: `X-Api-Key: ${key}\r\nX-Note: ${GITHUB}\r\n`, query: `?key=${key}&q=1` })).status,
    ).toBe(200)
    expect(arrived()).not.toContain(key)
    expect(arrived()).toContain(GITHUB)
  })
})

it.each([
  ['nothing', {}],
  ["the service's own placeholder", { fields: 'X-Api-Key: sk-made-for-the-sdk\r\n' }],
  ['a placeholder of a launcher', { fields: 'Authorization: Bearer ghp_keylessPlaceholder00000000000000000000\r\n' }],
  ['what the agent shows to the gateway', { fields: 'Authorization: HANDLE\r\n' }],
  ['an empty slot', { fields: 'X-Api-Key: \r\n' }],
  [
    'plain JSON',
    { body: JSON.stringify({ text: 'hello', id: '0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b', hash: letters(64) }) },
  ],
])('is not seen in %s', async (_, sent: Sent) => {
  const answer = await send('refuses', {
    ...sent,
    ...(sent.fields && { fields: sent.fields.replace('HANDLE', `Bearer ${task.handle}`) }),
  })
  expect(answer.status, answer.bytes.toString()).toBe(200)
})

describe('a handle or a grant, of this task or another', () => {
  const places: readonly [string, (grant: string) => Sent][] = [
    ['a header', (grant) => ({ fields: `X-Note: ${grant}\r\n` })],
    ['the query', (grant) => ({ query: `?handle=${grant}` })],
    ['a body', (grant) => ({ body: JSON.stringify({ grant }) })],
    [
      'a streamed body, across its pieces',
      (grant) => ({ body: `${'x'.repeat(975)} ${grant} ${'y'.repeat(5000)}`, isChunked: true }),
    ],
    ['a cookie', (grant) => ({ fields: `Cookie: a=${grant}\r\n` })],
  ]
  it.each(places)('does not leave in %s, whatever policy says', async (_, place) => {
    for (const grant of [task.handle, other.handle, task.token, other.token]) {
      const answer = await send('plain', place(grant))
      expect([answer.status, codeOf(answer)], answer.bytes.toString()).toEqual([403, 'foreign_credential'])
      expect(arrived()).not.toContain(grant)
      expect(answer.bytes.toString()).not.toContain(grant)
    }
  })

  it('is taken out of a credential slot, and the call goes on', async () => {
    const answer = await send('plain', {
      fields: `X-Api-Key: ${other.handle}\r\nAuthorization: Bearer ${other.token}\r\n`,
    })
    expect(answer.status).toBe(200)
    expect(arrived()).not.toContain(other.handle)
    expect(arrived()).not.toContain(other.token)
  })
})
