import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { ParameterRule } from '../../gateway/protocol/grant.ts'
import { parseParameter, readParameter } from '../../gateway/protocol/parameter.ts'
import { globMatches, satisfies } from '../../gateway/protocol/parameter-rule.ts'

function read(key: string, rawPath: string, body?: unknown): unknown {
  const parameter = parseParameter(key)
  if (parameter === undefined) throw new Error(`${key} is no parameter`)
  const found = readParameter(parameter, { rawPath, body })
  return 'value' in found ? found.value : found.fault.split(',')[0]
}

const ABSENT = 'is absent'
const TWICE = 'occurs more than once'
const UNREADABLE = 'cannot be read in one way only from this query; percent-encode it'

describe('a parameter of the query', () => {
  it.each([
    ['/x?state=open', 'open'],
    ['/x?a=1&state=open&b', 'open'],
    ['/x?state=', ''],
    ['/x?state', ''],
    ['/x?&&state=open&', 'open'],
    ['/x?%73tate=o%70en', 'open'],
    ['/x?state=a+b%2Bc', 'a b+c'],
    ['/x?state=a=b?c', 'a=b?c'],
    ['/x?state=%F0%9F%98%80', '😀'],
    ['/x', ABSENT],
    ['/x?', ABSENT],
    ['/x?states=open', ABSENT],
    ['/x?astate=open&state.x=1', ABSENT],
    ['/x?state=open&state=all', TWICE],
    ['/x?state=open&state=open', TWICE],
    ['/x?state=open&st%61te=all', TWICE],
    ['/x?state=open&State=all', TWICE], // ASP.NET ignores case
    ['/x?State=open', TWICE],
    ['/x?state[]=open', TWICE], // PHP, Rails, qs: an array
    ['/x?state=open&state[]=all', TWICE],
    ['/x?state=open&state[x]=all', TWICE],
    ['/x?state=open&state%5B0%5D=all', TWICE],
    ['/x?state=open&+state=all', TWICE], // PHP trims
    ['/x?state=open&%E2%80%83state=all', TWICE],
    ['/x?state=open&%C5%BFtate=all', TWICE], // the long s, which Go folds
    ['/x?state=open;state=all', UNREADABLE],
    ['/x?a=1;2&state=open', UNREADABLE],
    ['/x?state=open#&state=all', UNREADABLE],
    ['/x?state=%', UNREADABLE],
    ['/x?state=%zz', UNREADABLE],
    ['/x?state=%C0%AF', UNREADABLE], // overlong UTF-8
    ['/x?state=%ED%A0%80', UNREADABLE], // a surrogate
    ['/x?state=open&%zz=1', UNREADABLE], // could be any name
    ['/x?state=open&state%00=all', UNREADABLE],
    ['/x?state=open&%0Astate=all', UNREADABLE],
    ['/x?state=caf\u00e9', UNREADABLE],
    ['/x?state=a b', UNREADABLE],
    ['/x?a=%zz&state=open', 'open'], // the value of another one is its own affair
  ])('is read from %j: %j', (rawPath, expected) => {
    expect(read('query.state', rawPath)).toBe(expected)
  })

  it.each([
    ['query.filter[kind]', '/x?filter[kind]=bug&filter[state]=open', 'bug'],
    ['query.filter[kind]', '/x?filter%5Bkind%5D=bug', 'bug'],
    ['query.filter[kind]', '/x?filter[kind]=bug&filter=x', TWICE],
    ['query.filter[kind]', '/x?filter[kind]=bug&filter[kind][]=x', TWICE],
    ['query.user.name', '/x?user.name=a&user_name=b', TWICE], // PHP writes _ for a dot
    ['query.user_name', '/x?user_name=a&user[name=b', TWICE], // and for a bracket that is never closed
    ['query.a b', '/x?a+b=1', '1'],
    ['query.__proto__', '/x?__proto__=1', '1'],
    ['query.toString', '/x?a=1', ABSENT],
  ])('named %s is read from %s: %j', (key, rawPath, expected) => {
    expect(read(key, rawPath)).toBe(expected)
  })

  it('is never another one than the platform reads, and never one of two', () => {
    const name = fc.constantFrom('a', 'A', 'b', 'a[]', '%61', 'a ', '+a', 'a[x]', '')
    const value = fc.constantFrom('1', '2', '', 'x=y', '%', '%32', '+', 'a%26a=3')
    const pair = fc
      .tuple(name, value, fc.constantFrom('=', '==', ''))
      .map((parts) => `${parts[0]}${parts[2]}${parts[1]}`)
    const query = fc.array(pair, { maxLength: 5 }).map((pairs) => pairs.join('&'))
    let found = 0
    fc.assert(
      fc.property(query, (text) => {
        const parameter = parseParameter('query.a')
        const answer = parameter && readParameter(parameter, { rawPath: `/?${text}` })
        if (answer === undefined || 'fault' in answer) return
        found++
        expect(new URLSearchParams(text).getAll('a')).toEqual([answer.value])
      }),
      { numRuns: 10_000 },
    )
    expect(found).toBeGreaterThan(200)
  })
})

