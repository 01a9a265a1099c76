import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Secret } from '../../gateway/protocol/secret.ts'
import { Scrubber } from '../../gateway/upstream/scrub.ts'
import { type Searcher, Searchers } from '../../gateway/upstream/searcher.ts'

/** A credential of visible characters; `*` is left out because it is what overwrites. */
const visible = fc.string({
  unit: fc
    .integer({ min: 0x21, max: 0x7e })
    .filter((c) => c !== 0x2a)
    .map((c) => String.fromCharCode(c)),
  minLength: 8,
  maxLength: 60,
})
const anything = fc
  .string({ unit: 'grapheme', minLength: 8, maxLength: 30 })
  .filter((s) => !s.includes('*') && s.isWellFormed())

function searcherFor(...values: string[]): Searcher {
  const searcher = new Searchers().for(values.map((value) => new Secret(value)))
  if (searcher === null) throw new Error('nothing to search for')
  return searcher
}

function scrub(searcher: Searcher, chunks: readonly Buffer[]): { out: Buffer; found: number } {
  const scrubber = new Scrubber(searcher)
  const out = chunks.map((chunk) => Buffer.from(scrubber.push(Buffer.from(chunk), false)))
  out.push(Buffer.from(scrubber.push(Buffer.alloc(0), true)))
  return { out: Buffer.concat(out), found: scrubber.found }
}

function split(bytes: Buffer, cuts: readonly number[]): Buffer[] {
  const at = [...new Set(cuts.map((cut) => cut % (bytes.length + 1)))].toSorted((a, b) => a - b)
  return [0, ...at].map((start, i) => bytes.subarray(start, at[i] ?? bytes.length))
}

/** Encodings written here anew, so that the test does not repeat the code it tests. */
const encoders: Readonly<Record<string, (value: string) => string>> = {
  plain: (v) => v,
  hex: (v) => Buffer.from(v).toString('hex'),
  HEX: (v) => Buffer.from(v).toString('hex').toUpperCase(),
  uri: (v) => encodeURIComponent(v),
  'uri in lower case': (v) => encodeURIComponent(v).replaceAll(/%../g, (e) => e.toLowerCase()),
  form: (v) => new URLSearchParams({ v }).toString().slice(2),
  'every byte as percent': (v) => Array.from(Buffer.from(v), (b) => `%${b.toString(16).padStart(2, '0')}`).join(''),
  json: (v) => JSON.stringify(v),
  'json with escaped slashes': (v) => JSON.stringify(v).replaceAll('/', '\\/'),
  'every unit as \\u': (v) =>
    Array.from({ length: v.length }, (_, i) => `\\u${v.charCodeAt(i).toString(16).padStart(4, '0')}`).join(''),
  'go json': (v) => JSON.stringify(v).replaceAll(/[<>&]/g, (c) => `\\u00${c.charCodeAt(0).toString(16)}`),
  'html text': (v) => v.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;'),
}

