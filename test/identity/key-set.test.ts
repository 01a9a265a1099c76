import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createKeySet, download, parseKeys, readKeys } from '../../gateway/identity/key-set.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createUpstream } from '../../gateway/upstream/forward.ts'
import { manualClock } from '../rig/clock.ts'
import { ISSUER_HOST, type Issuer, LOOPBACK, publicJwk, signingKey, startIssuer } from './issuer.fixture.ts'

const closing: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

const first = signingKey('ES256', 'first')
const second = signingKey('ES256', 'second')

async function open(addresses: readonly string[] = LOOPBACK, uri?: string) {
  const issuer = await startIssuer(first)
  const upstream = createUpstream({
    connectTimeoutMs: 1_000,
    headersTimeoutMs: 1_000,
    bodyTimeoutMs: 1_000,
    ca: [issuer.ca],
    hosts: new Map([[ISSUER_HOST, '127.0.0.1']]),
    clock: systemClock,
  })
  closing.push(issuer.stop, upstream.close)
  const clock = manualClock()
  const load = download(uri ?? issuer.jwksUri, upstream.fetchFor(addresses))
  return { issuer, clock, keys: createKeySet({ load, use: 'sig', clock }) }
}

const broken = (issuer: Issuer): void => {
  issuer.answer = (_request, response) => response.writeHead(500).end()
}

describe('the pace of questions to an issuer', () => {
  it('is one for many callers at once, and none while the set is fresh', async () => {
    const { issuer, clock, keys } = await open()
    const found = await Promise.all(Array.from({ length: 50 }, () => keys.find('first', 'ES256')))
    expect(found.every((key) => key?.equals(first.publicKey))).toBe(true)
    clock.advance(599_999)
    await keys.find('first', 'ES256')
    expect(issuer.requests()).toBe(1)
    clock.advance(1)
    await keys.find('first', 'ES256')
    expect(issuer.requests()).toBe(2)
  })

  it('is at most one in 30 seconds, however many unknown kids strangers make up', async () => {
    const { issuer, clock, keys } = await open()
    for (let seconds = 0; seconds < 300; seconds++) {
      const asked = Array.from({ length: 20 }, (_, n) => keys.find(`made-up-${seconds}-${n}`, 'ES256'))
      expect(new Set(await Promise.all(asked))).toEqual(new Set([undefined]))
      clock.advance(1_000)
    }
    expect(issuer.requests()).toBe(10)
  })

  it('is at most one in 5 seconds while the issuer has never answered', async () => {
    const { issuer, clock, keys } = await open()
    broken(issuer)
    for (let seconds = 0; seconds < 60; seconds++) {
      await expect(keys.find('first', 'ES256')).rejects.toThrow('it answered 500')
      clock.advance(1_000)
    }
    expect(issuer.requests()).toBe(12)
    issuer.answer = undefined
    expect(await keys.find('first', 'ES256')).toBeDefined()
  })
})

describe('rotation at the issuer', () => {
  it('is noticed by the first token of the new key, and the old key ends with the old set', async () => {
    const { issuer, clock, keys } = await open()
    await keys.find('first', 'ES256')
    issuer.keys = [publicJwk(first), publicJwk(second)]
    expect(await keys.find('second', 'ES256')).toBeUndefined() // within the cooldown
    clock.advance(30_000)
    expect((await keys.find('second', 'ES256'))?.equals(second.publicKey)).toBe(true)
    issuer.keys = [publicJwk(second)]
    clock.advance(599_999)
    expect(await keys.find('first', 'ES256')).toBeDefined()
    clock.advance(1)
    expect(await keys.find('first', 'ES256')).toBeUndefined()
  })

  it('to nothing at all leaves nobody', async () => {
    const { issuer, clock, keys } = await open()
    await keys.find('first', 'ES256')
    issuer.keys = []
    clock.advance(600_000)
    expect(await keys.find('first', 'ES256')).toBeUndefined()
  })
})

