/** The conformance suite on SQLite, and what is its own. */
import { statSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { expect, it } from 'vitest'
import { storable } from '../../gateway/approval/store.ts'
import { openSqliteApprovals } from '../../gateway/approval/store-sqlite.ts'
import { describeApprovals } from '../conformance/approvals.ts'
import { manualClock } from '../rig/clock.ts'
import { record } from './approval.fixture.ts'

describeApprovals('SQLite', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-approvals-'))
  const path = join(dir, 'approvals.sqlite')
  return {
    open: (clock) => {
      new DatabaseSync(path).close() // so that both find the file
      return openSqliteApprovals({ path, clock })
    },
    close: () => rm(dir, { recursive: true, force: true }),
  }
})

it('makes its file for its owner alone, and refuses one of a later version', async () => {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-approvals-'))
  const path = join(dir, 'approvals.sqlite')
  const clock = manualClock()
  const store = openSqliteApprovals({ path, clock })
  expect(() => statSync(path)).toThrow('ENOENT')
  expect(await store.count('acme', 'nobody')).toBe(0)
  expect(() => statSync(path)).toThrow('ENOENT')
  await store.add(storable(record(clock.nowMs()), 'sealed'), 1)
  expect(statSync(path).mode & 0o777).toBe(0o600)
  await store.close()
  const database = new DatabaseSync(path)
  database.exec('PRAGMA user_version = 99')
  database.close()
  expect(() => openSqliteApprovals({ path, clock })).toThrow(/newer gateway/)
  await rm(dir, { recursive: true, force: true })
})
