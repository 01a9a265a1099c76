import { describe, expect, it } from 'vitest'
import { excessOf, narrow } from '../../gateway/grant/attenuate/attenuate.ts'
import type { Authority, Constraints, ParameterRule } from '../../gateway/protocol/grant.ts'

const plain: Authority = { operations: ['github:issues.read'] }

/** Rows are parents, columns are children, in the order of `values`: 1 where the child lies within. */
function table<T>(title: string, values: readonly T[], rows: readonly string[], entry: (value: T) => Authority): void {
  describe(title, () => {
    it.each(values.map((parent, i) => [JSON.stringify(parent) ?? 'absent', parent, rows[i] ?? ''] as const))(
      'of %s',
      (_, parent, expected) => {
        const marks = values.map((child) => (excessOf([entry(parent)], [entry(child)]).length === 0 ? '1' : '.'))
        expect(marks.join('')).toBe(expected)
        expect(rows).toHaveLength(values.length)
      },
    )
  })
}

function constrained(constraints: Constraints | Record<string, unknown>): Authority {
  return { ...plain, constraints: constraints as Constraints }
}

describe('a child lies within its parent', () => {
  table(
    'by operations',
    [
      ['s:a'],
      ['s:a.b'],
      ['s:a.*'],
      ['s:a.b.c'],
      ['s:a.b.*'],
      ['s:ab'],
      ['s:*'],
      ['s:a', 's:ab'],
      ['t:*'],
      ['s:**'],
      [],
    ],
    [
      '1.........1', // s:a
      '.1........1', // s:a.b
      '.1111.....1', // s:a.*: at a dot only
      '...1......1', // s:a.b.c
      '...11.....1', // s:a.b.*
      '.....1....1', // s:ab
      '11111111..1', // s:*
      '1....1.1..1', // s:a and s:ab
      '........1.1', // t:*
      '..........1', // not a pattern: allows nothing, not even itself
      '..........1', // nothing
    ],
    (operations) => ({ operations }),
  )

  table(
    'by actions',
    [undefined, ['GET'], ['GET', 'HEAD'], ['POST'], ['get']],
    [
      '11111', // absent: every method
      '.1...',
      '.11..',
      '...1.',
      '....1', // methods are case-sensitive
    ],
    (actions) => ({ ...plain, ...(actions && { actions }) }),
  )

  table(
    'by locations',
    [
      undefined,
      ['https://a.test'],
      ['https://A.test:443/'],
      ['http://a.test'],
      ['https://a.test:8443'],
      ['https://a.test', 'http://a.test'],
      ['https://a.test/x'],
    ],
    [
      '1111111', // absent: every origin
      '.11....', // the same origin however written
      '.11....',
      '...1...',
      '....1..',
      '.111.1.',
      '.......', // a path is no origin
    ],
    (locations) => ({ ...plain, ...(locations && { locations }) }),
  )

  const PATHS = ['/', '/a', '/a/b', '/a/*', '/*/b', '/*', '/a/**', '/a/*/**', '/*/b/**', '/**', '/a*', '/**/b', 'a/**']
  table(
    'by paths',
    [undefined, ...PATHS],
    [
      '11111111111111', // absent: every path
      '.1............', // /
      '..1...........', // /a
      '...1..........', // /a/b
      '...11.........', // /a/*
      '...1.1........', // /*/b
      '..1...1.......', // /*: not the root, whose one segment is empty
      '..111..11.....', // /a/**: the place itself and what lies below
      '...11...1.....', // /a/*/**
      '...1.1...1....', // /*/b/**
      '.1111111111...', // /**
      '..............', // outside the grammar: allow nothing
      '..............',
      '..............',
    ],
    (path) => ({ ...plain, ...(path !== undefined && { paths: [path] }) }),
  )

  table<Constraints>(
    'by calls',
    [{}, { max_calls: 1 }, { max_calls: 50 }, { single_use: true }, { single_use: false }],
    [
      '11111',
      '.1...', // single use says as much, but is not that key
      '.11..',
      '...1.', // and cannot become false
      '...11',
    ],
    constrained,
  )

  table<Constraints>('by bytes', [{}, { max_bytes: 1 }, { max_bytes: 1000 }], ['111', '.1.', '.11'], constrained)

  table<Constraints>(
    'by rate',
    [
      {},
      { rate: { n: 1, per: 1 } },
      { rate: { n: 60, per: 60 } },
      { rate: { n: 61, per: 60 } },
      { rate: { n: 1, per: 60 } },
    ],
    [
      '11111',
      '.1...',
      '..1.1', // one a second bursts differently over a minute: windows are not compared
      '..111',
      '....1',
    ],
    constrained,
  )

  table<Constraints>(
    'by time',
    [
      {},
      { not_before: 100 },
      { not_before: 101 },
      { not_after: 200 },
      { not_after: 201 },
      { not_before: 101, not_after: 200 },
    ],
    ['111111', '.11..1', '..1..1', '...1.1', '...111', '.....1'],
    constrained,
  )

  table<Constraints>(
    'by source',
    [
      {},
      { source: ['10.0.0.0/8'] },
      { source: ['10.1.0.0/16'] },
      { source: ['::ffff:10.0.0.0/104'] },
      { source: ['10.0.0.0/9', '10.128.0.0/9'] },
      { source: ['10.1.0.0/16', '2001:db8::/32'] },
      { source: ['::/0'] },
      { source: ['0.0.0.0/0'] },
      { source: ['10.0.0.0'] },
      { source: [] },
    ],
    [
      '1111111111',
      '.1111....1',
      '..1......1',
      '.1111....1', // the same range
      '..1.1....1', // both halves, but no single range
      '..1..1...1',
      '......1..1', // holds no IPv4 address
      '.1111..1.1',
      '.........1', // not a range: holds nothing
      '.........1',
    ],
    constrained,
  )

  table<Constraints>(
    'by region',
    [{}, { geo: ['CH'] }, { geo: ['CH', 'DE'] }, { geo: ['DE', 'CH'] }, { geo: ['US'] }],
    ['11111', '.1...', '.111.', '.111.', '....1'],
    constrained,
  )

  table<Constraints>(
    'by sensitivity',
    [
      {},
      { sensitivity_max: 'public' },
      { sensitivity_max: 'internal' },
      { sensitivity_max: 'confidential' },
      { sensitivity_max: 'restricted' },
    ],
    ['11111', '.1...', '.11..', '.111.', '.1111'],
    constrained,
  )

  table<Constraints>(
    'by approval',
    [{}, { approval: 'none' }, { approval: 'notify' }, { approval: 'single' }, { approval: 'quorum' }],
    ['11111', '.1111', '..111', '...11', '....1'],
    constrained,
  )

  const RULES: readonly ParameterRule[] = [
    { equals: 'a/b' },
    { equals: 3 },
    { equals: '3' },
    { equals: null },
    { one_of: ['a/b', 'ab'] },
    { one_of: [1, 3] },
    { one_of: ['3', 3] },
    { prefix: 'a' },
    { prefix: 'a/' },
    { glob: '*' },
    { glob: 'a*' },
    { glob: 'a/*' },
    { glob: '*b' },
    { max: 3 },
    { max: 5 },
    { min: 1 },
    { min: 1, max: 3 },
    { within: ['a'] },
    { within: ['a', 'b'] },
    { prefix: 'a', glob: '*b' },
    { one_of: [1, 3, 9], max: 3 },
  ]
  const ruled = (key: string) => (rule: ParameterRule) => constrained({ params: { [key]: rule } })
  table(
    'by a rule on the body',
    RULES,
    [
      '1....................', // equals "a/b"
      '.1...................', // equals 3: a number
      '..1..................', // equals "3": a text
      '...1.................', // equals null
      '1...1................', // one_of ["a/b", "ab"]
      '.1...1..............1', // one_of [1, 3]
      '.11...1..............', // one_of ["3", 3]
      '1...1..11.11.......1.', // prefix "a"
      '1.......1..1.........', // prefix "a/"
      '..1......11.1......1.', // glob "*": no slash
      '..........1..........', // glob "a*": what begins with a may hold a slash
      '1..........1.........', // glob "a/*"
      '............1......1.', // glob "*b"
      '.1...1.......1..1...1', // max 3
      '.1...1.......11.1...1', // max 5
      '.1...1.........11...1', // min 1
      '.1...1..........1...1', // min 1, max 3
      '.................1...', // within ["a"]
      '.................11..', // within ["a", "b"]
      '...................1.', // prefix "a", glob "*b"
      '.1...1..............1', // one_of [1, 3, 9], max 3: lists 1 and 3
    ],
    ruled('body./v'),
  )
  table(
    'by a rule on the query, where everything is text',
    RULES,
    [
      '1....................',
      '.11...1..............', // equals 3
      '.11...1..............', // equals "3"
      '...1.................',
      '1...1................',
      '.11..11.............1', // one_of [1, 3]
      '.11...1..............',
      '1...1..11.11.......1.',
      '1.......1..1.........',
      '.111.11..11.1......11', // glob "*": numbers too
      '..........1..........',
      '1..........1.........',
      '............1......1.',
      '.11..11......1..1...1', // max 3
      '.11..11......11.1...1',
      '.11..11........11...1',
      '.11..11.........1...1',
      '.................1...',
      '.................11..',
      '...................1.',
      '.11..11.............1',
    ],
    ruled('query.v'),
  )

  table<Constraints>(
    'by the parameters that are ruled',
    [
      {},
      { params: { 'query.a': { equals: 'x' } } },
      { params: { 'query.b': { equals: 'x' } } },
      { params: { 'query.a': { equals: 'x' }, 'query.b': { equals: 'x' } } },
      { params: { 'query.A': { equals: 'x' } } },
      { params: { 'body./a': { equals: 'x' } } },
    ],
    ['111111', '.1.1..', '..11..', '...1..', '....1.', '.....1'],
    constrained,
  )
})

