/** SECURITY.md 4: every record names human, agent and task; two entries for an allowed call, one for a refusal. */
import { hostname, userInfo } from 'node:os'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { sentence } from '../../gateway/audit/entries/lineage.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { basic, codeOf, forward, openTunnel, reverse, say } from './agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from './services.fixture.ts'

const PURPOSE = 'count “what” happens & where'
let upstream: EchoUpstream
let site: OpenSite
let task: OpenedTask
let port: number
let origin: string
let ca: string

beforeAll(async () => {
  upstream = await startEcho({ names: ['notes.keyless.test'] })
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/{id}'], access: 'read' },
            'odd.broken': { match: ['GET /reset'], access: 'read' },
            'odd.cut': { match: ['GET /truncate'], access: 'read' },
            gone: { match: ['DELETE /echo/{id}'], access: 'write', irreversible: true },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      settings: { agents: [{ id: 'spiffe://test/agent/scribe', owner: 'ana', purpose: 'writes', risk_tier: 'low' }] },
    },
  )
  task = await site.gateway.openTask('notes:*', PURPOSE)
  port = site.gateway.proxyPort
  origin = `notes.keyless.test:${upstream.tlsPort}`
  ca = (await site.gateway.control.status()).ca_pem
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

/** Entries that `work` caused, once they are on disk. */
async function causedBy(work: () => Promise<unknown>, calls = 1): Promise<Entry[]> {
  const dir = site.gateway.settings.dataDir
  const before = (await entriesOf(dir)).length
  await work()
  const read = async () => (await entriesOf(dir)).slice(before).filter(({ kind }) => kind.startsWith('call.'))
  await expect.poll(async () => (await read()).length, { timeout: 5_000 }).toBeGreaterThanOrEqual(calls)
  await settled() // an entry too many would be on its way
  return read()
}

/** A task goes through the same log: when its opening is there, so is everything before it. */
async function settled(): Promise<void> {
  const { task: opened } = await site.gateway.openTask('notes:read', 'mark a place in the log')
  const read = () => entriesOf(site.gateway.settings.dataDir)
  await expect.poll(async () => (await read()).some((entry) => entry.task?.id === opened)).toBe(true)
}

const nameless = (entry: Entry) => [entry.human, entry.lineage, entry.task].filter((part) => part === undefined).length

function expectNamed(entry: Entry): void {
  const human = userInfo().username
  expect(entry.human).toEqual({ iss: `local:${hostname()}`, sub: human })
  expect(entry.task).toEqual({ id: task.task, purpose: PURPOSE })
  expect(entry.lineage?.map(({ type, id }) => [type, id])).toEqual([
    ['human', expect.stringContaining(human)],
    ['ai_agent', 'spiffe://test/agent/scribe'],
  ])
  expect(entry.lineage?.at(-1)?.grant).toBe(task.grant)
}

describe('a call to a place that cannot be understood', () => {
  it('names who made it, because who is calling is settled first', async () => {
    const path = '/notes/echo/..%2fadmin'
    const [entry] = await causedBy(() => reverse(port, task.handle, { path }), 1)
    expect(entry?.decision?.effect).toBe('deny')
    expectNamed(entry as Entry)
  })

  it('tells a caller without a grant nothing of which places there are', async () => {
    const known = await reverse(port, 'kh_nobody', { path: '/notes/echo/1' })
    const odd = await reverse(port, 'kh_nobody', { path: '/notes/echo/..%2fadmin' })
    expect([known.status, codeOf(known)]).toEqual([401, 'grant_invalid'])
    expect([odd.status, codeOf(odd)]).toEqual([401, 'grant_invalid'])
  })
})

describe('an allowed call', () => {
  it.each([
    ['on a reverse route', () => reverse(port, task.handle, { path: '/notes/echo/1' })],
    ['in absolute form', () => forward(port, task.handle, { url: `https://${origin}/echo/1` })],
    [
      'inside a tunnel',
      async () => {
        const tunnel = await openTunnel(port, { handle: task.handle, authority: origin, ca })
        const answer = await tunnel.ask('GET', '/echo/1')
        tunnel.close()
        return answer
      },
    ],
  ] as const)('%s leaves a decision and an outcome that name human, agent and task', async (_, call) => {
    const entries = await causedBy(call, 2)
    expect(entries.map(({ kind }) => kind)).toEqual(['call.decision', 'call.outcome'])
    for (const entry of entries) expectNamed(entry)
    expect(entries[0]?.req).toBe(entries[1]?.req)
    expect(entries[0]?.decision?.effect).toBe('allow')
    expect(sentence(entries[0] as Entry, entries[1])).toBe(
      `${userInfo().username} authorised spiffe://test/agent/scribe for task “${PURPOSE}”; spiffe://test/agent/scribe called GET ${origin}/echo/1 (notes:read): 200`,
    )
  })

  it('that fails afterwards still has exactly two, the second with the reason', async () => {
    const broken = await causedBy(() => reverse(port, task.handle, { path: '/notes/reset' }), 2)
    expect(broken.map(({ kind }) => kind)).toEqual(['call.decision', 'call.outcome'])
    expect(broken[1]?.outcome).toMatchObject({ status: 502, error: 'upstream_broken' })
    const cut = await causedBy(() => reverse(port, task.handle, { path: '/notes/truncate' }), 2)
    expect(cut.map(({ kind }) => kind)).toEqual(['call.decision', 'call.outcome'])
    expect(cut[1]?.outcome?.error).toBeTruthy()
    for (const entry of [...broken, ...cut]) expectNamed(entry)
  })

  it('each of a hundred at once has its own two', async () => {
    const entries = await causedBy(
      () =>
        Promise.all(Array.from({ length: 100 }, (_, n) => reverse(port, task.handle, { path: `/notes/echo/${n}` }))),
      200,
    )
    const byCall = Map.groupBy(entries, ({ req }) => req)
    expect(byCall.size).toBe(100)
    for (const two of byCall.values())
      expect(two.map(({ kind }) => kind).sort()).toEqual(['call.decision', 'call.outcome'])
  })
})

