import { describe, expect, it } from 'vitest'
import { detailsOf, parseDetails } from '../../gateway/protocol/details.ts'
import { parseStrictJson } from '../../gateway/protocol/strict-json.ts'

const entry = { type: 'keyless_access', operations: ['github:issues.read'] }
const full = {
  type: 'keyless_access',
  locations: ['https://api.github.com', 'https://[::1]:9443'],
  actions: ['GET', 'PATCH'],
  operations: ['github:issues.read', 'github:pulls.*', 'demo:*'],
  paths: ['/', '/repos/acme/*/issues', '/repos/acme/**', '/projects/acme%2Fsite', '/a b/ü'],
  constraints: {
    max_calls: 50,
    max_bytes: 5_242_880,
    rate: { n: 60, per: 60 },
    single_use: false,
    not_before: 1_700_000_000,
    not_after: 1_700_000_900,
    source: ['10.0.0.0/8', '2001:db8::/32', '::/0', '192.0.2.1/32'],
    geo: ['CH', 'eu-west_1'],
    params: {
      'query.state': { one_of: ['open', 'closed'] },
      'query.filter[kind]': { equals: 'bug' },
      'body./labels': { within: ['bug', 1, true, null] },
      'body./a~1b/~0/0': { prefix: 'x', glob: 'x*y' },
      'body.': { max: 7, min: -1.5 },
    },
    sensitivity_max: 'internal',
    approval: 'none',
  },
}

