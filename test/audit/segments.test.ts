/** A log that is put into many files is one log: whatever moment a crash comes at, and whoever reads it meanwhile. */
import { link, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { entriesAt, readEntries } from '../../gateway/audit/files/follow.ts'
import { listSegments } from '../../gateway/audit/files/segments.ts'
import type { LogOptions } from '../../gateway/audit/log.ts'
import { Frontier, leafHash } from '../../gateway/audit/tree/merkle.ts'
import { openHashes } from '../../gateway/audit/tree/proofs.ts'
import { failingDisk, note, openTestLog, temporaryDir, testClock } from './log.fixture.ts'

const segmentBytes = 8 * 1024

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
})
afterEach(() => rm(dir, { recursive: true, force: true }))

async function fill(count: number, change: Partial<LogOptions> = {}): Promise<void> {
  const log = await openTestLog(dir, { segmentBytes, ...change })
  for (let n = 0; n < count; n += 10)
    await Promise.all(Array.from({ length: 10 }, (_, i) => log.append(note({ n: n + i }))))
  await log.close()
}

/** Everything that the checkpoint covers, read as readers do; its root is the signed one. */
async function entries(): Promise<Entry[]> {
  const read: Entry[] = []
  const tree = new Frontier()
  for await (const stretch of readEntries(dir)) {
    for (const bytes of stretch.entries) {
      tree.append(leafHash(bytes))
      read.push(JSON.parse(bytes.toString()) as Entry)
    }
  }
  expect(read.map(({ seq }) => seq)).toEqual(read.map((_, i) => i))
  const [, size, root] = (await readFile(join(dir, 'checkpoint'), 'utf8')).split('\n')
  expect(Number(size)).toBe(read.length)
  expect(tree.root().toString('base64')).toBe(root)
  const hashes = await openHashes(dir)
  expect(await hashes.root()).toEqual(tree.root())
  await hashes.close()
  return read
}

describe('a full file', () => {
  it('is closed between two batches, and the log goes on in the next', async () => {
    await fill(1000)
    const read = await entries()
    expect(read).toHaveLength(1002)
    const segments = await listSegments(dir)
    expect(segments.length).toBeGreaterThan(5)
    expect(segments.at(-1)).toMatchObject({ count: undefined, path: join(dir, 'entries.jsonl') })
    let next = 0
    for (const { first, count } of segments) {
      expect(first).toBe(next)
      next = first + (count ?? 0)
    }
    const asked = [0, 3, 500, 1001, 77, 1002]
    const found = await entriesAt(dir, asked)
    expect(found.map((bytes) => bytes && JSON.parse(bytes.toString()).seq)).toEqual([0, 3, 500, 1001, 77, undefined])
    expect((await stat(join(dir, 'tiles-1'))).size).toBe(3 * 32)
  })

  it('stays the one that is written when it cannot be closed, and nobody is refused', async () => {
    const disk = { ...failingDisk(), rotate: () => Promise.reject(new Error('EDQUOT: simulated')) }
    const log = await openTestLog(dir, { segmentBytes, disk })
    for (let n = 0; n < 60; n++) await log.append(note({ n, filler: 'x'.repeat(900) }))
    expect(log.failure).toBeUndefined()
    await log.close()
    expect(await listSegments(dir)).toHaveLength(1)
    expect(await entries()).toHaveLength(62)
  })

  it('is closed after a day when text is kept for some days only', async () => {
    const clock = testClock()
    const log = await openTestLog(dir, { clock, keepDays: 30 })
    await log.append(note())
    clock.ms += 86_400_000
    await log.append(note())
    await log.close()
    expect((await listSegments(dir)).map(({ first }) => first)).toEqual([0, 2])
  })
})

describe('a crash in the middle of closing a file', () => {
  it('before the old name is given away leaves two names, and one is taken back', async () => {
    await fill(100)
    const active = (await listSegments(dir)).at(-1)
    await link(join(dir, 'entries.jsonl'), join(dir, `entries-${String(active?.first).padStart(12, '0')}.jsonl`))
    await writeFile(join(dir, 'entries.jsonl.new'), '')
    const before = (await entries()).length
    await fill(10)
    expect((await entries()).length).toBe(before + 12)
    expect((await readdir(dir)).filter((name) => name.endsWith('.new'))).toEqual([])
  })

  it('before the next file is there, or written to, goes on behind the last entry', async () => {
    await fill(100)
    for (const leave of [() => Promise.resolve(), () => writeFile(join(dir, 'entries.jsonl'), '')]) {
      const active = (await listSegments(dir)).at(-1)
      const closed = `entries-${String(active?.first).padStart(12, '0')}.jsonl`
      await rename(join(dir, 'entries.jsonl'), join(dir, closed))
      await leave()
      const before = (await entries()).length
      await fill(10)
      expect((await entries()).length).toBe(before + 12)
    }
  })
})

describe('at start', () => {
  it('a file that is missing, torn or exchanged in the middle is found, and named', async () => {
    await fill(300)
    const closed = (await listSegments(dir))[1]
    const path = String(closed?.path)
    const text = await readFile(path)
    await truncate(path, text.length - 3)
    await expect(openTestLog(dir)).rejects.toThrow(/entry \d+ is damaged, and others follow/)
    await rm(path)
    await expect(openTestLog(dir)).rejects.toThrow(/entries \d+ to \d+ are missing, and others follow/)
    await writeFile(path, text.toString().replace('"default"', '"defau1t"'))
    await expect(openTestLog(dir)).rejects.toThrow('does not match its signed checkpoint')
    await writeFile(path, text)
    await (await openTestLog(dir)).close()
    await entries()
  })

  it('after a power cut makes the last hashes again, which were not on the disk yet, without reading all', async () => {
    await fill(5000, { segmentBytes: 256 * 1024 })
    const leaves = await readFile(join(dir, 'leaves'))
    const log = await openTestLog(dir, { segmentBytes: 256 * 1024 })
    await log.append(note())
    const unsealed = await readFile(join(dir, 'entries.jsonl'))
    const signed = log.head()
    await log.close()
    // As if it had never been sealed.
    await writeFile(join(dir, 'entries.jsonl'), unsealed)
    await writeFile(join(dir, 'checkpoint'), signed.note)
    await writeFile(join(dir, 'leaves'), Buffer.concat([leaves.subarray(0, -3000 * 32), Buffer.alloc(2000 * 32)]))
    await truncate(join(dir, 'tiles-1'), 10 * 32)
    // Nobody reads this one: a damaged byte in it is for \`verify\`.
    const first = String((await listSegments(dir))[0]?.path)
    const bytes = await readFile(first)
    bytes.fill(0, 1000, 1010)
    await writeFile(first, bytes)
    await (await openTestLog(dir)).close()
    const hashes = await openHashes(dir)
    const [, size, root] = (await readFile(join(dir, 'checkpoint'), 'utf8')).split('\n')
    expect((await hashes.root(Number(size))).toString('base64')).toBe(root)
    await hashes.close()
  })

  it.each(['leaves', 'tiles-1'])('makes %s again when it is lost, damaged or torn', async (name) => {
    await fill(800)
    await rm(join(dir, name))
    await fill(10)
    await writeFile(join(dir, name), 'garbage')
    await fill(10)
    await truncate(join(dir, name), 40)
    await fill(10)
    await entries()
    expect((await stat(join(dir, 'tiles-1'))).size).toBe(3 * 32)
  })
})
