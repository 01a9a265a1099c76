/** Credentials in bodies, forms, paths, several slots at once and in TLS, through a whole gateway; and what becomes of an agent's own there. */
import { createHmac } from 'node:crypto'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { TLSSocket } from 'node:tls'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { openClientRoots } from '../../gateway/settings/keys-client-ca.ts'
import { type Answer, basic, codeOf, say } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

interface Arrived {
  readonly method: string
  readonly path: string
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: string
  readonly shown: string | undefined
}

const arrived: Arrived[] = []
/** Statuses of the next answers; then 200. */
const statuses: number[] = []
const [key, second, passphrase] = [newCanary(), newCanary(), newCanary()]
const botToken = `123:${newCanary().replaceAll(/\W/g, '_')}`
const captured = 'minted-0123456789abcdef0123456789abcdef'
const MINE = 'sk-agents-own-key-0815471108154711'
let site: Site
let gateway: TestGateway
let handle: string
let dir: string
let stop: () => Promise<void>

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-placement-'))
  const keys = join(dir, 'keys')
  const [root] = await openClientRoots(keys, Date.now())
  const names = ['json', 'form', 'bot', 'pair', 'signed', 'shown', 'capture']
  const tls = await throwAwayTls(names.map((name) => `${name}.keyless.test`))
  const server = createServer(
    {
      key: tls.key,
      cert: tls.cert,
      ca: root?.certificate.toString() ?? '',
      requestCert: true,
      rejectUnauthorized: false,
    },
    async (request, response) => {
      const socket = request.socket as TLSSocket
      const shown = socket.authorized ? socket.getPeerCertificate().subjectaltname : undefined
      const body = Buffer.concat(await request.toArray()).toString()
      const { method = '', url: path = '', headers } = request
      const seen = { method, path, headers, body, shown }
      arrived.push(seen)
      response.writeHead(statuses.shift() ?? 200, { 'content-type': 'application/json' })
      // What is said back is burnt, and what was captured is needed again.
      response.end(JSON.stringify(path === '/v1/mint' ? { token: captured } : path.endsWith('/use') ? {} : seen))
    },
  )
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const operations = { call: { match: ['GET /v1/{path**}', 'POST /v1/{path**}'], access: 'write' } } as const
  const captures = {
    mint: { match: ['POST /v1/mint'], access: 'admin', returns_secret: true, captures: ['/token'] },
    use: { match: ['POST /v1/use', 'POST /bot/use'], access: 'write' },
  } as const
  const bots = { call: { match: ['GET /bot/{method}', 'POST /bot/{method}'], access: 'write' } } as const
  const part = (name: string) => ({ in: 'header', name: `x-${name}`, part: name }) as const
  await writeFile(join(dir, 'second'), second)
  await writeFile(join(dir, 'passphrase'), passphrase)
  const secondFile = { file: join(dir, 'second') }
  site = await writeSite(
    { port: (server.address() as AddressInfo).port, caPem: tls.caPem },
    {
      services: [
        {
          name: 'json',
          operations,
          slots: [
            { in: 'body', pointer: '/auth/key' },
            { in: 'header', name: 'x-key' },
          ],
        },
        { name: 'form', operations, slots: [{ in: 'form', name: 'token' }] },
        { name: 'bot', operations: bots, slots: [{ in: 'path', prefix: 'bot' }] },
        { name: 'pair', operations, slots: [part('api_key'), part('application_key'), { in: 'query', name: 'key' }] },
        {
          name: 'signed',
          operations,
          slots: [
            { in: 'signature', scheme: 'hmac' },
            { in: 'header', name: 'x-sign' },
          ],
        },
        {
          name: 'capture',
          operations: captures,
          slots: [
            { in: 'header', name: 'x-key' },
            { in: 'body', pointer: '/key' },
            { in: 'form', name: 'token' },
            { in: 'path', prefix: 'bot' },
          ],
        },
        { name: 'shown', operations, slots: [{ in: 'certificate' }] },
      ] as never,
      credentials: {
        json: key,
        capture: key,
        form: key,
        bot: botToken,
        pair: {
          provider: 'static',
          values: { api_key: secondFile, application_key: { file: join(dir, 'passphrase') } },
        },
        signed: {
          provider: 'hmac',
          secret: secondFile,
          sign: '{method} {target}\n{body}',
          headers: { 'X-Sign': '{signature}' },
        },
        shown: { provider: 'mtls', ttl_s: 300 },
      },
      policies: { text: '@id("mint") @owner("test") permit (principal, action == Action::"capture:mint", resource);' },
    },
  )
  gateway = await startGateway(`${site.yaml}keys_dir: ${keys}\npublic_url: http://gateway.keyless.test\n`)
  stop = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