describe('parseDetails', () => {
  it('reads every member, and detailsOf writes it back in the same words and order', () => {
    const authority = parseDetails(parseStrictJson(JSON.stringify([full, entry])))
    const { type: _, ...members } = full
    expect(authority).toEqual([members, { operations: ['github:issues.read'] }])
    expect(JSON.stringify(detailsOf(authority))).toBe(JSON.stringify([full, entry]))
  })

  it('writes one order whatever order was read', () => {
    const shuffled = Object.fromEntries(Object.entries(full.constraints).reverse())
    expect(JSON.stringify(detailsOf(parseDetails([{ ...full, constraints: shuffled }])))).toBe(JSON.stringify([full]))
  })

  const withConstraint = (constraints: unknown) => [{ ...entry, constraints }]
  const withRule = (key: string, rule: unknown) => withConstraint({ params: { [key]: rule } })
  const root = 'authorization_details'

  it.each<[string, unknown, string]>([
    ['no array', {}, root],
    ['nothing', undefined, root],
    ['an empty array', [], `${root} is 0 objects`],
    ['65 objects', Array.from({ length: 65 }, () => entry), `${root} is 65 objects`],
    ['no object', [null], `${root}[0]`],
    ['an array in it', [[]], `${root}[0]`],
    ['another type', [{ ...entry, type: 'payment' }], `${root}[0].type is "payment"`],
    ['no type', [{ operations: ['a:b'] }], `${root}[0].type is missing`],
    ['an unknown member', [entry, { ...entry, datatypes: ['x'] }], `${root}[1]["datatypes"] is not known`],
    ['a member named as a method of objects', [{ ...entry, toString: 1 }], `${root}[0]["toString"]`],
    ['no operations', [{ type: 'keyless_access' }], `${root}[0].operations is missing`],
    ['empty operations', [{ ...entry, operations: [] }], `${root}[0].operations is []`],
    ['operations as text', [{ ...entry, operations: 'a:b' }], `${root}[0].operations`],
    [
      'an operation that is no pattern',
      [{ ...entry, operations: ['a:b', 'github'] }],
      `${root}[0].operations[1] is "github"`,
    ],
    ['an operation twice', [{ ...entry, operations: ['a:b', 'a:b'] }], `${root}[0].operations[1] is "a:b" once more`],
    [
      '257 operations',
      [{ ...entry, operations: Array.from({ length: 257 }, (_, n) => `a:b${n}`) }],
      `${root}[0].operations is a list of 257`,
    ],
    ['a method in lower case', [{ ...entry, actions: ['get'] }], `${root}[0].actions[0] is "get"`],
    ['a location with a path', [{ ...entry, locations: ['https://a.test/x'] }], `${root}[0].locations[0]`],
    ['a location with a slash', [{ ...entry, locations: ['https://a.test/'] }], `${root}[0].locations[0]`],
    ['a location in upper case', [{ ...entry, locations: ['https://A.test'] }], `${root}[0].locations[0]`],
    ['a default port', [{ ...entry, locations: ['https://a.test:443'] }], `${root}[0].locations[0]`],
    ['userinfo', [{ ...entry, locations: ['https://u@a.test'] }], `${root}[0].locations[0]`],
    ['another scheme', [{ ...entry, locations: ['ftp://a.test'] }], `${root}[0].locations[0]`],
    ...[
      'a',
      '/a/',
      '/a/../b',
      '/./a',
      '/a*',
      '/**/a',
      '/a\\b',
      '/a;b',
      '/a?b',
      '/a#b',
      '/a%2fb',
      '/a%20b',
      '/a\n',
      '/\ud800',
      '',
    ].map((path): [string, unknown, string] => [
      `the path ${JSON.stringify(path)}`,
      [{ ...entry, paths: [path] }],
      `${root}[0].paths[0]`,
    ]),
    ['empty constraints', withConstraint({}), `${root}[0].constraints is empty`],
    ['constraints as a list', withConstraint([]), `${root}[0].constraints`],
    ['an unknown constraint', withConstraint({ max_cals: 1 }), `${root}[0].constraints["max_cals"] is not known`],
    [
      'a constraint named __proto__',
      withConstraint(JSON.parse('{"__proto__":{}}')),
      `${root}[0].constraints["__proto__"]`,
    ],
    ['no calls', withConstraint({ max_calls: 0 }), `${root}[0].constraints.max_calls is 0`],
    ['half a call', withConstraint({ max_calls: 1.5 }), `${root}[0].constraints.max_calls`],
    ['calls as text', withConstraint({ max_calls: '5' }), `${root}[0].constraints.max_calls`],
    ['more calls than a number can count', withConstraint({ max_calls: 2 ** 53 }), `${root}[0].constraints.max_calls`],
    ['negative bytes', withConstraint({ max_bytes: -1 }), `${root}[0].constraints.max_bytes`],
    ['null', withConstraint({ max_calls: null }), `${root}[0].constraints.max_calls is null`],
    ['a rate without window', withConstraint({ rate: { n: 1 } }), `${root}[0].constraints.rate.per is missing`],
    ['a window of two days', withConstraint({ rate: { n: 1, per: 172_800 } }), `${root}[0].constraints.rate.per`],
    ['a rate with more', withConstraint({ rate: { n: 1, per: 1, burst: 9 } }), `${root}[0].constraints.rate["burst"]`],
    ['single use as text', withConstraint({ single_use: 'yes' }), `${root}[0].constraints.single_use`],
    ['a time in milliseconds', withConstraint({ not_after: 1_700_000_000_000 }), `${root}[0].constraints.not_after`],
    [
      'a time that ends before it begins',
      withConstraint({ not_before: 5, not_after: 5 }),
      `${root}[0].constraints.not_after is 5`,
    ],
    ...[
      '10.0.0.1/8',
      '10.0.0.0',
      '10.0.0.0/33',
      '10.0.0.0/08',
      '010.0.0.0/8',
      '::ffff:10.0.0.0/104',
      '2001:DB8::/32',
      '2001:db8:0::/32',
      '2001:db8::1/32',
      'fe80::%1/64',
      'any',
      '10/8',
    ].map((range): [string, unknown, string] => [
      `the range ${range}`,
      withConstraint({ source: [range] }),
      `${root}[0].constraints.source[0]`,
    ]),
    ['no range', withConstraint({ source: [] }), `${root}[0].constraints.source`],
    ['a region with a space', withConstraint({ geo: ['C H'] }), `${root}[0].constraints.geo[0]`],
    [
      'an unknown sensitivity',
      withConstraint({ sensitivity_max: 'secret' }),
      `${root}[0].constraints.sensitivity_max is "secret"`,
    ],
    ['an unknown approval', withConstraint({ approval: 'both' }), `${root}[0].constraints.approval is "both"`],
    ['no rules', withConstraint({ params: {} }), `${root}[0].constraints.params is 0 rules`],
    [
      '33 rules',
      withConstraint({
        params: Object.fromEntries(Array.from({ length: 33 }, (_, n) => [`query.a${n}`, { equals: 1 }])),
      }),
      `${root}[0].constraints.params is 33 rules`,
    ],
    ...[
      'state',
      'query.',
      'query',
      'header.x',
      'body',
      'body.labels',
      'body./a~2',
      'body./~',
      'query.a\n',
      `query.${'a'.repeat(260)}`,
      '__proto__x',
    ].map((key): [string, unknown, string] => [
      `the parameter ${JSON.stringify(key.slice(0, 20))}`,
      withRule(key, { equals: 1 }),
      `${root}[0].constraints.params[`,
    ]),
    ['an empty rule', withRule('query.a', {}), `${root}[0].constraints.params["query.a"] is empty`],
    ['a rule that is a value', withRule('query.a', 'x'), `${root}[0].constraints.params["query.a"] is "x"`],
    [
      'an unknown member of a rule',
      withRule('query.a', { regex: '.*' }),
      `${root}[0].constraints.params["query.a"]["regex"]`,
    ],
    ['an object to equal', withRule('body./a', { equals: {} }), `params["body./a"].equals`],
    ['a number that is not exact', withRule('body./a', { equals: 2 ** 53 }), `params["body./a"].equals`],
    ['half a surrogate pair', withRule('body./a', { equals: '\ud800' }), `params["body./a"].equals`],
    ['values twice', withRule('body./a', { one_of: [1, 1] }), `params["body./a"].one_of[1]`],
    ['no values', withRule('body./a', { one_of: [] }), `params["body./a"].one_of`],
    ['an empty prefix', withRule('query.a', { prefix: '' }), `params["query.a"].prefix`],
    ['two stars', withRule('query.a', { glob: 'a/**' }), `params["query.a"].glob`],
    ['infinity', withRule('body./a', { max: Number.POSITIVE_INFINITY }), `params["body./a"].max`],
    ['min above max', withRule('body./a', { min: 2, max: 1 }), `params["body./a"].min is 2`],
    ['an array in a query', withRule('query.a', { within: ['x'] }), `params["query.a"].within`],
    [
      'more than 256 elements together',
      Array.from({ length: 3 }, () => ({ ...entry, paths: Array.from({ length: 90 }, (_, n) => `/${n}`) })),
      `${root} is 273 names`,
    ],
    [
      'more than 256 values of a rule',
      [{ ...entry, ...withRule('query.a', { one_of: Array.from({ length: 256 }, (_, n) => n) })[0] }],
      `${root} is 258 names`,
    ],
  ])('refuses %s and says where', (_, details, place) => {
    expect(() => parseDetails(details)).toThrow(
      expect.objectContaining({ code: 'invalid_details', message: expect.stringContaining(place) }),
    )
    expect(() => parseDetails(details)).toThrow(/; allowed is /)
  })

  it('never repeats more than the beginning of what it refuses', () => {
    expect(() => parseDetails([{ ...entry, operations: [`x${'y'.repeat(5000)}`] }])).toThrow(
      expect.objectContaining({ message: expect.stringMatching(/^.{1,400}$/) }),
    )
  })
})
