import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import type { ClientEvidence } from '../../gateway/protocol/identity.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { GATEWAY, NOW_S, openRoom, publicJwk, type Room, sign, signingKey } from './issuer.fixture.ts'

const CLIENT = 'billing-bot'
const AGENT = 'spiffe://acme.test/agents/billing'
const key = signingKey('ES256', 'one')
const next = signingKey('Ed25519', 'two')
const rsa = signingKey('PS256', 'rsa')
const svidKey = signingKey('ES256', 'svid')

let dir: string
let room: Room
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'kl-clients-'))
  await writeFile(join(dir, 'set.json'), JSON.stringify({ keys: [publicJwk(key), publicJwk(next)] }))
  await writeFile(join(dir, 'rsa.pem'), rsa.publicKey.export({ type: 'spki', format: 'pem' }))
  await writeFile(join(dir, 'bundle.json'), JSON.stringify({ keys: [publicJwk(svidKey, { use: 'jwt-svid' })] }))
})
afterAll(() => rm(dir, { recursive: true }))

const trust = () => ({
  issuers: [
    {
      kind: 'jwt-svid',
      trust_domain: 'acme.test',
      audience: 'https://elsewhere.test',
      jwks: { file: join(dir, 'bundle.json') },
    },
  ],
  clients: [
    { id: CLIENT, agent: AGENT, key: { file: join(dir, 'set.json') } },
    { id: 'plain', key: { file: join(dir, 'rsa.pem') }, algorithms: ['PS256'] },
  ],
})
beforeEach(() => {
  room = openRoom(trust())
})
afterEach(() => room.stop())

let counter = 0
const claims = (change: object = {}) => ({
  iss: CLIENT,
  sub: CLIENT,
  aud: GATEWAY,
  jti: `jti-${counter++}`,
  iat: NOW_S,
  exp: NOW_S + 60,
  ...change,
})
const authenticate = (token: string, more: Partial<ClientEvidence> = {}) =>
  room.identities.client({ assertion: { type: 'jwt-bearer', token }, ...more })
const refusal = (why: string) => ({ code: 'client_invalid', message: expect.stringMatching(why) })