describe('what is not known', () => {
  it('is refused in a child and in a parent, equal or not', () => {
    const odd = constrained({ moon_phase: 'full' })
    for (const [parent, child] of [
      [plain, odd],
      [odd, plain],
      [odd, odd],
    ] as const) {
      expect(excessOf([parent], [child]).map(({ at }) => at)).toContain(
        'authorization_details[0].constraints.moon_phase',
      )
      expect(narrow([parent], [child]).authority).toEqual([])
    }
  })

  it('is refused inside a rule and as the name of a parameter', () => {
    const odd = constrained({ params: { 'query.a': { sounds_like: 'x' } } })
    const header = constrained({ params: { 'header.a': { equals: 'x' } } })
    expect(excessOf([odd], [odd])).toHaveLength(1)
    expect(excessOf([constrained({ params: { 'query.a': {} } })], [odd])).toHaveLength(1)
    expect(excessOf([header], [header])).toHaveLength(1)
  })

  it('is not found on the prototype of a parent', () => {
    const child = constrained(JSON.parse('{"params":{"query.a":{"equals":"x"},"__proto__":{}}}'))
    expect(excessOf([plain], [child])).toEqual([])
    expect(excessOf([constrained({ params: { 'query.toString': {} } })], [plain])).toHaveLength(1)
  })
})

