import { describe, expect, it } from 'vitest'
import type { Authority, Constraints } from '../../gateway/protocol/grant.ts'
import { type Facts, needsBody, reach } from '../../gateway/protocol/reach.ts'
import type { Endpoint, Operation } from '../../gateway/protocol/service.ts'
import { grantWith } from '../rig/authority.ts'

const operation: Operation = {
  id: 'issues.read',
  name: 'github:issues.read',
  access: 'read',
  sensitivity: 'internal',
  returnsSecret: false,
  irreversible: false,
  websocket: false,
  captures: [],
}

function facts(some: Partial<Facts> = {}, more: Partial<Operation> = {}): Facts {
  const rawPath = some.rawPath ?? '/repos/acme/site?state=open'
  const endpoint: Endpoint = {
    service: { name: 'github' } as Endpoint['service'],
    operation: { ...operation, ...more },
    scheme: 'https',
    host: 'api.github.com',
    port: 443,
    path: rawPath.split('?')[0] ?? '/',
    rawPath,
    params: {},
  }
  return {
    endpoint,
    method: 'GET',
    rawPath,
    sourceAddress: '10.1.2.3',
    nowMs: 1_700_000_000_000,
    regionsOf: () => ['CH'],
    ...some,
  }
}

const issues: Authority = { operations: ['github:issues.*'] }
const constrained = (constraints: Constraints): Authority => ({ ...issues, constraints })

function codeOf(authority: readonly Authority[], request: Facts, ...above: (readonly Authority[])[]): string {
  const answer = reach(grantWith(authority, ...above), request)
  if (!answer.isWithin) return answer.code
  return answer.approval === undefined || answer.approval === 'notify' ? 'within' : 'within, once approved'
}

function detailOf(authority: readonly Authority[], request: Facts, ...above: (readonly Authority[])[]): string {
  const answer = reach(grantWith(authority, ...above), request)
  return answer.isWithin ? '' : answer.detail
}

