import { chmod, mkdtemp, readdir, readFile, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createOnce, makePrivate, readIfThere, readOrCreate } from '../gateway/private-file.ts'
import { loadKeys } from '../gateway/settings/keys.ts'

let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-private-'))
})

afterAll(() => rm(dir, { recursive: true, force: true }))

const modeOf = async (path: string) => (await stat(path)).mode & 0o777

it('makes a directory that only its owner can enter, parents included', async () => {
  await makePrivate(join(dir, 'a', 'b'))
  expect([await modeOf(join(dir, 'a')), await modeOf(join(dir, 'a', 'b'))]).toEqual([0o700, 0o700])
})

it('closes one that others can enter', async () => {
  await chmod(join(dir, 'a'), 0o755)
  await makePrivate(join(dir, 'a'))
  expect(await modeOf(join(dir, 'a'))).toBe(0o700)
})

it('leaves a narrower mode alone, as a mounted secret has it', async () => {
  await chmod(join(dir, 'a'), 0o500)
  await makePrivate(join(dir, 'a'))
  expect(await modeOf(join(dir, 'a'))).toBe(0o500)
})

it('takes a directory that belongs to the system as it is mounted', async () => {
  // procfs lets nobody change the mode of its directories.
  await expect(makePrivate('/proc/self')).resolves.toBeUndefined()
})

it('makes a file once: all who start together read what one of them wrote, and nothing is left over', async () => {
  const path = join(dir, 'once')
  const read = await Promise.all(Array.from({ length: 8 }, (_, i) => readOrCreate(path, () => `made by ${i}`)))
  expect(new Set(read.map(String))).toEqual(new Set([await readFile(path, 'utf8')]))
  expect(await modeOf(path)).toBe(0o600)
  expect((await readdir(dir)).filter((name) => name.startsWith('once'))).toEqual(['once'])
})

it('leaves a file that is there as it is', async () => {
  const path = join(dir, 'kept')
  await createOnce(path, 'first', 0o644)
  await createOnce(path, 'second')
  expect([await readFile(path, 'utf8'), await modeOf(path)]).toEqual(['first', 0o644])
  expect(await readIfThere(join(dir, 'absent'))).toBeUndefined()
})

it('gives gateways that start at once on one directory the same keys', async () => {
  const keys = await Promise.all(Array.from({ length: 8 }, () => loadKeys(join(dir, 'keys'))))
  expect(new Set(keys.map(({ lease }) => lease.export().toString('hex'))).size).toBe(1)
  expect(new Set(keys.map(({ grantKeys }) => grantKeys.current.export({ type: 'pkcs8', format: 'pem' }))).size).toBe(1)
  expect((await readdir(join(dir, 'keys'))).sort()).toEqual(['grant.key', 'lease.key', 'store.key'])
})
