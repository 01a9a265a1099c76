/** The conformance suite on SQLite, and what is SQLite's own. */
import { spawn } from 'node:child_process'
import { createHmac } from 'node:crypto'
import { chmodSync, copyFileSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSqliteStore } from '../../gateway/grant/store/sqlite.ts'
import type { Charge, CountCharge, Standing, StoredTask } from '../../gateway/grant/store/store.ts'
import { describeStore } from '../conformance/store.ts'
import { manualClock } from '../rig/clock.ts'
import { storeKey } from './grant.fixture.ts'
import { records } from './tree.fixture.ts'

const STORE = new URL('../../gateway/grant/store/sqlite.ts', import.meta.url).href

describeStore('SQLite', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'keyless-store-'))
  return {
    open: (clock) => openSqliteStore({ path: join(dir, 'state.sqlite'), clock }),
    pass: (clock, ms) => clock.advance(ms),
    close: async () => rmSync(dir, { recursive: true }),
  }
})

describe('the SQLite store', () => {
  let dir: string
  let path: string
  const stored = (changes: object = {}) => ({
    tenant: 'acme',
    id: 'g1',
    task: 't1',
    handleDigest: 'd1',
    body: 'b',
    expiresAt: manualClock().nowMs() / 1000 + 900,
    marks: ['g1', 't1'],
    ...changes,
  })
  const once = (untilS: number): CountCharge => ({ name: 'g1/once/x', kind: 'count', limit: 1, by: 1, untilS })
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'keyless-store-'))
    path = join(dir, 'state.sqlite')
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('answers without a promise', () => {
    const store = openSqliteStore({ path, clock: manualClock() })
    expect(store.create(stored())).toBe(true)
    expect(store.byHandle('acme', 'd1')).toMatchObject({ stored: { id: 'g1' } })
    expect(store.spend('acme', [once(1)])).toBe(-1)
    store.close()
  })

  it('is readable by its owner alone, companions included, also when it was not before', () => {
    writeFileSync(path, '')
    chmodSync(path, 0o644)
    const store = openSqliteStore({ path, clock: manualClock() })
    store.create(stored())
    for (const file of [path, `${path}-wal`, `${path}-shm`]) expect(statSync(file).mode & 0o777, file).toBe(0o600)
    store.close()
  })

  it('forgets all of a grant an hour after it expired, not earlier', () => {
    const clock = manualClock()
    const store = openSqliteStore({ path, clock })
    const untilS = stored().expiresAt
    const rate: Charge = { name: 'g1/0/rate', kind: 'rate', n: 2, perS: 900, untilS }
    store.create(stored())
    store.saveTask({ ...task, expiresAt: untilS }, undefined)
    store.end('acme', 'g1', { reason: 'revoked', untilS })
    store.spend('acme', [once(untilS), rate])
    clock.advance((900 + 3600) * 1000)
    store.create(stored({ id: 'g2', handleDigest: 'd2' }))
    expect(store.byId('acme', 'g1')).toMatchObject({ ended: 'revoked' })
    expect(store.left('acme', once(untilS))).toBe(0)
    clock.advance(1000)
    store.create(stored({ id: 'g3', handleDigest: 'd3', expiresAt: untilS + 5000 }))
    expect(store.byId('acme', 'g1')).toBeUndefined()
    store.close()
    expect(rowsOf(path)).toEqual({ grants: 1, ended: 0, tasks: 0, counts: 0, calls: 0, seen: 0 })
  })

  it('keeps of a rate no more than its last n calls, and of a replay cache what is still good', () => {
    const clock = manualClock()
    const store = openSqliteStore({ path, clock })
    const rate: Charge = { name: 'g1/0/rate', kind: 'rate', n: 3, perS: 1, untilS: stored().expiresAt }
    for (let i = 0; i < 50; i++) {
      store.spend('acme', [rate])
      store.once('acme', `proof ${i}`, clock.nowMs() + 1000)
      clock.advance(400)
    }
    expect(store.once('acme', 'proof 49', clock.nowMs() + 1000)).toBe(false)
    expect(store.once('acme', 'proof 40', clock.nowMs() + 1000)).toBe(true)
    store.close()
    expect(rowsOf(path)).toMatchObject({ counts: 1, calls: 3, seen: 3 })
  })

  it('takes over a file of version 1: grants become roots, ends stay ends, what was spent stays spent', () => {
    const old = new DatabaseSync(path)
    old.exec(VERSION_1)
    const { expiresAt } = stored()
    const json = JSON.stringify({
      id: 'g1',
      tenant: 'acme',
      task: { id: 't1', purpose: 'x' },
      authority: [],
      expiresAt,
    })
    const body = createHmac('sha256', storeKey).update(`d1\n${json}`).digest('base64url') + json
    const add = old.prepare('INSERT INTO grants VALUES (?, ?, ?, ?, ?, ?, ?, ?)')
    add.run('acme', 'g1', 't1', 'd1', body, expiresAt, null, 5)
    add.run('acme', 'g2', 't2', 'd2', body, expiresAt, 'revoked', 5)
    old.prepare('INSERT INTO uses VALUES (?, ?, ?, ?)').run('acme', 'g1', 'x', expiresAt)
    old.close()
    for (const round of ['migrated', 'opened again']) {
      const store = openSqliteStore({ path, clock: manualClock() })
      const standing = store.byHandle('acme', 'd1') as Standing
      expect(standing, round).toEqual({ stored: stored({ body }), ended: undefined, isSuspended: false })
      expect(records.open(standing.stored)).toMatchObject({ id: 'g1', depth: 0, maxDepth: 0, delegable: false })
      expect(() => records.open({ ...standing.stored, marks: ['g1'] })).toThrow(/seal/)
      const [task] = store.tasks('acme') as readonly StoredTask[]
      expect(records.openTask(task as StoredTask)).toMatchObject({
        id: 't1',
        state: 'active',
        watched: true,
        version: 0,
      })
      expect(() => records.openTask({ ...(task as StoredTask), id: 't2' })).toThrow(/seal/)
      expect((store.overdue(-1) as readonly StoredTask[]).map(({ id }) => id)).toEqual(['t1'])
      expect(store.byId('acme', 'g2'), round).toMatchObject({ ended: 'revoked' })
      expect(store.spend('acme', [once(expiresAt)]), round).toBe(0)
      store.close()
    }
  })

  it('leaves a file of version 1 as it was when it cannot take it over', () => {
    const old = new DatabaseSync(path)
    old.exec(VERSION_1)
    old.exec('CREATE TABLE seen (x)') // in the way of the last step but one
    old.close()
    for (const round of [1, 2])
      expect(() => openSqliteStore({ path, clock: manualClock() }), `${round}`).toThrow(/already exists/)
    const same = new DatabaseSync(path)
    expect(same.prepare('PRAGMA user_version').get()).toEqual({ user_version: 1 })
    expect(same.prepare('SELECT count(*) AS n FROM uses').get()).toEqual({ n: 0 })
    same.close()
  })

  it('has spent at least what it said it spent, whenever the process is killed', { timeout: 30_000 }, async () => {
    const limit = 2_000
    const charges = [
      { ...once(stored().expiresAt), limit },
      { ...once(stored().expiresAt), name: 'root/0/calls', limit },
    ]
    const script = `
      const { openSqliteStore } = await import(${JSON.stringify(STORE)})
      const { writeSync } = await import('node:fs')
      const clock = { nowMs: () => ${manualClock().nowMs()}, elapsedMs: () => 0 }
      const store = openSqliteStore({ path: ${JSON.stringify(path)}, clock })
      while (store.spend('acme', ${JSON.stringify(charges)}) === -1) writeSync(1, '.')`
    let said = 0
    for (let kill = 0; kill < 5; kill++) {
      const child = spawn(process.execPath, ['--input-type=module', '-e', script], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const ended = new Promise((resolve) => child.once('close', resolve))
      let here = 0
      for await (const chunk of child.stdout) {
        here += chunk.length
        if (here > 20 + 17 * kill) child.kill('SIGKILL')
      }
      await ended
      said += here
      const store = openSqliteStore({ path, clock: manualClock() })
      const spent = charges.map((charge) => limit - (store.left('acme', charge) as number))
      store.close()
      expect(spent[0]).toBe(spent[1])
      expect(spent[0]).toBeGreaterThanOrEqual(said)
      expect(spent[0]).toBeLessThanOrEqual(said + kill + 1) // the one that was cut off before it could be said
    }
    expect(said).toBeGreaterThan(100)
  })

  it('loses nothing that it answered when the process is killed', () => {
    const store = openSqliteStore({ path, clock: manualClock() })
    store.create(stored())
    store.spend('acme', [once(stored().expiresAt)])
    store.end('acme', 'g1', { reason: 'revoked', untilS: stored().expiresAt })
    // What another process finds on disk at this moment: the file and its log, not closed by anyone.
    for (const file of [path, `${path}-wal`]) copyFileSync(file, file.replace('state.sqlite', 'copy.sqlite'))
    const after = openSqliteStore({ path: join(dir, 'copy.sqlite'), clock: manualClock() })
    expect(after.spend('acme', [once(stored().expiresAt)])).toBe(0)
    expect(after.byId('acme', 'g1')).toMatchObject({ ended: 'revoked' })
    after.close()
    store.close()
  })

  it('charges nothing of a spend that fails half-way', () => {
    const store = openSqliteStore({ path, clock: manualClock() })
    const broken = { ...once(1), name: 'b', by: 0.5 } // no integer: the second row is refused by the table
    expect(() =>
      store.spend('acme', [
        { ...once(1), limit: 2 },
        { ...broken, limit: 9 },
      ]),
    ).toThrowError(expect.objectContaining({ code: 'store_unavailable' }))
    expect(store.left('acme', once(1))).toBe(1)
    expect(store.spend('acme', [once(1)])).toBe(-1)
    store.close()
  })

  it('refuses a file of a newer gateway, and says what to do', () => {
    const database = new DatabaseSync(path)
    database.exec('PRAGMA user_version = 99')
    database.close()
    expect(() => openSqliteStore({ path, clock: manualClock() })).toThrow(
      /newer gateway.*start that version, or move the file away/,
    )
  })

  it('refuses a file that is no database, naming it', () => {
    writeFileSync(path, 'not a database, but long enough to be taken for one'.repeat(100))
    expect(() => openSqliteStore({ path, clock: manualClock() })).toThrow(path)
  })

  it('answers store_unavailable once it cannot be used', () => {
    const store = openSqliteStore({ path, clock: manualClock() })
    store.close()
    expect(() => store.byHandle('acme', 'd1')).toThrowError(expect.objectContaining({ code: 'store_unavailable' }))
    const unavailable = expect.objectContaining({ code: 'store_unavailable' })
    expect(() => store.end('acme', 'g1', { reason: 'x', untilS: 1 })).toThrowError(unavailable)
    expect(() => store.spend('acme', [once(1)])).toThrowError(unavailable)
    expect(() => store.once('acme', 'x', 1)).toThrowError(unavailable)
  })
})

