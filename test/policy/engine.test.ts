import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { preparsePolicySet, preparseSchema, statefulIsAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { selectCall } from '../../gateway/policy/attributes/attributes.ts'
import { createEngine } from '../../gateway/policy/engine.ts'
import { Memo } from '../../gateway/policy/memo.ts'
import { callQuestion } from '../../gateway/policy/question.ts'
import type { Bundle } from '../../gateway/policy/source/bundle.ts'
import { schemaText } from '../../gateway/policy/vocabulary.ts'
import type { Ask } from '../../gateway/protocol/decision.ts'
import { ask, bundleOf, catalogueOf, grant, notesFile, permit, policiesDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())
const schema = schemaText(await readFile(join(policiesDir, 'schema.cedarschema'), 'utf8'), catalogue.services)

/** Policies that look at everything there is to look at, in every way of looking. */
const curiosities = [
  permit('open', 'principal is Agent, action in Action::"read", resource'),
  permit(
    'identity',
    'principal == Agent::"a1", action, resource is Endpoint',
    ' unless { resource.sensitivity == "confidential" }',
  ),
  permit(
    'tier',
    'principal, action, resource is Endpoint',
    ' when { principal.risk_tier == "low" && context.lineage_depth < 1 }',
  ),
  permit(
    'owner',
    'principal, action, resource in Service::"notes"',
    ' when { {Value: principal.owner}.Value == "ana" && context.human == "h1" }',
  ),
  permit('path', 'principal, action in Action::"notes:notes.*", resource', ' when { resource.path like "/notes/p*" }'),
  permit(
    'tag',
    'principal, action, resource is Endpoint',
    ' when { resource.hasTag("id") && resource.getTag("id") == context.task_id }',
  ),
  permit(
    'time',
    'principal, action in Action::"write", resource',
    ' when { context.hour_utc >= 9 && context.hour_utc < 17 && context.weekday_utc <= 5 }',
  ),
  permit(
    'now',
    'principal, action == Action::"notes:settings.write", resource',
    ' when { context.now > datetime("2023-11-15T00:00:00Z") }',
  ),
  permit(
    'once',
    'principal, action == Action::"notes:notes.delete", resource',
    ' when { context.ttl_s > 600 || context.purpose == "clean up" }',
  ),
  permit(
    'branch',
    'principal, action, resource is Endpoint',
    ' when { (if context.method == "PUT" then principal else principal).purpose == "maintain" }',
  ),
  permit(
    'chain',
    'principal, action, resource is Endpoint',
    ' when { context.attested && !context.on_behalf && context.human_hops.contains(0) && context.preset == "sensitive" }',
  ),
  permit(
    'evidence',
    'principal, action in Action::"write", resource',
    ' when { context.human_amr.contains("mfa") && context.step == "fetch" }',
  ),
  '@id("net") @owner("test") forbid (principal, action, resource is Endpoint) when { context.source_ip.isInRange(ip("10.0.0.0/8")) };\n',
  '@id("host") @owner("test") forbid (principal, action in Action::"write", resource) when { resource.host == "files.notes.test" || resource.port == 8443 };\n',
  '@id("grant") @owner("test") forbid (principal, action, resource is Endpoint) when { context.grant_id == "g-bad" || context.human_iss == "evil" };\n',
]
const curious = curiosities.join('')

const someAsk = fc
  .record({
    request: fc.constantFrom(
      ['GET', '/notes'],
      ['GET', '/notes/p1'],
      ['GET', '/notes/t1'],
      ['PUT', '/notes/x'],
      ['DELETE', '/notes/p1'],
      ['PUT', '/settings'],
      ['POST', '/token'],
      ['GET', '/zz'],
      ['POST', '/zz'],
    ),
    port: fc.constantFrom(443, 8443),
    host: fc.constantFrom('notes.test', 'notes.test', 'files.notes.test'),
    agent: fc.constantFrom('a1', 'a2'),
    owner: fc.constantFrom('ana', 'bob'),
    purpose: fc.constantFrom('maintain', 'triage'),
    riskTier: fc.constantFrom('low' as const, 'high' as const),
    human: fc.constantFrom('h1', 'h2'),
    iss: fc.constantFrom('local:x', 'evil'),
    task: fc.constantFrom('t1', 't2'),
    taskPurpose: fc.constantFrom('clean up', 'other'),
    id: fc.constantFrom('g-good', 'g-bad'),
    depth: fc.integer({ min: 2, max: 4 }),
    onBehalf: fc.boolean(),
    attested: fc.boolean(),
    preset: fc.constantFrom('per-task' as const, 'sensitive' as const),
    step: fc.constantFrom('fetch', ''),
    amr: fc.constantFrom([], ['mfa'], ['mfa', 'pwd']),
    sourceAddress: fc.constantFrom('127.0.0.1', '10.1.2.3', '::ffff:10.1.2.3', 'fe80::1%eth0', 'not an address'),
    nowMs: fc.integer({ min: 1_699_900_000_000, max: 1_700_600_000_000 }),
  })
  .map((values): Ask => {
    const [method = 'GET', rawPath = '/'] = values.request
    const base = ask(catalogue, { method, rawPath, host: values.host, port: values.port })
    const agent = { id: values.agent, owner: values.owner, purpose: values.purpose, riskTier: values.riskTier }
    const lineage = Array.from({ length: values.depth }, (_, n) => ({
      n,
      type: n === 0 ? ('human' as const) : ('ai_agent' as const),
      id: `l${n}`,
      ...(n === 2 && values.onBehalf && { on_behalf: true as const }),
    }))
    const held = grant({
      id: values.id,
      agent,
      lineage,
      depth: values.depth - 2,
      attested: values.attested,
      preset: values.preset,
      step: values.step,
      human: { iss: values.iss, sub: values.human, amr: values.amr },
      task: { id: values.task, purpose: values.taskPurpose },
    })
    return { ...base, grant: held, sourceAddress: values.sourceAddress, nowMs: values.nowMs }
  })

/** The plain reading: all policies, no slice, the whole schema, every attribute, no memory. */
function plainReading(bundle: Bundle): (one: Ask) => { effect: string; policyIds: string[] } {
  const everything = selectCall(new Set(['principal *', 'resource *', 'context *']))
  preparseSchema('plain', schema)
  preparsePolicySet('plain', {
    staticPolicies: Object.fromEntries(bundle.policies.map((policy) => [policy.id, policy.text])),
  })
  return (one) => {
    const request = callQuestion(everything, one, one.endpoint.operation)
    const answer = statefulIsAuthorized({
      ...request,
      preparsedSchemaName: 'plain',
      validateRequest: true,
      preparsedPolicySetId: 'plain',
    })
    if (answer.type === 'failure') return { effect: 'deny', policyIds: [] }
    const { decision, diagnostics } = answer.response
    return { effect: diagnostics.errors.length === 0 ? decision : 'deny', policyIds: [...diagnostics.reason].sort() }
  }
}

describe('the engine', () => {
  it('answers from memory what it answers without', async () => {
    const bundle = await bundleOf(catalogue, { 'a.cedar': curious })
    const remembering = createEngine(bundle)
    const forgetful = createEngine(bundle, { remembers: false })
    fc.assert(
      fc.property(fc.array(someAsk, { minLength: 1, maxLength: 12 }), (asks) => {
        for (const one of asks) expect(remembering.decide(one)).toEqual(forgetful.decide(one))
      }),
      { numRuns: 150 },
    )
  })

  it('answers under the schema of a slice what Cedar answers on all policies with everything filled in', async () => {
    const bundle = await bundleOf(catalogue, { 'a.cedar': curious })
    const engine = createEngine(bundle, { remembers: false })
    const read = plainReading(bundle)
    fc.assert(
      fc.property(someAsk, (one) => {
        const verdict = engine.decide(one)
        const plain = read(one)
        if (plain.effect === 'deny') expect(verdict.effect).toBe('deny')
        // A yes of general policies may still be a no for operations that must be named.
        else if (verdict.effect === 'allow') expect(verdict.policyIds).toEqual(plain.policyIds)
        else
          expect(
            one.endpoint.operation.irreversible ||
              one.endpoint.operation.returnsSecret ||
              one.endpoint.operation.id === 'unlisted',
          ).toBe(true)
      }),
      { numRuns: 150 },
    )
  })

  it('says of each policy alone, told what it reads, what Cedar says when told everything', async () => {
    for (const policy of curiosities) {
      const bundle = await bundleOf(catalogue, { 'a.cedar': policy })
      const engine = createEngine(bundle, { remembers: false })
      const read = plainReading(bundle)
      fc.assert(
        // An address that is none fails whoever is told it, and is not told to those who do not ask.
        fc.property(someAsk, (asked) => {
          const one = { ...asked, sourceAddress: '10.0.0.1' }
          const { policyIds, errors } = engine.decide(one)
          expect({ policyIds, errors }, policy).toEqual({ policyIds: read(one).policyIds, errors: [] })
        }),
        { numRuns: 25 },
      )
    }
  })

  it('tells values apart that only differ in where one ends and the next begins', async () => {
    const bundle = await bundleOf(catalogue, {
      'a.cedar': permit(
        'x',
        'principal, action, resource is Endpoint',
        ' when { context.human == "ab" && context.human_iss == "c" }',
      ),
    })
    const engine = createEngine(bundle)
    const as = (sub: string, iss: string) =>
      engine.decide(ask(catalogue, {}, { grant: grant({ human: { sub, iss } }) })).effect
    expect(as('ab', 'c')).toBe('allow')
    expect(as('a', 'bc')).toBe('deny')
    expect(as('abc', '')).toBe('deny')
  })

  it('denies when a policy errs, even where another one permits', async () => {
    const overflow =
      '@id("sum") @owner("test") forbid (principal, action, resource is Endpoint) when { context.ttl_s * 9223372036854775807 > 0 };'
    const bundle = await bundleOf(catalogue, {
      'a.cedar': permit('all', 'principal, action, resource is Endpoint') + overflow,
    })
    const verdict = createEngine(bundle).decide(ask(catalogue))
    expect(verdict.effect).toBe('deny')
    expect(verdict.errors[0]).toMatch(/overflow/)
  })

  it('denies when a value cannot be what the schema says', async () => {
    const bundle = await bundleOf(catalogue, {
      'a.cedar': permit('net', 'principal, action, resource is Endpoint', ' when { context.source_ip.isLoopback() }'),
    })
    const engine = createEngine(bundle)
    expect(engine.decide(ask(catalogue)).effect).toBe('allow')
    expect(engine.decide(ask(catalogue, {}, { sourceAddress: '::ffff:127.0.0.1' })).effect).toBe('allow')
    const broken = engine.decide(ask(catalogue, {}, { sourceAddress: 'somewhere' }))
    expect(broken).toMatchObject({ effect: 'deny', policyIds: [] })
    expect(broken.errors).not.toEqual([])
  })

  it('keeps no answer that was a failure of the engine itself', async () => {
    const bundle = await bundleOf(catalogue, { 'a.cedar': permit('all', 'principal, action, resource is Endpoint') })
    let preparsed: string | undefined = 'a set that the engine does not have'
    const failing = {
      ...bundle,
      sliceFor: (operation: Parameters<typeof bundle.sliceFor>[0]) => {
        const slice = bundle.sliceFor(operation)
        return Object.defineProperty({ ...slice }, 'preparsed', { get: () => preparsed ?? slice.preparsed })
      },
    }
    const engine = createEngine(failing)
    const first = engine.decide(ask(catalogue))
    expect(first.effect).toBe('deny')
    expect(first.errors).not.toEqual([])
    preparsed = undefined
    expect(engine.decide(ask(catalogue)).effect).toBe('allow')
  })

  it('denies what no policy can match, without asking', async () => {
    const bundle = await bundleOf(catalogue, {
      'a.cedar': permit('one', 'principal, action == Action::"notes:notes.list", resource'),
    })
    expect(createEngine(bundle).decide(ask(catalogue, { rawPath: '/notes/1' }))).toMatchObject({
      effect: 'deny',
      policyIds: [],
      errors: [],
    })
  })

  it.each([
    ['POST', '/token', 'notes:token.mint'],
    ['DELETE', '/notes/1', 'notes:notes.delete'],
    ['GET', '/zzz', 'notes:unlisted'],
    ['POST', '/zzz', 'notes:unlisted'],
  ])('lets %s %s through only by a policy that names it', async (method, rawPath, name) => {
    const broad =
      permit('broad', 'principal, action, resource in Service::"notes"') +
      permit('group', 'principal, action in Action::"notes:*", resource')
    const decide = async (text: string) =>
      createEngine(await bundleOf(catalogue, { 'a.cedar': text })).decide(ask(catalogue, { method, rawPath }))
    expect((await decide(broad)).effect).toBe('deny')
    expect((await decide(broad + permit('named', `principal, action == Action::"${name}", resource`))).effect).toBe(
      'allow',
    )
    expect(
      (await decide(permit('list', `principal, action in [Action::"notes:notes.list", Action::"${name}"], resource`)))
        .effect,
    ).toBe('allow')
    // A name in a policy that does not apply is no name.
    expect(
      (await decide(broad + permit('named', `principal == Agent::"other", action == Action::"${name}", resource`)))
        .effect,
    ).toBe('deny')
  })

  it('takes the strictest of all obligations that decided', async () => {
    const text = [
      '@id("a") @owner("x") @ttl("300") permit (principal, action in Action::"read", resource);',
      '@id("b") @owner("x") @ttl("60") permit (principal, action, resource is Endpoint);',
      '@id("c") @owner("x") @single_use("true") permit (principal, action == Action::"notes:notes.list", resource);',
      '@id("d") @owner("x") @ttl("1") permit (principal == Agent::"other", action, resource is Endpoint);',
    ].join('\n')
    const engine = createEngine(await bundleOf(catalogue, { 'a.cedar': text }))
    expect(engine.decide(ask(catalogue)).obligations).toEqual({ ttlS: 60, singleUse: true })
    expect(engine.decide(ask(catalogue, { rawPath: '/notes/1' })).obligations).toEqual({ ttlS: 60, singleUse: false })
  })

  it('keeps the answers of two bundles apart', async () => {
    const yes = createEngine(
      await bundleOf(catalogue, { 'a.cedar': permit('x', 'principal, action in Action::"read", resource') }),
    )
    const no = createEngine(
      await bundleOf(catalogue, { 'a.cedar': permit('x', 'principal, action in Action::"admin", resource') }),
    )
    const one = ask(catalogue)
    expect([yes.decide(one).effect, no.decide(one).effect, yes.decide(one).effect]).toEqual(['allow', 'deny', 'allow'])
  })
})

describe('the memory', () => {
  it('stays within its bound and keeps what is used', () => {
    const memo = new Memo<number>(10)
    memo.set('kept', -1)
    for (let n = 0; n < 1000; n++) {
      memo.set(String(n), n)
      expect(memo.get('kept')).toBe(-1)
      expect(memo.size).toBeLessThanOrEqual(20)
    }
    expect(memo.get('0')).toBeUndefined()
  })
})
