/**
 * The journal of emergencies and its way into the log: whatever fails, and whenever the process is killed, what somebody was told is
 * recorded is in the log in the end, once and in order.
 */
import { createSecretKey, randomBytes } from 'node:crypto'
import { appendFileSync, copyFileSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import type { Audit } from '../../gateway/audit/audit.ts'
import type { Aside } from '../../gateway/audit/entries/aside.ts'
import { Journal } from '../../gateway/audit/files/journal.ts'
import { foundInLog } from '../../gateway/audit/files/journal-found.ts'
import type { Log } from '../../gateway/audit/log.ts'
import {
  decision,
  endpoint,
  entriesOf,
  failingDisk,
  grant,
  inbound,
  leaseFacts,
  openTestLog,
  outcome,
  temporaryDir,
  testAudit,
  verifyStored,
} from './log.fixture.ts'

const key = createSecretKey(randomBytes(32))
const closing: (() => unknown)[] = []
afterEach(async () => {
  for (const close of closing.splice(0).reverse()) await close()
})

interface Run {
  readonly log: Log
  readonly audit: Audit
  readonly journal: Journal
  readonly aside: Aside
  readonly disk: ReturnType<typeof failingDisk>
  /** The process is gone; what it had open is let go of. */
  kill(): Promise<void>
}

/** A process that starts on these directories, as the house starts it. */
async function startRun(dir: string): Promise<Run> {
  const disk = failingDisk()
  const log = await openTestLog(join(dir, 'audit'), { disk })
  const audit = testAudit(log)
  const journal = await Journal.open(join(dir, 'journal'), key)
  if (journal.began) journal.handOver(await foundInLog(join(dir, 'audit'), journal.began))
  const aside = audit.beside(journal, () => {})
  await aside.drain()
  const kill = async () => {
    journal.close()
    disk.fails = undefined
    await log.close().catch(() => undefined)
  }
  return { log, audit, journal, aside, disk, kill }
}

async function tempDir(): Promise<string> {
  const dir = await temporaryDir()
  closing.push(() => rmSync(dir, { recursive: true, force: true }))
  return dir
}

const say = (aside: Aside, n: number) =>
  aside.record(
    'breakglass.refused',
    { tenant: 'default', req: `req-${n}`, grant: undefined },
    {
      ...{ request: String(n), code: 'break_glass_refused', detail: 'x', opened_by: 'me' },
    },
  )

/** Numbers of what was said, in the order of the log, whether it came directly or late. */
async function saidIn(dir: string): Promise<number[]> {
  const entries = await entriesOf(join(dir, 'audit'))
  return entries.flatMap(({ kind, req }) => (kind.startsWith('breakglass.') ? [Number(req?.slice(4))] : []))
}

describe('while the log can be written', () => {
  it('is not used', async () => {
    const dir = await tempDir()
    const { aside, journal, kill } = await startRun(dir)
    expect((await say(aside, 1)).logged).toBe(true)
    expect(journal.pending).toBe(0)
    await kill()
    expect(readdirSync(join(dir, 'journal'))).not.toContain('journal.jsonl')
  })
})

describe('calls of an emergency', () => {
  it('that are cut at the same moment all have their ends in the log, whatever comes after', async () => {
    const { log, aside, audit, kill } = await startRun(await tempDir())
    const calls = await Promise.all(
      ['a', 'b', 'c'].map(async (id) => {
        const call = aside.openCall(inbound({ id: `019a0000-0000-7000-8000-00000000000${id}` }))
        call.located(endpoint())
        call.authenticated(grant())
        call.decided(decision())
        await call.commit()
        call.leased({ facts: leaseFacts() })
        return call
      }),
    )
    expect(audit.open).toBe(3)
    const before = log.size
    for (const call of calls) call.closed(outcome())
    await expect.poll(() => log.size - before).toBe(3)
    expect(audit.open).toBe(0)
    await kill()
  })
})

describe('while the log cannot be written', () => {
  it('takes what the log did not, and hands it over once', async () => {
    const dir = await tempDir()
    const { aside, journal, disk, kill } = await startRun(dir)
    disk.fails = 'half'
    for (const n of [1, 2, 3]) expect((await say(aside, n)).logged).toBe(false)
    expect(journal.pending).toBe(3)
    disk.fails = undefined
    await expect.poll(() => aside.drain(), { timeout: 5000 }).toBe(true)
    expect(await saidIn(dir)).toEqual([1, 2, 3])
    expect((await say(aside, 4)).logged).toBe(true)
    await kill()
    expect(await saidIn(dir)).toEqual([1, 2, 3, 4])
    expect(await verifyStored(join(dir, 'audit'))).toMatchObject({ ok: true })
  })

  it('keeps what an entry said, with its time and its number', async () => {
    const dir = await tempDir()
    const { aside, disk, kill } = await startRun(dir)
    disk.fails = 'before'
    const acting = grant()
    await aside.recordUnder('lease.issued', acting, { provider: 'static', credential: 'c', service: 's' })
    disk.fails = undefined
    await expect.poll(() => aside.drain(), { timeout: 5000 }).toBe(true)
    await kill()
    const late = (await entriesOf(join(dir, 'audit'))).find(({ kind }) => kind === 'breakglass.recorded_late')
    expect(late).toMatchObject({
      lineage: expect.anything(),
      human: { sub: 'ana' },
      facts: { of: 'lease.issued', n: 1, facts: { provider: 'static', grant: acting.id } },
    })
    expect(late?.facts?.at).toMatch(/^\d{4}-\d\d-\d\dT/)
  })
})

describe('somebody at the journal', () => {
  /** A journal with three entries of a process that was killed. */
  async function left(): Promise<{ dir: string; file: string }> {
    const dir = await tempDir()
    const { aside, disk, kill } = await startRun(dir)
    disk.fails = 'before'
    for (const n of [1, 2, 3]) await say(aside, n)
    await kill()
    return { dir, file: join(dir, 'journal', 'journal.jsonl') }
  }

  it('half a line, which a crash leaves, was told to nobody and is dropped', async () => {
    const { dir, file } = await left()
    appendFileSync(file, '{"n":4,"entry":"{')
    const { journal, kill } = await startRun(dir)
    expect(journal.damage).toBeUndefined()
    await kill()
    expect(await saidIn(dir)).toEqual([1, 2, 3])
  })

  it.each([
    ['changed', (lines: string[]) => lines.map((line, i) => (i === 2 ? line.replace('req-2', 'req-9') : line)), [1]],
    ['taken out', (lines: string[]) => lines.toSpliced(2, 1), [1]],
    ['put in twice', (lines: string[]) => lines.toSpliced(2, 0, lines[1] ?? ''), [1]],
    ['put in another order', (lines: string[]) => [lines[0], lines[2], lines[1], lines[3], ''] as string[], []],
    ['made up', (lines: string[]) => lines.toSpliced(4, 0, '{"n":4,"entry":"{}","mac":"x"}'), [1, 2, 3]],
  ] as const)(
    'a line that was %s is seen, what is whole before it is recorded, and the file kept',
    async (_, change, whole) => {
      const { dir, file } = await left()
      writeFileSync(file, change(readFileSync(file, 'utf8').split('\n')).join('\n'))
      const { journal, kill } = await startRun(dir)
      expect(journal.damage).toMatchObject({ whole: whole.length })
      expect(readdirSync(join(dir, 'journal'))).toContain(journal.damage?.keptIn)
      await kill()
      expect(await saidIn(dir)).toEqual(whole)
    },
  )

  it('a journal of another key is nobody’s', async () => {
    const { dir, file } = await left()
    const elsewhere = await left()
    copyFileSync(elsewhere.file, file)
    writeFileSync(file, readFileSync(file, 'utf8').replace(/"journal":"[^"]+"/, '"journal":"other"'))
    const { journal, kill } = await startRun(dir)
    expect(journal.damage).toMatchObject({ whole: 0 })
    await kill()
    expect(await saidIn(dir)).toEqual([])
  })

  it('another process is kept out while one has it', async () => {
    const dir = await tempDir()
    const { kill } = await startRun(dir)
    await expect(Journal.open(join(dir, 'journal'), key)).rejects.toThrow(/another gateway keeps its journal there/)
    await kill()
  })
})

it('a process that dies between handing an entry over and noting it hands it over once', async () => {
  const dir = await tempDir()
  const first = await startRun(dir)
  first.disk.fails = 'before'
  for (const n of [1, 2, 3]) await say(first.aside, n)
  const file = join(dir, 'journal', 'journal.jsonl')
  const before = readFileSync(file)
  first.disk.fails = undefined
  await expect.poll(() => first.aside.drain(), { timeout: 5000 }).toBe(true)
  await first.kill()
  writeFileSync(file, before) // as if it had died before the file was put aside
  const second = await startRun(dir)
  await second.kill()
  expect(await saidIn(dir)).toEqual([1, 2, 3])
})

it('for all orders of outages, entries and kills: all that was told is in the log, once, in order', async () => {
  const step = fc.oneof(
    { weight: 4, arbitrary: fc.constant('say' as const) },
    fc.constantFrom('before' as const, 'after' as const, 'half' as const),
    { weight: 2, arbitrary: fc.constant('mend' as const) },
    fc.constant('kill' as const),
  )
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 14 }), async (steps) => {
      const dir = await temporaryDir()
      let run = await startRun(dir)
      const told: number[] = []
      for (const [n, what] of steps.entries()) {
        if (what === 'say') {
          await say(run.aside, n)
          told.push(n)
        } else if (what === 'kill') {
          await run.kill()
          run = await startRun(dir)
        } else run.disk.fails = what === 'mend' ? undefined : what
      }
      await run.kill()
      await (await startRun(dir)).kill()
      expect(await saidIn(dir)).toEqual(told)
      rmSync(dir, { recursive: true, force: true })
    }),
    { numRuns: 15 },
  )
})