describe('a client assertion', () => {
  it('proves the agent that settings name, with any of the keys of the client', async () => {
    const expected = { id: AGENT, kind: 'private_key_jwt', issuer: GATEWAY, attributes: {}, expiresAt: NOW_S + 60 }
    expect(await authenticate(await sign(key, claims()))).toEqual(expected)
    expect(await authenticate(await sign(next, claims()), { clientId: CLIENT })).toEqual(expected)
    const plain = await sign(rsa, claims({ iss: 'plain', sub: 'plain' }), {
      kid: 'any',
      typ: 'client-authentication+jwt',
    })
    expect(await authenticate(plain)).toMatchObject({ id: 'plain' })
  })

  it.each<[string, object, string]>([
    ['of nobody registered', { iss: 'other', sub: 'other' }, 'no client "other"'],
    ['in the name of another client', { iss: 'plain' }, 'its issuer is "plain", not "billing-bot"'],
    ['without an issuer', { iss: undefined }, 'its issuer is nothing'],
    ['without a subject', { sub: undefined }, 'no client nothing'],
    ['for the token endpoint', { aud: `${GATEWAY}/oauth/token` }, 'its audience is'],
    ['for us and another server', { aud: [GATEWAY, 'https://evil.test'] }, 'its audience is "https://evil.test"'],
    ['for another server', { aud: 'https://evil.test' }, 'its audience is'],
    ['that lives longer than five minutes', { exp: NOW_S + 301 }, 'longer than the 300 s'],
    ['that lives for ever', { exp: undefined }, 'never expires'],
    ['that expired', { iat: NOW_S - 200, exp: NOW_S - 30 }, 'it expired'],
    ['without a jti', { jti: undefined }, 'its jti'],
    ['with a jti that is no text', { jti: 7 }, 'its jti'],
    ['with an endless jti', { jti: 'x'.repeat(256) }, 'its jti'],
  ])('%s is refused', async (_what, change, why) => {
    await expect(authenticate(await sign(key, claims(change)))).rejects.toMatchObject(refusal(why))
    expect(room.seen.size).toBe(0)
  })

  it('of another key, or by an algorithm that settings do not name, is refused', async () => {
    const forged = { ...key, privateKey: generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey }
    const plain = { iss: 'plain', sub: 'plain' }
    await expect(authenticate(await sign(forged, claims()))).rejects.toMatchObject(refusal('does not verify'))
    await expect(authenticate(await sign(key, claims(plain)))).rejects.toMatchObject(refusal('algorithm is "ES256"'))
    const other = await sign({ ...rsa, alg: 'RS256' }, claims(plain))
    await expect(authenticate(other)).rejects.toMatchObject(refusal('algorithm is "RS256"'))
    expect(room.seen.size).toBe(0)
  })

  it('speaks for the client_id of the request and for no other', async () => {
    const request = authenticate(await sign(key, claims()), { clientId: 'plain' })
    await expect(request).rejects.toMatchObject(refusal('client_id is "plain"'))
  })

  it('is good for one request; two clients may choose the same jti', async () => {
    const token = await sign(key, claims({ jti: 'same' }))
    const [one, two] = await Promise.allSettled([authenticate(token), authenticate(token)])
    expect([one.status, two.status].sort()).toEqual(['fulfilled', 'rejected'])
    await expect(authenticate(token)).rejects.toMatchObject(refusal('was used before'))
    const plain = await sign(rsa, claims({ iss: 'plain', sub: 'plain', jti: 'same' }))
    expect(await authenticate(plain)).toMatchObject({ id: 'plain' })
  })

  it.each<[string, () => never, string]>([
    ['is away', () => fail(new Error('connection refused')), 'store_unavailable'],
    ['says so itself', () => fail(new GatewayError('store_unavailable', 'Redis is away.')), 'store_unavailable'],
  ])('is refused while the store %s', async (_what, once, code) => {
    room = openRoom(trust(), [], { once })
    await expect(authenticate(await sign(key, claims()))).rejects.toMatchObject({ code })
  })

  it('is kept in mind until it is over for every clock', async () => {
    const kept: number[] = []
    room = openRoom(trust(), [], { once: (_name, untilMs) => kept.push(untilMs) > 0 })
    await authenticate(await sign(key, claims()))
    expect(kept).toEqual([(NOW_S + 60 + 60) * 1000])
  })
})

describe('a JWT-SVID as assertion', () => {
  const svid = (change: object = {}) => sign(svidKey, { sub: AGENT, aud: GATEWAY, exp: NOW_S + 300, ...change })
  const present = async (token: string, clientId?: string) =>
    room.identities.client({ assertion: { type: 'jwt-spiffe', token }, ...(clientId !== undefined && { clientId }) })

  it('authenticates its workload, for the issuer as its only audience', async () => {
    expect(await present(await svid())).toMatchObject({ id: AGENT, kind: 'jwt-svid', issuer: 'acme.test' })
    expect(await present(await svid(), AGENT)).toMatchObject({ id: AGENT })
    await expect(present(await svid(), 'other')).rejects.toMatchObject(refusal('client_id is "other"'))
    const elsewhere = await svid({ aud: 'https://elsewhere.test' })
    await expect(present(elsewhere)).rejects.toMatchObject(refusal('its audience is'))
    const both = await svid({ aud: [GATEWAY, 'https://elsewhere.test'] })
    await expect(present(both)).rejects.toMatchObject(refusal('its audience is'))
  })

  it('is no private_key_jwt, and the other way round', async () => {
    await expect(authenticate(await svid())).rejects.toMatchObject(refusal('no client'))
    await expect(present(await sign(key, claims()))).rejects.toMatchObject(refusal('no issuer'))
  })
})

function fail(cause: Error): never {
  throw cause
}