describe('an issuer that does not answer', () => {
  it('is covered by the set it gave last for one hour, and no longer', async () => {
    const { issuer, clock, keys } = await open()
    await keys.find('first', 'ES256')
    broken(issuer)
    clock.advance(3_599_999)
    expect(await keys.find('first', 'ES256')).toBeDefined()
    clock.advance(1)
    await expect(keys.find('first', 'ES256')).rejects.toThrow('it answered 500')
  })

  it('keeps nobody waiting whose key is known', async () => {
    const { issuer, clock, keys } = await open()
    await keys.find('first', 'ES256')
    broken(issuer)
    clock.advance(600_000)
    await keys.find('first', 'ES256') // the first to find out
    const { promise: asked, resolve } = Promise.withResolvers<void>()
    issuer.answer = () => resolve() // and never says a word
    clock.advance(5_000)
    expect(await keys.find('first', 'ES256')).toBeDefined()
    await asked
    expect(await keys.find('first', 'ES256')).toBeDefined()
    expect(issuer.requests()).toBe(3)
  })

  it('has 64 tokens wait while it takes its time, and sends the others away at once', async () => {
    const { issuer, clock, keys } = await open()
    await keys.find('first', 'ES256')
    clock.advance(30_000)
    const { promise: asked, resolve } = Promise.withResolvers<() => void>()
    const { answer } = issuer
    issuer.answer = (request, response) => resolve(() => answer?.(request, response))
    const waiting = Array.from({ length: 64 }, (_, n) => keys.find(`made-up-${n}`, 'ES256'))
    await expect(keys.find('one-more', 'ES256')).rejects.toThrow('many wait')
    expect(await keys.find('first', 'ES256')).toBeDefined()
    const go = await asked
    go()
    await Promise.all(waiting)
    expect(await keys.find('one-more', 'ES256')).toBeUndefined()
    expect(issuer.requests()).toBe(2)
  })

  it.each<[string, NonNullable<Issuer['answer']>, RegExp]>([
    ['a redirect', (_, response) => response.writeHead(302, { location: 'https://elsewhere.test/jwks' }).end(), /./],
    ['more than 512 KiB', (_, response) => response.end(`{"keys":[${' '.repeat(512 * 1024)}]}`), /complete|524288/],
    ['no JSON', (_, response) => response.end('<html>'), /does not hold JSON/],
    ['a key twice in one object', (_, response) => response.end('{"keys":[],"keys":[]}'), /does not hold JSON/],
    ['a list that holds no keys', (_, response) => response.end('{"keys":["a"]}'), /does not hold a JWK Set/],
    ['another status', (_, response) => response.writeHead(404).end('{"keys":[]}'), /it answered 404/],
    ['too many keys', (_, response) => response.end(JSON.stringify({ keys: Array(65).fill({ kty: 'oct' }) })), /64/],
  ])('or answers with %s has no keys', async (_what, answer, why) => {
    const { issuer, keys } = await open()
    issuer.answer = answer
    await expect(keys.find('first', 'ES256')).rejects.toThrow(why)
    expect(issuer.requests()).toBe(1)
  })
})

describe('the address of an issuer', () => {
  it('that is private is dialled only when settings name its range', async () => {
    const { issuer, keys } = await open([])
    await expect(keys.find('first', 'ES256')).rejects.toMatchObject({ code: 'address_forbidden' })
    expect(issuer.requests()).toBe(0)
  })

  it.each(['https://169.254.169.254/latest', 'https://[fd00:ec2::254]/keys'])(
    'is never that of a metadata service, whatever settings say: %s',
    async (uri) => {
      const { keys } = await open(['0.0.0.0/0', '::/0'], uri)
      await expect(keys.find('first', 'ES256')).rejects.toMatchObject({ code: 'address_forbidden' })
    },
  )
})

