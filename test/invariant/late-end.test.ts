/** SECURITY.md 8: what ends while a call is on its way through the gateway stops it there: with half of its body, before its credential, before an engine's word. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import type { TargetBody } from '../../gateway/protocol/control-revocation.ts'
import { type FalseServer, json, startFalseServer } from '../provider/authorization-server.fixture.ts'
import { call, open, openPair, type Pair, said } from './pair.fixture.ts'

const POLICY = `
@id("all") @owner("test")
permit (principal, action, resource) unless { resource in Endpoint::"bare:again" };
@id("ask") @owner("test") @approval("human") @approval_ttl("60")
permit (principal, action == Action::"bare:again", resource);
`

let issuer: FalseServer
let pair: Pair
/** Token requests that wait for their answer. */
let held: (() => void)[] = []

beforeAll(async () => {
  issuer = await startFalseServer()
  const answers: Record<string, object> = {
    '/token': { access_token: 'a-token-that-came-late', token_type: 'Bearer', expires_in: 600 },
    '/pdp': { decision: true },
  }
  issuer.answer = (request, response, body) => {
    const answer = () => json(response, 200, answers[request.url ?? ''] ?? {})
    if (body.includes('"mint"')) answer()
    else held.push(answer)
  }
  process.env.KEYLESS_TEST_ISSUER = 'a-secret-of-the-client'
  const credential = { provider: 'oauth_client_credentials', token_url: issuer.tokenUrl, addresses: ['127.0.0.1/32'] }
  const client = {
    client_id: 'keyless',
    client_auth: 'client_secret_basic',
    client_secret: { env: 'KEYLESS_TEST_ISSUER' },
  }
  const engine = { name: 'pdp', kind: 'authzen', for: ['bare:judged'], addresses: ['127.0.0.1/32'], timeout_ms: 5000 }
  pair = await openPair({
    services: [
      {
        name: 'bare',
        operations: {
          again: { match: ['POST /echo/again'], access: 'write', attach: 'none' },
          judged: { match: ['GET /echo/{what}'], access: 'read', attach: 'none' },
        },
      },
      { name: 'slow', operations: { read: { match: ['GET /echo/{owner}'], access: 'read' } } },
    ],
    credentials: { bare: 'a-standing-key-of-some-length', slow: { ...credential, ...client } },
    policies: { only: true, text: POLICY },
    settings: { policy: { engines: [{ ...engine, url: issuer.tokenUrl.replace('/token', '/pdp') }] } },
  })
})

afterAll(async () => {
  await pair?.stop()
  await issuer?.stop()
  delete process.env.KEYLESS_TEST_ISSUER
})

const sent = (path: string) => pair.upstream.requests.filter((request) => request.path === path).length

const ENDED = ['grant_revoked', 'task_suspended', 'access_blocked']

/** Ends a call. Disposing of it undoes that, as far as it can be. */
type End = (task: OpenedTask) => Promise<AsyncDisposable>

const forGood =
  (end: (task: OpenedTask) => Promise<unknown>): End =>
  async (task) => {
    await end(task)
    return new AsyncDisposableStack()
  }

const order =
  (target: TargetBody): End =>
  async () => {
    const { control } = pair.replicas[1]
    await control.endAccess({ target, reason: 'an incident' })
    return { [Symbol.asyncDispose]: () => control.lift({ target }) }
  }

/** At the other replica, which this one has to hear of. */
const ends: Readonly<Record<string, End>> = {
  'its task ends': forGood(({ task }) => pair.replicas[1].control.completeTask(task)),
  'its task is parked': forGood(({ task }) => pair.replicas[1].control.suspendTask(task)),
  'everything is revoked': order({ everything: true }),
  'its service is closed': (task) => order({ service: task.scope?.split(':')[0] ?? '' })(task),
}

const heard = () => new Promise((done) => setTimeout(done, 700))

describe('a call whose body arrives slowly, and that was approved long ago', () => {
  async function begun({ handle }: OpenedTask) {
    const socket = connect(pair.replicas[0].proxyPort, '127.0.0.1')
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => {})
    const head = `POST /bare/echo/again HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${handle}\r\n`
    socket.write(`${head}Content-Length: 2\r\nConnection: close\r\n\r\nh`)
    return async () => {
      socket.write('i')
      if (!socket.closed) await once(socket, 'close')
      const text = Buffer.concat(chunks).toString('latin1')
      return /^keyless-error: *(\w+)/im.exec(text)?.[1] ?? Number(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1])
    }
  }

  it.each(['its task is parked', 'its service is closed'])('is refused when %s meanwhile', async (how) => {
    const { control } = pair.replicas[0]
    const task = await open(pair.replicas[0], { scope: 'bare:*' })
    const first = (await begun(task))()
    await expect.poll(async () => (await control.approvals()).length, { interval: 5 }).toBe(1)
    await control.decideApproval((await control.approvals())[0]?.id ?? '', 'approve')
    expect(await first).toBe(200)
    const before = sent('/echo/again')
    const finish = await begun(task)
    await call(pair.replicas[0], task.handle ?? '', '/slow/nothing') // the gateway has the beginning of it by now
    await using _ended = await ends[how]?.(task)
    await heard()
    expect(ENDED).toContain(await finish())
    expect(sent('/echo/again')).toBe(before)
  })
})

describe.each([
  ['its credential', 'slow', Object.keys(ends)],
  ['an engine that has to agree', 'bare', ['its task ends', 'its service is closed']],
])('a call that waits for %s', (_, service, hows) => {
  it.each(hows)('is not sent when %s meanwhile', async (how) => {
    const path = `/echo/${service}${how.replaceAll(/\W/g, '')}`
    const task = await open(pair.replicas[0], { scope: `${service}:*` })
    held = []
    const waiting = call(pair.replicas[0], task.handle ?? '', `/${service}${path}`)
    await expect.poll(() => held.length, { interval: 5 }).toBe(1)
    await using _ended = await ends[how]?.(task)
    await heard()
    held[0]?.()
    expect(ENDED).toContain(said(await waiting))
    expect(sent(path)).toBe(0)
  })
})
