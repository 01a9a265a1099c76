import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { policyToJson, preparsePolicySet, preparseSchema, statefulIsAuthorized } from '@cedar-policy/cedar-wasm/nodejs'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { selectCall } from '../../gateway/policy/attributes/attributes.ts'
import { askCedar, createEngine, requireName } from '../../gateway/policy/engine.ts'
import { callQuestion, fixedFor } from '../../gateway/policy/question.ts'
import { isNeverMet } from '../../gateway/policy/settled.ts'
import type { Bundle } from '../../gateway/policy/source/bundle.ts'
import { schemaText } from '../../gateway/policy/vocabulary.ts'
import { ask, bundleOf, catalogueOf, grant, notesFile, permit, policiesDir } from './policy.fixture.ts'

const catalogue = await catalogueOf(notesFile())
const operations = catalogue.services.flatMap((service) => service.operations)
const schema = schemaText(await readFile(join(policiesDir, 'schema.cedarschema'), 'utf8'), catalogue.services)
/** An internal operation that reads. */
const LIST = ask(catalogue)

async function loaded(conditions: string): Promise<Bundle> {
  return bundleOf(catalogue, {
    'a.cedar':
      permit('x', 'principal, action, resource is Endpoint', conditions) + permit('all', 'principal, action, resource'),
  })
}

async function isAsked(conditions: string, one = LIST): Promise<boolean> {
  using bundle = await loaded(conditions)
  return bundle.sliceFor(one.endpoint.operation).asked.policies.some(({ id }) => id.endsWith('#x'))
}

describe('a policy whose condition the service file settles', () => {
  it.each([
    'when { resource.sensitivity == "restricted" }',
    'when { resource.access != "read" }',
    'unless { resource.access == "read" }',
    'unless { resource has access }',
    'when { resource.irreversible }',
    'when { !(!resource.returns_secret) }',
    'when { resource.labels.contains("pii") }',
    'when { ["confidential", "restricted"].contains(resource.sensitivity) }',
    'when { context.on_behalf && resource.sensitivity == "restricted" }',
    'when { principal.risk_tier == "high" } unless { resource.access == "read" }',
    'when { principal.risk_tier == "high" && resource.access != "read" && context.lineage_depth > 3 }',
    'when { (resource.irreversible || resource.access == "write") && context.ttl_s * 2 > 600 }',
  ])('has no say on an operation that it never meets: %s', async (conditions) => {
    expect(await isAsked(conditions)).toBe(false)
  })

  it.each([
    'when { resource.sensitivity == "internal" }',
    'when { resource.access == "read" && context.on_behalf }',
    'when { resource.irreversible || context.on_behalf }',
    'unless { resource.access == "write" }',
    'when { resource.path == "/nowhere" }', // said by the call
    'when { resource.labels == ["pii"] }',
    'when { if context.on_behalf then true else resource.irreversible }',
    // What fails is a no, whatever comes after it.
    'when { context.ttl_s * 9223372036854775807 > 0 && resource.irreversible }',
    'when { context.ttl_s * 9223372036854775807 > 0 } when { resource.irreversible }',
    'when { context.ttl_s * 9223372036854775807 > 0 } unless { resource.access == "read" }',
    'when { resource.hasTag("id") && resource.getTag("id") == "1" && resource.irreversible }',
  ])('is asked wherever it might be met, or fail: %s', async (conditions) => {
    expect(await isAsked(conditions)).toBe(true)
  })

  it('reads nothing of a call on which it has no say', async () => {
    using bundle = await loaded(' when { resource.access == "write" && context.purpose == "maintain" }')
    const read = (of: typeof LIST) => [...bundle.sliceFor(of.endpoint.operation).asked.readings]
    expect(read(LIST)).toEqual([])
    expect(read(ask(catalogue, { method: 'PUT', rawPath: '/notes/1' }))).toContain('context.purpose')
  })

  it('still refuses what it has a say on, and what it fails on', async () => {
    const forbid = (when: string) =>
      `@id("no") @owner("test") forbid (principal, action, resource is Endpoint) when { ${when} };`
    const effect = async (when: string, path: string) => {
      using bundle = await bundleOf(catalogue, {
        'a.cedar': permit('all', 'principal, action, resource') + forbid(when),
      })
      return createEngine(bundle).decide(ask(catalogue, { rawPath: path })).effect
    }
    const confidential = 'principal.risk_tier == "low" && resource.sensitivity == "confidential"'
    expect(await effect(confidential, '/notes')).toBe('allow')
    expect(await effect(confidential, '/notes/1')).toBe('deny')
    expect(await effect('context.ttl_s * 9223372036854775807 > 0 && resource.irreversible', '/notes')).toBe('deny')
  })

  it('is one that Cedar, told everything, finds neither met nor failing, however it is put together', () => {
    const everything = selectCall(new Set(['principal *', 'resource *', 'context *']))
    preparseSchema('settled', schema)
    const atom = fc.constantFrom(
      ...[
        'access == "read"',
        'sensitivity == "confidential"',
        'access != "write"',
        'irreversible',
        'returns_secret',
      ].map((text) => `resource.${text}`),
      ...['resource has labels', 'resource.labels.contains("x")', '["write", "admin"].contains(resource.access)'],
      ...['principal.risk_tier == "high"', 'context.on_behalf', 'context.lineage_depth > 1', 'true', 'false'],
      ...['context.ttl_s * 9223372036854775807 > 0', 'ip(context.human).isLoopback()', 'resource.path like "/notes*"'],
    )
    const { expr } = fc.letrec<{ expr: string }>((tie) => ({
      expr: fc.oneof(
        { maxDepth: 4, depthSize: 'large' },
        atom,
        fc.tuple(tie('expr'), fc.constantFrom('&&', '||'), tie('expr')).map(([a, by, b]) => `(${a}) ${by} (${b})`),
        tie('expr').map((a) => `!(${a})`),
        fc.tuple(tie('expr'), tie('expr'), tie('expr')).map(([a, b, c]) => `if ${a} then ${b} else ${c}`),
      ),
    }))
    const clauses = fc.array(fc.tuple(fc.constantFrom('when', 'unless'), expr), { minLength: 1, maxLength: 2 })
    // Half of them end in what is false for operations that read: settled there, unless what comes before could fail.
    const ending: [string, string] = ['when', 'resource.access == "write" || resource.access == "admin"']
    const conditions = fc.oneof(
      clauses,
      clauses.map((some) => [...some, ending]),
    )
    const questions = operations.flatMap((operation) =>
      (['low', 'high'] as const).map((riskTier) => {
        const held = grant({ agent: { ...grant().agent, riskTier } })
        const endpoint = { ...LIST.endpoint, operation }
        return { operation, question: callQuestion(everything, { ...LIST, grant: held, endpoint }, operation) }
      }),
    )
    let settled = 0
    fc.assert(
      fc.property(conditions, (clauses) => {
        const text = `permit (principal, action, resource)${clauses.map(([kind, body]) => ` ${kind} { ${body} }`).join('')};`
        const json = policyJson(text)
        preparsePolicySet('settled', { staticPolicies: { it: text } })
        for (const { operation, question } of questions) {
          if (!isNeverMet(json, fixedFor(operation))) continue
          settled += 1
          const terms = { preparsedSchemaName: 'settled', validateRequest: true, preparsedPolicySetId: 'settled' }
          const answer = statefulIsAuthorized({ ...question, ...terms })
          const said = answer.type === 'success' ? answer.response.diagnostics : answer
          expect(said, text).toEqual({ reason: [], errors: [] })
        }
      }),
      { numRuns: 400 },
    )
    expect(settled).toBeGreaterThan(500)
  })
})

