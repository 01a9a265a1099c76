/** The gateway ends access by itself: after a leak, when policy says so of a refusal, when an agent is registered no more, at an odd habit. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { startWebSockets, type WebSocketUpstream } from '../rig/websocket.ts'

const LEAD = 'spiffe://test/agent/lead'
const MID = 'spiffe://test/agent/mid'
let upstream: WebSocketUpstream
let site: OpenSite

beforeAll(async () => {
  upstream = await startWebSockets(['notes.keyless.test'], ({ url, headers }, response) => {
    response.end(url?.startsWith('/echo') ? JSON.stringify(headers) : '{}')
  })
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /plain/{n}'], access: 'read' },
            repeat: { match: ['GET /echo/{n}'], access: 'read' },
            one: { match: ['GET /one'], access: 'read' },
            two: { match: ['GET /two'], access: 'read' },
            three: { match: ['GET /three'], access: 'read' },
            wipe: { match: ['DELETE /plain/{n}'], access: 'write' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: {
        text: '@id("no-wipe") @owner("test") @revoke("task") forbid (principal, action == Action::"notes:wipe", resource);',
      },
      settings: {
        agents: [LEAD, MID].map((id) => ({ id, owner: 'ana', purpose: 'test' })),
        revocation: {
          automatic: {
            leak: 'task',
            anomaly: { action: 'suspend', new_operations: { count: 3, within_s: 60, learning_s: 0 } },
          },
        },
      },
    },
  )
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

const open = (agent = LEAD) => site.gateway.control.openTask({ agent, scope: 'notes:*', purpose: 'test' })

async function call({ handle }: Pick<IssuedView, 'handle'>, path: string, method = 'GET') {
  const response = await fetch(`http://127.0.0.1:${site.gateway.proxyPort}/notes${path}`, {
    method,
    headers: { authorization: `Bearer ${handle}` },
  })
  await response.arrayBuffer().catch(() => undefined)
  return response.headers.get('keyless-error') ?? String(response.status)
}

const orders = async (from: string) =>
  (await entriesOf(site.gateway.settings.dataDir)).filter(
    ({ kind, facts }) => kind === 'revocation.ordered' && facts?.from === from,
  )

describe('by itself', () => {
  it('a task ends when a credential came back in one of its answers, as the settings say', async () => {
    const task = await open()
    await call(task, '/echo/1')
    await expect.poll(() => call(task, '/plain/1')).toBe('grant_revoked')
    expect(await orders('leak')).toMatchObject([{ facts: { target: 'task', name: task.task, by: 'automatic' } }])
  })

  it('a task ends when policy says so of what it refused, and the call is refused as ever', async () => {
    const task = await open()
    expect(await call(task, '/plain/1')).toBe('200')
    expect(await call(task, '/plain/1', 'DELETE')).toBe('policy_denied')
    await expect.poll(() => call(task, '/plain/1')).toBe('grant_revoked')
    expect(await orders('off_plan')).toHaveLength(1)
  })

  it('a task is parked when its agent does several things that it never did, and the log says what', async () => {
    const task = await open(MID)
    for (const path of ['/one', '/two', '/three']) await call(task, path)
    await expect.poll(() => call(task, '/one')).toBe('task_suspended')
    const anomaly = (await entriesOf(site.gateway.settings.dataDir)).find(({ kind }) => kind === 'revocation.anomaly')
    expect(anomaly?.facts).toMatchObject({ agent: MID, rule: 'new_operations', action: 'suspend' })
    expect(String(anomaly?.facts?.detail)).toContain('3 operations within 60 s')
    const again = await open(MID)
    expect(await call(again, '/one'), 'they are known now').toBe('200')
  })

  it('the grants of an agent end that is taken out of the settings', async () => {
    const [task, other] = [await open(MID), await open()]
    expect(await call(task, '/one')).toBe('200')
    const file = join(site.gateway.dir, 'keyless.yaml')
    const yaml = await readFile(file, 'utf8')
    await writeFile(file, yaml.replace(/\n {2}- id: spiffe:\/\/test\/agent\/mid\n(?: {4}.*\n)*/, '\n'))
    await site.gateway.control.reloadPolicy()
    await expect.poll(() => call(task, '/one')).toMatch(/grant_revoked|agent_unknown/)
    expect(await call(other, '/plain/1')).toBe('200')
    await expect.poll(() => orders('agent_removed')).toMatchObject([{ facts: { target: 'agent', name: MID } }])
  })
})
