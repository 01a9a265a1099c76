/** SECURITY.md 2: every single request is decided when it is made; a remembered decision serves only equal values. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { codeOf, openTunnel, reverse, type Tunnel } from './agent.fixture.ts'
import { openTimedSite, type TimedSite } from './services.fixture.ts'

const AGENTS = [
  { id: 'spiffe://test/agent/careful', owner: 'ana', purpose: 'read notes', risk_tier: 'low' },
  { id: 'spiffe://test/agent/bold', owner: 'ana', purpose: 'try things', risk_tier: 'high' },
  { id: 'spiffe://test/agent/other', owner: 'bo', purpose: 'read notes', risk_tier: 'low' },
] as const
const PURPOSES = ['count notes', 'tidy notes'] as const
const OWNERS = ['acme', 'umbrella'] as const

/** What each operation asks for, in Cedar and, independently, in words of this test. */
const RULES: Readonly<Record<string, { readonly cedar: string; readonly holds: (ask: Case) => boolean }>> = {
  tier: { cedar: 'principal.risk_tier == "low"', holds: ({ agent }) => agent.risk_tier === 'low' },
  owner: { cedar: 'principal.owner == "ana"', holds: ({ agent }) => agent.owner === 'ana' },
  agent: { cedar: 'principal == Agent::"spiffe://test/agent/bold"', holds: ({ agent }) => agent.id.endsWith('/bold') },
  both: {
    cedar: 'principal.owner == "ana" && context.purpose == "tidy notes"',
    holds: ({ agent, purpose }) => agent.owner === 'ana' && purpose === 'tidy notes',
  },
  purpose: { cedar: 'context.purpose like "count*"', holds: ({ purpose }) => purpose.startsWith('count') },
  tag: { cedar: 'resource.getTag("owner") == "acme"', holds: ({ owner }) => owner === 'acme' },
  /** The principal as a whole, through an expression: what is not understood counts as reading everything. */
  indirect: {
    cedar: '(if context.method == "GET" then principal else principal).owner == "ana"',
    holds: ({ agent }) => agent.owner === 'ana',
  },
  path: { cedar: 'resource.path like "*/acme"', holds: ({ owner }) => owner === 'acme' },
  method: { cedar: 'context.method == "POST"', holds: ({ method }) => method === 'POST' },
  time: { cedar: 'context.ttl_s > 600', holds: ({ isYoung }) => isYoung },
}

interface Case {
  readonly agent: (typeof AGENTS)[number]
  readonly purpose: string
  readonly owner: string
  readonly method: string
  readonly isYoung: boolean
}

let echo: EchoUpstream
let clock: ManualClock
let site: TimedSite
let ca: string

beforeAll(async () => {
  echo = await startEcho({ names: ['notes.keyless.test'] })
  clock = manualClock(Date.now())
  site = await openTimedSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'notes',
          operations: Object.fromEntries(
            Object.keys(RULES).map((rule) => [
              rule,
              { match: [`GET /echo/${rule}/{owner}`, `POST /echo/${rule}/{owner}`], access: 'write' },
            ]),
          ),
        },
      ],
      credentials: { notes: 'a-standing-key-of-some-length' },
      settings: { agents: AGENTS },
      policies: {
        only: true,
        text: [
          '@id("mint") @owner("test") permit (principal, action == Action::"mint", resource);',
          ...Object.entries(RULES).map(
            ([rule, { cedar }]) =>
              `@id("${rule}") @owner("test") permit (principal, action == Action::"notes:${rule}", resource) when { ${
                rule === 'tag' ? `resource.hasTag("owner") && ${cedar}` : cedar
              } };`,
          ),
        ].join('\n'),
      },
    },
    clock,
  )
  ca = (await site.control.status()).ca_pem
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

const open = (agent: (typeof AGENTS)[number], purpose: string) =>
  site.control.openTask({ scope: 'notes:*', purpose, agent: agent.id, ttl_s: 900 })
const tunnelFor = (task: OpenedTask): Promise<Tunnel> =>
  openTunnel(site.proxyPort, { handle: task.handle, authority: `notes.keyless.test:${echo.tlsPort}`, ca })