describe('an engine that leaves out what is settled', () => {
  /** What is fixed for an operation, and what a call says: each makes others of these settled, met or failing. */
  const clause = fc.constantFrom(
    ...['resource.access == "read"', 'resource.access != "read" && context.on_behalf', 'resource.irreversible'],
    ...['resource.sensitivity == "confidential" || principal.risk_tier == "high"', 'resource.labels.contains("pii")'],
    ...['context.ttl_s * 9223372036854775807 > 0 && resource.irreversible', 'context.lineage_depth > 1'],
    ...['resource.access == "write" && context.ttl_s * 9223372036854775807 > 0', 'principal.risk_tier == "low"'],
    ...['resource in Service::"notes"', 'resource.access == "write" && resource in Service::"notes"'],
    ...['resource has labels && !resource.returns_secret', 'resource.hasTag("id") && resource.access == "read"'],
  )
  const anyPolicy = fc.record({
    effect: fc.constantFrom('permit', 'permit', 'forbid'),
    duty: fc.constantFrom('', '@log("full") ', '@notify("security") '),
    scope: fc.constantFrom('resource is Endpoint', 'resource is Endpoint in Service::"notes"'),
    clauses: fc.array(fc.tuple(fc.constantFrom('when', 'unless'), clause), { maxLength: 2 }),
  })
  type Made = typeof anyPolicy extends fc.Arbitrary<infer P> ? P : never
  const textOf = ({ effect, duty, scope, clauses }: Made, n: number) =>
    `@id("p${n}") @owner("test") ${effect === 'permit' ? duty : ''}${effect} (principal, action, ${scope})` +
    `${clauses.map(([kind, body]) => ` ${kind} { ${body} }`).join('')};\n`

  it('says what Cedar says of all policies when told everything: effect, policies, obligations, failures', async () => {
    const everything = selectCall(new Set(['principal *', 'resource *', 'context *']))
    preparseSchema('whole', schema)
    const questions = operations.flatMap((operation) =>
      (['low', 'high'] as const).map((riskTier) => {
        const held = grant({ agent: { ...grant().agent, riskTier } })
        return { ...LIST, grant: held, endpoint: { ...LIST.endpoint, operation } }
      }),
    )
    let [left, allowed] = [0, 0]
    await fc.assert(
      fc.asyncProperty(fc.array(anyPolicy, { minLength: 1, maxLength: 5 }), async (made) => {
        using bundle = await bundleOf(catalogue, { 'a.cedar': made.map(textOf).join('') })
        const staticPolicies = Object.fromEntries(bundle.policies.map(({ id, text }) => [id, text]))
        preparsePolicySet('whole', { staticPolicies })
        const all = new Map(bundle.policies.map((policy) => [policy.id, policy]))
        const engine = createEngine(bundle)
        for (const one of questions) {
          const { operation } = one.endpoint
          const slice = { ...bundle.sliceFor(operation), preparsed: 'whole', policies: all }
          const told = () => callQuestion(everything, one, operation)
          const whole = requireName(
            askCedar(slice, () => 'whole', told),
            slice,
            operation,
          )
          const verdict = engine.decide(one)
          expect({ ...verdict, errors: verdict.errors.length }).toEqual({ ...whole, errors: whole.errors.length })
          left += all.size - bundle.sliceFor(operation).asked.policies.length
          if (verdict.effect === 'allow') allowed += 1
        }
      }),
      { numRuns: 30 },
    )
    expect(left).toBeGreaterThan(20)
    expect(allowed).toBeGreaterThan(5)
  })
})

function policyJson(text: string) {
  const answer = policyToJson(text)
  if (answer.type === 'failure') throw new Error(JSON.stringify(answer.errors))
  return answer.json
}
