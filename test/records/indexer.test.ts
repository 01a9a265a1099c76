/** Whatever happens to an index, it ends as one that was made in peace: killed, damaged, of another log, shared, or cut off. */
import { open, stat } from 'node:fs/promises'
import { connect, createServer, type Socket } from 'node:net'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { pipeline } from 'node:stream'
import { fileURLToPath } from 'node:url'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { type Index, openIndex } from '../../gateway/records/opening.ts'
import { openRecordsThread, type RecordsThread } from '../../gateway/records/records-thread.ts'
import { manualClock } from '../rig/clock.ts'
import { freePort } from '../rig/ports.ts'
import { startPostgres, type TestPostgres } from '../rig/postgres.ts'
import { start } from '../rig/process.ts'
import { createTestLog, happening, type TestLog } from './entries.fixture.ts'

const clock = manualClock()
const drafts = (seed: number, numRuns: number) => fc.sample(happening, { seed, numRuns }).flat()
const fileOf = (log: TestLog, name = 'index.sqlite') => join(log.dir, '..', name)

async function logOf(seed: number, count: number, origin?: string): Promise<TestLog> {
  const log = await createTestLog(origin)
  await log.append(drafts(seed, count))
  return log
}

function opened({ dir, origin }: TestLog, path: string): Promise<Index> {
  return openIndex({ dir, origin, at: { path }, clock })
}

/** Every row of every table. */
async function contents({ database }: Index): Promise<Record<string, string[]>> {
  const tables = ['chains', 'grants', 'leases', 'ends', 'progress']
  const all: Record<string, string[]> = {}
  for (const table of tables) all[table] = sorted(await database.all(`SELECT * FROM ${table}`))
  all.records = sorted(
    await database.all('SELECT CAST(id AS TEXT) AS at, log, seq, end_seq, ts, kind, req, status, detail FROM records'),
  )
  all.terms = sorted(await database.all('SELECT COUNT(*) AS n FROM records_terms'))
  return all
}

const sorted = (rows: readonly unknown[]) => rows.map((row) => JSON.stringify(row)).sort()

async function fresh(log: TestLog): Promise<Record<string, string[]>> {
  const index = await opened(log, fileOf(log, 'fresh.sqlite'))
  await index.indexer.catchUp()
  const all = await contents(index)
  await index.database.close()
  return all
}

describe('an index file', () => {
  it('that was killed in the middle of its work goes on, and ends as one that was made at once', async () => {
    const log = await logOf(11, 1500)
    const path = fileOf(log)
    const program = fileURLToPath(new URL('./index-once.fixture.ts', import.meta.url))
    const killed = start(process.execPath, [program, log.dir, path])
    await killed.says(/^\d+\n/)
    killed.kill('SIGKILL')
    await killed.ended
    const index = await opened(log, path)
    expect(index.rebuilt).toBeUndefined()
    expect((await index.indexer.lag()).entries).toBeGreaterThan(0)
    await index.indexer.catchUp()
    expect(await index.indexer.lag()).toEqual({ entries: 0, seconds: 0 })
    expect(await contents(index)).toEqual(await fresh(log))
    await index.database.close()
    await log.remove()
  })

  it('is made again when it is damaged, of another version, or of another log', async () => {
    const log = await logOf(12, 50)
    const path = fileOf(log)
    const expected = await fresh(log)
    const spoil: Record<string, () => Promise<void> | void> = {
      damaged: async () => {
        const file = await open(path, 'r+')
        await file.write(Buffer.alloc(200, 0x5a), 0, 200, 0)
        await file.close()
      },
      'another version': () => {
        const database = new DatabaseSync(path)
        database.exec('PRAGMA user_version = 9999')
        database.close()
      },
      'another log': async () => {
        const other = await logOf(13, 40)
        const index = await opened(other, path)
        await index.indexer.catchUp()
        await index.database.close()
        await other.remove()
      },
    }
    for (const [words, work] of Object.entries(spoil)) {
      const first = await opened(log, path)
      await first.indexer.catchUp()
      await first.database.close()
      await work()
      const index = await opened(log, path)
      expect(index.rebuilt, words).toContain(words)
      await index.indexer.catchUp()
      expect(await contents(index), words).toEqual(expected)
      await index.database.close()
    }
    expect((await stat(path)).mode & 0o777).toBe(0o600)
    await log.remove()
  })

  it('takes two writers at once, and has everything once', async () => {
    const log = await logOf(14, 800)
    const [one, other] = [await opened(log, fileOf(log)), await opened(log, fileOf(log))]
    await Promise.all([one.indexer.catchUp(), other.indexer.catchUp()])
    expect(await contents(one)).toEqual(await fresh(log))
    for (const { database } of [one, other]) await database.close()
    await log.remove()
  })
})

