/**
 * One run in which everything that carries authority happens, against real servers: every kind of entry that it leaves is what the
 * schema says, with the whole chain behind it, and none holds a secret, a query, a body or a prompt.
 */
import { createHmac } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { request as httpRequest } from 'node:http'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { entrySchemas } from '../../gateway/audit/schema/schema.ts'
import { basic, codeOf, openTunnel, reverse, say } from '../invariant/agent.fixture.ts'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'

/** Of an entry as it is in the file. */
type Line = Readonly<Record<string, unknown>> & { readonly kind: string }

const KEY = 'canary-standing-key-of-some-length'
const BODY = 'canary-body: a prompt of a person'
const QUERY = 'q=canary-query'
const PROMPT = `sha256:${'ab'.repeat(32)}`
const TRACE = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'
const CORRELATED = `traceparent: ${TRACE}\r\nkeyless-prompt-hash: ${PROMPT}\r\n`

let echo: EchoUpstream
let site: OpenSite
let port: number
let handle: string
let lines: readonly string[]
let entries: readonly Line[]

const fields = (more = '') => `Proxy-Authorization: ${basic(handle)}\r\n${more}`
const get = (path: string, more = '') => reverse(port, handle, { path: `/echo${path}`, fields: fields(more) })
const post = (path: string, body: string | Buffer, more = '') => {
  const head = `POST /echo${path} HTTP/1.1\r\nHost: x\r\n${fields(more)}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n`
  return say(port, head, body)
}

beforeAll(async () => {
  echo = await startEcho()
  const operations = {
    get: { match: ['GET /{mood}', 'GET /{mood}/{rest}'], access: 'read' },
    post: { match: ['POST /{mood}'], access: 'write' },
  } as never
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [{ name: 'echo', operations }],
      credentials: { echo: KEY },
      settings: { audit: { body_hashes: 'all', heartbeat_s: 3600 } },
    },
  )
  port = site.gateway.proxyPort
  await run()
  const { dataDir } = site.gateway.settings
  await site.gateway.gateway.stop()
  lines = (await readFile(join(dataDir, 'audit', 'entries.jsonl'), 'utf8')).split('\n').slice(0, -1)
  entries = lines.map((line) => JSON.parse(line) as Line)
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await echo?.stop()
})

/** Everything once. */
async function run(): Promise<void> {
  const { control } = site.gateway
  const task = await control.openTask({ scope: 'echo:*', purpose: 'write every entry', heartbeat: true })
  handle = task.handle
  const first = await get(`/status/204?${QUERY}`, CORRELATED)
  expect(first.status, first.bytes.toString()).toBe(204)
  expect((await post(`/gzip?${QUERY}`, BODY, CORRELATED)).status).toBe(200) // the answer repeats the key
  expect((await post('/truncate', BODY)).bytes.toString('latin1')).not.toContain(KEY)
  await post('/echo', Buffer.alloc(200_000, 'b'), 'traceparent: none\r\n')
  expect(codeOf(await get(`/status/407?x-seen=${KEY}`))).toBe('upstream_broken') // nothing of this answer is passed on
  await tunnelled()
  const child = await control.delegate({ parent: task.grant, agent: task.agent, scope: 'echo:*' })
  await control.revoke(child.grant)
  await refusals()
  await control.changeIntent(task.task, { purpose: 'go on otherwise', scope: 'echo:*' })
  await control.completeStep(task.task, 'none').catch(() => undefined)
  await control.suspendTask(task.task)
  await control.resumeTask(task.task)
  await control.completeTask(task.task)
  await pause(50) // revocations of leases are not waited for
}

async function tunnelled(): Promise<void> {
  const authority = `echo.keyless.test:${echo.tlsPort}`
  const ca = (await site.gateway.control.status()).ca_pem
  const tunnel = await openTunnel(port, { handle, authority, ca })
  expect((await tunnel.ask('GET', '/status/200', CORRELATED)).status).toBe(200)
  await tunnel.sayLast('no request at all\r\n\r\n')
}

