/** The conformance suite on SQLite, and what is SQLite's own. */
import { chmodSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSqliteStore } from '../../gateway/grant/store-sqlite.ts'
import { describeStore } from '../conformance/store.ts'
import { manualClock } from '../rig/clock.ts'

describeStore('SQLite', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'keyless-store-'))
  return {
    open: (clock) => openSqliteStore({ path: join(dir, 'state.sqlite'), clock }),
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
    watched: false,
    ...changes,
  })
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'keyless-store-'))
    path = join(dir, 'state.sqlite')
  })
  afterEach(() => rmSync(dir, { recursive: true }))

  it('answers without a promise', () => {
    const store = openSqliteStore({ path, clock: manualClock() })
    expect(store.create(stored())).toBeUndefined()
    expect(store.byHandle('acme', 'd1')).toMatchObject({ stored: { id: 'g1' } })
    expect(store.spend('acme', 'g1', 'x', 1)).toBe(true)
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

  it('forgets a grant and its spent uses an hour after it expired, not earlier', () => {
    const clock = manualClock()
    const store = openSqliteStore({ path, clock })
    store.create(stored())
    store.spend('acme', 'g1', 'x', stored().expiresAt)
    clock.advance((900 + 3600) * 1000)
    store.create(stored({ id: 'g2', task: 't2', handleDigest: 'd2' }))
    expect(store.byId('acme', 'g1')).toBeDefined()
    clock.advance(1000)
    store.create(stored({ id: 'g3', task: 't3', handleDigest: 'd3' }))
    expect(store.byId('acme', 'g1')).toBeUndefined()
    expect(store.spend('acme', 'g1', 'x', stored().expiresAt)).toBe(true)
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
    expect(() => store.end(stored(), 'x')).toThrowError(expect.objectContaining({ code: 'store_unavailable' }))
  })
})
