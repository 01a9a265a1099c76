import { chmod, mkdtemp, rm, stat } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { makePrivate } from '../gateway/data-directory.ts'

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
