/** Every shipped pack at work: all of them in one gateway that runs, with the agents that their pages are about. */
import { generateKeyPairSync } from 'node:crypto'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { draftSealed, signSealed } from '../../gateway/grant/break-glass-request.ts'
import { publicJwk } from '../../gateway/grant/chain/jws.ts'
import { packNames } from '../../gateway/policy/tools/packs.ts'
import type { OpenTaskBody } from '../../gateway/protocol/control.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, openTimedSite, type TimedSite } from '../invariant/services.fixture.ts'
import { manualClock } from '../rig/clock.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'

const agentOf = (name: string) => `spiffe://acme.test/agents/${name}`
const custodians = ['ana', 'ben'].map((name) => ({ name, key: generateKeyPairSync('ed25519').privateKey }))
const clock = manualClock() // noon of a Monday

/** The pack adds to this that somebody agrees. */
const WIPE =
  '@id("wipe") @owner("test") @ttl("60") permit (principal is Agent, action == Action::"notes:wipe", resource);'

let echo: EchoUpstream
let site: TimedSite

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  const agent = (name: string, more: object = {}) => ({ id: agentOf(name), owner: 'ana', purpose: 'test', ...more })
  site = await openTimedSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: {
            read: { match: ['GET /echo/plain'], access: 'read' },
            write: { match: ['POST /echo/plain'], access: 'write' },
            file: { match: ['POST /echo/inside'], access: 'write', labels: ['inside'] },
            secret: { match: ['GET /echo/secret'], access: 'read', sensitivity: 'restricted' },
            wipe: { match: ['DELETE /echo/wipe'], access: 'write', irreversible: true },
            search: { match: ['GET /echo/search'], access: 'read', labels: ['retrieval'] },
            facts: { match: ['GET /echo/facts'], access: 'read', labels: ['retrieval', 'verified'] },
            settings: { match: ['POST /echo/settings'], access: 'admin' },
          },
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      policies: { text: WIPE },
      settings: {
        policies: ['shipped', ...packNames().map((name) => `pack:${name}`), './test.cedar'],
        agents: [
          agent('plain'),
          agent('writer', { labels: ['may-write'] }),
          agent('watch', { labels: ['any-hour'] }),
          agent('deploy', { risk_tier: 'high' }),
          agent('chat', { labels: ['llm'] }),
          agent('etl', { labels: ['batch'] }),
        ],
        approvals: { hold_s: 0 },
        break_glass: {
          custodians: custodians.map(({ name, key }) => ({ name, key: publicJwk(key).x ?? '' })),
          scope: 'notes:*',
        },
      },
    },
    clock,
  )
}, 30_000)

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

const open = async (agent: string, more: Partial<OpenTaskBody> = {}) =>
  site.control.openTask({ agent: agentOf(agent), scope: 'notes:*', purpose: 'try the packs', ...more })

/** `200`, or the code of the refusal. */
async function call(handle: string, method: string, path: string) {
  const fields = `Authorization: Bearer ${handle}\r\n${method === 'POST' ? 'Content-Length: 0\r\n' : ''}`
  const answer = await reverse(site.proxyPort, handle, { method, path: `/notes/echo/${path}`, fields })
  return codeOf(answer) ?? answer.status
}

it('read-only-by-default: agents read, and those with the label write', async () => {
  const [plain, writer] = [await open('plain'), await open('writer')]
  expect(await call(plain.handle, 'GET', 'plain')).toBe(200)
  const before = echo.requests.length
  expect(await call(plain.handle, 'POST', 'plain')).toBe('policy_denied')
  expect(echo.requests.length).toBe(before)
  expect(await call(writer.handle, 'POST', 'plain')).toBe(200)
})

it('sensitive-single-use: restricted data is read once per grant', async () => {
  const { handle } = await open('plain')
  expect(await call(handle, 'GET', 'secret')).toBe(200)
  expect(await call(handle, 'GET', 'secret')).toBe('use_spent')
  expect(await call((await open('plain')).handle, 'GET', 'secret')).toBe(200)
})

it('no-secrets-out: what a task has read does not leave, except to where it may stay', async () => {
  const { handle } = await open('writer')
  expect(await call(handle, 'POST', 'plain')).toBe(200)
  expect(await call(handle, 'GET', 'secret')).toBe(200)
  const before = echo.requests.length
  expect(await call(handle, 'POST', 'plain')).toBe('policy_denied')
  expect(echo.requests.length).toBe(before)
  expect(await call(handle, 'POST', 'inside')).toBe(200)
  expect(await call(handle, 'GET', 'plain')).toBe(200)
  expect(await call((await open('writer')).handle, 'POST', 'plain')).toBe(200)
})

