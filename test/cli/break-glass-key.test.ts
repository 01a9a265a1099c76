/** The key of a custodian: a file that is worth nothing without its passphrase. */
import { createPublicKey } from 'node:crypto'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makeCustodianKey, openCustodianKey } from '../../gateway/cli/break-glass-key.ts'

const PASSPHRASE = 'five words nobody else knows'
let dir: string
let file: string
let x: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-custodian-'))
  file = join(dir, 'ana.key')
  x = await makeCustodianKey(file, PASSPHRASE)
})

afterAll(() => rm(dir, { recursive: true, force: true }))

it('opens by its passphrase alone, and holds the key whose public half was printed', async () => {
  const key = await openCustodianKey(file, PASSPHRASE)
  expect(createPublicKey(key).export({ format: 'jwk' }).x).toBe(x)
  await expect(openCustodianKey(file, `${PASSPHRASE}!`)).rejects.toThrow(/does not open .*Nothing was signed/)
})

it('is for its owner alone, and says nothing of the key', async () => {
  expect((await stat(file)).mode & 0o777).toBe(0o600)
  const header = JSON.parse(Buffer.from((await readFile(file, 'utf8')).split('.')[0] ?? '', 'base64url').toString())
  expect(header).toMatchObject({ alg: 'PBES2-HS512+A256KW', enc: 'A256GCM', p2c: 600_000, cty: 'jwk+json' })
})

it('is never written over, and never made with a passphrase that can be guessed', async () => {
  const before = await readFile(file)
  await expect(makeCustodianKey(file, PASSPHRASE)).rejects.toThrow(/there already/)
  expect(await readFile(file)).toEqual(before)
  await expect(makeCustodianKey(join(dir, 'new.key'), 'short')).rejects.toThrow(/5 characters; take at least 12/)
  const twice = `${PASSPHRASE}\n${PASSPHRASE}`
  await expect(makeCustodianKey(join(dir, 'new.key'), twice)).rejects.toThrow(/more than one line/)
})

it('is not taken from a file that is something else, or that asks for endless work', async () => {
  const other = join(dir, 'other.key')
  await writeFile(other, 'not a key\n')
  await expect(openCustodianKey(other, PASSPHRASE)).rejects.toThrow(/holds no key/)
  const [header = '', ...rest] = (await readFile(file, 'utf8')).trim().split('.')
  const costly = { ...JSON.parse(Buffer.from(header, 'base64url').toString()), p2c: 2_000_000_000 }
  await writeFile(other, [Buffer.from(JSON.stringify(costly)).toString('base64url'), ...rest].join('.'))
  await expect(openCustodianKey(other, PASSPHRASE)).rejects.toThrow(/holds no key/)
})