describe('a grant reaches', () => {
  it.each<[string, Authority, Facts, string]>([
    ['its operations', issues, facts(), 'within'],
    ['no other operation', issues, facts({}, { name: 'github:pulls.read' }), 'scope_exceeded'],
    ['its methods', { ...issues, actions: ['GET'] }, facts(), 'within'],
    ['no other method', { ...issues, actions: ['GET'] }, facts({ method: 'POST' }), 'scope_exceeded'],
    ['no method in another spelling', { ...issues, actions: ['GET'] }, facts({ method: 'get' }), 'scope_exceeded'],
    ['its origins', { ...issues, locations: ['https://api.github.com'] }, facts(), 'within'],
    ['no other origin', { ...issues, locations: ['https://api.github.com:444'] }, facts(), 'scope_exceeded'],
    ['its paths', { ...issues, paths: ['/repos/acme/**'] }, facts(), 'within'],
    ['no other path', { ...issues, paths: ['/repos/*'] }, facts(), 'scope_exceeded'],
    ['nothing by an empty list', { ...issues, actions: [] }, facts(), 'scope_exceeded'],
    ['its address', constrained({ source: ['10.0.0.0/8'] }), facts(), 'within'],
    [
      'its address behind a dual-stack socket',
      constrained({ source: ['10.0.0.0/8'] }),
      facts({ sourceAddress: '::ffff:10.1.2.3' }),
      'within',
    ],
    [
      'no other address',
      constrained({ source: ['10.0.0.0/9'] }),
      facts({ sourceAddress: '10.128.0.0' }),
      'constraint_unmet',
    ],
    [
      'no address that is none',
      constrained({ source: ['0.0.0.0/0', '::/0'] }),
      facts({ sourceAddress: '' }),
      'constraint_unmet',
    ],
    ['its region', constrained({ geo: ['DE', 'CH'] }), facts(), 'within'],
    ['no other region', constrained({ geo: ['DE'] }), facts(), 'constraint_unmet'],
    ['no unknown region', constrained({ geo: ['CH'] }), facts({ regionsOf: () => [] }), 'constraint_unmet'],
    [
      'not before its time',
      constrained({ not_before: 1_700_000_000 }),
      facts({ nowMs: 1_699_999_999_999 }),
      'constraint_unmet',
    ],
    ['from its time on', constrained({ not_before: 1_700_000_000 }), facts(), 'within'],
    ['until its time', constrained({ not_after: 1_700_000_000 }), facts({ nowMs: 1_699_999_999_999 }), 'within'],
    ['not from the end of its time on', constrained({ not_after: 1_700_000_000 }), facts(), 'constraint_unmet'],
    ['its sensitivity', constrained({ sensitivity_max: 'internal' }), facts(), 'within'],
    ['nothing more sensitive', constrained({ sensitivity_max: 'public' }), facts(), 'constraint_unmet'],
    ['its parameters', constrained({ params: { 'query.state': { one_of: ['open'] } } }), facts(), 'within'],
    [
      'no other parameter',
      constrained({ params: { 'query.state': { one_of: ['all'] } } }),
      facts(),
      'constraint_unmet',
    ],
    ['nothing when one is absent', constrained({ params: { 'query.page': { max: 5 } } }), facts(), 'constraint_unmet'],
    [
      'nothing when one is there twice',
      constrained({ params: { 'query.state': { equals: 'open' } } }),
      facts({ rawPath: '/x?state=open&state=all' }),
      'constraint_unmet',
    ],
    ['its body', constrained({ params: { 'body./n': { max: 5 } } }), facts({ body: { n: 5 } }), 'within'],
    ['no body that was not read', constrained({ params: { 'body./n': { max: 5 } } }), facts(), 'constraint_unmet'],
    ['without approval', constrained({ approval: 'notify' }), facts(), 'within'],
    ['with approval only', constrained({ approval: 'single' }), facts(), 'within, once approved'],
    ['with approval of several only', constrained({ approval: 'quorum' }), facts(), 'within, once approved'],
    [
      'nothing by a constraint that is not known',
      constrained({ moon: 'full' } as Constraints),
      facts(),
      'constraint_unmet',
    ],
    [
      'nothing by a parameter that is not known',
      constrained({ params: { 'header.x': {} } }),
      facts(),
      'constraint_unmet',
    ],
    [
      'nothing by an approval that is not known',
      constrained({ approval: 'maybe' as 'none' }),
      facts(),
      'constraint_unmet',
    ],
    [
      'nothing by a sensitivity that is not known',
      constrained({ sensitivity_max: 'any' as 'public' }),
      facts(),
      'constraint_unmet',
    ],
    [
      'no sensitivity that is not known',
      constrained({ sensitivity_max: 'restricted' }),
      facts({}, { sensitivity: 'odd' as 'public' }),
      'constraint_unmet',
    ],
    [
      'nothing by a range that is none',
      constrained({ source: ['10.0.0.0'] }),
      facts({ sourceAddress: '10.0.0.0' }),
      'constraint_unmet',
    ],
  ])('%s', (_, authority, request, expected) => {
    expect(codeOf([authority], request)).toBe(expected)
  })

  it('no request by two entries together', () => {
    const halves: Authority[] = [
      { operations: ['github:issues.read'], paths: ['/repos/acme/other'] },
      { operations: ['github:pulls.read'], paths: ['/repos/acme/site'] },
    ]
    expect(codeOf(halves, facts())).toBe('scope_exceeded')
    const rules: Authority[] = [
      constrained({ params: { 'query.state': { equals: 'open' }, 'query.page': { equals: 2 } } }),
      constrained({ params: { 'query.state': { equals: 'all' }, 'query.page': { equals: 1 } } }),
    ]
    expect(codeOf(rules, facts({ rawPath: '/x?state=open&page=1' }))).toBe('constraint_unmet')
  })

  it('by the first entry whose constraints hold, one that needs approval last', () => {
    const entries = [
      constrained({ approval: 'single', max_calls: 1 }),
      constrained({ geo: ['US'] }),
      constrained({ max_calls: 7 }),
    ]
    expect(reach(grantWith(entries), facts())).toEqual({
      isWithin: true,
      levels: [{ grant: 'grant', entry: 2, constraints: { max_calls: 7 } }],
    })
    expect(codeOf(entries.slice(0, 2), facts())).toBe('within, once approved')
  })

  it('nothing with no entry', () => {
    expect(codeOf([], facts())).toBe('scope_exceeded')
    expect(codeOf([{ operations: [] }], facts())).toBe('scope_exceeded')
  })

  it('only requests of its trace', () => {
    const bound = { ...grantWith([issues]), trace: 'a'.repeat(32) }
    expect(reach(bound, facts({ traceId: 'a'.repeat(32) })).isWithin).toBe(true)
    for (const traceId of ['b'.repeat(32), '', 'A'.repeat(32)]) {
      expect(reach(bound, facts({ traceId }))).toMatchObject({ isWithin: false, code: 'constraint_unmet' })
    }
    expect(reach(bound, facts()).isWithin).toBe(false)
  })
})

