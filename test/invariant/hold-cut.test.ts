/** SECURITY.md 8 and 11: calls that wait, for a human or a seat, end with what they hang on, and pass on nothing while the store is away. */
import { once } from 'node:events'
import { connect } from 'node:net'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { stopwatch } from '../rig/stopwatch.ts'
import { codeOf } from './agent.fixture.ts'
import { call, idOf, open, openPair, type Pair, said } from './pair.fixture.ts'

const POLICY = `
@id("all") @owner("test")
permit (principal, action, resource) unless { resource in Endpoint::"notes:ask" };
@id("ask") @owner("test") @approval("human")
permit (principal, action == Action::"notes:ask", resource);
`

let pair: Pair

beforeAll(async () => {
  pair = await openPair({
    services: [
      {
        name: 'notes',
        operations: {
          ask: { match: ['GET /echo/ask'], access: 'read' },
          read: { match: ['GET /echo/{owner}'], access: 'read' },
          hold: { match: ['GET /hang-body'], access: 'read' },
        },
      },
    ],
    policies: { only: true, text: POLICY },
    settings: {
      approvals: { hold_s: 25, max_pending: 50 },
      limits: { agent_concurrency: 2, agent_queue: 8, queue_timeout_ms: 20_000 },
    },
  })
}, 60_000)

afterAll(async () => {
  await pair?.stop()
})

const ASK = '/notes/echo/ask'
const sent = (path: string) => pair.upstream.requests.filter((request) => request.path === path).length

async function waiting(n: number) {
  const { control } = pair.replicas[0]
  await expect.poll(async () => (await control.approvals()).length, { interval: 5 }).toBe(n)
  return control.approvals()
}

describe('a call that waits for a human', () => {
  it.each([
    ['its service is closed', { service: 'notes' }],
    ['its credential is', { credential: 'notes' }],
    ['its agent is revoked', { agent: idOf('lead') }],
    ['everything is', { everything: true }],
  ] as const)('is cut at once when %s at the other replica', async (_, target) => {
    const [one, other] = pair.replicas
    const task = await open(one)
    const held = call(one, task.handle ?? '', ASK)
    await waiting(1)
    using watch = stopwatch()
    await other.control.endAccess({ target, reason: 'an incident' })
    const code = said(await held)
    const tookMs = watch.ms
    if (!('agent' in target)) await other.control.lift({ target })
    expect(['access_blocked', 'grant_revoked']).toContain(code)
    expect(tookMs).toBeLessThan(1_500)
    await one.control.completeTask(task.task).catch(() => undefined)
    await waiting(0)
    expect(sent('/echo/ask')).toBe(0)
  })
})

describe('a call that waits for a seat', () => {
  it('has none when its grant ends meanwhile', async () => {
    const [one, other] = pair.replicas
    const [task, rest] = [await open(one), await open(one)]
    const busy = await Promise.all(
      [1, 2].map(async () => {
        const socket = connect(one.proxyPort, '127.0.0.1')
        socket.on('error', () => {})
        socket.write(`GET /notes/hang-body HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${rest.handle}\r\n\r\n`)
        await once(socket, 'data')
        return socket
      }),
    )
    const queued = call(one, task.handle ?? '', '/notes/echo/queued')
    await other.control.revoke(task.grant)
    await new Promise((done) => setTimeout(done, 600))
    for (const socket of busy) socket.destroy()
    expect(said(await queued)).toBe('grant_revoked')
    expect(sent('/echo/queued')).toBe(0)
  })
})

describe('while Redis is away', () => {
  it('nobody is let through who waits, and nobody who was agreed to meanwhile', { timeout: 30_000 }, async () => {
    const [one, other] = pair.replicas
    const task = await open(one)
    const held = call(one, task.handle ?? '', ASK)
    const [approval] = await waiting(1)
    pair.redis.pause?.()
    try {
      await expect(other.control.decideApproval(approval?.id ?? '', 'approve')).rejects.toMatchObject({
        code: 'store_unavailable',
      })
      expect(codeOf(await held)).toBe('store_unavailable')
    } finally {
      pair.redis.resume?.()
    }
    expect(sent('/echo/ask')).toBe(0)
  })
})
