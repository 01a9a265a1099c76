/** A WebSocket that a human has to approve: its handshake is held and asked about as any request is, and what is approved is that it opens. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import type { ApprovalJson } from '../../gateway/protocol/control-approvals.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { ROOT, runOk } from '../rig/process.ts'
import { closed, opened, said, shapes, startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

const KEY = 'a-standing-key-of-some-length'
const POLICY = `
@id("talk") @owner("test") @approval("human")
permit (principal, action == Action::"notes:talk", resource);
`
let upstream: WebSocketUpstream
let site: OpenSite

beforeAll(async () => {
  upstream = await startWebSockets(['notes.keyless.test'])
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { talk: { match: ['GET /echo'], access: 'write', websocket: true } } }],
      credentials: { notes: KEY },
      policies: { text: POLICY },
      settings: { approvals: { hold_s: 25 } },
    },
  )
}, 60_000)

afterAll(async () => {
  await site?.stop()
  await upstream?.stop()
})

const open = () => site.gateway.openTask('notes:*')
const handshake = ({ handle = '' }: OpenedTask, shape = 'reverse route', path = '/echo') => {
  const authority = `notes.keyless.test:${upstream.tlsPort}`
  const connectBy = shapes[shape] as NonNullable<(typeof shapes)[string]>
  const ca = site.gateway.gateway.house.authority.caPem
  return connectBy({ port: site.gateway.proxyPort, handle, authority, path, ca })
}
const approve = ({ id }: ApprovalJson) => site.gateway.control.decideApproval(id, 'approve')

async function waiting(): Promise<ApprovalJson> {
  await expect.poll(() => site.gateway.control.approvals(), { interval: 10 }).toHaveLength(1)
  return (await site.gateway.control.approvals())[0] as ApprovalJson
}

describe('a handshake that somebody has to approve', () => {
  it.each(['reverse route', 'CONNECT and TLS'])('is held, and opens once that is approved: %s', async (shape) => {
    const task = await open()
    const before = upstream.handshakes.length
    const ws = await handshake(task, shape)
    const opening = opened(ws)
    const approval = await waiting()
    expect(upstream.handshakes, 'nothing has left').toHaveLength(before)
    await approve(approval)
    expect((await opening).status).toBe(101)
    ws.send('hello')
    expect(await said(ws)).toBe('hello')
    expect(upstream.handshakes.at(-1)?.headers.authorization).toBe(`Bearer ${KEY}`)
    const cut = closed(ws)
    await site.gateway.control.completeTask(task.task)
    expect(await cut).toEqual({ code: 1008, reason: 'grant_revoked' })
  })

  it('shows that it is a WebSocket, and that what is said in it is not seen', async () => {
    const task = await open()
    const ws = await handshake(task)
    ws.on('error', () => {})
    const { id, verified } = await waiting()
    expect(verified.request).toMatchObject({
      method: 'GET',
      url: `wss://notes.keyless.test:${upstream.tlsPort}/echo`,
    })
    expect(verified.request?.body).toBeUndefined()
    const told = await runOk(process.execPath, [
      `${ROOT}/gateway/keyless.ts`,
      ...['approvals', 'show', id, '--config', `${site.gateway.dir}/keyless.yaml`],
    ])
    expect(told).toMatch(/websocket +what is said in it is not seen before/)
    ws.terminate()
    await site.gateway.control.completeTask(task.task)
  })

  it('is taken up by a second handshake, once, and by none to another place', async () => {
    const task = await open()
    const first = await handshake(task)
    first.on('error', () => {})
    const approval = await waiting()
    first.terminate()
    await expect.poll(() => site.gateway.gateway.house.approval.held.calls, { interval: 10 }).toBe(0)
    await approve(approval)
    const other = await handshake(task, 'reverse route', '/echo?to=another')
    other.on('error', () => {})
    expect((await waiting()).id).not.toBe(approval.id)
    other.terminate()
    const second = await handshake(task)
    expect((await opened(second)).status).toBe(101)
    second.terminate()
    const third = await handshake(task)
    third.on('error', () => {})
    await expect.poll(async () => (await site.gateway.control.approvals()).length, { interval: 10 }).toBe(2)
    third.terminate()
    const used = (await entriesOf(site.gateway.settings.dataDir)).filter(
      ({ kind, facts }) => kind === 'approval.used' && facts?.approval === approval.id,
    )
    expect(used).toHaveLength(1)
    await site.gateway.control.completeTask(task.task)
  })

  it('is told why when it is denied, or its task ends while it waits', async () => {
    const [denied, ended] = [await open(), await open()]
    const answer = opened(await handshake(denied))
    await site.gateway.control.decideApproval((await waiting()).id, 'deny')
    expect(await answer).toMatchObject({ status: 403, headers: { 'keyless-error': 'approval_denied' } })
    const cut = opened(await handshake(ended))
    await waiting()
    await site.gateway.control.completeTask(ended.task)
    expect((await cut).body).toContain('grant_revoked')
  })
})
