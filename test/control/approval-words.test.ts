/** What an agent writes is shown as it is, also where it cannot be seen. */
import { expect, it } from 'vitest'
import { printable } from '../../gateway/cli/log/words.ts'
import { visible } from '../../gateway/control/approve/approval-words.ts'

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