describe('entries', () => {
  const issues: Authority = { operations: ['github:issues.*'], paths: ['/repos/acme/site/**'] }
  const pulls: Authority = { operations: ['github:pulls.*'], paths: ['/repos/acme/docs/**'] }

  it('never add up: no two of a parent make a third', () => {
    const unions: Authority[] = [
      { operations: ['github:issues.read', 'github:pulls.read'], paths: ['/repos/acme/site/x'] },
      { operations: ['github:issues.read'], paths: ['/repos/acme/docs/x'] },
      { operations: ['github:issues.read'], paths: ['/repos/acme/site/x', '/repos/acme/docs/x'] },
      { operations: ['github:issues.read'] },
    ]
    for (const child of unions) expect(excessOf([issues, pulls], [child])).not.toEqual([])
    const halves = ['0.0.0.0/1', '128.0.0.0/1'].map((range) => constrained({ source: [range] }))
    expect(excessOf(halves, [constrained({ source: ['0.0.0.0/0'] })])).not.toEqual([])
    expect(excessOf(halves, [plain])).not.toEqual([])
    expect(excessOf([issues, pulls], [pulls, issues])).toEqual([])
  })

  it('of a parent that has none hold none', () => {
    expect(excessOf([], [plain])).toEqual([
      { at: 'authorization_details[0]', got: 'github:issues.read', allowed: 'nothing' },
    ])
    expect(excessOf([], [])).toEqual([])
    expect(excessOf([plain], [])).toEqual([])
  })

  it('that are too wide are named with what was got and what is allowed', () => {
    const parent: Authority = {
      ...issues,
      constraints: { max_calls: 50, params: { 'query.state': { one_of: ['open'] } } },
    }
    const wide: Authority = { ...issues, paths: ['/repos/**'], constraints: { max_calls: 100 } }
    expect(excessOf([pulls, parent], [parent, wide])).toEqual([
      { at: 'authorization_details[1].paths', got: '/repos/**', allowed: '/repos/acme/site/**' },
      { at: 'authorization_details[1].constraints.max_calls', got: '100', allowed: '50' },
      {
        at: 'authorization_details[1].constraints.params["query.state"]',
        got: 'absent',
        allowed: '{"one_of":["open"]}',
      },
    ])
  })

  it('are held against the entry with the same operations, even if another differs in less', () => {
    const strict = constrained({ max_calls: 1, max_bytes: 1, single_use: true })
    expect(excessOf([{ operations: ['demo:*'] }, strict], [plain]).map(({ at }) => at)).toEqual([
      'authorization_details[0].constraints.max_calls',
      'authorization_details[0].constraints.max_bytes',
      'authorization_details[0].constraints.single_use',
    ])
  })
})

