import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseStrictJson } from '../../gateway/protocol/strict-json.ts'

describe('parseStrictJson', () => {
  it('reads what JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 5 }), fc.constantFrom(undefined, 1, '\t'), (text, space) => {
        const spaced = JSON.stringify(JSON.parse(text), null, space)
        expect(parseStrictJson(spaced)).toEqual(JSON.parse(spaced))
      }),
      { numRuns: 2000 },
    )
  })

  it.each([
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}', // equal once the escape is read
    '{"x":[{"b":{"a":1,"c":{},"a":[]}}]}',
    '{"a":"}","a":1}', // a bracket inside a string closes nothing
    '{"a":"\\"","a":1}',
    '{"a\\\\":1,"a\\\\":2}',
    '{"__proto__":1,"__proto__":2}',
    '{"":1,"":2}',
    '{"a" : 1 , "a"\n: 2}',
  ])('refuses equal keys in one object: %s', (text) => {
    JSON.parse(text)
    expect(() => parseStrictJson(text)).toThrow(SyntaxError)
  })

  it.each([
    '{"a":{"a":1},"b":[{"a":1},{"a":2}]}',
    '["a","a"]',
    '{"a":"a","b":"a"}',
    '{"a":"b:","b":":"}',
    '{"a":1,"A":2}',
  ])('allows equal names in different places: %s', (text) => {
    expect(parseStrictJson(text)).toEqual(JSON.parse(text))
  })

  it.each(['"\\ud800"', '"\\udc00\\ud800"', '{"\\ud83d":1}', `"${'\ud800'}"`])(
    'refuses half a surrogate pair: %j',
    (text) => {
      expect(() => parseStrictJson(text)).toThrow(/surrogate/)
    },
  )

  it('allows whole surrogate pairs', () => {
    expect(parseStrictJson('"\\ud83d\\ude00"')).toBe('😀')
  })

  it('refuses more than 32 levels, of arrays and objects together', () => {
    const nested = (levels: number) => '[{"a":'.repeat(levels / 2) + 1 + '}]'.repeat(levels / 2)
    expect(parseStrictJson(nested(32))).toBeDefined()
    expect(() => parseStrictJson(nested(34))).toThrow(/32/)
  })

  it('keeps __proto__ as a key like any other', () => {
    const parsed = parseStrictJson('{"__proto__":{"admin":true}}')
    expect(Object.keys(parsed as object)).toEqual(['__proto__'])
    expect((parsed as { admin?: unknown }).admin).toBeUndefined()
  })

  it.each(['', '{', '{"a":1,}', "{'a':1}", '\ufeff{}', 'NaN', '[1]x', '"\n"'])(
    'refuses what is not JSON: %j',
    (text) => {
      expect(() => parseStrictJson(text)).toThrow(SyntaxError)
    },
  )
})
