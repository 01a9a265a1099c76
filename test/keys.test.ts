/** Keys on disk: changed while gateways run, readable for as long as what they signed lives, and never lost half-way. */
import { createPublicKey, generateKeyPairSync, hkdfSync, type KeyObject } from 'node:crypto'
import { copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { createTokenSeal, type TokenSeal } from '../gateway/grant/chain/token.ts'
import { type Keys, loadKeys, rotateGrantKey } from '../gateway/settings/keys.ts'
import { root } from './grant/chain.fixture.ts'
import { type ManualClock, manualClock } from './rig/clock.ts'

const ISSUER = 'http://127.0.0.1:8081'
/** An hour that a grant may live, and a minute for a replica that has not looked. */
const OUTLIVES_MS = 3_660_000
const refused = { code: 'grant_invalid' }

let base: string
let dir: string
let clock: ManualClock

beforeAll(async () => {
  base = await mkdtemp(join(tmpdir(), 'keyless-keys-'))
})
beforeEach(async () => {
  dir = await mkdtemp(join(base, 'd-'))
  clock = manualClock()
})
afterAll(() => rm(base, { recursive: true, force: true }))

const sealOf = ({ grantKeys }: Keys): TokenSeal => createTokenSeal({ issuer: ISSUER, keys: grantKeys })
const nowS = () => Math.floor(clock.nowMs() / 1000)
const kidsOf = (seal: TokenSeal) => seal.jwks().keys.map(({ kid }) => kid)
const kidOf = (token: string) => JSON.parse(String(Buffer.from(token.split('.')[0] ?? '', 'base64url'))).kid
const tokenBy = async (seal: TokenSeal) => (await root(undefined, {}, seal)).token
const bytesOf = (key: KeyObject) => key.export().toString('hex')

describe('a change of the signing key', () => {
  it('is taken up by a gateway that runs, for the grants that it signs a second later', async () => {
    const seal = sealOf(await loadKeys(dir, clock))
    const before = await tokenBy(seal)
    expect(await rotateGrantKey(dir, nowS())).toBe(true)
    clock.advance(999)
    expect(kidOf(await tokenBy(seal))).toBe(kidOf(before))
    clock.advance(1)
    const after = await tokenBy(seal)
    expect(kidOf(after)).not.toBe(kidOf(before))
    expect(kidsOf(seal)).toEqual([kidOf(after), kidOf(before)])
    await expect(seal.verify(before)).resolves.toBeDefined()
    await expect(seal.verify(after)).resolves.toBeDefined()
  })

  it('is taken up by a replica when the first token under the new key arrives', async () => {
    const replica = sealOf(await loadKeys(dir, clock))
    await rotateGrantKey(dir, nowS())
    const token = await tokenBy(sealOf(await loadKeys(dir, clock)))
    clock.advance(100)
    await expect(replica.verify(token)).resolves.toBeDefined()
  })

  it('makes unknown key ids look at the disk at most ten times a second', async () => {
    const { grantKeys } = await loadKeys(dir, clock)
    const stranger = await tokenBy(createTokenSeal({ issuer: ISSUER, keys: { current: newKey(), retired: [] } }))
    const seal = createTokenSeal({ issuer: ISSUER, keys: grantKeys })
    await rotateGrantKey(dir, nowS())
    for (let i = 0; i < 20; i++) await expect(seal.verify(stranger)).rejects.toMatchObject(refused)
    expect(kidsOf(seal)).toHaveLength(1) // nobody has looked
    clock.advance(100)
    await expect(seal.verify(stranger)).rejects.toMatchObject(refused)
    expect(kidsOf(seal)).toHaveLength(2)
  })

  it('lets the old key verify until its last grant has died, and not after', async () => {
    const keys = await loadKeys(dir, clock)
    const seal = sealOf(keys)
    const old = await tokenBy(seal)
    await rotateGrantKey(dir, nowS())
    clock.advance(OUTLIVES_MS - 1)
    const restarted = sealOf(await loadKeys(dir, clock))
    await seal.sign((await root()).grant)
    for (const each of [seal, restarted]) {
      await expect(each.verify(old)).resolves.toBeDefined()
      expect(kidsOf(each)).toHaveLength(2)
    }
    clock.advance(1)
    for (const each of [seal, restarted]) {
      await expect(each.verify(old)).rejects.toMatchObject(refused)
      expect(kidsOf(each)).toHaveLength(1)
    }
  })

  it('keeps every key in between, each to its own end, and removes those whose end has passed', async () => {
    const seal = sealOf(await loadKeys(dir, clock))
    const tokens: string[] = []
    for (let i = 0; i < 4; i++) {
      tokens.push(await tokenBy(seal))
      clock.advance(1_300_000)
      await rotateGrantKey(dir, nowS())
      clock.advance(1000)
    }
    await tokenBy(seal)
    const outcomes = await Promise.allSettled(tokens.map((token) => seal.verify(token)))
    expect(outcomes.map(({ status }) => status)).toEqual(['rejected', 'fulfilled', 'fulfilled', 'fulfilled'])
    clock.advance(OUTLIVES_MS)
    await rotateGrantKey(dir, nowS())
    expect((await grantFiles()).sort()).toEqual(['grant.4.key', 'grant.5.key'])
  })

  it('leaves one private key, in files that nobody else can read', async () => {
    await loadKeys(dir, clock)
    await rotateGrantKey(dir, nowS())
    await rotateGrantKey(dir, nowS())
    const files = await readdir(dir)
    for (const file of files) expect((await stat(join(dir, file))).mode & 0o777, file).toBe(0o600)
    const texts = await Promise.all((await grantFiles()).map((file) => readFile(join(dir, file), 'utf8')))
    expect(texts.filter((text) => /"d":|PRIVATE/.test(text))).toHaveLength(1)
    expect(files.filter((file) => !file.startsWith('assertion-')).sort()).toEqual([
      'grant.1.key',
      'grant.2.key',
      'grant.key',
      'lease.key',
      'store.key',
    ])
  })

  it('is one change when several ask for it at once', async () => {
    await loadKeys(dir, clock)
    const made = await Promise.all(Array.from({ length: 6 }, () => rotateGrantKey(dir, nowS())))
    const { grantKeys } = await loadKeys(dir, clock)
    expect(made.filter(Boolean)).toHaveLength((await grantFiles()).length - 1)
    expect(grantKeys.retired).toHaveLength((await grantFiles()).length - 1)
    expect(grantKeys.current.type).toBe('private')
  })

  it('leaves every gateway able to sign and verify, wherever it stops', async () => {
    const seal = sealOf(await loadKeys(dir, clock))
    const token = await tokenBy(seal)
    const before = await snapshot()
    await rotateGrantKey(dir, nowS())
    const half = join(base, 'half')
    // Stopped after the new key is durable, before the old private half is gone.
    await cp(before, half, { recursive: true })
    await copyFile(join(dir, 'grant.1.key'), join(half, 'grant.1.key'))
    // Stopped while a file was being made: what is left of it is nobody's key.
    await writeFile(join(half, 'grant.2.key.0198f0c2'), '{"kty"')
    const resumed = sealOf(await loadKeys(half, clock))
    await expect(resumed.verify(token)).resolves.toBeDefined()
    expect(kidsOf(resumed)).toHaveLength(2)
    expect(await rotateGrantKey(half, nowS())).toBe(true)
    expect(await readFile(join(half, 'grant.key'), 'utf8')).not.toMatch(/PRIVATE|"d"/)
    await expect(sealOf(await loadKeys(half, clock)).verify(token)).resolves.toBeDefined()
  })

  it('does not sign while the keys cannot be read, and does not forget those that it knows', async () => {
    const seal = sealOf(await loadKeys(dir, clock))
    const token = await tokenBy(seal)
    await rm(dir, { recursive: true })
    clock.advance(1000)
    await expect(tokenBy(seal)).rejects.toMatchObject({ code: 'store_unavailable' })
    await expect(seal.verify(token)).resolves.toBeDefined()
  })

  it('keeps the same key object while the key is the same', async () => {
    const { grantKeys } = await loadKeys(dir, clock)
    const { current } = grantKeys
    clock.advance(5000)
    await grantKeys.refresh?.(1000)
    expect(grantKeys.current).toBe(current)
  })
})

describe('the key of the store', () => {
  it('is the one that was derived from the signing key before there was a file for it', async () => {
    await mkdir(dir, { recursive: true })
    const pem = newKey().export({ type: 'pkcs8', format: 'pem' })
    await writeFile(join(dir, 'grant.key'), pem, { mode: 0o600 })
    const { store, grantKeys } = await loadKeys(dir, clock)
    const der = grantKeys.current.export({ type: 'pkcs8', format: 'der' })
    const derived = Buffer.from(hkdfSync('sha256', der, Buffer.alloc(0), 'keyless grant records', 32))
    expect(bytesOf(store)).toBe(derived.toString('hex'))
  })

  it('stays when the signing key changes, also for the first start after a change', async () => {
    const { store } = await loadKeys(dir, clock)
    await rm(join(dir, 'store.key')) // as an older gateway left it
    await rotateGrantKey(dir, nowS())
    await rotateGrantKey(dir, nowS())
    expect(bytesOf((await loadKeys(dir, clock)).store)).toBe(bytesOf(store))
  })

  it('is not made up when it was lost after a change', async () => {
    await loadKeys(dir, clock)
    await rotateGrantKey(dir, nowS())
    await rm(join(dir, 'store.key'))
    await expect(loadKeys(dir, clock)).rejects.toThrow(/store\.key is missing\. Restore it from a backup/)
  })
})

it('changes nothing in a directory without keys, and makes none', async () => {
  for (const empty of [dir, join(dir, 'absent')])
    await expect(rotateGrantKey(empty, nowS())).rejects.toThrow(/holds no keys\. Name the directory/)
  expect(await readdir(dir)).toEqual([])
})

it('names the file that holds no key', async () => {
  await loadKeys(dir, clock)
  await rotateGrantKey(dir, nowS())
  for (const bad of ['not a key', '{"kty":"OKP"}', '{"kty":"EC","crv":"P-256","x":"AA","y":"AA","since":1}', '']) {
    await writeFile(join(dir, 'grant.1.key'), bad)
    await expect(loadKeys(dir, clock)).rejects.toThrow(/grant\.1\.key holds no Ed25519 private key/)
  }
  const half = createPublicKey(newKey()).export({ format: 'jwk' })
  await writeFile(join(dir, 'grant.1.key'), JSON.stringify({ ...half, since: 1 })) // public: cannot sign
  await expect(loadKeys(dir, clock)).rejects.toThrow(/grant\.1\.key holds no Ed25519 private key/)
})

const newKey = () => generateKeyPairSync('ed25519').privateKey
const grantFiles = async () => (await readdir(dir)).filter((name) => name.startsWith('grant'))

async function snapshot(): Promise<string> {
  const copy = await mkdtemp(join(base, 's-'))
  await cp(dir, copy, { recursive: true })
  return copy
}
