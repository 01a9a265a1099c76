/** Closed files are compressed beside the running log, and lose their text in time; nothing that was proven stops being so. */
import { execFileSync } from 'node:child_process'
import { copyFile, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { draftFrom } from '../../gateway/audit/canonical.ts'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { coveredBy, entriesAt, entryAt, firstKept, readEntries } from '../../gateway/audit/files/follow.ts'
import { openReader } from '../../gateway/audit/files/reader.ts'
import { listSegments } from '../../gateway/audit/files/segments.ts'
import type { LogOptions } from '../../gateway/audit/log.ts'
import { leafHash, verifyInclusion } from '../../gateway/audit/tree/merkle.ts'
import { openHashes } from '../../gateway/audit/tree/proofs.ts'
import { tileAt } from '../../gateway/audit/tree/tiles.ts'
import { call, grant, note, openTestLog, type TestClock, temporaryDir, testAudit, testClock } from './log.fixture.ts'

const DAY_MS = 86_400_000
/** Another thread works, on a machine that may be busy. */
const SOON = { timeout: 15_000 }

let dir: string
let clock: TestClock
beforeEach(async () => {
  dir = await temporaryDir()
  clock = testClock()
})
afterEach(() => rm(dir, { recursive: true, force: true }))

/** Opens the log, writes `count` entries, and waits until closed files have the form that is expected. */
async function fill(
  count: number,
  change: Partial<LogOptions> = {},
  form: readonly string[] = ['zstd'],
): Promise<void> {
  const log = await openTestLog(dir, { segmentBytes: 64 * 1024, durability: 'relaxed', clock, ...change })
  for (let n = 0; n < count; n += 50)
    await Promise.all(Array.from({ length: 50 }, (_, i) => log.append(note({ n: n + i, filler: 'x'.repeat(i * 9) }))))
  await vi.waitFor(async () => expect([...new Set(await closedForms())].sort()).toEqual(form), SOON)
  await log.close()
}

async function closedForms(): Promise<string[]> {
  return (await listSegments(dir)).slice(0, -1).map(({ form }) => form)
}

async function texts(from = 0): Promise<string[]> {
  const read: string[] = []
  for await (const { entries } of readEntries(dir, { seq: from, segment: 0, offset: 0 }))
    read.push(...entries.map(String))
  return read
}

it('compresses closed files to frames of 256 entries that any zstd reads, and every reader goes on', async () => {
  await fill(1500)
  const read = await texts()
  expect(read.map((text) => (JSON.parse(text) as Entry).seq)).toEqual(read.map((_, i) => i))
  expect(read).toHaveLength(await coveredBy(dir))
  const seqs = [1501, 0, 255, 256, 257, 900, 1400]
  expect((await entriesAt(dir, seqs)).map(String)).toEqual(seqs.map((seq) => read[seq]))
  const [first] = await listSegments(dir)
  const plain = execFileSync('python3', ['-c', ZSTD, String(first?.path)], { encoding: 'utf8' })
  if (plain !== '') expect(plain.split('\n').slice(0, -1)).toEqual(read.slice(0, first?.count))
  const bundle = (await tileAt(dir, 'tile/entries/002')) as Buffer
  expect(bundle.toString('utf8', 2, 2 + bundle.readUInt16BE(0))).toBe(read[512])
  // A place from before stays good: offsets count the text.
  for await (const { entries, next } of readEntries(dir)) {
    const rest: string[] = []
    for await (const stretch of readEntries(dir, next)) rest.push(...stretch.entries.map(String))
    expect(rest).toEqual(read.slice(entries.length))
    break
  }
})

/** Prints the text where this Python knows zstd; says nothing where it does not. */
const ZSTD = `
import sys
try:
    from compression import zstd
except ImportError:
    sys.exit(0)
sys.stdout.buffer.write(zstd.open(sys.argv[1]).read())
`

describe('a crash while a file is compressed', () => {
  it.each([
    ['half a compressed file', (path: string) => writeFile(`${path}.zst.new`, 'half')],
    ['both files', () => Promise.resolve()],
    ['both files, the compressed one damaged', (path: string) => truncate(`${path}.zst`, 100)],
  ])('leaves %s, and the next start ends it', async (_, leave) => {
    await fill(300)
    const before = await texts()
    const [first] = await listSegments(dir)
    const plain = String(first?.path).slice(0, -'.zst'.length)
    await writeFile(plain, `${before.slice(0, first?.count).join('\n')}\n`)
    await leave(plain)
    await fill(50)
    const names = (await readdir(dir)).filter((name) => name.startsWith('entries-'))
    expect(names.filter((name) => !name.endsWith('.jsonl.zst'))).toEqual([])
    expect((await texts()).slice(0, before.length)).toEqual(before)
  })
})

it('keeps a file that is not what was logged as it is, and puts that on record', async () => {
  // More than a start reads.
  await fill(4700, { segmentBytes: 1024 * 1024 })
  const [first] = await listSegments(dir)
  const plain = String(first?.path).slice(0, -'.zst'.length)
  const changed = (await texts()).slice(0, first?.count).join('\n').replace('"default"', '"defau1t"')
  await rm(String(first?.path))
  await writeFile(plain, `${changed}\n`)
  const log = await openTestLog(dir, { clock })
  await vi.waitFor(
    async () => expect((await texts()).some((text) => text.includes('log.segment_damaged'))).toBe(true),
    SOON,
  )
  await log.close()
  expect(await readFile(plain, 'utf8')).toBe(`${changed}\n`)
})

describe('text that is older than it is to be kept', () => {
  it('is removed file by file, after that is on record; hashes and proofs stay, and the log goes on', async () => {
    await fill(600)
    const before = await texts()
    clock.ms += 40 * DAY_MS
    await fill(600, { keepDays: 30 }, ['pruned', 'zstd'])
    const kept = await firstKept(dir)
    expect(kept).toBeGreaterThan(256)
    expect((await listSegments(dir))[0]).toMatchObject({ first: 0, count: kept, form: 'pruned' })
    await expect(texts()).rejects.toThrow(`the text is kept from entry ${kept} on`)
    const read = await texts(kept)
    const record = read.map((text) => JSON.parse(text) as Entry).find(({ kind }) => kind === 'admin.bodies_pruned')
    expect(record?.facts).toEqual({ first: 0, count: kept, keep_days: 30 })
    expect(await entryAt(dir, kept - 1)).toBeUndefined()
    expect(await tileAt(dir, 'tile/entries/000')).toBeUndefined()
    const hashes = await openHashes(dir)
    const [leaf, proof, root] = await Promise.all([hashes.leaf(7), hashes.inclusionProof(7), hashes.root()])
    expect(leaf).toEqual(leafHash(Buffer.from(before[7] as string)))
    expect(verifyInclusion(leaf, { index: 7, size: hashes.size }, proof, root)).toBe(true)
    await hashes.close()
    // Without the stored tree the hashes stand for the text that is gone.
    await rm(join(dir, 'tiles-1'))
    await (await openTestLog(dir, { clock })).close()
    expect((await stat(join(dir, 'tiles-1'))).size).toBeGreaterThan(0)
  })

  it('that a crash left behind after it was marked is removed at the next start', async () => {
    await fill(600)
    const [first] = await listSegments(dir)
    await copyFile(String(first?.path), join(dir, 'aside'))
    clock.ms += 40 * DAY_MS
    await fill(50, { keepDays: 30 }, ['pruned'])
    await copyFile(join(dir, 'aside'), String(first?.path))
    await fill(50, { keepDays: 30 }, ['pruned'])
    await vi.waitFor(
      async () => expect((await readdir(dir)).includes('entries-000000000000.jsonl.zst')).toBe(false),
      SOON,
    )
  })
})

describe('a reader', () => {
  it('finds calls, makers and the last entries in files of every form, and follows the log into the next file', async () => {
    const log = await openTestLog(dir, { segmentBytes: 64 * 1024, clock })
    const audit = testAudit(log, clock)
    const who = grant()
    await log.append(draftFrom({ kind: 'grant.issued', grant: { id: who.id } }))
    const first = await call(audit)
    const reader = await openReader(dir)
    const stop = new AbortController()
    const seen: number[] = []
    const following = (async () => {
      for await (const { seq } of reader.tail(2, stop.signal)) seen.push(seq)
    })()
    await vi.waitFor(() => expect(seen.length).toBeGreaterThan(0), SOON)
    for (let n = 0; n < 600; n += 50)
      await Promise.all(Array.from({ length: 50 }, () => log.append(note({ filler: 'x'.repeat(500) }))))
    const last = await call(audit)
    await vi.waitFor(async () => expect(new Set(await closedForms())).toEqual(new Set(['zstd'])), SOON)
    const size = log.size
    await vi.waitFor(() => expect(seen.at(-1)).toBe(size - 1), SOON)
    stop.abort()
    await following
    expect(seen).toEqual(Array.from({ length: seen.length }, (_, i) => (seen[0] as number) + i))
    for (const req of [first, last])
      expect((await reader.byReq(req)).map(({ kind }) => kind)).toEqual(['call.decision', 'call.outcome'])
    const made = await reader.makers({ v: 'ar/1', seq: 0, ts: '', kind: 'call.decision', lineage: [{ grant: who.id }] })
    expect(made.get(who.id)?.kind).toBe('grant.issued')
    expect((await reader.bySeq(300))?.seq).toBe(300)
    const tail: number[] = []
    for await (const { seq } of reader.tail(500)) tail.push(seq)
    expect(tail).toEqual(Array.from({ length: 500 }, (_, i) => size - 500 + i))
    await reader.close()
    await audit.close()
  })
})