const task: StoredTask = {
  tenant: 'acme',
  id: 't1',
  body: 'b',
  version: 0,
  expiresAt: 0,
  watched: true,
  isSuspended: false,
}

function rowsOf(path: string): Record<string, number> {
  const database = new DatabaseSync(path)
  const tables = ['grants', 'ended', 'tasks', 'counts', 'calls', 'seen']
  const rows = tables.map((table) => [table, database.prepare(`SELECT count(*) AS n FROM ${table}`).get()?.n])
  database.close()
  return Object.fromEntries(rows)
}

/** As the gateway before this one made it. */
const VERSION_1 = `
  CREATE TABLE grants (
    tenant TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL, handle_digest TEXT NOT NULL,
    body TEXT NOT NULL, expires_at INTEGER NOT NULL,
    ended TEXT,
    beat_at_ms REAL,
    PRIMARY KEY (tenant, id), UNIQUE (tenant, handle_digest), UNIQUE (tenant, task)
  ) STRICT;
  CREATE INDEX grants_by_expiry ON grants (expires_at);
  CREATE INDEX grants_by_beat ON grants (beat_at_ms) WHERE beat_at_ms IS NOT NULL AND ended IS NULL;
  CREATE TABLE uses (
    tenant TEXT NOT NULL, id TEXT NOT NULL, operation TEXT NOT NULL, expires_at INTEGER NOT NULL,
    PRIMARY KEY (tenant, id, operation)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX uses_by_expiry ON uses (expires_at);
  PRAGMA user_version = 1;`