beforeEach(async () => {
  arrived.length = 0
  statuses.length = 0
  handle = (await gateway.openTask('json:* form:* bot:* pair:* signed:* shown:* capture:*')).handle
})

afterAll(async () => {
  await gateway?.stop()
  await site?.remove()
  await stop?.()
  await rm(dir, { recursive: true, force: true })
})

interface Sent {
  readonly method?: string
  readonly fields?: readonly string[]
  readonly body?: string | Buffer
}

async function send(path: string, { method = 'POST', fields = [], body }: Sent = {}): Promise<Answer> {
  const bytes = body === undefined ? undefined : Buffer.from(body as string)
  const length = bytes === undefined ? [] : [`Content-Length: ${bytes.length}`]
  const head = [
    `${method} ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${gateway.proxyPort}`,
    `Proxy-Authorization: ${basic(handle)}`,
  ]
  const text = [...head, ...fields, ...length, 'Connection: close', '', ''].join('\r\n')
  return say(gateway.proxyPort, text, bytes ?? '')
}

const JSON_TYPE = 'Content-Type: application/json'
const FORM_TYPE = 'Content-Type: application/x-www-form-urlencoded'

function requireUnseen(answer: Answer): void {
  for (const canary of [key, second, passphrase, botToken]) expect(findCanary(answer.bytes, canary)).toEqual([])
}

it('fills a member of a JSON body, and takes the agent’s own out of body and header', async () => {
  const body = `{ "big": 12345678901234567890, "auth": {"key":"${MINE}","KEY":"${MINE}","user":"ana"}, "n": 1.0 }`
  const answer = await send('/json/v1/x', {
    fields: [JSON_TYPE, `X-Key: ${MINE}`, 'Content-Digest: sha-256=:x:'],
    body,
  })
  expect(answer.status).toBe(200)
  const [request] = arrived
  expect(request?.body).toBe(`{"big":12345678901234567890,"auth":{"user":"ana","key":${JSON.stringify(key)}},"n":1.0}`)
  expect(request?.headers).toMatchObject({ 'content-length': String(request?.body.length) })
  expect(JSON.stringify(request)).not.toContain(MINE)
  expect(request?.headers).not.toHaveProperty('content-digest')
  requireUnseen(answer)
})

it('makes the objects on the way, and a body where there is none', async () => {
  await send('/json/v1/x', { fields: [JSON_TYPE], body: '{}' })
  await send('/json/v1/x')
  expect(arrived.map(({ body }) => body)).toEqual(Array(2).fill(JSON.stringify({ auth: { key } })))
  expect(arrived[1]?.headers['content-type']).toBe('application/json')
  expect(codeOf(await send('/json/v1/x', { method: 'GET' }))).toBe('request_malformed')
})

it('fills a field of a form, however the agent spelt its own', async () => {
  const mine = [
    `token=${MINE}`,
    `to%6ben=${MINE}`,
    `TOKEN=${MINE}`,
    `token[]=${MINE}`,
    `a=1;token=${MINE}`,
    `+token=${MINE}`,
  ]
  const answer = await send('/form/v1/x', { fields: [FORM_TYPE], body: ['q=%2F+x', ...mine].join('&') })
  expect(arrived[0]?.body).toBe(`q=%2F+x&a=1&${new URLSearchParams({ token: key })}`)
  requireUnseen(answer)
})

it.each([
  ['JSON with a name twice', JSON_TYPE, `{"auth":{"key":"x","key":"${MINE}"}}`],
  ['a list of calls', JSON_TYPE, `[{"auth":{"key":"${MINE}"}}]`],
  ['an object in another case', JSON_TYPE, `{"Auth":{"key":"${MINE}"}}`],
  ['something else than text in the slot', JSON_TYPE, `{"auth":{"key":["${MINE}"]}}`],
  ['text', 'Content-Type: text/plain', `{"auth":{"key":"${MINE}"}}`],
  [
    'another character set',
    'Content-Type: application/json; charset=utf-16',
    Buffer.from(`{"auth":{"key":"${MINE}"}}`, 'utf16le'),
  ],
  ['two types', `${JSON_TYPE}\r\n${FORM_TYPE}`, `{"auth":{"key":"${MINE}"}}`],
  ['a coding', `${JSON_TYPE}\r\nContent-Encoding: gzip`, `{"auth":{"key":"${MINE}"}}`],
  ['no type', 'X-No: type', `{"auth":{"key":"${MINE}"}}`],
  [
    'several parts',
    'Content-Type: multipart/form-data; boundary=x',
    `--x\r\nContent-Disposition: form-data; name="key"\r\n\r\n${MINE}\r\n--x--`,
  ],
  ['a form where JSON is filled', FORM_TYPE, 'a=1'],
] as const)('refuses %s, in which an agent’s own key could pass', async (_, type, body) => {
  const answer = await send('/json/v1/x', { fields: [type], body })
  expect([answer.status, codeOf(answer)]).toEqual([400, 'request_malformed'])
  expect(arrived).toEqual([])
})

