/** What a grant is bound to, held against real requests through a real gateway. */
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { IssuedView, OpenedTask } from '../../gateway/protocol/control.ts'
import type { Constraints } from '../../gateway/protocol/grant.ts'
import { type Answer, basic, codeOf, reverse, say } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'

const CHILD = 'spiffe://test/agent/child'
const AGENTS = ['spiffe://test/agent/lead', CHILD].map((id) => ({ id, owner: 'ana', purpose: 'test' }))

let echo: EchoUpstream
let site: OpenSite

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/{id}', 'GET /stream/{id}'], access: 'read' },
            write: { match: ['POST /echo/{id}'], access: 'write' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      settings: {
        agents: AGENTS,
        regions: { here: ['127.0.0.0/8'], there: ['192.0.2.0/24'] },
        approvals: { hold_s: 0 },
      },
    },
  )
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

const bound = (constraints: Constraints) => [
  { type: 'keyless_access', operations: ['notes:*'], ...(Object.keys(constraints).length > 0 && { constraints }) },
]

function open(constraints: Constraints, change: object = {}): Promise<OpenedTask> {
  return site.gateway.control.openTask({
    purpose: 'test constraints',
    authorization_details: bound(constraints),
    ...change,
  })
}

function childOf(parent: { readonly grant: string }, constraints: Constraints): Promise<IssuedView> {
  return site.gateway.control.delegate({
    parent: parent.grant,
    agent: CHILD,
    authorization_details: bound(constraints),
  })
}

const get = (handle: string | undefined, path: string, fields = ''): Promise<Answer> =>
  reverse(site.gateway.proxyPort, handle ?? '', {
    path: `/notes${path}`,
    fields: `Proxy-Authorization: ${basic(handle ?? '')}\r\n${fields}`,
  })

function post(handle: string, body: string, fields = 'Content-Type: application/json\r\n'): Promise<Answer> {
  const port = site.gateway.proxyPort
  return say(
    port,
    `POST /notes/echo/1 HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(handle)}\r\n${fields}Content-Length: ${Buffer.byteLength(body)}\r\nConnection: close\r\n\r\n${body}`,
  )
}

const verdict = (answer: Answer) => codeOf(answer) ?? answer.status

describe('a grant bound to', () => {
  it.each<[string, Constraints, string, string | number]>([
    ['a parameter that is so', { params: { 'query.state': { one_of: ['open'] } } }, '/echo/1?state=open', 200],
    [
      'a parameter that is not',
      { params: { 'query.state': { one_of: ['open'] } } },
      '/echo/1?state=shut',
      'constraint_unmet',
    ],
    [
      'a parameter given twice',
      { params: { 'query.state': { one_of: ['open'] } } },
      '/echo/1?state=open&state=shut',
      'constraint_unmet',
    ],
    [
      'a parameter given twice, once encoded',
      { params: { 'query.state': { one_of: ['open'] } } },
      '/echo/1?state=open&st%61te=shut',
      'constraint_unmet',
    ],
    ['a parameter that is missing', { params: { 'query.state': { one_of: ['open'] } } }, '/echo/1', 'constraint_unmet'],
    ['this machine', { source: ['127.0.0.0/8'] }, '/echo/1', 200],
    ['another network', { source: ['10.0.0.0/8'] }, '/echo/1', 'constraint_unmet'],
    ['this region', { geo: ['here'] }, '/echo/1', 200],
    ['another region', { geo: ['there'] }, '/echo/1', 'constraint_unmet'],
    ['a time to come', { not_before: Math.floor(Date.now() / 1000) + 600 }, '/echo/1', 'constraint_unmet'],
    ['a time that has begun', { not_before: Math.floor(Date.now() / 1000) - 600 }, '/echo/1', 200],
    ['approval', { approval: 'single' }, '/echo/1', 'approval_required'],
    ['public data', { sensitivity_max: 'public' }, '/echo/1', 'constraint_unmet'],
  ])('%s', async (_, constraints, path, expected) => {
    const { handle } = await open(constraints)
    const before = echo.requests.length
    expect(verdict(await get(handle, path))).toBe(expected)
    expect(echo.requests.length - before).toBe(expected === 200 ? 1 : 0)
  })

  it('one trace serves that trace and no other', async () => {
    const trace = 'ab'.repeat(16)
    const { handle } = await open({}, { trace, scope: 'notes:*', authorization_details: undefined })
    const parent = (id: string) => `traceparent: 00-${id}-00f067aa0ba902b7-01\r\n`
    expect(verdict(await get(handle, '/echo/1', parent(trace)))).toBe(200)
    for (const fields of ['', parent('cd'.repeat(16)), parent(trace) + parent(trace), `traceparent: ${trace}\r\n`])
      expect(verdict(await get(handle, '/echo/1', fields)), fields).toBe('constraint_unmet')
  })
})