describe('Scrubber', () => {
  it.each(Object.keys(encoders))('leaves no credential in %s, at any place, in any chunks', (name) => {
    const encode = encoders[name] as (value: string) => string
    fc.assert(
      fc.property(
        name.startsWith('html') ? visible : fc.oneof(visible, anything),
        fc.string({ maxLength: 80 }),
        fc.string({ maxLength: 80 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (value, before, after, cuts) => {
          const needle = encode(value).replaceAll(/^"|"$/g, (quote, at) =>
            name.includes('json') && at === 0 ? '' : quote,
          )
          const text = Buffer.from(before + needle + after)
          const { out, found } = scrub(searcherFor(value), split(text, cuts))
          expect(out.length).toBe(text.length)
          expect(found).toBeGreaterThan(0)
          expect(out.includes(encode(value).replace(/^"/, '').replace(/"$/, ''))).toBe(false)
        },
      ),
      { numRuns: 200 },
    )
  })

  it('leaves none of which any kinds of punctuation are escaped, nor one that is reversed', () => {
    const token = fc.string({ unit: fc.constantFrom(...'abcXYZ019', '+', '/', '=', '.'), minLength: 12, maxLength: 50 })
    const hex = (c: string) => c.charCodeAt(0).toString(16)
    const escapes: readonly ((c: string) => string)[] = [
      (c) => `%${hex(c)}`,
      (c) => `%${hex(c).toUpperCase()}`,
      (c) => `\\u00${hex(c)}`,
      (c) => `\\u00${hex(c).toUpperCase()}`,
      (c) => `&#${c.charCodeAt(0)};`,
      (c) => `&#x${hex(c)};`,
    ]
    const cuts = fc.array(fc.nat(), { maxLength: 8 })
    fc.assert(
      fc.property(
        token,
        fc.subarray(['+', '/', '=', '.']),
        fc.constantFrom(...escapes),
        cuts,
        (value, of, escaped, at) => {
          const searcher = searcherFor(value)
          const spelled = [...value].map((c) => (of.includes(c) ? escaped(c) : c)).join('')
          for (const text of [spelled, [...value].reverse().join(''), value.replaceAll('/', '\\/')]) {
            const { out, found } = scrub(searcher, split(Buffer.from(`before ${text} after`), at))
            expect(found).toBeGreaterThan(0)
            expect(out.toString()).toBe(`before ${'*'.repeat(text.length)} after`)
          }
        },
      ),
      { numRuns: 500 },
    )
  })

  it.each(['base64', 'base64url'] as const)('leaves no credential in %s of a text around it', (encoding) => {
    fc.assert(
      fc.property(
        visible,
        fc.uint8Array({ maxLength: 20 }),
        fc.uint8Array({ maxLength: 20 }),
        fc.array(fc.nat(), { maxLength: 8 }),
        (value, before, after, cuts) => {
          const coded = Buffer.concat([before, Buffer.from(value), after]).toString(encoding)
          const text = Buffer.from(`{"echo":"${coded}"}`)
          const { out, found } = scrub(searcherFor(value), split(text, cuts))
          expect(found).toBeGreaterThan(0)
          expect(out.length).toBe(text.length)
          const shown = Buffer.from(out.toString().slice(9, -2).replaceAll('*', 'A'), encoding)
          expect(shown.includes(value)).toBe(false)
          // At most the bits that share a character with a neighbour are left: no run of more than two bytes.
          for (let i = 0; i + 3 < value.length; i += 1) {
            const at = before.length + i
            expect(shown.subarray(at, at + 3).equals(Buffer.from(value.slice(i, i + 3)))).toBe(false)
          }
        },
      ),
    )
  })

  it('does not depend on how a stream is cut', () => {
    const text = fc.string({ unit: fc.constantFrom('a', 'b', 'c'), maxLength: 200 })
    const secret = fc.string({ unit: fc.constantFrom('a', 'b'), minLength: 8, maxLength: 12 })
    fc.assert(
      fc.property(
        fc.array(secret, { minLength: 1, maxLength: 3 }),
        text,
        fc.array(fc.nat(), { maxLength: 30 }),
        (secrets, body, cuts) => {
          const searcher = searcherFor(...secrets)
          const bytes = Buffer.from(body)
          const whole = scrub(searcher, [bytes])
          const cut = scrub(searcher, split(bytes, cuts))
          expect(cut.out.toString()).toBe(whole.out.toString())
          expect(cut.found).toBe(whole.found)
          // Reference: overwrite every occurrence found in the original, overlapping ones and those that are written backwards too.
          const expected = Buffer.from(bytes)
          for (const value of [...secrets, ...secrets.map((one) => [...one].reverse().join(''))]) {
            for (let at = body.indexOf(value); at !== -1; at = body.indexOf(value, at + 1))
              expected.fill('*', at, at + value.length)
          }
          expect(whole.out.toString()).toBe(expected.toString())
        },
      ),
      { numRuns: 500 },
    )
  })

  it('passes an event on at once unless its end could be the beginning of the credential', () => {
    const scrubber = new Scrubber(searcherFor('sk-live-0123456789'))
    expect(scrubber.push(Buffer.from('data: {"delta":"hi"}\n\n'), false).toString()).toBe('data: {"delta":"hi"}\n\n')
    expect(scrubber.push(Buffer.from('data: sk-li'), false).toString()).toBe('data: ')
    expect(scrubber.push(Buffer.from('ttle\n\n'), false).toString()).toBe('sk-little\n\n')
    expect(scrubber.found).toBe(0)
  })

  it('overwrites what two credentials share when they overlap', () => {
    const { out, found } = scrub(searcherFor('abcdefgh', 'bcdefghijklmnop'), [Buffer.from('-abcdefghijklmnop-')])
    expect(out.toString()).toBe('-****************-')
    expect(found).toBe(1)
  })

  it('finds UTF-8 credentials that come back as latin1', () => {
    const { out } = scrub(searcherFor('clé-secrète-1'), [Buffer.from('x clé-secrète-1 y', 'latin1')])
    expect(out.toString('latin1')).toBe('x ************* y')
  })
})

describe('Searchers', () => {
  it('has nothing to search for without secrets and for values shorter than eight bytes in every spelling', () => {
    expect(new Searchers().for([])).toBeNull()
    expect(new Searchers().for([new Secret('')])).toBeNull()
  })

  it('does not search for a short value as it is, but for its long spellings', () => {
    const searcher = searcherFor('hunter2')
    expect(scrub(searcher, [Buffer.from('hunter2')]).found).toBe(0)
    expect(scrub(searcher, [Buffer.from(Buffer.from('hunter2').toString('hex'))]).found).toBe(1)
  })

  it('makes one searcher for the same secrets', () => {
    const searchers = new Searchers()
    const [a, b] = [new Secret('aaaaaaaaaaaa'), new Secret('bbbbbbbbbbbb')]
    expect(searchers.for([a, b])).toBe(searchers.for([a, b]))
    expect(searchers.for([a])).not.toBe(searchers.for([a, b]))
  })
})