describe('a parameter of the body', () => {
  const body = JSON.parse(
    '{"a":{"b":[10,{"c":null}]},"":0,"x/y":1,"m~n":2,"e":"","State":"all","state":"open","f":false,"__proto__":{"z":1},"kind":"a","\u212Aind":"b"}',
  )

  it.each([
    ['body./a/b/0', 10],
    ['body./a/b/1/c', null],
    ['body./', 0],
    ['body./x~1y', 1],
    ['body./m~0n', 2],
    ['body./e', ''],
    ['body./f', false],
    ['body./__proto__/z', 1],
    ['body./a/b/2', ABSENT],
    ['body./a/b/00', ABSENT],
    ['body./a/b/-', ABSENT],
    ['body./a/b/length', ABSENT],
    ['body./a/b/1e0', ABSENT],
    ['body./e/length', ABSENT],
    ['body./toString', ABSENT],
    ['body./a/constructor', ABSENT],
    ['body./A/b/0', TWICE], // and this one too
    ['body./state', TWICE], // Go takes the last key that is equal but for case
    ['body./kind', TWICE], // and folds the Kelvin sign
  ])('%s: %j', (key, expected) => {
    expect(read(key, '/', body)).toBe(expected)
  })

  it('is absent when there is no body, or none was read', () => {
    expect(read('body./a', '/')).toBe(ABSENT)
    expect(read('body.', '/')).toBe(ABSENT)
    expect(read('body.', '/', null)).toBe(null)
    expect(read('body./a', '/', 'text')).toBe(ABSENT)
  })

  it('has a name that is a JSON pointer', () => {
    for (const key of ['body', 'body.a', 'body./a~', 'body./a~2', 'query.', 'header.a', '', 'Query.a']) {
      expect(parseParameter(key), key).toBeUndefined()
    }
  })
})

describe('a rule', () => {
  it.each<[ParameterRule | Record<string, unknown>, unknown, boolean, boolean]>([
    // rule, value, in a query, in a body
    [{ equals: 'open' }, 'open', true, true],
    [{ equals: 'open' }, 'Open', false, false],
    [{ equals: 5 }, 5, false, true],
    [{ equals: 5 }, '5', true, false],
    [{ equals: 5 }, '5.0', false, false],
    [{ equals: true }, 'true', true, false],
    [{ equals: true }, true, false, true],
    [{ equals: null }, 'null', true, false],
    [{ equals: null }, null, false, true],
    [{ equals: null }, undefined, false, false],
    [{ equals: 0 }, -0, false, true],
    [{ equals: 2 ** 53 }, 2 ** 53, false, false], // 2^53 + 1 is the same number here
    [{ one_of: ['a', 1] }, 'a', true, true],
    [{ one_of: ['a', 1] }, '1', true, false],
    [{ one_of: [] }, 'a', false, false],
    [{ prefix: 'ab' }, 'abc', true, true],
    [{ prefix: 'ab' }, 'a', false, false],
    [{ prefix: '1' }, 12, false, false],
    [{ glob: 'a*' }, 'abc', true, true],
    [{ glob: 'a*' }, 'a/c', false, false],
    [{ glob: '*' }, 5, false, false],
    [{ max: 5 }, 5, false, true],
    [{ max: 5 }, '5', true, false],
    [{ max: 5 }, '5.1', false, false],
    [{ max: 5 }, '-7', true, false],
    [{ max: 5 }, '05', false, false], // eight's neighbour to some, octal to others
    [{ max: 5 }, '+5', false, false],
    [{ max: 5 }, '5e0', false, false],
    [{ max: 5 }, '0x5', false, false],
    [{ max: 5 }, ' 5', false, false],
    [{ max: 5 }, '', false, false],
    [{ max: 5 }, '5.', false, false],
    [{ max: 5 }, '0.00000000000000000001', false, false], // more digits than are exact
    [{ max: 5 }, 'Infinity', false, false],
    [{ max: 5 }, Number.NaN, false, false],
    [{ max: 5 }, Number.NEGATIVE_INFINITY, false, false],
    [{ max: 5 }, [5], false, false],
    [{ max: 5 }, null, false, false],
    [{ min: 5 }, 5, false, true],
    [{ min: 5 }, 4.9, false, false],
    [{ min: 5 }, 1e300, false, false],
    [{ within: ['a', 1] }, ['a', 1, 'a'], false, true],
    [{ within: ['a', 1] }, [], false, true],
    [{ within: ['a', 1] }, ['a', '1'], false, false],
    [{ within: ['a', 1] }, [['a']], false, false],
    [{ within: ['a'] }, 'a', false, false],
    [{ within: ['a'] }, { 0: 'a', length: 1 }, false, false],
    [{ prefix: 'a', glob: '*b' }, 'ab', true, true],
    [{ prefix: 'a', glob: '*b' }, 'bb', false, false],
    [{ min: 1, max: 3 }, 4, false, false],
    [{ prefix: 'a', regex: '.*' }, 'a', false, false], // what is not known is satisfied by nothing
    [{ max: '5' }, 1, false, false],
    [{ one_of: 'abc' }, 'a', false, false],
  ])('%j on %j: %j in a query, %j in a body', (rule, value, inQuery, inBody) => {
    expect([satisfies(rule, value, 'query'), satisfies(rule, value, 'body')]).toEqual([inQuery, inBody])
  })

  it('with stars matches as a regular expression would', () => {
    const text = fc.array(fc.constantFrom('a', 'b', '/', '.'), { maxLength: 8 }).map((parts) => parts.join(''))
    const glob = fc
      .array(fc.constantFrom('a', 'b', '/', '*', '*', '.'), { maxLength: 6 })
      .map((parts) => parts.join(''))
    let matched = 0
    fc.assert(
      fc.property(glob, text, (pattern, value) => {
        const expected = new RegExp(`^${pattern.replaceAll('.', '\\.').replaceAll('*', '[^/]*')}$`).test(value)
        if (expected) matched++
        expect(globMatches(pattern, value)).toBe(expected)
      }),
      { numRuns: 20_000 },
    )
    expect(matched).toBeGreaterThan(500)
  })

  it('with stars takes no long look at a long text', () => {
    const before = process.threadCpuUsage()
    expect(globMatches(`${'a*'.repeat(250)}b`, 'a'.repeat(1_000_000))).toBe(false)
    expect(process.threadCpuUsage(before).user / 1000).toBeLessThan(1_000)
  })
})