describe('requests in one tunnel', () => {
  it('are decided one by one, whatever was decided before', async () => {
    const tunnel = await tunnelFor(await open(AGENTS[0], 'count notes'))
    const statuses: number[] = []
    for (const path of [
      '/echo/tier/acme',
      '/echo/agent/acme',
      '/echo/tier/acme',
      '/echo/tag/umbrella',
      '/echo/tag/acme',
    ])
      statuses.push((await tunnel.ask('GET', path)).status)
    expect(statuses).toEqual([200, 403, 200, 403, 200])
    tunnel.close()
  })

  it('see time pass', async () => {
    const tunnel = await tunnelFor(await open(AGENTS[0], 'count notes'))
    expect((await tunnel.ask('GET', '/echo/time/acme')).status).toBe(200)
    clock.advance(298_000) // the grant began at the last whole second
    expect((await tunnel.ask('GET', '/echo/time/acme')).status).toBe(200)
    clock.advance(3_000)
    const before = echo.requests.length
    const late = await tunnel.ask('GET', '/echo/time/acme')
    expect([late.status, codeOf(late)]).toEqual([403, 'policy_denied'])
    expect(echo.requests.length).toBe(before)
    expect((await tunnel.ask('GET', '/echo/tier/acme')).status).toBe(200)
    tunnel.close()
  })

  it('are decided for the task of their own tunnel, also when tunnels take turns', async () => {
    const careful = await tunnelFor(await open(AGENTS[0], 'count notes'))
    const bold = await tunnelFor(await open(AGENTS[1], 'count notes'))
    for (let n = 0; n < 5; n++) {
      expect((await careful.ask('GET', '/echo/tier/acme')).status).toBe(200)
      expect((await bold.ask('GET', '/echo/tier/acme')).status).toBe(403)
      expect((await careful.ask('GET', '/echo/agent/acme')).status).toBe(403)
      expect((await bold.ask('GET', '/echo/agent/acme')).status).toBe(200)
    }
    careful.close()
    bold.close()
  })
})

describe('a remembered decision', () => {
  it('is never used for a grant, place, method or time that its policies would see differently', async () => {
    const tasks = new Map<string, { old: OpenedTask; young: OpenedTask }>()
    const each = AGENTS.flatMap((agent) => PURPOSES.map((purpose) => ({ agent, purpose, key: agent.id + purpose })))
    const old = await Promise.all(each.map(({ agent, purpose }) => open(agent, purpose)))
    clock.advance(400_000)
    const young = await Promise.all(each.map(({ agent, purpose }) => open(agent, purpose)))
    for (const [n, { key }] of each.entries())
      tasks.set(key, { old: old[n] as OpenedTask, young: young[n] as OpenedTask })

    const asks = fc.record({
      rule: fc.constantFrom(...Object.keys(RULES)),
      agent: fc.constantFrom(...AGENTS),
      purpose: fc.constantFrom(...PURPOSES),
      owner: fc.constantFrom(...OWNERS),
      method: fc.constantFrom('GET', 'POST'),
      isYoung: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(asks, { minLength: 1, maxLength: 12 }), async (sequence) => {
        // At once, so that what is remembered for one is there while the next is decided.
        const answers = await Promise.all(
          sequence.map((ask) => {
            const task = tasks.get(ask.agent.id + ask.purpose)?.[ask.isYoung ? 'young' : 'old']
            const fields = ask.method === 'POST' ? 'Content-Length: 0\r\n' : ''
            return reverse(site.proxyPort, task?.handle ?? '', {
              method: ask.method,
              path: `/notes/echo/${ask.rule}/${ask.owner}`,
              fields: `Authorization: Bearer ${task?.handle}\r\n${fields}`,
            })
          }),
        )
        for (const [n, ask] of sequence.entries())
          expect(answers[n]?.status, JSON.stringify(ask)).toBe(RULES[ask.rule]?.holds(ask) ? 200 : 403)
      }),
      { numRuns: 60 },
    )
  })
})
