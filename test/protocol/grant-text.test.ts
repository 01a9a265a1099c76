/** Grants where they stand in a text: every one that the pattern describes, in time that grows with the text alone. */
import fc from 'fast-check'
import { expect, it } from 'vitest'
import { grantsIn } from '../../gateway/protocol/grant-text.ts'

/** What is meant, as one pattern. It tries each beginning anew, so it is for short texts. */
const JWT =
  /eyJ[\w-]{10,1000}\.eyJ[\w-]{20,16000}\.[\w-]{20,1000}(?:~eyJ[\w-]{10,1000}\.eyJ[\w-]{20,16000}\.[\w-]{20,1000})*/g
const CLAIMS = Buffer.from('{"a":[{"type":"keyless_access"}]}').toString('base64url')
const HEADER = Buffer.from('{"alg":"EdDSA"}').toString('base64url')
const SIGNATURE = 's'.repeat(43)
const TOKEN = `${HEADER}.${CLAIMS}.${SIGNATURE}`

function meant(text: string) {
  return [...text.matchAll(JWT)]
    .filter(({ 0: token }) =>
      token
        .split(/[.~]/)
        .some((part, at) => at % 3 === 1 && Buffer.from(part, 'base64url').includes('"keyless_access"')),
    )
    .map(({ 0: token, index: at }) => ({ token, at }))
}

it('are those that the pattern describes, wherever they stand and whatever is around them (property)', () => {
  const piece = fc.constantFrom(
    ...['eyJ', '.', '~', '.eyJ', HEADER, CLAIMS, SIGNATURE, TOKEN, `${TOKEN}~${TOKEN}`, 'x', ' ', '-', '%3D'],
    ...['a'.repeat(9), 'a'.repeat(20), 'b'.repeat(990), 'b'.repeat(1001), `eyJ${'c'.repeat(16_001)}`],
  )
  fc.assert(
    fc.property(fc.array(piece, { maxLength: 12 }), (pieces) => {
      const text = pieces.join('')
      expect([...grantsIn(text)]).toEqual(meant(text))
    }),
    { numRuns: 500 },
  )
})

it.each([
  ['beginnings', `${'eyJ'.repeat(350_000)}.eyJ`],
  ['beginnings between dots', `eyJaaaaaaaaaa.${'eyJ'.repeat(330)}`.repeat(1000)],
  ['halves', `eyJaaaaaaaaaa.eyJ${'a'.repeat(40)}`.repeat(18_000)],
])('are looked for in a megabyte of %s without holding up whoever comes next', (_, text) => {
  const startMs = performance.now()
  expect([...grantsIn(text)]).toEqual([])
  expect(performance.now() - startMs).toBeLessThan(500)
})
