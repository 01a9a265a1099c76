/** SECURITY.md 11: what was approved leaves, and nothing beside, around or after it, however the agent spells its request. */
import type { RequestListener } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { opened, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'
import { type Answer, codeOf, say } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

const POLICY = `
@id("write") @owner("test") @approval("human") @approval_ttl("60")
permit (principal, action == Action::"notes:write", resource);
@id("talk") @owner("test") @approval("human")
permit (principal, action == Action::"notes:talk", resource);
`

interface Sent {
  readonly line: string
  readonly fields: readonly string[]
  readonly trailers: readonly string[]
  readonly body: string
}

let upstream: WebSocketUpstream
let site: OpenSite
let task: OpenedTask
const sent: Sent[] = []

const serve: RequestListener = (request, response) => {
  let body = ''
  request.setEncoding('latin1').on('data', (chunk: string) => {
    body += chunk
  })
  request.on('end', () => {
    const { method, url, rawHeaders: fields, rawTrailers: trailers } = request
    sent.push({ line: `${method} ${url}`, fields, trailers, body })
    response.end('done')
  })
}

beforeAll(async () => {
  upstream = await startWebSockets(['notes.keyless.test'], serve)
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            write: { match: ['POST /write', 'POST /write/{what}'], access: 'write' },
            talk: { match: ['GET /echo'], access: 'write', websocket: true },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: { text: POLICY },
      settings: { approvals: { hold_s: 0, max_pending: 100 } },
    },
  )
  task = await site.gateway.openTask('notes:*')
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

const LENGTH = 'Content-Length: 5\r\n\r\nhello'
const CHUNKED = 'Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;ext=1\r\nllo\r\n0\r\n\r\n'
const AGREED = { path: '/write/a?x=1&y=2', fields: 'X-To: ana\r\nContent-Type: text/plain\r\n', rest: LENGTH }

function post(o: Partial<typeof AGREED>): Promise<Answer> {
  const { path, fields, rest } = { ...AGREED, ...o }
  const port = site.gateway.proxyPort
  const head = `POST /notes${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${task.handle}\r\nConnection: close\r\n`
  return say(port, `${head}${fields}${rest}`)
}

const said = (answer: Answer) => codeOf(answer) ?? answer.status

describe('a request that somebody approved', () => {
  beforeAll(async () => {
    expect(said(await post({}))).toBe('approval_required')
    const [waiting] = await site.gateway.control.approvals()
    await site.gateway.control.decideApproval(waiting?.id ?? '', 'approve')
    expect(said(await post({}))).toBe(200)
  })

  it.each<[string, Partial<typeof AGREED>]>([
    ['its query in another order', { path: '/write/a?y=2&x=1' }],
    ['a parameter twice', { path: '/write/a?x=1&y=2&x=1' }],
    ['an empty parameter more', { path: '/write/a?x=1&y=2&' }],
    ['another spelling of its path', { path: '/write/%61?x=1&y=2' }],
    ['a slash more', { path: '/write/a/?x=1&y=2' }],
    ['a field twice', { fields: `X-To: ana\r\n${AGREED.fields}` }],
    ['a second value of a field', { fields: `${AGREED.fields}X-To: eve\r\n` }],
    ['the second value before', { fields: `x-to: eve\r\n${AGREED.fields}` }],
    ['a field that CGI takes for one of it', { fields: `${AGREED.fields}X_To: eve\r\n` }],
    ['a value in other letters', { fields: AGREED.fields.replace('ana', 'Ana') }],
    ['a field that it names in Connection', { fields: `${AGREED.fields}Connection: x-to\r\n` }],
    ['another type of the same body', { fields: AGREED.fields.replace('plain', 'html') }],
    ['a coding', { fields: `${AGREED.fields}Content-Encoding: gzip\r\n` }],
    ['a cookie', { fields: `${AGREED.fields}Cookie: role=admin\r\n` }],
    ['a condition', { fields: `${AGREED.fields}If-Match: "1"\r\n` }],
    ['no body', { rest: 'Content-Length: 0\r\n\r\n' }],
    ['another body', { rest: LENGTH.replace('hello', 'hallo') }],
    ['another chunked body', { rest: CHUNKED.replace('he', 'ha') }],
  ])('is another one with %s', async (_, changed) => {
    const before = sent.length
    expect(['approval_required', 'request_malformed', 'scope_exceeded', 'policy_denied']).toContain(
      said(await post(changed)),
    )
    expect(sent).toHaveLength(before)
  })

  it.each<[string, Partial<typeof AGREED>]>([
    ['in chunks', { rest: CHUNKED }],
    ['with names of fields in other letters', { fields: AGREED.fields.replace('X-To', 'x-TO') }],
    [
      'with what only says how it went',
      { fields: `${AGREED.fields}traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n` },
    ],
  ])('is the same one %s', async (_, changed) => {
    const before = sent.length
    expect(said(await post(changed))).toBe(200)
    expect(sent).toHaveLength(before + 1)
    expect(sent.at(-1)).toMatchObject({ line: 'POST /write/a?x=1&y=2', body: 'hello' })
  })

  it('takes nothing along behind its body', async () => {
    const trailed = CHUNKED.replace('0\r\n\r\n', '0\r\nX-To: eve\r\nX-Role: admin\r\n\r\n')
    const before = sent.length
    const answer = said(await post({ fields: `Trailer: X-To\r\n${AGREED.fields}`, rest: trailed }))
    const plain = said(await post({ rest: trailed }))
    expect([answer, plain]).not.toContain(0)
    for (const one of sent.slice(before)) expect(one.trailers).toEqual([])
  })

  it('is one handshake of a WebSocket: the same one opens, and no other', async () => {
    const connectBy = shapes['reverse route'] as NonNullable<(typeof shapes)[string]>
    const authority = `notes.keyless.test:${upstream.tlsPort}`
    const through = { port: site.gateway.proxyPort, handle: task.handle ?? '', authority, path: '/echo' }
    const status = async (changed: Partial<typeof through> & { readonly headers?: Record<string, string> } = {}) => {
      const ws = await connectBy({ ...through, ...changed })
      const { status: answered } = await opened(ws)
      ws.terminate()
      return answered
    }
    const plain = await say(
      site.gateway.proxyPort,
      `GET /notes/echo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${task.handle}\r\nConnection: close\r\n\r\n`,
    )
    expect(said(plain)).toBe('approval_required')
    const approve = async (url: string) => {
      const all = await site.gateway.control.approvals()
      const asked = all.find(({ verified }) => verified.request?.url === url)
      await site.gateway.control.decideApproval(asked?.id ?? '', 'approve')
    }
    await approve(`https://${authority}/echo`)
    expect(await status(), 'a plain GET was approved').toBe(403)
    await approve(`wss://${authority}/echo`)
    expect(await status({ path: '/echo?to=eve' })).toBe(403)
    expect(await status({ headers: { origin: 'https://eve.test' } })).toBe(403)
    const before = upstream.handshakes.length
    expect(await status()).toBe(101)
    expect(await status(), 'once is once').toBe(403)
    expect(upstream.handshakes).toHaveLength(before + 1)
  })
})