describe('a key', () => {
  const weak = {
    n: 'sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4gs_7svlJJQ4H9_NxsiIoLwAEk7-Q3UXERGYw_75IDrGA84-lA_-Ct4eTlXHBIY2EaV7t7LjJaynVJCpkv4LKjTTAumiGUIuQhrNhZLuF_RJLqHpM2kgWFLU7-VTdL1VbC2tejvcI2BlMkEpk1BzBZI0KQB0GaDWFLN-aEAw3vRw',
  }
  const usable = (jwk: object) => parseKeys(JSON.stringify({ keys: [jwk] }), 'sig').length

  // The number is how many of it are usable.
  it.each<[string, object, number]>([
    ['an EC key', publicJwk(first), 1],
    ['a key without use and alg', publicJwk(first, { use: undefined, alg: undefined }), 1],
    ['a key that may verify', publicJwk(first, { key_ops: ['verify'] }), 1],
    ['Ed25519 under its old name', publicJwk(signingKey('Ed25519'), { alg: 'EdDSA' }), 1],
    ['an encryption key', publicJwk(first, { use: 'enc' }), 0],
    ['a SPIFFE X.509 authority', publicJwk(first, { use: 'x509-svid' }), 0],
    ['a key that may only encrypt', publicJwk(first, { key_ops: ['encrypt'] }), 0],
    ['a symmetric key', { kty: 'oct', k: 'AAAA', kid: 'first' }, 0],
    ['a published private key', { ...first.privateKey.export({ format: 'jwk' }), kid: 'first' }, 0],
    ['a point off the curve', publicJwk(first, { x: 'AAAA' }), 0],
    ['a curve of nobody', publicJwk(first, { crv: 'secp256k1' }), 0],
    ['a kid that is no string', publicJwk(first, { kid: 7 }), 0],
    ['an RSA key of 1024 bits', { kty: 'RSA', n: weak.n.slice(0, 171), e: 'AQAB' }, 0],
    ['an RSA key of 8192 bits', { kty: 'RSA', n: weak.n.repeat(4), e: 'AQAB' }, 0],
    ['an RSA key of 2048 bits', { kty: 'RSA', n: weak.n, e: 'AQAB' }, 1],
  ])('that is %s', (_what, jwk, times) => expect(usable(jwk)).toBe(times))

  it('of a SPIFFE bundle must be marked for JWT-SVIDs', () => {
    const bundle = {
      keys: [publicJwk(first), publicJwk(second, { use: 'jwt-svid' }), publicJwk(first, { use: undefined })],
    }
    expect(parseKeys(JSON.stringify(bundle), 'jwt-svid').map(({ kid }) => kid)).toEqual(['second'])
  })

  it('is found for its own algorithm alone', async () => {
    const { issuer, clock, keys } = await open()
    const rsa = signingKey('RS256', 'rsa')
    issuer.keys = [publicJwk(first), publicJwk(rsa, { alg: undefined })]
    expect(await keys.find('first', 'RS256')).toBeUndefined()
    expect(await keys.find('first', 'ES384')).toBeUndefined()
    expect(await keys.find('first', 'HS256')).toBeUndefined()
    expect(await keys.find('rsa', 'PS512')).toBeDefined()
    expect(await keys.find('rsa', 'ES256')).toBeUndefined()
    issuer.keys = [publicJwk(rsa)] // restricted to RS256
    clock.advance(600_000)
    expect(await keys.find('rsa', 'RS256')).toBeDefined()
    expect(await keys.find('rsa', 'PS256')).toBeUndefined()
    expect(await keys.find('__proto__', 'ES256')).toBeUndefined()
  })

  it('is nobody’s when two carry one name', async () => {
    const { issuer, keys } = await open()
    issuer.keys = [publicJwk(first), publicJwk(second, { kid: 'first' })]
    expect(await keys.find('first', 'ES256')).toBeUndefined()
  })

  it('without a name is meant only where there is no other', async () => {
    const { issuer, clock, keys } = await open()
    issuer.keys = [publicJwk(first, { kid: undefined })]
    expect((await keys.find('any', 'ES256'))?.equals(first.publicKey)).toBe(true)
    issuer.keys = [publicJwk(first, { kid: undefined }), publicJwk(second)]
    clock.advance(600_000)
    expect((await keys.find('second', 'ES256'))?.equals(second.publicKey)).toBe(true)
    expect(await keys.find('any', 'ES256')).toBeUndefined()
  })

  it('may be a token’s only without a kid if it is the only one', async () => {
    const { issuer, clock, keys } = await open()
    expect(await keys.find(undefined, 'ES256')).toBeDefined()
    issuer.keys = [publicJwk(first), publicJwk(second)]
    clock.advance(600_000)
    expect(await keys.find(undefined, 'ES256')).toBeUndefined()
  })
})

describe('a key file', () => {
  it('is read again like any issuer, so that whoever rotates keys rewrites it', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'kl-keys-'))
    closing.push(() => rm(dir, { recursive: true }))
    const file = join(dir, 'bundle.json')
    await writeFile(file, JSON.stringify({ keys: [publicJwk(first, { use: 'jwt-svid' })] }))
    const clock = manualClock()
    const keys = createKeySet({ load: readKeys(file), use: 'jwt-svid', clock })
    expect(await keys.find('first', 'ES256')).toBeDefined()
    await writeFile(file, JSON.stringify({ keys: [publicJwk(second, { use: 'jwt-svid' })] }))
    clock.advance(30_000)
    expect(await keys.find('second', 'ES256')).toBeDefined()
  })

  it('holds a PEM public key, and never a private one', () => {
    const pem = first.publicKey.export({ type: 'spki', format: 'pem' }).toString()
    expect(parseKeys(pem, 'sig')).toEqual([{ kid: undefined, alg: undefined, key: expect.anything() }])
    const secret = first.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    expect(() => parseKeys(secret, 'sig')).toThrow(/private key/)
  })
})
