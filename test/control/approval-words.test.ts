/** What an agent writes is shown as it is, also where it cannot be seen. */
import { expect, it } from 'vitest'
import { viewOf } from '../../gateway/approval/record.ts'
import { printable } from '../../gateway/cli/log/words.ts'
import { approvalWords, visible } from '../../gateway/control/approve/approval-words.ts'
import { record } from '../approval/approval.fixture.ts'

it.each([
  ['a filler that looks like a space', '\u3164', '\\u{3164}'],
  ['a variation selector, in which text can be hidden', '\ufe01', '\\u{fe01}'],
  ['one of the supplement', '\u{e0101}', '\\u{e0101}'],
  ['a joiner of graphemes', '\u034f', '\\u{34f}'],
  ['a mark of direction', '\u202e', '\\u{202e}'],
  ['a tag', '\u{e0041}', '\\u{e0041}'],
])('%s is spelled out, on pages and at a terminal', (_, hidden, shown) => {
  expect(visible(`delete${hidden}all`)).toBe(`delete${shown}all`)
  expect(printable(`delete${hidden}all`)).toBe(`delete${shown}all`)
})

it('has no pile of marks that covers what stands above it, and leaves the marks of letters alone', () => {
  expect(visible(`a${'\u0336'.repeat(6)}`)).toBe(`a${'\u0336'.repeat(4)}\\u{336}\\u{336}`)
  for (const text of ['Tiê\u0301ng Viê\u0323t', 'न\u093c\u094d\u0902', 'ग\u094d']) expect(visible(text)).toBe(text)
})

it('has nothing in a field or a type that passes for another fact', () => {
  const { facts, ...one } = record(0)
  const view = viewOf(
    {
      ...one,
      facts: {
        ...facts,
        request: {
          ...{ service: 'notes', method: 'POST', scheme: 'https', host: '2001:db8::1', port: 8443, path: '/notes' },
          fields: [
            ['x-note', 'a; x-dry-run: true'],
            ['x-other', 'b'],
          ],
          body: { bytes: 9, sha256: 'REAL', type: 'text/plain, sha256 FAKE' },
        },
      },
    },
    0,
  )
  const page = approvalWords({ view, hindrance: undefined, proof: 'p' }, 'ana', 's')
  expect(page).toContain('<dd>POST https://[2001:db8::1]:8443/notes</dd>')
  expect(page).toContain('<dd>9 bytes, sha256 REAL, of text/plain, sha256 FAKE</dd>')
  expect(page).toContain('<dd>x-note: a; x-dry-run: true</dd>')
  expect(page).toContain('<dd>x-other: b</dd>')
})