describe('a grant that looks into bodies', () => {
  const small: Constraints = { params: { 'body./model': { one_of: ['small'] }, 'body./n': { max: 3 } } }

  it('passes on exactly the bytes that it was decided on', async () => {
    const { handle } = await open(small)
    const body = ' {"n": 3.0,\n "model": "sm\\u0061ll", "text": "Zoë"} '
    expect((await post(handle, body)).status).toBe(200)
    expect(echo.requests.at(-1)?.body).toEqual(Buffer.from(body))
  })

  it('asks a client that waits for leave to send', async () => {
    const { handle } = await open(small)
    const body = '{"model":"small","n":1}'
    const asked = request({
      port: site.gateway.proxyPort,
      method: 'POST',
      path: '/notes/echo/1',
      headers: {
        'proxy-authorization': basic(handle),
        'content-type': 'application/json',
        'content-length': body.length,
        expect: '100-continue',
      },
    })
    asked.flushHeaders()
    await once(asked, 'continue')
    const [answer] = (await once(asked.end(body), 'response')) as [IncomingMessage]
    expect(answer.resume().statusCode).toBe(200)
    expect(echo.requests.at(-1)?.body.toString()).toBe(body)
  })

  it.each([['{"model":"large","n":1}'], ['{"model":"small","n":4}'], ['{"n":1}'], ['[]'], ['']])(
    'refuses %s',
    async (body) => {
      const { handle } = await open(small)
      const before = echo.requests.length
      expect(verdict(await post(handle, body))).toBe('constraint_unmet')
      expect(echo.requests.length).toBe(before)
    },
  )
})

describe('a budget', () => {
  it('of calls is one for a grant and all below it', async () => {
    const parent = await open({ max_calls: 5 })
    const children = await Promise.all([childOf(parent, { max_calls: 5 }), childOf(parent, { max_calls: 3 })])
    const handles = [parent.handle, ...children.map(({ handle }) => handle)]
    const before = echo.requests.length
    const answers = await Promise.all(Array.from({ length: 24 }, (_, i) => get(handles[i % 3], '/echo/1')))
    const counts = answers.map(verdict)
    expect(counts.filter((one) => one === 200)).toHaveLength(5)
    expect(counts.filter((one) => one === 'limit_exceeded')).toHaveLength(19)
    expect(echo.requests.length - before).toBe(5)
  })

  it('of a single use is one, however many ask at once, and its credential is kept nowhere', async () => {
    const parent = await open({})
    const child = await childOf(parent, { single_use: true })
    const before = echo.requests.length
    const answers = await Promise.all(Array.from({ length: 50 }, () => get(child.handle, '/echo/1')))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(echo.requests.length - before).toBe(1)
    expect(verdict(await get(parent.handle, '/echo/1'))).toBe(200) // what the child may do once, the parent may go on doing
  })

  it('of bytes counts both directions, cuts the call that passes it, and is one for a grant and all below it', async () => {
    const parent = await open({ max_bytes: 300_000 })
    const child = await childOf(parent, { max_bytes: 300_000 })
    const first = await get(child.handle, '/stream/1?bytes=200000')
    expect(first.bytes.length).toBeGreaterThan(200_000)
    const cut = await get(parent.handle, '/stream/1?bytes=65536000')
    expect(cut.bytes.length).toBeLessThan(110_000)
    const entries = await entriesOf(site.gateway.settings.dataDir)
    expect(entries.filter(({ outcome }) => outcome?.error === 'limit_exceeded')).toHaveLength(1)
    // Little is left at most: a call that needs more than that is cut or refused, for both.
    for (const handle of [parent.handle, child.handle]) {
      const answer = await get(handle, '/stream/1?bytes=200000')
      expect(answer.bytes.length).toBeLessThan(110_000)
    }
  })

  it('of bytes is spent by uploads that fail, too', async () => {
    const { handle } = await open({ max_bytes: 1000 })
    expect(verdict(await post(handle, 'x'.repeat(600), ''))).not.toBe(200) // the echo of it does not fit any more
    expect(verdict(await post(handle, 'x'.repeat(600), ''))).toBe('limit_exceeded')
  })
})
