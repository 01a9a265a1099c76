/** What somebody forges who has the key of a log, an old checkpoint of it, or only the directory that an auditor is given. */
import { cp, readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { zstdCompressSync } from 'node:zlib'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { seekTable } from '../../gateway/audit/files/seekable.ts'
import { listSegments } from '../../gateway/audit/files/segments.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { dropAndSign, history, renumber, signAgain, writeHistory } from './history.fixture.ts'
import { grant, linesOf, ORIGIN, openTestLog, temporaryDir, testClock } from './log.fixture.ts'

let base: string
let dir: string
beforeEach(async () => {
  base = await temporaryDir()
  dir = join(base, 'audit')
})
afterEach(() => rm(base, { recursive: true, force: true }))

describe('whoever has the key and rewrites one entry is caught by the others:', () => {
  type Edited = { -readonly [name in keyof Entry]: Entry[name] }
  it.each<[string, string, string, (entry: Edited) => void]>([
    ['the human of a call', 'call.decision', 'grant', (entry) => Object.assign(entry.human ?? {}, { sub: 'eve' })],
    ['the human of an outcome', 'call.outcome', 'grant', (entry) => Object.assign(entry.human ?? {}, { sub: 'eve' })],
    ['the task of a call', 'call.decision', 'grant', (entry) => Object.assign(entry.task ?? {}, { id: 'other' })],
    [
      'an outcome that nobody is responsible for',
      'call.outcome',
      'call',
      (entry) => {
        for (const name of ['human', 'lineage', 'lineage_hash', 'task'] as const) delete entry[name]
      },
    ],
    [
      'a grant that was refused',
      'grant.issued',
      'grant',
      (entry) => Object.assign(entry.decision ?? {}, { effect: 'deny' }),
    ],
  ])('%s', async (_, kind, check, edit) => {
    await writeHistory(dir)
    const entries = (await linesOf(dir)).map((line) => JSON.parse(line) as Edited)
    const index = entries.findIndex((entry) => entry.kind === kind)
    edit(entries[index] as Edited)
    await signAgain(dir, renumber(entries.map((entry) => JSON.stringify(entry))), ORIGIN)
    expect(await verifyLog(dir)).toMatchObject({ ok: false, first_bad: { check, index } })
  })

  it('who takes out a call and everything that counted it leaves a run that begins without a heartbeat', async () => {
    await writeHistory(dir)
    await dropAndSign(dir, ORIGIN, ({ kind }) => kind === 'log.heartbeat')
    expect(await verifyLog(dir)).toMatchObject({ warnings: [{ check: 'heartbeat' }] })
  })
})

it('entries of hours behind an old checkpoint are not taken for the last moment before a signature', async () => {
  await writeHistory(dir)
  const checkpoint = await readFile(join(dir, 'checkpoint'))
  const h = await history(dir, { clock: testClock(Date.parse('2026-11-22T10:00:00Z')) })
  const root = await h.open()
  const lease = await h.lease(root)
  const first = (await linesOf(dir)).length
  for (const ms of [0, 59_000, 2000]) {
    h.clock.ms += ms
    await h.call(root, lease)
  }
  await h.close()
  const forged = (await linesOf(dir)).map((line, i) =>
    i < first ? line : line.replace('/repos/acme/', '/repos/evil/'),
  )
  await writeFile(join(dir, 'checkpoint'), checkpoint)
  for (const name of ['leaves', 'frontier.json']) await rm(join(dir, name), { force: true })
  const cover = async (lines: readonly string[]) => {
    await writeFile(join(dir, 'entries.jsonl'), lines.map((line) => `${line}\n`).join(''))
    return verifyLog(dir, { nowMs: Date.parse('2026-11-23T00:00:00Z') })
  }
  expect(await cover(forged)).toMatchObject({ ok: false, first_bad: { check: 'checkpoint' } })
  // What a crash leaves unsigned is a moment.
  expect(await cover(forged.slice(0, first + 3))).toMatchObject({ ok: true })
})

it('names that are too long for the entries of calls accuse nobody', async () => {
  const h = await history(dir)
  const made = grant()
  const agent = { ...made.agent, id: `spiffe://acme.test/${'a'.repeat(1000)}` }
  const lineage = made.lineage.map((step) => (step.grant === undefined ? step : { ...step, id: agent.id }))
  const root = await h.open({ agent, lineage })
  await h.call(root, await h.lease(root))
  const child = await h.delegate(root)
  await h.call(child, await h.lease(child))
  await h.close()
  expect(await verifyLog(dir)).toMatchObject({ ok: true, calls: 2, warnings: [] })
})

it('a log of another name in the place of the one that is remembered does not pass in silence', async () => {
  await writeHistory(dir)
  const remember = join(base, 'remembered.json')
  await verifyLog(dir, { remember })
  await rm(dir, { recursive: true })
  await (await openTestLog(dir, { origin: 'keyless.test/other' })).close()
  expect(await verifyLog(dir, { remember })).toMatchObject({
    origin: 'keyless.test/other',
    warnings: [{ check: 'remembered', what: expect.stringContaining(ORIGIN) }],
  })
})

it.each([
  ['spaces', 256 * 1024 * 1024, 0x20],
  ['empty lines', 4 * 1024 * 1024, 0x0a],
])('a few bytes that unpack to a file of %s are not unpacked', async (_, bytes, byte) => {
  await writeHistory(dir, { segmentBytes: 4096 })
  const copy = join(base, 'copy')
  await cp(dir, copy, { recursive: true })
  const frame = zstdCompressSync(Buffer.alloc(bytes, byte))
  const plain = (await listSegments(copy))[0]?.path ?? ''
  await writeFile(`${plain}.zst`, Buffer.concat([frame, seekTable([{ bytes: frame.length, textBytes: bytes }])]))
  await rm(plain)
  const before = process.memoryUsage.rss()
  expect(await verifyLog(copy)).toMatchObject({ ok: false, first_bad: { check: 'file', index: 0 } })
  expect(process.memoryUsage.rss() - before).toBeLessThan(128 * 1024 * 1024)
})