describe('a chain reaches', () => {
  const wide: Authority = { operations: ['github:*'] }

  it('what all of its levels reach', () => {
    expect(codeOf([wide], facts(), [wide], [issues])).toBe('within')
    expect(codeOf([wide], facts(), [wide], [{ operations: ['demo:*'] }])).toBe('scope_exceeded')
    expect(codeOf([wide], facts(), [constrained({ geo: ['US'] })], [wide])).toBe('constraint_unmet')
    expect(codeOf([wide], facts(), [constrained({ approval: 'quorum' })])).toBe('within, once approved')
    expect(codeOf([wide], facts(), [])).toBe('scope_exceeded')
  })

  it('says which level stands in the way', () => {
    expect(detailOf([wide], facts(), [wide], [{ operations: ['demo:*'] }])).toMatch(/grant above this one \(above-1\)/)
    expect(detailOf([{ operations: ['demo:*'] }], facts(), [{ operations: ['demo:*'] }])).toMatch(/This grant covers/)
  })

  it('and names every level, root first, as soon as one has a budget', () => {
    const budget = constrained({ rate: { n: 1, per: 60 } })
    expect(reach(grantWith([wide], [wide], [wide, budget], [budget]), facts())).toEqual({
      isWithin: true,
      levels: [
        { grant: 'above-0', entry: 0, constraints: undefined },
        { grant: 'above-1', entry: 0, constraints: undefined },
        { grant: 'above-2', entry: 0, constraints: budget.constraints },
        { grant: 'grant', entry: 0, constraints: undefined },
      ],
    })
    for (const spent of [{ max_calls: 1 }, { max_bytes: 1 }, { single_use: true }]) {
      expect(reach(grantWith([constrained(spent)]), facts())).toMatchObject({ levels: [{ constraints: spent }] })
    }
  })

  it('and names none, and allocates nothing, without budgets', () => {
    const [one, other] = [
      reach(grantWith([wide], [constrained({ geo: ['CH'] })]), facts()),
      reach(grantWith([wide]), facts()),
    ]
    expect(one).toEqual({ isWithin: true, levels: [] })
    expect(one).toBe(other)
    expect(reach(grantWith([constrained({ single_use: false })]), facts())).toBe(other)
  })
})

describe('a refusal', () => {
  it.each<[Authority, Facts, RegExp]>([
    [
      { operations: ['demo:*'] },
      facts(),
      /`GET \/repos\/acme\/site` on api\.github\.com is the operation github:issues\.read\. This grant covers: demo:\*\. Ask the grantor/,
    ],
    [
      { ...issues, actions: ['GET', 'HEAD'] },
      facts({ method: 'POST' }),
      /only with: GET, HEAD\. Ask the grantor for a grant that covers POST\./,
    ],
    [{ ...issues, paths: ['/repos/acme/other/**'] }, facts(), /only at: \/repos\/acme\/other\/\*\*\./],
    [
      constrained({ source: ['192.0.2.0/24'] }),
      facts(),
      /address "10\.1\.2\.3" is outside 192\.0\.2\.0\/24 \(source\)/,
    ],
    [constrained({ geo: ['US'] }), facts(), /is in CH; allowed: US \(geo\)/],
    [constrained({ geo: ['US'] }), facts({ regionsOf: () => [] }), /in no known region/],
    [constrained({ not_before: 1_700_000_001 }), facts(), /from 2023-11-14T22:13:21\.000Z on/],
    [constrained({ not_after: 1 }), facts(), /until 1970-01-01T00:00:01\.000Z/],
    [constrained({ sensitivity_max: 'public' }), facts(), /is internal; allowed is up to public/],
    [
      constrained({ params: { 'query.state': { equals: 'all' } } }),
      facts(),
      /query\.state is "open"; allowed: \{"equals":"all"\}/,
    ],
    [constrained({ params: { 'query.page': { max: 5 } } }), facts(), /query\.page is absent; allowed: \{"max":5\}/],
  ])('by %j says what was got and what is allowed', (authority, request, expected) => {
    expect(detailOf([authority], request)).toMatch(expected)
  })

  it('never shows a query', () => {
    const request = facts({ rawPath: '/repos/acme/site?state=open&token=hidden-value' })
    for (const authority of [
      { operations: ['demo:*'] },
      constrained({ geo: ['US'] }),
      constrained({ approval: 'single' }),
      constrained({ params: { 'query.state': { equals: 'all' } } }),
    ]) {
      expect(detailOf([authority], request)).not.toContain('hidden-value')
    }
  })

  it('is short whatever was sent', () => {
    const long = facts({ rawPath: `/${'a'.repeat(9000)}?state=${'b'.repeat(9000)}` })
    expect(detailOf([constrained({ params: { 'query.state': { equals: 'all' } } })], long).length).toBeLessThan(1000)
    expect(
      detailOf([constrained({ source: ['10.0.0.0/8'] })], facts({ sourceAddress: 'x'.repeat(9000) })).length,
    ).toBeLessThan(1000)
  })
})

describe('the body is needed', () => {
  const ruled = (key: string): Authority => constrained({ params: { [key]: { equals: 'x' } } })

  it('when some level of the chain rules on it for this operation', () => {
    expect(needsBody(grantWith([issues]), operation.name)).toBe(false)
    expect(needsBody(grantWith([ruled('query.a')]), operation.name)).toBe(false)
    expect(needsBody(grantWith([ruled('body./a')]), operation.name)).toBe(true)
    expect(needsBody(grantWith([issues, ruled('body.')]), operation.name)).toBe(true)
    expect(needsBody(grantWith([ruled('body./a')]), 'github:pulls.read')).toBe(false)
    expect(needsBody(grantWith([issues], [issues], [ruled('body./a')]), operation.name)).toBe(true)
  })
})