it('verified-sources: agents find things only where somebody has verified them', async () => {
  const { handle } = await open('plain')
  const before = echo.requests.length
  expect(await call(handle, 'GET', 'search')).toBe('policy_denied')
  expect(echo.requests.length).toBe(before)
  expect(await call(handle, 'GET', 'facts')).toBe(200)
})

it('human-in-the-loop: what cannot be undone happens when the human has agreed, once', async () => {
  const { handle } = await open('writer')
  const before = echo.requests.length
  expect(await call(handle, 'DELETE', 'wipe')).toBe('approval_required')
  expect(echo.requests.length).toBe(before)
  const waiting = async () => (await site.control.approvals()).filter(({ state }) => state === 'pending')
  const [one, ...more] = await waiting()
  expect(more).toEqual([])
  await site.control.decideApproval(one?.id ?? '', 'approve')
  expect(await call(handle, 'DELETE', 'wipe')).toBe(200)
  expect(await call(handle, 'DELETE', 'wipe')).toBe('use_spent') // sensitive-single-use holds beside it, …
  expect(await waiting()).toEqual([]) // … so nobody is asked
  expect(echo.requests.length).toBe(before + 1)
})

it.each([
  ['plain', { ttl_s: 900 }, { ttl_s: 901 }],
  ['deploy', { ttl_s: 300 }, { ttl_s: 301 }],
  ['chat', { ttl_s: 900, plan: ['notes:read'] }, { ttl_s: 900 }],
  ['etl', { ttl_s: 3600, step: 'rows-1', preset: 'training-batch' }, { ttl_s: 901 }],
] as const)('ttl-by-tier: %s is given %j and not %j', async (agent, right, wrong) => {
  const { expires_at } = await open(agent, right as Partial<OpenTaskBody>)
  expect(expires_at).toBe(Math.floor(clock.nowMs() / 1000) + right.ttl_s)
  await expect(open(agent, wrong as Partial<OpenTaskBody>)).rejects.toThrow(/not allowed by policy/)
})

it('ttl-by-tier: a model that leaves its plan, or changes its intent, has nothing any more', async () => {
  const task = await open('chat', { plan: ['notes:read'] })
  expect(await call(task.handle, 'GET', 'plain')).toBe(200)
  expect(await call(task.handle, 'GET', 'secret')).toBe('policy_denied')
  await expect.poll(() => call(task.handle, 'GET', 'plain')).toBe('grant_revoked')
  const other = await open('chat', { plan: ['notes:read'] })
  const next = await site.control.changeIntent(other.task, { purpose: 'something else', plan: ['notes:read'] })
  expect(await call(other.handle, 'GET', 'plain')).toBe('grant_revoked')
  expect(await call(next.handle ?? '', 'GET', 'plain')).toBe(200)
})

it('break-glass: an emergency administers, is told, and is not passed on', async () => {
  expect(await call((await open('writer', { ttl_s: 300 })).handle, 'POST', 'settings')).toBe('policy_denied')
  const nowS = Math.floor(clock.nowMs() / 1000)
  const asked = {
    ...{ id: uuidv7(), tenant: 'default', who: 'dee', agent: agentOf('plain'), why: 'it is broken', scope: 'notes:*' },
    ...{ ttl_s: 600, not_before: nowS - 1, not_after: nowS + 600 },
  }
  const { handle = '' } = await site.control.openBreakGlass(
    custodians.reduce((file, { key }) => signSealed(file, key), draftSealed(asked)),
  )
  expect(await call(handle, 'POST', 'settings')).toBe(200)
  expect(await call(handle, 'POST', 'plain')).toBe(200) // read-only makes room for it
  await expect(site.control.delegate({ parent: handle, agent: agentOf('writer') })).rejects.toThrow()
  const entries = await entriesOf(site.dataDir)
  const [entry] = entries.filter(({ human, kind }) => human?.iss === 'break-glass' && kind === 'call.decision')
  expect(entry?.decision).toMatchObject({
    policy_ids: ['break-glass#emergency-work-is-told'],
    obligations: { notify: ['break-glass'], ttl_s: 300 },
  })
})

it('working-hours: in the evening agents stop, and whoever is on watch goes on', async () => {
  clock.advance((6 * 60 + 55) * 60_000)
  const [plain, watch] = [await open('plain'), await open('watch')]
  for (const { handle } of [plain, watch]) expect(await call(handle, 'GET', 'plain')).toBe(200)
  clock.advance(6 * 60_000)
  expect(await call(plain.handle, 'GET', 'plain')).toBe('policy_denied')
  expect(await call(watch.handle, 'GET', 'plain')).toBe(200)
  await expect(open('plain')).rejects.toThrow(/not allowed by policy/)
  expect(await call((await open('watch')).handle, 'GET', 'plain')).toBe(200)
})
