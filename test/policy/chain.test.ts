/** Calls under a chain of grants: what every level allows, and what policies see of the chain. */
import { describe, expect, it } from 'vitest'
import { createRegions } from '../../gateway/policy/catalogue/regions.ts'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { type Decision, isSingleUse } from '../../gateway/protocol/decision.ts'
import type { Authority, Grant, LineageStep } from '../../gateway/protocol/grant.ts'
import { ask, bundleOf, catalogueOf, grant, notesFile, permit, policiesDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())
const shipped = createPolicy({
  bundle: await loadBundle({ paths: [policiesDir], catalogue }),
  tenant: 'default',
  regionsOf: createRegions({ CH: ['192.0.2.0/24'] }),
})

const ALL: Authority = { operations: ['notes:*'] }

/** A grant with one entry a level, root first. */
function chain(...levels: Authority[]): Grant {
  const own = levels.at(-1) ?? ALL
  const ancestry = levels.slice(0, -1).map((entry, i) => ({ id: `g-${i}`, authority: [entry] }))
  const steps = ancestry.map((_, i): LineageStep => ({ n: i + 2, type: 'ai_agent', id: `agent:${i}`, grant: `g-${i}` }))
  const root = grant()
  return {
    ...root,
    id: 'leaf',
    authority: [own],
    ancestry,
    depth: ancestry.length,
    lineage: [...root.lineage, ...steps],
  }
}

const read = (held: Grant, override: Parameters<typeof ask>[2] = {}): Decision =>
  shipped.evaluate(ask(catalogue, { rawPath: '/notes/7?state=open' }, { grant: held, ...override }))

describe('a call under a chain', () => {
  it('passes what every level allows, and nothing else', () => {
    expect(read(chain(ALL, ALL, { operations: ['notes:notes.read'] })).effect).toBe('allow')
    expect(read(chain({ operations: ['notes:notes.list'] }, ALL, ALL))).toMatchObject({ code: 'scope_exceeded' })
    expect(read(chain(ALL, { operations: ['notes:*'], paths: ['/notes/8'] }, ALL))).toMatchObject({
      code: 'scope_exceeded',
      detail: expect.stringContaining('g-1'), // a level above is what says no
    })
  })

  it.each<[string, Authority['constraints'], Parameters<typeof ask>[2], string | undefined]>([
    ['a source inside', { source: ['10.0.0.0/8'] }, { sourceAddress: '10.1.2.3' }, undefined],
    ['a source outside', { source: ['10.0.0.0/8'] }, { sourceAddress: '11.0.0.1' }, 'constraint_unmet'],
    ['a region', { geo: ['CH'] }, { sourceAddress: '192.0.2.9' }, undefined],
    ['no known region', { geo: ['CH'] }, { sourceAddress: '198.51.100.1' }, 'constraint_unmet'],
    ['too early', { not_before: 1_700_000_001 }, {}, 'constraint_unmet'],
    ['in time', { not_after: 1_700_000_001 }, {}, undefined],
    ['too late', { not_after: 1_700_000_000 }, {}, 'constraint_unmet'],
    ['a query', { params: { 'query.state': { equals: 'open' } } }, {}, undefined],
    ['another query', { params: { 'query.state': { equals: 'closed' } } }, {}, 'constraint_unmet'],
    ['a body', { params: { 'body./a': { max: 3 } } }, { body: { a: 3 } }, undefined],
    ['another body', { params: { 'body./a': { max: 3 } } }, { body: { a: 4 } }, 'constraint_unmet'],
    ['a body that was not read', { params: { 'body./a': { max: 3 } } }, {}, 'constraint_unmet'],
    ['less sensitive', { sensitivity_max: 'confidential' }, {}, undefined],
    ['more sensitive', { sensitivity_max: 'internal' }, {}, 'constraint_unmet'],
    ['notice only', { approval: 'notify' }, {}, undefined],
  ])('is held to %s at any level', (_, constraints = {}, override, code) => {
    const bound: Authority = { ...ALL, constraints }
    for (const held of [chain(bound), chain(bound, ALL, ALL), chain(ALL, bound, ALL), chain(ALL, ALL, bound)]) {
      const decision = read(held, override)
      expect([decision.effect, decision.code]).toEqual(code === undefined ? ['allow', undefined] : ['deny', code])
    }
  })

  it('asks humans where any level says so, and the most of them that any does', () => {
    const [single, quorum, notify] = (['single', 'quorum', 'notify'] as const).map(
      (approval): Authority => ({ ...ALL, constraints: { approval } }),
    ) as [Authority, Authority, Authority]
    for (const held of [chain(single), chain(single, ALL, ALL), chain(ALL, single, notify)])
      expect(read(held).obligations.approval).toEqual({ from: ['human'], count: 1, reuseS: undefined, fields: [] })
    expect(read(chain(single, quorum, ALL)).obligations.approval).toMatchObject({ from: ['human', 'quorum'], count: 2 })
    expect(read(chain(ALL, notify)).obligations).toMatchObject({ notify: ['human'] })
    expect(read(chain(ALL, notify)).obligations.approval).toBeUndefined()
    expect(read(chain(ALL)).obligations.notify).toBeUndefined()
  })

  it('has no levels to debit unless one keeps a budget, and then all of them', () => {
    expect(read(chain(ALL, ALL)).levels).toEqual([])
    const counted = { ...ALL, constraints: { max_calls: 5 } }
    expect(read(chain(counted, ALL)).levels).toEqual([
      { grant: 'g-0', entry: 0, constraints: { max_calls: 5 } },
      { grant: 'leaf', entry: 0, constraints: undefined },
    ])
  })

  it('remembers no levels of one grant for another', () => {
    const counted = { ...ALL, constraints: { max_calls: 5 } }
    expect(read(chain(ALL)).levels).toEqual([])
    expect(read(chain(counted)).levels).toHaveLength(1)
    expect(read(chain(ALL)).levels).toEqual([])
  })

  it('is for one use when a level says so, or a policy', () => {
    expect(isSingleUse(read(chain({ ...ALL, constraints: { single_use: true } }, ALL)))).toBe(true)
    expect(isSingleUse(read(chain({ ...ALL, constraints: { max_calls: 1 } }, ALL)))).toBe(false)
    expect(isSingleUse(read(chain(ALL)))).toBe(false)
  })

  it('serves one trace only, when the grant is for one', () => {
    const held = { ...chain(ALL), trace: 'a'.repeat(32) }
    expect(read(held, { traceId: 'a'.repeat(32) }).effect).toBe('allow')
    expect(read(held, { traceId: 'b'.repeat(32) }).code).toBe('constraint_unmet')
    expect(read(held).code).toBe('constraint_unmet')
  })
})

