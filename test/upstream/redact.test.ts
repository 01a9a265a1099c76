import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Head } from '../../gateway/upstream/head.ts'
import { redactAnswer } from '../../gateway/upstream/redact.ts'

const head = (
  status = 200,
  headers: string[] = ['Content-Type', 'application/json', 'Content-Length', '9', 'ETag', '"x"'],
) => ({ status, headers }) as unknown as Head

const shown = (body: string, ...pointers: string[]) => redactAnswer(head(), Buffer.from(body), pointers).body.toString()

describe('what policy keeps back of an answer', () => {
  it.each([
    ['a member', '{"a":1,"b":2}', ['/a'], '{"a":"[redacted]","b":2}'],
    ['a whole object', '{"a":{"b":1}}', ['/a'], '{"a":"[redacted]"}'],
    ['of every element', '{"l":[{"e":1},{"e":2}]}', ['/l/*/e'], '{"l":[{"e":"[redacted]"},{"e":"[redacted]"}]}'],
    ['in a list where a name is expected', '[{"e":1}]', ['/e'], '[{"e":"[redacted]"}]'],
    ['one element', '[1,2,3]', ['/1'], '[1,"[redacted]",3]'],
    ['under another case', '{"Email":1}', ['/email'], '{"Email":"[redacted]"}'],
    ['under escaped names', '{"a/b":1,"c~d":2}', ['/a~1b', '/c~0d'], '{"a/b":"[redacted]","c~d":"[redacted]"}'],
    ['what stands where an object is expected', '{"user":"ana"}', ['/user/email'], '{"user":"[redacted]"}'],
    ['nothing that is not there', '{"b":2}', ['/a', '/b/c/d'], '{"b":"[redacted]"}'],
    [
      'no digit of other numbers',
      '{"n":12345678901234567890.50,"a":1}',
      ['/a'],
      '{"n":12345678901234567890.50,"a":"[redacted]"}',
    ],
    ['nothing where null says that there is none', '{"a":null}', ['/a', '/a/b'], '{"a":null}'],
    ['a member named like a prototype', '{"__proto__":{"a":1}}', ['/__proto__/a'], '{"__proto__":{"a":"[redacted]"}}'],
  ])('is %s', (_, body, pointers, expected) => {
    expect(shown(body, ...pointers)).toBe(expected)
  })

  it('never comes out, wherever in the answer it stands', () => {
    const secret = 'the-kept-back-value'
    const plain = fc.jsonValue({ maxDepth: 2 }).filter((value) => !JSON.stringify(value).includes(secret))
    const tree = fc.letrec<{ node: unknown }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 3 },
        plain,
        fc.array(tie('node'), { maxLength: 3 }),
        fc.record({ name: plain, email: fc.constant({ secret: [secret] }), inner: tie('node') }),
      ),
    })).node
    const depths = [
      '',
      '/*',
      '/inner',
      '/*/inner',
      '/inner/*',
      '/*/*',
      '/inner/inner',
      '/*/inner/inner',
      '/inner/inner/inner',
      '/*/*/*',
      '/inner/*/inner',
      '/*/inner/*',
      '/*/*/inner',
      '/inner/inner/*',
      '/inner/*/*',
    ]
    fc.assert(
      fc.property(tree, (value) => {
        const text = JSON.stringify(value)
        const pointers = [...depths, ...depths.flatMap((depth) => [`${depth}/*`, `${depth}/inner`])].map(
          (depth) => `${depth}/email`,
        )
        expect(shown(text, ...pointers)).not.toContain(secret)
      }),
      { numRuns: 200 },
    )
  })

  it.each([
    ['no JSON', 'name=ana'],
    ['JSON lines', '{"a":1}\n{"a":2}'],
    ['two equal names', '{"a":1,"a":2}'],
    ['no UTF-8', Buffer.from([0x22, 0xff, 0x22])],
    ['half of it', '{"a":'],
  ])('is the whole answer, if that is %s', (_, body) => {
    expect(() => redactAnswer(head(), Buffer.from(body), ['/a'])).toThrow(/keeps something of this answer back/)
    expect(redactAnswer(head(500), Buffer.from(body), ['/a'])).toEqual({
      headers: ['Content-Type', 'application/json', 'Content-Length', '0'],
      body: Buffer.alloc(0),
    })
  })

  it.each([206, 226])(
    'is the whole answer, if status %i says that this is a piece, which may look like JSON',
    (status) => {
      expect(() => redactAnswer(head(status), Buffer.from('1234'), ['/a'])).toThrow(/a part of one/)
    },
  )

  it('leaves the fields of an answer without content, and none about bytes that the agent does not get', () => {
    expect(redactAnswer(head(204), Buffer.alloc(0), ['/a']).headers).toEqual(head().headers)
    const { headers } = redactAnswer(head(), Buffer.from('{"a":1}'), ['/a'])
    expect(headers).toEqual(['Content-Type', 'application/json', 'Content-Length', '18'])
  })
})
