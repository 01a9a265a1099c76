/** Texts that are nearly right: seeds, and what a hostile hand does to them. Shrinks towards the seed. */
import fc from 'fast-check'

/** Pieces that some reader treats in a way of its own. */
const PIECES = [
  ...[
    '/',
    '//',
    '/.',
    '/..',
    '/../',
    '.',
    '..',
    '%2e',
    '%2E%2e',
    '%2f',
    '%2F',
    '%5c',
    '\\',
    ';',
    '%3b',
    '?',
    '#',
    '%',
    '%25',
    '%252e',
    '%00',
    '\0',
  ],
  ...[
    '\r\n',
    '\n',
    '\r',
    '\t',
    '\v',
    '\f',
    ' ',
    '%0d%0a',
    '%c0%ae',
    '%e0%80%af',
    '%ef%bc%8f',
    '%u002f',
    '\xe9',
    '\uff0f',
    '\u2024',
    '\ud800',
    '\u017f',
  ],
  ...[
    ':',
    '::',
    '@',
    'u:p@',
    ':443',
    ':0',
    ':99999',
    '[',
    ']',
    '[::1]',
    '%25eth0',
    '127.1',
    '0x7f',
    '0177',
    '.',
    '-',
    ',',
    'xn--',
    '_',
    '=',
    '&',
    '"',
    "'",
  ],
  ...[
    'chunked',
    'gzip',
    'close',
    'keep-alive',
    'trailers',
    'websocket',
    'h2c',
    '__proto__',
    'constructor',
    '+',
    '0',
    '5',
    'e',
  ],
] as const

type Edit = (text: string) => string

const place = fc.nat(1_000)
const cutAt = (text: string, n: number) => (text.length === 0 ? 0 : n % (text.length + 1))

const edits: fc.Arbitrary<Edit> = fc.oneof(
  fc.tuple(place, fc.constantFrom(...PIECES)).map(
    ([n, piece]): Edit =>
      (text) => {
        const at = cutAt(text, n)
        return text.slice(0, at) + piece + text.slice(at)
      },
  ),
  fc.tuple(place, fc.nat(4)).map(
    ([n, count]): Edit =>
      (text) => {
        const at = cutAt(text, n)
        return text.slice(0, at) + text.slice(at + count)
      },
  ),
  fc.tuple(place, fc.nat(20)).map(
    ([n, count]): Edit =>
      (text) => {
        const at = cutAt(text, n)
        return text.slice(0, at + count) + text.slice(at)
      },
  ),
  fc.tuple(place, fc.nat(0xff)).map(
    ([n, code]): Edit =>
      (text) => {
        const at = cutAt(text, n)
        return text.slice(0, at) + String.fromCharCode(code) + text.slice(at + 1)
      },
  ),
  place.map(
    (n): Edit =>
      (text) => {
        const at = cutAt(text, n)
        const code = text.charCodeAt(at)
        if (Number.isNaN(code)) return text
        return `${text.slice(0, at)}%${(code & 0xff).toString(16).padStart(2, '0')}${text.slice(at + 1)}`
      },
  ),
  place.map(
    (n): Edit =>
      (text) => {
        const at = cutAt(text, n)
        const letter = text.charAt(at)
        const other = letter === letter.toLowerCase() ? letter.toUpperCase() : letter.toLowerCase()
        return text.slice(0, at) + other + text.slice(at + 1)
      },
  ),
)

export function nearly(seeds: readonly string[], maxEdits = 5): fc.Arbitrary<string> {
  return fc
    .tuple(fc.constantFrom(...seeds), fc.array(edits, { maxLength: maxEdits }))
    .map(([seed, changes]) => changes.reduce((text, change) => change(text), seed))
}
