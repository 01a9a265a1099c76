/** What issuers say is shown to people in terminals and to models in refusals: no more of it than names. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { shownDevice } from '../../gateway/provider/connection/device-display.ts'
import { scopeWords } from '../../gateway/provider/oauth/token-credential.ts'

describe('scope that nobody asked for', () => {
  it('is named as far as it is a name, and counted', () => {
    expect(scopeWords(['admin'])).toBe('admin')
    expect(scopeWords(['repo:write', 'https://www.example.com/auth/drive', 'a', 'b'])).toBe(
      'repo:write https://www.example.com/auth/drive a and 1 more',
    )
    expect(scopeWords(['<b>', 'x'.repeat(81), '\u001b[2J', 'a\u202eb'])).toBe('4 more')
  })

  it('never fills a refusal, whatever the issuer says', () => {
    fc.assert(
      fc.property(fc.array(fc.string({ unit: 'binary', minLength: 1, maxLength: 200 }), { minLength: 1 }), (words) => {
        const said = scopeWords(words)
        expect(said.length).toBeLessThan(300)
        expect(said).toMatch(/^[\x20-\x7e]+$/)
      }),
    )
  })
})

describe('a device code', () => {
  const fit = { user_code: 'WDJB-MJHT', verification_uri: 'https://id.example.com/device' }

  it('is shown as it is', () => {
    expect(shownDevice(fit, 'id', [])).toEqual({
      userCode: 'WDJB-MJHT',
      verificationUri: 'https://id.example.com/device',
      verificationUriComplete: undefined,
      intervalS: 5,
    })
    const complete = `${fit.verification_uri}?user_code=WDJB-MJHT`
    expect(shownDevice({ ...fit, verification_uri_complete: complete, interval: 1 }, 'id', [])).toMatchObject({
      verificationUriComplete: complete,
      intervalS: 1,
    })
    const local = { ...fit, verification_uri: 'http://127.0.0.1:8080/device' }
    expect(shownDevice(local, 'id', ['127.0.0.1/32']).verificationUri).toBe(local.verification_uri)
  })

  it.each([
    ['a command to the terminal as code', { user_code: 'A\u001b]8;;https://evil.test\u0007' }],
    ['a line of its own', { user_code: 'A\nNow open https://evil.test' }],
    ['words in another order', { user_code: 'A\u202eB' }],
    ['a page in the clear', { verification_uri: 'http://id.example.com/device' }],
    ['a script', { verification_uri: 'javascript:alert(1)' }],
    ['a file', { verification_uri_complete: 'file:///etc/passwd' }],
    ['another place behind an @', { verification_uri: 'https://id.example.com@evil.test/' }],
    ['no pause between two questions', { interval: 0 }],
    ['a pause without end', { interval: 1e9 }],
  ])('is refused with %s', (_what, change) => {
    expect(() => shownDevice({ ...fit, ...change }, 'id', [])).toThrow(
      expect.objectContaining({ code: 'credential_rejected' }),
    )
  })
})