describe('a refused call leaves exactly one entry', () => {
  const handle = () => task.handle
  it.each([
    ['by policy', 'policy_denied', () => reverse(port, handle(), { method: 'DELETE', path: '/notes/echo/1' })],
    ['for an unlisted operation', 'policy_denied', () => reverse(port, handle(), { path: '/notes/elsewhere' })],
    ['for a path of two meanings', 'path_ambiguous', () => reverse(port, handle(), { path: '/notes/echo/%2e%2e' })],
    ['for TRACE', 'method_refused', () => reverse(port, handle(), { method: 'TRACE', path: '/notes/echo/1' })],
    ['for a foreign host', 'host_unmanaged', () => forward(port, handle(), { url: 'https://elsewhere.example/' })],
  ] as const)('%s', async (_, code, call) => {
    const entries = await causedBy(call)
    expect(entries.map(({ kind, decision }) => [kind, decision?.effect, decision?.code])).toEqual([
      ['call.decision', 'deny', code],
    ])
    // Who it was is known only after the place is: a request that cannot be read as one place is never authenticated.
    const isRead = code === 'policy_denied' || code === 'host_unmanaged'
    if (isRead) expectNamed(entries[0] as Entry)
    else expect(entries[0]?.client?.ip).toBe('127.0.0.1')
  })

  it.each([
    [
      'without a grant',
      'grant_missing',
      () => say(port, `GET /notes/echo/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n`),
    ],
    ['with an unknown handle', 'grant_invalid', () => reverse(port, `kh_${'A'.repeat(43)}`, { path: '/notes/echo/1' })],
    ['for a route that does not exist', 'route_unknown', () => reverse(port, handle(), { path: '/nobody/x' })],
    [
      'for a Host that is another place',
      'target_mismatch',
      () => forward(port, handle(), { url: `https://${origin}/echo/1`, host: 'elsewhere.example' }),
    ],
    [
      'for two Host fields',
      'request_malformed',
      () => forward(port, handle(), { url: `https://${origin}/echo/1`, fields: 'Host: elsewhere.example\r\n' }),
    ],
    [
      'for two kinds of framing',
      undefined,
      () =>
        forward(port, handle(), {
          method: 'POST',
          url: `https://${origin}/echo/1`,
          fields: 'Content-Length: 3\r\nTransfer-Encoding: chunked\r\n',
        }),
    ],
    [
      'on a CONNECT without a grant',
      'grant_missing',
      () => say(port, `CONNECT ${origin} HTTP/1.1\r\nHost: ${origin}\r\nConnection: close\r\n\r\n`),
    ],
    [
      'on a CONNECT with an ill-formed authority',
      'request_malformed',
      () =>
        say(
          port,
          `CONNECT me@${origin} HTTP/1.1\r\nProxy-Authorization: ${basic(handle())}\r\nConnection: close\r\n\r\n`,
        ),
    ],
  ] as const)('%s, although nobody can be named', async (_, code, call) => {
    if (code === undefined) {
      // The parser itself refuses it: bytes that never became a request have nothing to record.
      expect((await call()).status).toBe(400)
      return
    }
    const entries = await causedBy(call)
    expect(entries.map(({ kind, decision }) => [kind, decision?.code])).toEqual([['call.decision', code]])
    expect(nameless(entries[0] as Entry)).toBe(3)
    expect(entries[0]?.client?.ip).toBe('127.0.0.1')
  })

  it('inside a tunnel, where the task is known', async () => {
    const entries = await causedBy(async () => {
      const tunnel = await openTunnel(port, { handle: task.handle, authority: origin, ca })
      expect((await tunnel.ask('DELETE', '/echo/1')).status).toBe(403)
      tunnel.close()
    })
    expect(entries).toHaveLength(1)
    expectNamed(entries[0] as Entry)
  })
})

describe('everything else that is recorded', () => {
  it('names the human, agent and task of a task that was opened and ended', async () => {
    const opened = await site.gateway.openTask('notes:read', 'come and go')
    await site.gateway.control.completeTask(opened.task)
    await settled()
    const entries = (await entriesOf(site.gateway.settings.dataDir)).filter((entry) => entry.task?.id === opened.task)
    expect(entries).toHaveLength(2)
    for (const entry of entries) {
      expect(entry.human?.sub).toBe(userInfo().username)
      expect(entry.task?.purpose).toBe('come and go')
      expect(entry.lineage?.at(-1)?.id).toBe('spiffe://test/agent/scribe')
    }
  })

  it('names the human who was refused a task', async () => {
    await expect(site.gateway.openTask('notes:nothing')).rejects.toMatchObject({ code: 'invalid_scope' })
    await settled()
    const entry = (await entriesOf(site.gateway.settings.dataDir)).findLast(
      ({ decision }) => decision?.code === 'invalid_scope',
    )
    expect(entry?.human?.sub).toBe(userInfo().username)
  })

  it('ties every credential that was issued to the grant it was issued for', async () => {
    const issued = (await entriesOf(site.gateway.settings.dataDir)).filter(({ kind }) => kind === 'lease.issued')
    expect(issued.length).toBeGreaterThan(0)
    for (const entry of issued) expect(entry.facts).toMatchObject({ grant: task.grant, credential: 'notes' })
  })
})
