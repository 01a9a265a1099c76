/** RFC 9449 §4.3, one by one. That a proof is good once at all replicas together: `replay.test.ts`. */
import { createHash, createSecretKey, generateKeyPairSync, randomBytes } from 'node:crypto'
import fc from 'fast-check'
import { calculateJwkThumbprint } from 'jose'
import * as oauth from 'oauth4webapi'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { type Alg, NOW_S, openRoom, type Room, type SigningKey, sign, signingKey } from './issuer.fixture.ts'

const URL_ = 'https://keyless.acme.test/oauth/token'
const request = { method: 'POST', url: URL_ }
const key = signingKey('ES256')
const jwkOf = ({ publicKey }: SigningKey) => publicKey.export({ format: 'jwk' })

let room: Room
beforeEach(() => {
  room = openRoom({})
})
afterEach(() => room.stop())

let counter = 0
const claims = (change: object = {}) => ({
  jti: `jti-${counter++}`,
  htm: 'POST',
  htu: URL_,
  iat: NOW_S,
  nonce: room.identities.nonce(),
  ...change,
})
const proofOf = (change: object = {}, header: object = {}, by = key) =>
  sign(by, claims(change), { typ: 'dpop+jwt', kid: undefined, jwk: jwkOf(by), ...header })
const prove = async (proof: string, about: { method: string; url: string; accessToken?: string } = request) =>
  room.identities.proof(proof, about)
const refusal = (why: string) => ({ code: 'dpop_invalid', message: expect.stringMatching(why) })

describe('a DPoP proof', () => {
  it.each<Alg>(['ES256', 'ES384', 'Ed25519', 'RS256', 'PS256'])('by %s proves its key', async (alg) => {
    const by = signingKey(alg)
    const thumbprint = await calculateJwkThumbprint(jwkOf(by) as Parameters<typeof calculateJwkThumbprint>[0])
    expect(await prove(await proofOf({}, {}, by))).toEqual({ jkt: thumbprint })
  })

  it('as an independent client makes it is accepted, at the token endpoint and beside a token', async () => {
    room = openRoom({}, [], { clock: systemClock })
    const keys = await crypto.subtle.generateKey({ name: 'ECDSA', namedCurve: 'P-256' }, false, ['sign', 'verify'])
    const dpop = oauth.DPoP({}, keys)
    const api = new URL('https://keyless.acme.test/tasks/1/heartbeat?x=1')
    const proofs: string[] = []
    const send = () =>
      oauth.protectedResourceRequest('the-token', 'POST', api, undefined, undefined, {
        DPoP: dpop,
        [oauth.customFetch]: async (_url: string, init: { headers: Record<string, string> }) => {
          proofs.push(init.headers.dpop ?? '')
          const headers = { 'dpop-nonce': room.identities.nonce(), 'www-authenticate': 'DPoP error="use_dpop_nonce"' }
          return new Response(null, { status: 401, headers })
        },
      })
    const about = { method: 'POST', url: 'https://keyless.acme.test/tasks/1/heartbeat', accessToken: 'the-token' }
    await send().catch(() => undefined)
    await expect(prove(proofs[0] ?? '', about)).rejects.toMatchObject({ code: 'dpop_nonce_required' })
    await send().catch(() => undefined)
    expect(await prove(proofs[1] ?? '', about)).toEqual({ jkt: await dpop.calculateThumbprint() })
  })

  const other = signingKey('ES256')
  const rsa = signingKey('RS256')
  it.each<[string, object, object, string]>([
    ['of another type', {}, { typ: 'JWT' }, 'its type is "JWT"'],
    ['without a type', {}, { typ: undefined }, 'its type is nothing'],
    ['without a key', {}, { jwk: undefined }, 'its jwk is not a public key'],
    ['with a key by name', {}, { kid: 'x' }, 'its header has "kid"'],
    ['with a header that nobody knows', {}, { jku: 'https://evil.test' }, 'its header has "jku"'],
    [
      'with the private key in it',
      {},
      { jwk: key.privateKey.export({ format: 'jwk' }) },
      'its jwk is not a public key',
    ],
    ['with a shared secret in it', {}, { jwk: { kty: 'oct', k: 'AAAA' } }, 'its jwk is not a public key'],
    ['with a key of another type', {}, { jwk: jwkOf(rsa) }, 'its jwk is not a public key for ES256'],
    ['with a key that did not sign', {}, { jwk: jwkOf(other) }, 'signature does not verify'],
    ['without a jti', { jti: undefined }, {}, 'its jti'],
    ['with an endless jti', { jti: 'x'.repeat(256) }, {}, 'its jti'],
    ['for another method', { htm: 'GET' }, {}, 'for the method "GET", not POST'],
    ['for a method in another case', { htm: 'post' }, {}, 'for the method "post"'],
    ['without a method', { htm: undefined }, {}, 'for the method nothing'],
    ['for another path', { htu: `${URL_}/x` }, {}, 'it is for'],
    ['for another host', { htu: 'https://evil.test/oauth/token' }, {}, 'it is for'],
    ['for another port', { htu: 'https://keyless.acme.test:8443/oauth/token' }, {}, 'it is for'],
    ['for cleartext', { htu: 'http://keyless.acme.test/oauth/token' }, {}, 'it is for'],
    ['for a URL with a user', { htu: 'https://a@keyless.acme.test/oauth/token' }, {}, 'it is for'],
    ['for no URL', { htu: '/oauth/token' }, {}, 'it is for'],
    ['for a list of URLs', { htu: [URL_] }, {}, 'it is for'],
    ['without a time', { iat: undefined }, {}, 'its iat'],
    ['with a time in words', { iat: 'now' }, {}, 'its iat'],
    ['made too long ago', { iat: NOW_S - 90 }, {}, 'it expired'],
    ['made in the future', { iat: NOW_S + 31 }, {}, 'issued 31 s from now'],
    ['that says itself that it is over', { exp: NOW_S - 31 }, {}, 'it expired'],
    ['with the hash of a token that is not there', { ath: 'x' }, {}, 'its ath'],
  ])('%s is refused, and uses nothing up', async (_what, change, header, why) => {
    await expect(prove(await proofOf(change, header))).rejects.toMatchObject(refusal(why))
    expect(room.seen.size).toBe(0)
  })

  it.each(['none', 'HS256', 'EdDSA', 'RS1', 'ES256K'])('by %s is refused', async (alg) => {
    const encode = (value: unknown) => Buffer.from(JSON.stringify(value)).toString('base64url')
    const proof = `${encode({ typ: 'dpop+jwt', alg, jwk: jwkOf(key) })}.${encode(claims())}.AAAA`
    await expect(prove(proof)).rejects.toMatchObject(refusal('its algorithm is'))
  })

  it('by an RSA key that is cheap to break or dear to verify is refused', async () => {
    for (const modulusLength of [1024, 8192]) {
      const jwk = { kty: 'RSA', e: 'AQAB', n: Buffer.alloc(modulusLength / 8, 0xc5).toString('base64url') }
      const proof = await proofOf({}, { jwk, alg: 'RS256' }, rsa)
      await expect(prove(proof)).rejects.toMatchObject(refusal('its jwk is not a public key'))
    }
  })

  it('is about a URL however it is spelled, query and fragment aside', async () => {
    for (const htu of ['HTTPS://KEYLESS.acme.test/oauth/token', 'https://keyless.acme.test:443/oauth/token?a=1#b'])
      expect(await prove(await proofOf({ htu }))).toHaveProperty('jkt')
  })

  it('about no URL is for no endpoint, not even for one that is misconfigured', async () => {
    for (const htu of [undefined, '/oauth/token', 'https://a:b@x'])
      await expect(prove(await proofOf({ htu }), { method: 'POST', url: '/oauth/token' })).rejects.toMatchObject(
        refusal('it is for'),
      )
  })

  it('beside a token is bound to that token', async () => {
    const ath = createHash('sha256').update('token').digest('base64url')
    expect(await prove(await proofOf({ ath }), { ...request, accessToken: 'token' })).toHaveProperty('jkt')
    for (const change of [{}, { ath: createHash('sha256').update('other').digest('base64url') }, { ath: 7 }])
      await expect(prove(await proofOf(change), { ...request, accessToken: 'token' })).rejects.toMatchObject(
        refusal('its ath'),
      )
  })

  it('of which any byte is changed is none', async () => {
    const proof = await proofOf()
    await fc.assert(
      fc.asyncProperty(fc.nat(proof.length - 1), fc.constantFrom(...'AZaz09-_.='), async (at, letter) => {
        const altered = proof.slice(0, at) + letter + proof.slice(at + 1)
        fc.pre(altered !== proof)
        await expect(prove(altered)).rejects.toMatchObject({ code: 'dpop_invalid' })
      }),
      { numRuns: 500 },
    )
    expect(await prove(proof)).toHaveProperty('jkt')
  })
})

