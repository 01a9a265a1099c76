/** JWTs that the gateway signs with a key of the service's: verified as their services verify them. */
import { createPublicKey, createSecretKey, generateKeyPairSync, hash, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { jwtVerify } from 'jose'
import { afterAll, describe, expect, test } from 'vitest'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { keptKey } from '../../gateway/provider/jwt-key.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { fakeClock, grant, service } from '../lease/lease.fixture.ts'
import { pem } from './authorization-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-jwt-'))
const p256 = generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey
const rsa = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
const ed = generateKeyPairSync('ed25519').privateKey
const shared = randomBytes(32)
for (const [name, text] of [
  ['p256', pem(p256)],
  ['rsa', pem(rsa)],
  ['ed', JSON.stringify(ed.export({ format: 'jwk' }))],
  ['hex', shared.toString('hex')],
  ['short', 'canary-short'],
] as const)
  writeFileSync(join(dir, name), text)
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const jwt = (o: Record<string, unknown> = {}, clock = fakeClock(Date.now())): Provider =>
  createProvider(
    credentialSchema.parse({ provider: 'jwt', key: { file: 'p256' }, alg: 'ES256', kid: 'K1', ...o }),
    providerTools(dir, { clock }),
  )
const issue = (from: Provider, ttlS = 900): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS, role: undefined }, new AbortController().signal)

providerConformance('jwt', () => ({
  working: () => jwt({ lifetime_s: 300 }),
  isEphemeral: true,
  lifeS: 300,
  wider: () => [
    ['another key', jwt({ key: { file: 'rsa' } })],
    ['another claim', jwt({ claims: { scope: 'all' } })],
    ['another issuer', jwt({ claims: { iss: 'other' } })],
    ['another key id', jwt({ kid: 'K2' })],
    ['a longer life', jwt({ lifetime_s: 900 })],
  ],
  failing: () => [
    ['no key', 'credential_unconfigured', jwt({ key: { file: 'none' } })],
    ['a key of another kind', 'credential_unconfigured', jwt({ key: { file: 'rsa' } })],
    ['no key at all', 'credential_unconfigured', jwt({ key: { file: 'short' } })],
    ['a secret that is too short', 'credential_unconfigured', jwt({ key: { file: 'short' }, alg: 'HS256' })],
  ],
  hanging: () => jwt({ key: { exec: ['sleep', '30'] } }),
  secrets: () => [pem(p256), pem(rsa), shared.toString('hex'), 'canary-short'],
}))

describe('a private key', () => {
  test('is read once for as long as its text is the same, for each of the settings that refer to it', () => {
    let reads = 0
    const read = () => {
      reads += 1
      return { reads }
    }
    const [one, two] = [{}, {}]
    const first = keptKey(one, 'text', read)
    expect(keptKey(one, 'text', read)).toBe(first)
    expect(reads).toBe(1)
    expect(keptKey(two, 'text', read)).not.toBe(first)
    expect(keptKey(one, 'other', read)).not.toBe(first)
    expect(keptKey(one, 'text', read)).not.toBe(first)
    expect(reads).toBe(4)
    const unreadable = () => keptKey(one, 'wrong', () => JSON.parse('wrong'))
    expect(unreadable).toThrow()
    expect(unreadable).toThrow() // and is not remembered as anything
  })

  test('that is changed in its file signs the next token', async () => {
    const [before, after] = [p256, generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey]
    const provider = jwt({ key: { file: 'changing' } })
    for (const key of [before, after]) {
      writeFileSync(join(dir, 'changing'), pem(key))
      for (let i = 0; i < 2; i += 1) {
        const { secret } = await issue(provider)
        await expect(jwtVerify(secret.reveal(), createPublicKey(key))).resolves.toBeDefined()
      }
    }
  })
})

