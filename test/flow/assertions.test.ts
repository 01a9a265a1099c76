/** Whoever knows the gateway's address can verify its assertions; none of them is a grant, and no grant is one of them. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, createRemoteJWKSet, decodeProtectedHeader, type JSONWebKeySet, jwtVerify } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createAssertions } from '../../gateway/provider/assertions.ts'
import { subjectClaims } from '../../gateway/provider/oauth/subject-claims.ts'
import { loadKeys, makeKeys, rotateAssertionKeys } from '../../gateway/settings/keys.ts'
import { grant } from '../lease/lease.fixture.ts'
import { manualClock } from '../rig/clock.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

const AUDIENCE = 'https://sts.acme.test'
const ALGORITHMS = ['ES256', 'RS256'] as const
let rig: TestGateway
let issuer: string
let keysDir: string

beforeAll(async () => {
  rig = await startGateway('public_url: https://keyless.acme.test/gw\nservices: [github]\n')
  issuer = 'https://keyless.acme.test/gw/assertions'
  keysDir = await mkdtemp(join(tmpdir(), 'keyless-ring-'))
  await makeKeys(keysDir)
})
afterAll(async () => {
  await rig?.stop()
  await rm(keysDir, { recursive: true, force: true })
})

const read = async (path: string) =>
  (await fetch(`${rig.gateway.control}${path}`)).json() as Promise<Record<string, unknown>>

const signers = (clock = manualClock()) => {
  const make = async () => createAssertions((await loadKeys(keysDir, clock)).assertions, issuer, clock)
  return { clock, make }
}

describe('what is published', () => {
  it('is metadata whose issuer is the one in assertions, at the path of public_url or without it', async () => {
    for (const path of ['/gw/assertions', '/assertions']) {
      const metadata = await read(`${path}/.well-known/openid-configuration`)
      expect(metadata).toMatchObject({
        issuer,
        jwks_uri: `${issuer}/jwks.json`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ALGORITHMS,
      })
      const { keys } = (await read(`${path}/jwks.json`)) as unknown as JSONWebKeySet
      expect(keys.map(({ alg, use }) => [alg, use])).toEqual(ALGORITHMS.map((alg) => [alg, 'sig']))
    }
  })

  it('has no private half of a key', async () => {
    const { keys } = (await read('/assertions/jwks.json')) as unknown as JSONWebKeySet
    const members = keys.flatMap((key) => Object.keys(key))
    expect(new Set(members)).toEqual(new Set(['kty', 'crv', 'x', 'y', 'e', 'n', 'kid', 'alg', 'use']))
  })
})

describe('keys that are changed', () => {
  it('are published an hour before they sign, and verify until what they signed has expired', async () => {
    const { clock, make } = signers()
    const assertions = await make()
    const sign = async () =>
      (await assertions.sign({}, { audience: AUDIENCE, lifeS: 600, algorithm: 'ES256' })).reveal()
    const kids = async () =>
      (await assertions.jwks()).keys
        .map((key) => key as { kid: string; alg: string })
        .filter(({ alg }) => alg === 'ES256')
        .map(({ kid }) => kid)
    const [old] = await kids()
    await rotateAssertionKeys(keysDir, Math.floor(clock.nowMs() / 1000))
    clock.advance(60_000)
    const [, next] = await kids()
    expect(next).toBeDefined()
    expect(decodeProtectedHeader(await sign()).kid).toBe(old)
    clock.advance(3_540_000)
    const last = await sign()
    expect(decodeProtectedHeader(last).kid).toBe(next)
    expect(await kids()).toEqual([next, old])
    clock.advance(659_000)
    expect(await kids()).toEqual([next, old])
    clock.advance(1_000)
    expect(await kids()).toEqual([next])
  })

  it('never leave a moment in which a fresh assertion does not verify, at any replica', async () => {
    const { clock, make } = signers()
    const replicas = await Promise.all([make(), make()])
    for (let minute = 0; minute < 200; minute += 10) {
      if (minute % 70 === 0) await rotateAssertionKeys(keysDir, Math.floor(clock.nowMs() / 1000))
      // Another party keeps what it read for half an hour.
      const kept = createLocalJWKSet((await (replicas[0] as (typeof replicas)[0]).jwks()) as JSONWebKeySet)
      clock.advance(300_000)
      for (const replica of replicas) {
        const token = (await replica.sign({}, { audience: AUDIENCE, lifeS: 60 })).reveal()
        await jwtVerify(token, kept, { issuer, audience: AUDIENCE, currentDate: new Date(clock.nowMs()) })
      }
      clock.advance(300_000)
    }
  })
})

describe('an assertion and a grant', () => {
  const assertion = (algorithm: 'ES256' | 'RS256') =>
    (rig.gateway.house.assertions as ReturnType<typeof createAssertions>).sign(
      { ...subjectClaims(grant()), typ: 'at+jwt', ver: 'lg/1' },
      { audience: issuer, lifeS: 60, algorithm },
    )
  const verifying = () => createRemoteJWKSet(new URL(`${rig.gateway.control}/assertions/jwks.json`))

  it.each(ALGORITHMS)('are verified each by its own keys alone (%s)', async (algorithm) => {
    const token = (await assertion(algorithm)).reveal()
    const { payload } = await jwtVerify(token, verifying(), { issuer, audience: issuer, typ: 'JWT' })
    expect(payload).toMatchObject({ iss: issuer, sub: 'ana', act: { sub: 'spiffe://test/agent' } })
    const ofGrants = createRemoteJWKSet(new URL(`${rig.gateway.control}/.well-known/jwks.json`))
    await expect(jwtVerify(token, ofGrants)).rejects.toThrow()
  })

  it.each(ALGORITHMS)('an assertion calls nothing (%s)', async (algorithm) => {
    const token = (await assertion(algorithm)).reveal()
    await expect(
      rig.gateway.house.grants.authenticate({ presented: { token, scheme: 'bearer' }, tenant: 'default' } as never),
    ).rejects.toMatchObject({
      code: 'grant_invalid',
    })
  })

  it('a grant asserts nothing', async () => {
    const { token } = await rig.openTask('github:*')
    const ofGrants = createRemoteJWKSet(new URL(`${rig.gateway.control}/.well-known/jwks.json`))
    await expect(jwtVerify(token, ofGrants)).resolves.toBeDefined() // it is a good one
    await expect(jwtVerify(token, verifying())).rejects.toThrow()
  })
})