describe('a nonce', () => {
  it('is asked for, and one that was made up is none', async () => {
    for (const nonce of [undefined, '', 'made up', 7, 'A'.repeat(24)])
      await expect(prove(await proofOf({ nonce }))).rejects.toMatchObject({ code: 'dpop_nonce_required' })
    expect(room.seen.size).toBe(0)
  })

  it('is not owed to a proof that is not valid otherwise', async () => {
    const forged = { ...key, privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }
    const jwk = jwkOf(key)
    await expect(prove(await proofOf({ nonce: undefined }, { jwk }, forged))).rejects.toMatchObject(refusal('verify'))
  })

  it('is good for one to two minutes', async () => {
    const nonce = room.identities.nonce()
    room.clock.advance(119_000)
    expect(await prove(await proofOf({ nonce, iat: NOW_S + 119 }))).toHaveProperty('jkt')
    room.clock.advance(1_000)
    const late = await proofOf({ nonce, iat: NOW_S + 120 })
    await expect(prove(late)).rejects.toMatchObject({ code: 'dpop_nonce_required' })
  })

  it('of one replica is known to the others, also when its clock is ahead, and to nobody with another key', async () => {
    const nonceKey = createSecretKey(randomBytes(32))
    const ahead = openRoom({}, [], { nonceKey })
    ahead.clock.advance(30_000)
    const stranger = openRoom({})
    room = openRoom({}, [], { nonceKey })
    expect(await prove(await proofOf({ nonce: ahead.identities.nonce() }))).toHaveProperty('jkt')
    const foreign = await proofOf({ nonce: stranger.identities.nonce() })
    await expect(prove(foreign)).rejects.toMatchObject({ code: 'dpop_nonce_required' })
    await Promise.all([ahead.stop(), stranger.stop()])
  })
})