describe('as the documentation of its service wants it', () => {
  test('App Store Connect: ES256, key id, issuer, audience, at most 20 minutes', async () => {
    const claims = { iss: '57246542-96fe-1a63-e053-0824d011072a', aud: 'appstoreconnect-v1', scope: ['GET /v1/apps'] }
    const { secret } = await issue(jwt({ kid: '2X9R4HXF34', lifetime_s: 600, claims }))
    const { payload, protectedHeader } = await jwtVerify(secret.reveal(), createPublicKey(p256), {
      issuer: claims.iss,
      audience: claims.aud,
      maxTokenAge: '20m',
    })
    expect(protectedHeader).toEqual({ alg: 'ES256', kid: '2X9R4HXF34', typ: 'JWT' })
    expect(payload).toMatchObject(claims)
    expect((payload.exp ?? 0) - (payload.iat ?? 0)).toBe(600)
  })

  test('Snowflake: the fingerprint of the public key in the issuer', async () => {
    const fingerprint = hash('sha256', createPublicKey(rsa).export({ type: 'spki', format: 'der' }), 'base64')
    const claims = { iss: `ORG-ACCT.AGENT.SHA256:${fingerprint}`, sub: 'ORG-ACCT.AGENT' }
    const { secret } = await issue(jwt({ key: { file: 'rsa' }, alg: 'RS256', kid: undefined, claims }))
    const { payload, protectedHeader } = await jwtVerify(secret.reveal(), createPublicKey(rsa))
    expect(protectedHeader).toEqual({ alg: 'RS256', typ: 'JWT' })
    expect(payload).toMatchObject(claims)
  })

  test('a clock that is behind: issued a minute ago, and no longer for it', async () => {
    const clock = fakeClock(1_800_000_000_000)
    const { secret, expiresAt } = await issue(jwt({ backdate_s: 60, lifetime_s: 540 }, clock))
    const currentDate = new Date(clock.nowMs() - 60_000)
    const { payload } = await jwtVerify(secret.reveal(), createPublicKey(p256), { currentDate })
    expect(payload).toMatchObject({ iat: 1_799_999_940, exp: 1_800_000_540 })
    expect(expiresAt).toBe(payload.exp)
  })

  test('a shared secret in hex', async () => {
    const { secret } = await issue(
      jwt({ key: { file: 'hex' }, key_encoding: 'hex', alg: 'HS256', claims: { aud: '/admin/' } }),
    )
    await jwtVerify(secret.reveal(), createSecretKey(shared), { audience: '/admin/' })
  })

  test('Ed25519 as JWK, with a header member of the service', async () => {
    const { secret } = await issue(jwt({ key: { file: 'ed' }, alg: 'EdDSA', typ: 'at+jwt', header: { cty: 'x;v=1' } }))
    const { protectedHeader } = await jwtVerify(secret.reveal(), createPublicKey(ed))
    expect(protectedHeader).toEqual({ alg: 'EdDSA', kid: 'K1', typ: 'at+jwt', cty: 'x;v=1' })
  })
})

test('human, agent and task stand where settings say, and a grant that ends soon has a token that does', async () => {
  const claims = {
    sub: '{human}',
    act: 'x',
    jti: '{jti}',
    note: '{agent}|{task}',
    list: ['{tenant}', 'a'],
    n: 7,
    b: true,
  }
  const { secret, expiresAt } = await issue(jwt({ claims, lifetime_s: 3540 }), 90)
  const { payload } = await jwtVerify(secret.reveal(), createPublicKey(p256))
  expect(payload).toMatchObject({
    sub: 'ana',
    note: 'spiffe%3A%2F%2Ftest%2Fagent|task-1',
    list: ['default', 'a'],
    n: 7,
    b: true,
  })
  expect(payload.jti).toMatch(/^[0-9a-f-]{36}$/)
  expect(expiresAt - (payload.iat ?? 0)).toBe(90)
})

test.each([
  ['a life of an hour', { lifetime_s: 3600 }],
  ['another algorithm than those', { alg: 'none' }],
  ['no algorithm', { alg: undefined }],
  ['an end of its own', { claims: { exp: 9_999_999_999 } }],
  ['a header that brings its key', { header: { jku: 'https://evil.test' } }],
  ['a place that there is not', { claims: { sub: '{secret}' } }],
])('refuses %s in settings', (_what, o) => {
  expect(() => jwt(o)).toThrow()
})

test('no message describes a key', async () => {
  for (const o of [{ key: { file: 'rsa' } }, { alg: 'RS256' }, { key: { file: 'short' } }]) {
    const error: GatewayError = await issue(jwt(o)).then(
      () => Promise.reject(new Error('issued')),
      (cause) => cause,
    )
    expect(`${error.stack}${error.cause}`).not.toMatch(/BEGIN|canary/)
  }
})
