/** Why policy says what it says, and what would make it say something else: every way that is told leads there. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { explain } from '../../gateway/policy/tools/explain.ts'
import { parseCall, type Scene, sceneOfCall, sceneOfOperation } from '../../gateway/policy/tools/scene.ts'
import { type Facts, factsOf, type Written } from '../../gateway/policy/tools/supposed.ts'
import type { Ask } from '../../gateway/protocol/decision.ts'
import { ask, bundleOf, catalogueOf, grant, notesFile, permit } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile(), 'demo')

async function explained(policies: string, what: string, written: Written = {}) {
  const bundle = await bundleOf(catalogue, { 'own.cedar': policies })
  const subject = { bundle, catalogue }
  const scene: Scene = what.includes(' ') ? sceneOfCall(subject, parseCall(what)) : sceneOfOperation(subject, what)
  const explanation = await explain(subject, scene, factsOf('call', written))
  const standings = explanation.services.flatMap(({ policies: all }) => all)
  return { ...explanation, standings: standings.map((one) => ({ ...one, id: one.policy.id.split('#')[1] })) }
}

describe('an explanation', () => {
  it('names the policies that decided, before the others', async () => {
    const policies = `${permit('writers', 'principal, action in Action::"write", resource')}${permit('readers', 'principal, action in Action::"read", resource')}`
    const { decision, standings, ways } = await explained(policies, 'notes:notes.read')
    expect(decision.effect).toBe('allow')
    expect(standings.map(({ id, truth }) => [id, truth])).toEqual([['readers', 'true']])
    expect(ways).toEqual([])
  })

  it('names the one condition of a near miss, what it saw, and what would make it pass', async () => {
    const when = ' when { principal.risk_tier == "low" && context.ttl_s <= 600 && context.human like "ana@*" }'
    const { decision, standings, ways } = await explained(
      permit('near', 'principal, action in Action::"read", resource', when),
      'notes:notes.read',
      { context: { human: 'ana@acme.test', ttl_s: 900 } },
    )
    expect(decision.effect).toBe('deny')
    expect(standings).toMatchObject([
      {
        id: 'near',
        truth: 'false',
        failed: [{ text: 'context.ttl_s <= 600', shouldBe: true, saw: { 'context.ttl_s': 900 } }],
      },
    ])
    expect(ways).toEqual([{ changes: [{ name: 'context.ttl_s', from: 900, to: 600 }] }])
  })

  it('puts the nearest miss first, and tells a way for each that has one', async () => {
    const far = permit('far', 'principal == Agent::"other", action, resource', ' when { context.attested }')
    const near = permit('near', 'principal, action, resource', ' when { context.attested }')
    const { standings, ways } = await explained(far + near, 'notes:notes.list')
    expect(standings.map(({ id, failed }) => [id, failed.length])).toEqual([
      ['near', 1],
      ['far', 2],
    ])
    expect(ways).toEqual([{ changes: [{ name: 'context.attested', from: false, to: true }] }])
  })

  it('tells what disarms a forbid that beat a permit', async () => {
    const forbid = `@id("night") @owner("test") forbid (principal, action, resource) unless { context.hour_utc >= 7 && context.hour_utc < 19 };`
    const { decision, standings, ways } = await explained(
      `${permit('all', 'principal, action, resource')}${forbid}`,
      'notes:notes.list',
      { context: { now: '2026-11-23T03:30:00Z' } },
    )
    expect(decision).toMatchObject({ effect: 'deny', policyIds: [expect.stringContaining('#night')] })
    expect(standings.map(({ id, truth }) => [id, truth])).toEqual([
      ['night', 'true'],
      ['all', 'true'],
    ])
    expect(ways).toEqual([{ changes: [{ name: 'context.hour_utc', from: 3, to: 7 }] }])
  })

  it('says that a general permit is not enough, and promises nothing', async () => {
    const { standings, ways } = await explained(permit('all', 'principal, action, resource'), 'notes:notes.delete')
    expect(standings).toMatchObject([{ id: 'all', truth: 'true', isTooGeneral: true }])
    expect(ways).toEqual([])
  })

  it('tells no way where the operation itself is what a policy minds', async () => {
    const when = ' when { resource.sensitivity == "public" }'
    const { standings, ways } = await explained(
      permit('a', 'principal, action, resource is Endpoint', when),
      'notes:notes.read',
    )
    expect(standings[0]?.failed).toMatchObject([{ text: 'resource.sensitivity == "public"', saw: {} }])
    expect(ways).toEqual([])
  })

  it('reads tags only where there are some, as the policy does', async () => {
    const when = ' when { resource.hasTag("id") && resource.getTag("id") == "7" }'
    const policies = permit('a', 'principal, action, resource', when)
    const missing = await explained(policies, 'notes:notes.list')
    expect(missing.standings[0]?.failed.map(({ text, truth }) => [text, truth])).toEqual([
      ['resource.hasTag("id")', 'false'],
      ['resource.getTag("id") == "7"', 'error'],
    ])
    const other = await explained(policies, 'GET https://notes.test/notes/8')
    expect(other.ways).toEqual([{ changes: [{ name: 'resource tags', from: { id: '8' }, to: { id: '7' } }] }])
  })
})

const CONDITIONS = [
  'principal.risk_tier == "low"',
  'principal.owner != "eve"',
  'principal == Agent::"agent:1"',
  'principal in [Agent::"agent:1", Agent::"agent:2"]',
  'context.human like "ana@*"',
  'context.human_amr.contains("mfa")',
  'context.human_amr.containsAny(["otp", "hwk"])',
  '["local:test", "https://id.test"].contains(context.human_iss)',
  'context.attested',
  'context.ttl_s < 300',
  '60 <= context.ttl_s',
  'context.hour_utc >= 7',
  'context.hour_utc < 19',
  'context.weekday_utc == 3',
  'context.source_ip.isInRange(ip("10.0.0.0/8"))',
  'context.source_ip.isLoopback()',
  'context.method == "GET"',
  '(resource.hasTag("id") && resource.getTag("id") == "7")',
  'resource.sensitivity == "public"',
  'resource.access == "read"',
]

const condition = fc.letrec<{ any: string }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 2, withCrossShrink: true },
    fc.constantFrom(...CONDITIONS),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => `(${a} && ${b})`),
    fc.tuple(tie('any'), tie('any')).map(([a, b]) => `(${a} || ${b})`),
    tie('any').map((a) => `!(${a})`),
  ),
})).any

const policyText = fc.tuple(
  fc.constantFrom('permit', 'permit', 'forbid'),
  fc.constantFrom('action', 'action in Action::"read"', 'action == Action::"notes:notes.delete"'),
  fc.option(condition),
  fc.option(condition),
)

const facts = fc.record(
  {
    principal: fc.constantFrom('agent:1', 'agent:9'),
    risk: fc.constantFrom('low', 'high'),
    owner: fc.constantFrom('ana', 'eve'),
    human: fc.constantFrom('ana@acme.test', 'bob'),
    amr: fc.subarray(['mfa', 'otp', 'pwd']),
    attested: fc.boolean(),
    ttl: fc.integer({ min: 1, max: 900 }),
    ip: fc.constantFrom('127.0.0.1', '10.1.2.3', '192.0.2.9'),
    now: fc.integer({ min: 1_700_000_000, max: 1_700_600_000 }),
  },
  { noNullPrototype: true },
)

/** The request that these facts are of, as a gateway gets it: no fact is supposed. */
function realAsk(path: string, method: string, values: Facts): Ask {
  const text = (name: string, otherwise: string) => String(values.get(name) ?? otherwise)
  const now = Number(values.get('context.now'))
  const held = grant()
  const tags = values.get('resource tags') as Record<string, string> | undefined
  const located = ask(catalogue, { rawPath: path, method: text('context.method', method) })
  return {
    ...located,
    endpoint: { ...ask(catalogue, { rawPath: path, method }).endpoint, ...(tags && { params: tags }) },
    method: text('context.method', method),
    sourceAddress: text('context.source_ip', '127.0.0.1'),
    nowMs: now * 1000,
    grant: {
      ...held,
      agent: {
        ...held.agent,
        id: text('principal', held.agent.id),
        owner: text('principal.owner', held.agent.owner),
        riskTier: text('principal.risk_tier', 'low') as 'low',
      },
      human: {
        iss: text('context.human_iss', 'local:test'),
        sub: text('context.human', 'somebody'),
        amr: (values.get('context.human_amr') ?? []) as string[],
      },
      attested: values.get('context.attested') === true,
      expiresAt: now + Number(values.get('context.ttl_s') ?? 900),
    },
  }
}

