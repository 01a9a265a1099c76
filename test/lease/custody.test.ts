/** The file of credentials to end outlives a power cut: what is written is on disk a moment later, without a call that waits for it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { type CustodyRow, openCustody } from '../../gateway/lease/custody.ts'

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-custody-'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const row = (credentialId: string): CustodyRow => ({
  grant: 'grant',
  credentialId,
  value: Buffer.from('sealed'),
  note: Buffer.from('sealed'),
  expiresMs: 1,
  sharedUntilMs: null,
  reason: null,
  attempts: 0,
  dueMs: 0,
})

it('syncs what was written, one sync at a time for all that came meanwhile', async () => {
  const under: ((value: undefined) => void)[] = []
  const paths: string[] = []
  const file = join(dir, 'credentials.sqlite')
  const custody = openCustody(file, (path) => {
    paths.push(path)
    return new Promise<undefined>((done) => under.push(done)) as Promise<void>
  })
  for (let i = 0; i < 50; i += 1) custody.put(row(String(i)))
  expect(paths).toEqual([`${file}-wal`])
  under[0]?.(undefined)
  await expect.poll(() => paths.length).toBe(2)
  under[1]?.(undefined)
  await new Promise((done) => setImmediate(done))
  expect(paths).toHaveLength(2)
  custody.put(row('later'))
  expect(paths).toHaveLength(3)
  custody.close()
})

it('goes on when a disk does not sync, and keeps nothing on it where no file is named', async () => {
  const custody = openCustody(join(dir, 'credentials.sqlite'), () => Promise.reject(new Error('EIO')))
  custody.put(row('one'))
  await new Promise((done) => setImmediate(done))
  custody.put(row('two'))
  expect(custody.all()).toHaveLength(2)
  custody.close()
  const memory = openCustody(undefined, () => expect.unreachable('there is no file'))
  memory.put(row('one'))
  memory.close()
})
