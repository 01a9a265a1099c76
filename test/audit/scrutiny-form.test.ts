import canonicalize from 'canonicalize'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isCanonical } from '../../gateway/audit/verify/scrutiny-form.ts'

/** What the package says of a text: the definition that the fast check is held to. */
function isCanonicalSlowly(text: string): boolean {
  return canonicalOf(text) === text
}

function canonicalOf(text: string): string | undefined {
  try {
    return canonicalize(JSON.parse(text))
  } catch {
    return undefined // a lone surrogate, or a number that is none
  }
}

const check = (text: string) => isCanonical(text, JSON.parse(text))

describe('the fast check for canonical form', () => {
  it('agrees with the package on any JSON, in whatever order and spelling', () => {
    const name = fc.oneof(
      fc.constantFrom('a', 'b', '10', '2', '__proto__', 'é', '\u{1f600}', '\ufb33', ''),
      fc.string({ unit: 'binary', maxLength: 3 }),
    )
    const { value } = fc.letrec((tie) => ({
      value: fc.oneof(
        { maxDepth: 3 },
        fc.constantFrom(
          'null',
          'true',
          '0',
          '-0',
          '1.0',
          '1e3',
          '1E+3',
          '0.10',
          '123456789012345678',
          '1e400',
          '5e-324',
        ),
        fc
          .double()
          .map(String)
          .filter((text) => text !== 'NaN' && !text.endsWith('Infinity')),
        fc.string({ unit: 'binary', maxLength: 4 }).map((text) => JSON.stringify(text)),
        fc.constantFrom(
          '"\\u0041"',
          '"\\/"',
          '"\\ud800"',
          '"\\uD83D\\uDE00"',
          '"\\u00e9"',
          '"\\\\ud800"',
          '"\\u001f"',
          '"\\u000a"',
          '"\u007f"',
        ),
        fc.array(tie('value') as fc.Arbitrary<string>, { maxLength: 3 }).map((list) => `[${list.join(',')}]`),
        fc
          .array(fc.tuple(name, tie('value') as fc.Arbitrary<string>), { maxLength: 4 })
          .map((members) => `{${members.map(([key, text]) => `${JSON.stringify(key)}:${text}`).join(',')}}`),
      ),
    }))
    fc.assert(
      fc.property(value as fc.Arbitrary<string>, fc.boolean(), (text, isSpaced) => {
        const written = isSpaced ? ` ${text}` : text
        expect(check(written)).toBe(isCanonicalSlowly(written))
        const canonical = canonicalOf(text)
        if (canonical !== undefined) expect(check(canonical)).toBe(true)
      }),
      { numRuns: 2000 },
    )
  })

  it.each<[string, boolean]>([
    ['{"a":1,"b":2}', true],
    ['{"b":2,"a":1}', false],
    ['{"10":1,"2":2}', true], // by characters; JavaScript enumerates 2 first
    ['{"2":2,"10":1}', false],
    ['{"a":1,"a":1}', false],
    ['{"a":1.0}', false],
    ['{"a":"\\ud800"}', false],
    ['{"a":"\\\\ud800"}', true], // a backslash and four letters
    ['{"\u{1f600}":1,"\ufb33":2}', true], // by UTF-16 units, not by code points
  ])('of %s says %s', (text, expected) => {
    expect([check(text), isCanonicalSlowly(text)]).toEqual([expected, expected])
  })
})
