/** How long a token is believed to live, whatever its issuer says of it and however far apart the clocks are. */
import fc from 'fast-check'
import { UnsecuredJWT } from 'jose'
import { expect, test } from 'vitest'
import { tokenCredential } from '../../gateway/provider/oauth/token-credential.ts'

const server = 'https://id.acme.test'
const askedAtS = 1_800_000_000

function lifeOf(token: string, expiresInS: number): number {
  const answer = { token, type: 'bearer', expiresInS, scope: undefined }
  const credential = tokenCredential(answer, { server, askedAtS, scope: undefined, audience: [] })
  return credential.expiresAt - askedAtS
}

test('a token lives as long as its issuer says, in the answer or in the token, and the shorter counts', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 100_000 }),
      fc.integer({ min: 1, max: 100_000 }),
      fc.integer({ min: -3_600, max: 3_600 }), // by how much the issuer's clock is ahead of ours
      (expiresInS, shownS, aheadS) => {
        const iat = askedAtS + aheadS
        const token = new UnsecuredJWT({ iat, exp: iat + shownS }).encode()
        expect(lifeOf(token, expiresInS)).toBe(Math.min(expiresInS, shownS))
      },
    ),
    { numRuns: 200 },
  )
})

test('a token that says only when it ends is held to that by our clock', () => {
  expect(lifeOf(new UnsecuredJWT({ exp: askedAtS + 90 }).encode(), 3_600)).toBe(90)
})

test('an opaque token lives as long as the answer says', () => {
  expect(lifeOf('opaque', 3_600)).toBe(3_600)
})