async function refusals(): Promise<void> {
  expect(codeOf(await reverse(port, 'kh_unknown', { path: '/echo/echo' }))).toBe('grant_invalid')
  expect(codeOf(await get('/echo', 'keyless-prompt-hash: canary-prompt, in plain words\r\n'))).toBe('request_malformed')
  expect(codeOf(await get('/echo', `x-note: ${handle}\r\n`))).toBe('foreign_credential')
  expect((await say(port, 'canary-noise\r\n\r\n')).status).toBe(400)
  const control = new URL(site.gateway.gateway.control)
  const form = { 'content-type': 'application/x-www-form-urlencoded' }
  expect(await ask(control, '/oauth/introspect', form, 'token=canary-token')).toBe(401)
  expect(await ask(control, '/oauth/token', form, 'grant_type=%zz&client_secret=canary-secret')).toBe(400)
  expect(await ask(control, '/oauth/token', { 'content-type': 'application/json' }, '{"x":"canary-json"}')).toBe(400)
  const task = `/tasks/task_${'0'.repeat(8)}-0000-7000-8000-000000000000/heartbeat`
  expect(await ask(control, task, { 'content-type': 'application/json' }, '{}')).toBe(401)
}

function ask(to: URL, path: string, headers: Record<string, string>, body: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const sent = httpRequest(new URL(path, to), { method: 'POST', headers, agent: false }, (answer) => {
    answer.resume().on('end', () => resolve(answer.statusCode ?? 0))
  })
  sent.on('error', reject).end(body)
  return promise
}

const of = (kind: string) => entries.filter((entry) => entry.kind === kind)
const hmac = (bytes: string | Buffer) =>
  `hmac:${createHmac('sha256', site.gateway.gateway.house.keys.record).update('default\0').update(bytes).digest('base64url')}`

