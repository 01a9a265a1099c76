import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { readParameters } from '../../gateway/policy/catalogue/parameters.ts'
import { createPolicy } from '../../gateway/policy/evaluation.ts'
import { loadBundle } from '../../gateway/policy/source/bundle.ts'
import { type Ask, NO_NEEDS } from '../../gateway/protocol/decision.ts'
import { parseParameter } from '../../gateway/protocol/parameter.ts'
import type { NamedParameter, ParameterType } from '../../gateway/protocol/service.ts'
import { bundleOf, catalogueOf, grant, inbound, notesFile, policiesDir } from './policy.fixture.ts'

const READS = 'permit (principal, action in [Action::"read", Action::"write"], resource is Endpoint)'
const policy = (when: string, annotation = '') => ({
  'a.cedar': `@id("a") @owner("t") ${annotation} ${READS} ${when};`,
})
const file = notesFile({
  operations: {
    'notes.list': { match: ['GET /notes'], access: 'read' },
    'notes.write': {
      match: ['POST /notes'],
      access: 'write',
      params: { state: 'query.state', size: { from: 'body./size', type: 'long' } },
    },
  },
})

async function needsUnder(when: string, annotation?: string) {
  const catalogue = await catalogueOf(file)
  const bundle = await bundleOf(catalogue, policy(when, annotation))
  const [list, write] = catalogue.services[0]?.operations ?? []
  if (list === undefined || write === undefined) throw new Error('the service has two operations')
  return { list: bundle.sliceFor(list).needs, write: bundle.sliceFor(write).needs, bundle, catalogue }
}

describe('what policies look at is worked out when they load', () => {
  it('and nothing is fetched where they look at nothing of it', async () => {
    const { list, write, bundle, catalogue } = await needsUnder(
      'when { context.has_plan && context.lineage_depth < 2 }',
    )
    expect([list, write]).toEqual([NO_NEEDS, NO_NEEDS])
    expect(bundle.countsPast).toBe(false)
    const deciding = createPolicy({ bundle, tenant: 'default' })
    const ask = askOf(catalogue)
    const never = () => {
      throw new Error('nobody asked for it')
    }
    expect(deciding.informed(ask, { past: never, left: never })).toBe(ask)
  })

  it.each([
    ['when { context.past_writes < 3 }', { past: true }],
    ['when { context.past_operations.contains("notes:notes.list") }', { past: true }],
    ['when { context.past.hasTag("notes:notes.list") }', { past: true }],
    ['when { context has calls_left && context.calls_left > 1 }', { left: true }],
    ['when { context has bytes_left }', { left: true }],
  ])('%s needs it', async (when, expected) => {
    const { list, write } = await needsUnder(when)
    expect([list, write]).toEqual([
      { ...NO_NEEDS, ...expected },
      { ...NO_NEEDS, ...expected },
    ])
  })

  it('and the body only of operations that have parameters there', async () => {
    const { list, write } = await needsUnder('when { context.method == "POST" }', '@log("full")')
    expect(list).toEqual(NO_NEEDS)
    expect(write).toEqual({ ...NO_NEEDS, params: true, body: true })
  })

  it('and a past that nobody knows is no past in which nothing happened', async () => {
    const { bundle, catalogue } = await needsUnder('when { context.past_writes < 3 }')
    const deciding = createPolicy({ bundle, tenant: 'default' })
    const ask = askOf(catalogue)
    expect(deciding.evaluate(ask)).toMatchObject({ effect: 'deny', code: 'policy_denied' })
    expect(deciding.evaluate({ ...ask, past: {} })).toMatchObject({ effect: 'allow', seen: { 'a:write': 0 } })
    expect(deciding.evaluate({ ...ask, past: { 'a:write': 3 } })).toMatchObject({ effect: 'deny' })
    expect(deciding.evaluate({ ...ask, past: {}, isUpgrade: true })).toMatchObject({ code: 'upgrade_refused' })
  })

  it('the shipped policies look at none of it', async () => {
    const catalogue = await catalogueOf('github')
    const bundle = await loadBundle({ paths: [`${policiesDir}/defaults.cedar`], catalogue })
    expect(bundle.countsPast).toBe(false)
    for (const operation of catalogue.services.flatMap((service) => service.operations))
      expect(bundle.sliceFor(operation).needs).toBe(NO_NEEDS)
  })
})

describe('a parameter that the service file names', () => {
  const named = (key: string, type: ParameterType): NamedParameter => {
    const from = parseParameter(key)
    if (from === undefined) throw new Error(key)
    return { name: 'it', key, from, type }
  }

  it.each([{ A: 1 }, { a: 1, A: 2 }, { A: null }])('is not absent where only some servers read it: %j', (body) => {
    expect(readParameters([named('body./a', 'long')], { rawPath: '/', body })).toHaveProperty('fault')
  })

  it('is the value of the request, or refuses it, or is absent, whatever is sent', () => {
    const key = fc.constantFrom('query.a', 'body./a', 'body./a/b')
    const type = fc.constantFrom<ParameterType>('string', 'long', 'bool', 'strings')
    const query = fc.oneof(
      fc.webQueryParameters(),
      fc.constantFrom('a=1', 'a=1&a=2', 'A=1&a=2', 'a[]=1', 'a=%ff', 'a=01'),
    )
    fc.assert(
      fc.property(key, type, query, fc.jsonValue(), (at, of, text, body) => {
        const read = readParameters([named(at, of)], { rawPath: `/x?${text}`, body: { a: body } })
        if ('fault' in read) return
        const { it: value } = read.params
        if (value === undefined) return
        const types = { string: 'string', long: 'number', bool: 'boolean', strings: 'object' }
        expect(typeof value).toBe(types[of])
        if (of === 'long') expect(Number.isSafeInteger(value)).toBe(true)
        if (at === 'body./a' && of !== 'strings') expect(value).toEqual(body)
      }),
      { numRuns: 60 },
    )
  })
})

function askOf(catalogue: Awaited<ReturnType<typeof catalogueOf>>): Ask {
  const asked = inbound({ method: 'POST' })
  const endpoint = catalogue.locate(asked)
  return {
    grant: grant(),
    endpoint,
    method: 'POST',
    rawPath: '/notes',
    sourceAddress: '127.0.0.1',
    nowMs: 1_700_000_000_000,
  }
}