it('refuses a body that is too long to be looked at', async () => {
  const answer = await send('/form/v1/x', { fields: [FORM_TYPE], body: Buffer.alloc(1024 * 1024 + 1, 'a') })
  expect(codeOf(answer)).toBe('request_malformed')
  expect(arrived).toEqual([])
})

it('fills in the next credential when the first is not taken', async () => {
  await send('/form/v1/x')
  await writeFile(join(site.dir, 'form.secret'), second)
  statuses.push(401)
  try {
    const answer = await send('/form/v1/x', { fields: [FORM_TYPE], body: `a=1&token=${MINE}` })
    expect(answer.status).toBe(200)
    const [last] = arrived.slice(-1)
    expect(last?.body).toBe(`a=1&${new URLSearchParams({ token: second })}`)
    expect(last?.headers['content-length']).toBe(String(last?.body.length))
  } finally {
    await writeFile(join(site.dir, 'form.secret'), key)
  }
})

it('puts a credential into the path, where nobody sees what the agent had put there', async () => {
  for (const text of ['', MINE, '1:%2F..', `%31${MINE}`]) {
    const answer = await send(`/bot/bot${text}/getMe?x=1`, { method: 'GET' })
    expect(answer.status).toBe(200)
    requireUnseen(answer)
  }
  const other = await send(`/bot/BOT${MINE}/getMe`, { method: 'GET' })
  expect(other.status).toBe(200)
  expect(new Set(arrived.map(({ path }) => path))).toEqual(
    new Set([`/bot${botToken}/getMe?x=1`, `/bot${botToken}/getMe`]),
  )
  arrived.length = 0
  const refused = [`//bot${MINE}/getMe`, `/%2Fbot${MINE}/getMe`]
  for (const path of refused) expect((await send(`/bot${path}`, { method: 'GET' })).status).toBeGreaterThanOrEqual(400)
  handle = 'kh_unknown'
  await send(`/bot/bot${MINE}/getMe`, { method: 'GET' })
  expect(arrived).toEqual([])
  const entries = await entriesOf(gateway.settings.dataDir)
  const paths = entries.flatMap(({ target }) => (target?.host?.startsWith('bot.') ? [target.path] : []))
  expect(paths).toContain('/bot/getMe')
  const log = await readFile(join(gateway.settings.dataDir, 'audit', 'entries.jsonl'), 'utf8')
  expect(log.includes(MINE)).toBe(false)
})

it('fills several slots at once, and empties those that it does not fill', async () => {
  const answer = await send(`/pair/v1/x?a=1&key=${MINE}&KEY=${MINE}`, { fields: [`X-Api_Key: ${MINE}`] })
  expect(arrived[0]).toMatchObject({
    path: '/v1/x?a=1',
    headers: { 'x-api_key': second, 'x-application_key': passphrase },
  })
  requireUnseen(answer)
})

it('signs method, place and body', async () => {
  await send('/signed/v1/x?b=2', { fields: ['Content-Type: text/plain', 'X-Sign: mine'], body: 'anything' })
  const signature = createHmac('sha256', second).update('POST /v1/x?b=2\nanything').digest('hex')
  expect(arrived[0]).toMatchObject({ body: 'anything', headers: { 'x-sign': signature } })
})

it('shows a certificate that names the agent', async () => {
  await send('/shown/v1/x')
  expect(arrived[0]?.shown).toMatch(/^URI:/)
})

it('takes what stands for a captured credential out of a body or a path, and sends what it stands for there', async () => {
  const minted = JSON.parse(
    String((await send('/capture/v1/mint')).bytes)
      .split('\r\n\r\n')[1]
      ?.match(/\{.*\}/)?.[0] ?? '',
  ) as { token: string }
  expect(minted.token).toMatch(/klp_/)
  arrived.length = 0
  await send('/capture/v1/use', { fields: [JSON_TYPE], body: JSON.stringify({ key: minted.token }) })
  await send('/capture/v1/use', { fields: [JSON_TYPE], body: JSON.stringify({ token: minted.token }) })
  await send('/capture/v1/use', { fields: [FORM_TYPE], body: new URLSearchParams({ token: minted.token }).toString() })
  await send(`/capture/bot${minted.token}/use`)
  expect(arrived.map(({ body }) => body)).toEqual([
    JSON.stringify({ key: captured }),
    JSON.stringify({ token: captured }),
    `token=${captured}`,
    '',
  ])
  expect(arrived[3]?.path).toBe(`/bot${captured}/use`)
})