describe('an index in Postgres', () => {
  let postgres: TestPostgres
  beforeAll(async () => {
    postgres = await startPostgres()
  }, 60_000)
  afterAll(() => postgres.stop())

  it('holds the logs of several replicas that write at once, and forgets one without the other', async () => {
    const url = await postgres.fresh()
    const logs = [await logOf(21, 120, 'keyless.local/one'), await logOf(22, 120, 'keyless.local/two')]
    const indexes = await Promise.all(logs.map(({ dir, origin }) => openIndex({ dir, origin, at: { url }, clock })))
    await Promise.all(indexes.map(({ indexer }) => indexer.catchUp()))
    const count = async (log: string) => {
      const [row] =
        (await indexes[0]?.database.all<{ n: number }>('SELECT COUNT(*) AS n FROM records WHERE log = ?', [log])) ?? []
      return row?.n
    }
    const rows = (log: TestLog | undefined) => log?.entries.filter(({ kind }) => kind !== 'call.outcome').length
    expect([await count('keyless.local/one'), await count('keyless.local/two')]).toEqual(logs.map(rows))
    await indexes[0]?.clear()
    expect([await count('keyless.local/one'), await count('keyless.local/two')]).toEqual([0, rows(logs[1])])
    await indexes[0]?.indexer.catchUp()
    expect(await count('keyless.local/one')).toBe(rows(logs[0]))
    for (const { database } of indexes) await database.close()
    for (const log of logs) await log.remove()
  })

  it('that is away is said to be away, and gets everything when it is there', async () => {
    const log = await logOf(23, 20)
    const warnings: string[] = []
    const there = new URL(await postgres.fresh())
    const port = await freePort()
    const at = { url: Object.assign(new URL(there), { port: String(port) }).href }
    const thread = openRecordsThread({ ...log, at, warn: (text) => void warnings.push(text) })
    await vi.waitFor(() => expect(thread.state?.trouble).toBeDefined(), 10_000)
    await expect(thread.find({ limit: 1 })).rejects.toMatchObject({ code: 'store_unavailable' })
    expect(warnings.join()).toContain('the index stands still')
    expect(warnings.join()).not.toContain('postgres://')
    expect(thread.state?.lag.entries).toBe(log.entries.length)
    const sockets = new Set<Socket>()
    const relay = createServer((socket) => {
      sockets.add(socket)
      const onward = connect(Number(there.port), there.hostname)
      pipeline(socket, onward, socket, () => undefined)
    })
    relay.listen(port, '127.0.0.1')
    const rows = log.entries.filter(({ kind }) => kind !== 'call.outcome').length
    await vi.waitFor(async () => expect(await thread.count({})).toBe(rows), 15_000)
    await vi.waitFor(() => expect(thread.state).toEqual({ lag: { entries: 0, seconds: 0 }, trouble: undefined }), 5_000)
    const indexed = log.entries.length
    relay.close()
    for (const socket of sockets) socket.destroy()
    await log.append(drafts(24, 10))
    const missing = log.entries.length - indexed
    await vi.waitFor(() => expect(thread.state?.lag.entries).toBe(missing), 10_000)
    expect(thread.state?.trouble).toBeDefined()
    await thread.close()
    await log.remove()
  })
})

describe('the thread of the records', () => {
  const threadOf = ({ dir, origin }: TestLog, path: string): RecordsThread =>
    openRecordsThread({ dir, origin, at: { path }, warn: () => undefined })

  it('follows the log, answers, refuses what is wrong, and makes a file again that was damaged under it', async () => {
    const log = await logOf(31, 30)
    const thread = threadOf(log, fileOf(log))
    const covers = (count: number) =>
      vi
        .waitFor(async () => expect((await thread.find({ limit: 1, order: 'newest' })).lag.entries).toBe(0), 10_000)
        .then(() => count)
    await covers(log.entries.length)
    await log.append(drafts(32, 10))
    await covers(log.entries.length)
    const decisions = log.entries.filter(({ kind }) => kind !== 'call.outcome')
    await vi.waitFor(async () => expect(await thread.count({})).toBe(decisions.length), 10_000)
    await expect(thread.find({ limit: 0 })).rejects.toMatchObject({ code: 'instruction_invalid' })
    const told = await thread.tell({ log: log.origin, seq: decisions[0]?.seq ?? 0 })
    expect(told?.entries[0]).toEqual(JSON.parse(JSON.stringify(decisions[0])))
    const { removeSqlite } = await import('../../gateway/records/database-sqlite.ts')
    removeSqlite(fileOf(log))
    await vi.waitFor(async () => expect((await stat(fileOf(log))).size).toBeGreaterThan(0), 10_000)
    await vi.waitFor(async () => expect(await thread.count({})).toBe(decisions.length), 10_000)
    await thread.close()
    await expect(thread.find({ limit: 1 })).rejects.toMatchObject({ code: 'store_unavailable' })
    await log.remove()
  })
})