const HOUR_S = 3600

/** What a way asks for at the time at which it can be had. */
function applied(before: Facts, changes: readonly { name: string; to: unknown }[]): Facts {
  const after = new Map([...before, ...changes.map(({ name, to }) => [name, to] as [string, string])])
  const now = Number(before.get('context.now'))
  const at = (s: number) => new Date(s * 1000)
  const clock: [string, (s: number) => number][] = [
    ['context.hour_utc', (s) => at(s).getUTCHours()],
    ['context.weekday_utc', (s) => at(s).getUTCDay() || 7],
  ]
  for (let s = now; s < now + 7 * 24 * HOUR_S; s += HOUR_S)
    if (clock.every(([name, of]) => of(s) === (after.get(name) ?? of(now)))) return after.set('context.now', s)
  throw new Error('no such time')
}

it('every way that is told leads from no to yes, in a gateway that supposes nothing', { timeout: 30_000 }, async () => {
  let told = 0
  await fc.assert(
    fc.asyncProperty(
      fc.array(policyText, { minLength: 1, maxLength: 4 }),
      facts,
      fc.constantFrom('GET /notes', 'GET /notes/8', 'DELETE /notes/7'),
      async (texts, given, request) => {
        const written = texts.map(([effect, action, when, unless], n) => {
          const conditions = `${when ? ` when { ${when} }` : ''}${unless ? ` unless { ${unless} }` : ''}`
          return `@id("p${n}") @owner("test") ${effect} (principal, ${action}, resource is Endpoint)${conditions};`
        })
        const bundle = await bundleOf(catalogue, { 'own.cedar': written.join('\n') }).catch(() => undefined)
        fc.pre(bundle !== undefined) // Cedar refuses policies that can never apply
        if (bundle === undefined) return
        const [method = '', path = ''] = request.split(' ')
        const values = factsOf('call', {
          principal: { id: given.principal, risk_tier: given.risk, owner: given.owner },
          context: {
            ...{ human: given.human, human_amr: given.amr, attested: given.attested, ttl_s: given.ttl },
            ...{ source_ip: given.ip, now: given.now, human_iss: 'local:test' },
          },
        })
        const subject = { bundle, catalogue }
        const scene = sceneOfCall(subject, { method, url: `https://notes.test${path}` })
        const { decision, ways } = await explain(subject, scene, values)
        const policy = createPolicy({ bundle, tenant: 'default' })
        const before = await policy.evaluate(realAsk(path, method, values))
        expect(before.effect).toBe(decision.effect)
        for (const { changes } of ways) {
          told += 1
          const after = await policy.evaluate(realAsk(path, method, applied(values, changes)))
          expect(after, JSON.stringify(changes)).toMatchObject({ effect: 'allow' })
        }
      },
    ),
    { numRuns: 18 },
  )
  expect(told).toBeGreaterThan(2)
})