describe('narrowing', () => {
  it.each<[string, Authority, Authority, Authority | undefined]>([
    ['an operation under a pattern', { operations: ['s:a.*'] }, { operations: ['s:*'] }, { operations: ['s:a.*'] }],
    ['nothing in common', { operations: ['s:a'] }, { operations: ['s:b'] }, undefined],
    [
      'one method',
      { ...plain, actions: ['GET'] },
      { ...plain, actions: ['GET', 'POST'] },
      { ...plain, actions: ['GET'] },
    ],
    ['other methods', { ...plain, actions: ['GET'] }, { ...plain, actions: ['POST'] }, undefined],
    ['paths that cross', { ...plain, paths: ['/a/*'] }, { ...plain, paths: ['/*/b'] }, { ...plain, paths: ['/a/b'] }],
    [
      'a tail and a fixed path',
      { ...plain, paths: ['/a/**'] },
      { ...plain, paths: ['/*/b', '/b'] },
      { ...plain, paths: ['/a/b'] },
    ],
    ['two tails', { ...plain, paths: ['/a/**'] }, { ...plain, paths: ['/*/b/**'] }, { ...plain, paths: ['/a/b/**'] }],
    [
      'calls',
      constrained({ max_calls: 5 }),
      constrained({ max_calls: 9, max_bytes: 1 }),
      constrained({ max_calls: 5, max_bytes: 1 }),
    ],
    ['a missing constraint', constrained({ single_use: true }), plain, constrained({ single_use: true })],
    ['other windows', constrained({ rate: { n: 1, per: 1 } }), constrained({ rate: { n: 1, per: 60 } }), undefined],
    ['no time left', constrained({ not_after: 100 }), constrained({ not_before: 100 }), undefined],
    [
      'ranges',
      constrained({ source: ['10.1.0.0/16', '::/0'] }),
      constrained({ source: ['10.0.0.0/8'] }),
      constrained({ source: ['10.1.0.0/16'] }),
    ],
    ['other regions', constrained({ geo: ['CH'] }), constrained({ geo: ['US'] }), undefined],
    [
      'rules',
      constrained({ params: { 'query.a': { prefix: 'x' }, 'query.b': { max: 5 } } }),
      constrained({ params: { 'query.a': { glob: '*y' }, 'query.b': { max: 9, min: 2 } } }),
      constrained({ params: { 'query.a': { prefix: 'x', glob: '*y' }, 'query.b': { max: 5, min: 2 } } }),
    ],
    [
      'rules that exclude each other',
      constrained({ params: { 'query.a': { max: 1 } } }),
      constrained({ params: { 'query.a': { min: 2 } } }),
      undefined,
    ],
    [
      'listed values',
      constrained({ params: { 'query.a': { one_of: [1, 2] } } }),
      constrained({ params: { 'query.a': { one_of: [2, 3] } } }),
      constrained({ params: { 'query.a': { one_of: [2] } } }),
    ],
    [
      'globs that no glob joins',
      constrained({ params: { 'query.a': { glob: 'a*' } } }),
      constrained({ params: { 'query.a': { glob: '*b' } } }),
      undefined,
    ],
  ])('leaves of %s what both allow', (_, parent, child, expected) => {
    const { authority, cut } = narrow([parent], [child])
    expect(authority).toEqual(expected === undefined ? [] : [expected])
    expect(cut.length).toBeGreaterThan(0)
  })

  it('shares one entry with several of the parent, but a budget with one only', () => {
    const parent: Authority[] = [{ operations: ['s:a.*'] }, { operations: ['s:a.b'] }, { operations: ['s:c'] }]
    expect(narrow(parent, [{ operations: ['s:*'] }]).authority).toEqual([
      { operations: ['s:a.*'] },
      { operations: ['s:c'] },
    ])
    const budgeted = { operations: ['s:*'], constraints: { max_calls: 5 } }
    expect(narrow(parent, [budgeted]).authority).toEqual([{ operations: ['s:a.*'], constraints: { max_calls: 5 } }])
  })

  it('tells what was lost', () => {
    const { cut } = narrow([constrained({ max_calls: 5 })], [plain, { operations: ['demo:x'] }])
    expect(cut).toEqual([
      'authorization_details[0].constraints.max_calls: absent is more than 5',
      'authorization_details[1] was left out: no entry of the parent shares anything with it',
    ])
  })

  it('stays within what details may hold, and says so', () => {
    const names = Array.from({ length: 20 }, (_, n) => `/${n}/*`)
    const crossing = Array.from({ length: 20 }, (_, n) => `/*/x${n}`)
    const { authority, cut } = narrow([{ ...plain, paths: names }], [{ ...plain, paths: crossing }])
    expect(authority).toEqual([])
    expect(cut.at(-1)).toMatch(/too many/)
  })

  it('takes the time of one glance, even at the limits of details', () => {
    const many = (from: string) =>
      Array.from({ length: 64 }, (_, n) => ({ ...plain, paths: [`/${from}${n}/**`, '/*/**', '/x/*'] }))
    const before = process.threadCpuUsage()
    narrow(many('a'), many('b'))
    excessOf(many('a'), many('b'))
    expect(process.threadCpuUsage(before).user / 1000).toBeLessThan(2_000)
  })
})
