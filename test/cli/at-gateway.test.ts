/** What every command says of a refusal. */
import { expect, it, vi } from 'vitest'
import { EXIT, refused } from '../../gateway/cli/at-gateway.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'

it('cannot steer the terminal of whoever decides by what an agent wrote', () => {
  const written = vi.spyOn(process.stderr, 'write').mockReturnValue(true)
  try {
    const detail = 'No rule lets\nana grant “\u001b]0;granted\u0007\u202enaem\u202c”.'
    expect(refused(new GatewayError('policy_denied', detail))).toBe(EXIT.refused)
    expect(written.mock.calls).toEqual([
      ['keyless: No rule lets\nana grant “\\u{1b}]0;granted\\u{7}\\u{202e}naem\\u{202c}”. (policy_denied)\n'],
    ])
  } finally {
    written.mockRestore()
  }
})