describe('a run in which everything happens', () => {
  it('leaves every family of entries', () => {
    const kinds = new Set(entries.map(({ kind }) => kind))
    for (const kind of [
      ...['call.decision', 'call.outcome', 'grant.issued', 'grant.delegated', 'grant.revoked', 'grant.replaced'],
      ...['grant.denied', 'task.suspended', 'lease.issued', 'lease.revoked', 'leak.detected', 'leak.foreign'],
      ...['settings.loaded', 'policy.loaded', 'log.opened', 'log.heartbeat', 'log.sealed'],
    ])
      expect(kinds, kind).toContain(kind)
  })

  it('leaves none that the schema does not allow', () => {
    for (const [i, entry] of entries.entries()) {
      const schema = entrySchemas.get(entry.kind)
      expect(schema, `the kind ${entry.kind} is in the schema`).toBeDefined()
      const read = schema?.safeParse(entry)
      expect(read?.success, `${lines[i]}\n${read?.error?.message}`).toBe(true)
    }
  })

  it('names human, task and the whole lineage in everything that happens under a grant', () => {
    const under = entries.filter(({ kind }) => /^(?:lease|leak)\.|^grant\.(?!denied)|^task\./.test(kind))
    for (const entry of under) {
      expect(entry).toMatchObject({ human: { sub: expect.anything() }, task: { purpose: expect.any(String) } })
      const [first, ...agents] = entry.lineage as readonly { n: number; type: string }[]
      expect(first).toMatchObject({ n: 0, type: 'human' })
      expect(agents.map(({ n, type }) => `${n} ${type}`)).toEqual(agents.map((_, i) => `${i + 1} ai_agent`))
      expect(agents.length).toBe(entry.kind === 'grant.delegated' ? 2 : agents.length || 1)
    }
    expect(under.length).toBeGreaterThan(8)
  })

  it('holds no secret, no query, no body and no prompt', () => {
    for (const line of lines) {
      expect(line).not.toContain('canary')
      expect(line).not.toContain(handle)
      expect(line).not.toContain(Buffer.from(BODY).toString('base64').slice(0, 24))
    }
    expect(lines.join()).not.toContain('bbbbbbbb')
  })

  it('keeps the trace and the prompt hash that the caller gave, and lets neither malformed one nor the prompt hash through', () => {
    const correlated = of('call.decision').filter(({ trace }) => trace === TRACE)
    expect(correlated).toHaveLength(3)
    const digest = `sha256:${Buffer.alloc(32, 0xab).toString('base64url')}`
    for (const entry of correlated) expect(entry).toMatchObject({ client: { prompt_hash: digest } })
    expect(of('call.outcome').filter(({ trace }) => trace === TRACE)).toHaveLength(3)
    expect(lines.join()).not.toContain('"trace":"none"')
    expect(echo.requests.length).toBeGreaterThan(4)
    for (const { head } of echo.requests) expect(head.toString('latin1')).not.toMatch(/prompt-hash/i)
  })

  it('hashes each body as it went up and as it came down, whole or cut off, and no body that is not there', () => {
    const [empty, packed, cutOff, large] = of('call.outcome').map(({ outcome }) => outcome as Record<string, unknown>)
    expect(empty).not.toHaveProperty('req_body_hash')
    expect(empty).not.toHaveProperty('resp_body_hash')
    const said = echo.requests.filter(({ method }) => method === 'POST')
    const answer = (i: number) => {
      const { method, path, head, body, connection } = said[i] as (typeof said)[number]
      return Buffer.from(
        JSON.stringify({ method, path, head: head.toString('latin1'), body: body.toString('latin1'), connection }),
      )
    }
    expect(packed).toMatchObject({ req_body_hash: hmac(BODY), resp_body_hash: hmac(gzipSync(answer(0))), scrubbed: 1 })
    expect(cutOff).toMatchObject({
      error: 'upstream_broken',
      req_body_hash: hmac(BODY),
      resp_body_hash: hmac(answer(1)),
    })
    expect(large).toMatchObject({ req_body_hash: hmac(Buffer.alloc(200_000, 'b')), bytes_out: 200_000, error: null })
  })

  it('tells of a credential in an answer that is passed on, and in one that is not', () => {
    const told = of('leak.detected').slice(0, 4)
    expect(told.map(({ facts }) => facts)).toMatchObject([
      { where: { body: 1 }, count: 1, fate: 'standing', status: 200 },
      { where: { body: 1 }, count: 1, fate: 'standing', status: 200 },
      { where: { body: 1 }, count: 1, fate: 'standing', status: 200 },
      { where: { head: 1 }, count: 1, fate: 'standing' },
    ])
    const kept = told[3]
    expect(kept).not.toHaveProperty('facts.status')
    expect(of('call.outcome').find(({ req }) => req === kept?.req)).toMatchObject({
      outcome: { error: 'upstream_broken' },
    })
  })

  it('leaves no refusal without a trace', () => {
    const denied = of('grant.denied').map(({ facts, decision }) => [
      (facts as { instruction: string }).instruction,
      (decision as { code: string }).code,
    ])
    for (const one of [
      ['grant.introspect', 'client_invalid'],
      ['unread', 'instruction_invalid'],
      ['task.heartbeat', 'grant_missing'],
    ])
      expect(denied).toContainEqual(one)
    expect(denied.filter(([instruction]) => instruction === 'unread')).toHaveLength(2)
    const broken = of('call.decision').find(({ decision, client }) => {
      const { code } = decision as { code?: string }
      return code === 'request_malformed' && (client as { mode: string }).mode === 'intercept'
    })
    expect(broken).toMatchObject({ human: expect.anything(), lineage: [{ n: 0 }, { n: 1 }] })
    expect(of('leak.foreign')[0]).toMatchObject({ facts: { sightings: [{ rule: 'keyless', where: 'field x-note' }] } })
  })

  it('names settings and policies by digests, and says whether leases are shared', () => {
    expect(of('settings.loaded')[0]).toMatchObject({
      facts: {
        digest: site.gateway.settings.written.digest,
        names: expect.arrayContaining(['audit.body_hashes', 'credentials.echo']),
      },
    })
    expect(of('policy.loaded')[0]).toMatchObject({ facts: { policy_set: site.gateway.gateway.house.policy.digest } })
    expect(of('log.opened')[0]).toMatchObject({ facts: { shared: false } })
  })
})