describe('what policies see of the chain', () => {
  const policyOf = async (when: string, notes = '') =>
    createPolicy({
      bundle: await bundleOf(catalogue, {
        'a.cedar': `${notes} ${permit('x', 'principal, action, resource is Endpoint', ` when { ${when} }`)}`,
      }),
      tenant: 'default',
    })

  const onBehalf = (held: Grant): Grant => ({
    ...held,
    lineage: held.lineage.map((step, i) => (i === 2 ? { ...step, on_behalf: true } : step)),
  })

  it.each<[string, Grant, Grant]>([
    ['context.lineage_depth < 2', chain(ALL, ALL), chain(ALL, ALL, ALL)],
    ['!context.on_behalf', chain(ALL, ALL, ALL), onBehalf(chain(ALL, ALL, ALL))],
    ['context.attested', { ...chain(ALL), attested: true }, chain(ALL)],
    ['context.human_hops.contains(0)', chain(ALL, ALL), { ...chain(ALL), lineage: chain(ALL).lineage.slice(1) }],
    ['context.human_amr.contains("mfa")', human(['mfa']), chain(ALL)],
    ['context.preset == "per-task"', { ...chain(ALL), preset: 'per-task' }, chain(ALL)],
    ['context.step == "fetch"', { ...chain(ALL), step: 'fetch' }, chain(ALL)],
  ])('%s, freshly and from memory', async (when, yes, no) => {
    const policy = await policyOf(when)
    for (let again = 0; again < 2; again++) {
      expect(policy.evaluate(ask(catalogue, {}, { grant: yes })).effect).toBe('allow')
      expect(policy.evaluate(ask(catalogue, {}, { grant: no })).effect).toBe('deny')
    }
  })

  it('one agent with two intents has two sets of permissions', async () => {
    const text = [
      permit(
        'billing',
        'principal, action == Action::"notes:notes.read", resource',
        ' when { context.purpose like "answer a billing question*" }',
      ),
      permit(
        'incident',
        'principal, action in [Action::"notes:notes.read", Action::"notes:notes.write"], resource',
        ' when { context.purpose like "escalate a security incident*" }',
      ),
    ].join('')
    const policy = createPolicy({ bundle: await bundleOf(catalogue, { 'a.cedar': text }), tenant: 'default' })
    const may = (purpose: string, method: string) =>
      policy.evaluate(ask(catalogue, { method, rawPath: '/notes/7' }, { grant: grant({ task: { id: 't', purpose } }) }))
        .effect
    const billing = 'answer a billing question of customer 7'
    const incident = 'escalate a security incident in eu-west'
    expect([may(billing, 'GET'), may(billing, 'PUT')]).toEqual(['allow', 'deny'])
    expect([may(incident, 'GET'), may(incident, 'PUT')]).toEqual(['allow', 'allow'])
    expect([may('chat', 'GET'), may('', 'GET')]).toEqual(['deny', 'deny'])
  })

  it('@max_depth on a call bounds how far from the human agent it may happen, also from memory', async () => {
    const text = '@id("near") @owner("t") @max_depth("1") permit (principal, action, resource is Endpoint);'
    const policy = createPolicy({ bundle: await bundleOf(catalogue, { 'a.cedar': text }), tenant: 'default' })
    for (let again = 0; again < 2; again++) {
      expect(policy.evaluate(ask(catalogue, {}, { grant: chain(ALL, ALL) })).effect).toBe('allow')
      expect(policy.evaluate(ask(catalogue, {}, { grant: chain(ALL, ALL, ALL) }))).toMatchObject({
        code: 'policy_denied',
        policyIds: [expect.stringMatching(/#near$/)],
        detail: expect.stringContaining('down to depth 1'),
      })
    }
  })

  it('the shipped ones let nothing restricted through a delegation that its holder did not sign', async () => {
    const open = await catalogueOf(
      notesFile({ operations: { 'notes.list': { match: ['GET /notes'], access: 'read', sensitivity: 'restricted' } } }),
    )
    const policy = createPolicy({
      bundle: await loadBundle({ paths: [policiesDir], catalogue: open }),
      tenant: 'default',
    })
    const signed = chain(ALL, ALL)
    expect(policy.evaluate(ask(open, {}, { grant: signed })).effect).toBe('allow')
    expect(policy.evaluate(ask(open, {}, { grant: onBehalf(signed) }))).toMatchObject({
      code: 'policy_denied',
      policyIds: ['policies/defaults#restricted-needs-signed-delegation'],
    })
    expect(shipped.evaluate(ask(catalogue, {}, { grant: onBehalf(signed) })).effect).toBe('allow')
  })
})

function human(amr: readonly string[]): Grant {
  return { ...chain(ALL), human: { iss: 'https://id.acme.test', sub: 'ana', amr } }
}
