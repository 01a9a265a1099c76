/** Everything arrives, in order, at least once, whatever the receiver does; and nothing is given up without a word. */
import { mkdtemp, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { beforeEach, describe, expect, it } from 'vitest'
import type { Log } from '../../../gateway/audit/log.ts'
import { createCursor } from '../../../gateway/records/export/cursor.ts'
import { createItems, type Item } from '../../../gateway/records/export/item.ts'
import { createMask } from '../../../gateway/records/export/mask.ts'
import { createOffer } from '../../../gateway/records/export/offer.ts'
import { type PumpState, runPump } from '../../../gateway/records/export/pump.ts'
import { Refusal, type Sink, Unavailable } from '../../../gateway/records/export/sink.ts'
import { call, note, ORIGIN, openTestLog, temporaryDir, testAudit } from '../../audit/log.fixture.ts'
import { itemsOf, KEY } from './entries.fixture.ts'

let dir: string
let stateDir: string
let log: Log

beforeEach(async () => {
  dir = await temporaryDir()
  stateDir = join(await mkdtemp(join(tmpdir(), 'keyless-export-')), 'export')
  log = await openTestLog(dir)
  return () => log.close()
})

/** Entries that the signed checkpoint covers, `log.opened` first. */
async function append(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await log.append(note({ i }))
  await reopen()
}

/** Closing signs everything; opening goes on behind it. */
async function reopen(): Promise<void> {
  await log.close()
  log = await openTestLog(dir)
}

interface Receiver extends Sink {
  /** Numbers of what was taken, in order. */
  readonly taken: number[]
  readonly asked: number[][]
}

/** @param answer throws to say no. */
function receiver(answer: (items: readonly Item[], nth: number) => void = () => {}): Receiver {
  const taken: number[] = []
  const asked: number[][] = []
  return {
    taken,
    asked,
    async deliver(items) {
      asked.push(items.map(({ entry }) => entry.seq))
      answer(items, asked.length)
      taken.push(...items.map(({ entry }) => entry.seq))
    },
    close: async () => {},
  }
}

interface Run {
  readonly warnings: string[]
  readonly states: PumpState[]
  readonly slept: number[]
}

/** Runs until it has slept `sleeps` times, then lets it end. */
async function run(sink: Sink, change: { sleeps?: number; kinds?: string[]; log?: string } = {}): Promise<Run> {
  const told: Run = { warnings: [], states: [], slept: [] }
  const stop = new AbortController()
  const sleep = async (ms: number) => {
    if (told.slept.push(ms) >= (change.sleeps ?? 1)) stop.abort()
  }
  await runPump(
    {
      log: change.log ?? ORIGIN,
      dir,
      cursor: createCursor(stateDir, 'siem', change.log ?? ORIGIN),
      items: createItems(createMask([], KEY), false),
      sink,
      kinds: change.kinds,
      report: (state) => told.states.push(state),
      warn: (text) => told.warnings.push(text),
      sleep,
      random: () => 0.999_999,
    },
    stop.signal,
  )
  return told
}

const upTo = (end: number, from = 0) => Array.from({ length: end - from }, (_, i) => from + i)

describe('an export', () => {
  it('delivers what the log has from its beginning, and goes on where it was after a restart', async () => {
    await append(5)
    const first = receiver()
    await run(first)
    const second = receiver()
    await append(3)
    await run(second)
    expect([...first.taken, ...second.taken]).toEqual(upTo(first.taken.length + second.taken.length))
    expect(second.taken.length).toBeGreaterThan(3)
  })

  it('sends the same entries again when the gateway died before the cursor was written, and leaves none out', async () => {
    await append(4)
    await run(receiver())
    const cursor = join(stateDir, 'siem.json')
    const before = await readFile(cursor)
    await append(4)
    const first = receiver()
    await run(first)
    await writeFile(cursor, before) // as a crash between confirmation and cursor leaves it
    const second = receiver()
    await run(second)
    expect(second.taken.slice(0, first.taken.length)).toEqual(first.taken)
  })

  it('waits twice as long after each failure, up to a minute, and then delivers everything in order', async () => {
    await append(3)
    const sink = receiver((_, nth) => {
      if (nth <= 8) throw new Error('connection refused')
    })
    const { slept, warnings, states } = await run(sink, { sleeps: 9 })
    expect(slept.slice(0, 8).map(Math.round)).toEqual([1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000])
    expect(new Set(sink.taken)).toEqual(new Set(upTo(sink.taken.length)))
    expect(warnings).toEqual(['waits and tries again: connection refused', 'works again'])
    expect(states.some(({ failure, entries }) => failure === 'connection refused' && entries > 0)).toBe(true)
    expect(states.at(-1)).toMatchObject({ entries: 0, failure: undefined })
  })

  it('leaves the receiver alone for as long as it asks', async () => {
    await append(1)
    const { slept } = await run(
      receiver((_, nth) => {
        if (nth === 1) throw new Unavailable('HTTP 429', 120_000)
      }),
      { sleeps: 2 },
    )
    expect(slept[0]).toBe(120_000)
  })

  it('says how far behind it is, since when and why', async () => {
    await append(3)
    const { states } = await run(
      receiver(() => {
        throw new Error('down')
      }),
      { sleeps: 2 },
    )
    expect(states.at(-1)).toMatchObject({ entries: log.size, failure: 'down' })
    expect(states.at(-1)?.sinceMs).toBeGreaterThan(0)
  })

  it('takes only the kinds it was asked for, and passes over the others for good', async () => {
    await append(3)
    const sink = receiver()
    const { states } = await run(sink, { kinds: ['policy.*'] })
    expect(sink.taken).toHaveLength(3)
    expect(states.at(-1)?.entries).toBe(0)
  })

  it('tells an outcome with the target of its decision, also when it was restarted between the two', async () => {
    const audit = testAudit(log)
    const event = audit.openCall((await import('../../audit/log.fixture.ts')).inbound())
    await event.commit()
    const open = await call(audit) // a whole one, so that the first is not the last
    await reopen()
    const seen: Item[] = []
    const keep = receiver((items) => void seen.push(...items))
    await run(keep)
    const mark = JSON.parse(await readFile(join(stateDir, 'siem.json'), 'utf8'))
    expect(mark.open).toHaveLength(1)
    expect(seen.find(({ entry }) => entry.kind === 'call.outcome')?.decision?.target?.host).toBe('api.github.com')
    expect(open).toBeDefined()
  })

  it('notices a log that was cut or put back, and does not begin again', async () => {
    await append(3)
    await run(receiver())
    const path = join(stateDir, 'siem.json')
    const mark = JSON.parse(await readFile(path, 'utf8'))
    await writeFile(path, JSON.stringify({ ...mark, place: { ...mark.place, seq: 1000 } }))
    const sink = receiver()
    const { warnings } = await run(sink)
    expect(warnings).toEqual([
      expect.stringMatching(/the log ends at entry \d+, but 1000 were exported: it was cut or put back/),
    ])
    expect(sink.taken).toEqual([])
  })

  it('refuses the cursor of another log, and one that cannot be read, by name', async () => {
    await append(1)
    await run(receiver())
    expect((await run(receiver(), { log: 'other.test/log' })).warnings[0]).toMatch(
      /counts in the log keyless\.test\/default, and this is other/,
    )
    await writeFile(join(stateDir, 'siem.json'), '{"log":')
    expect((await run(receiver())).warnings[0]).toMatch(/siem\.json is not a cursor/)
  })
})

describe('an entry that the receiver will not have', () => {
  const poison = (bad: ReadonlySet<number>) =>
    receiver((items) => {
      const found = items.find(({ entry }) => bad.has(entry.seq))
      if (found) throw new Refusal('HTTP 400: what is this')
    })

  it('is found by halving, set aside by number and reason, told aloud, and holds up no other', async () => {
    await append(40)
    const sink = poison(new Set([7, 23]))
    const { warnings, states } = await run(sink)
    expect(new Set(sink.taken)).toEqual(new Set(upTo(log.size).filter((seq) => seq !== 7 && seq !== 23)))
    const aside = (await readFile(join(stateDir, 'siem.refused.jsonl'), 'utf8')).trim().split('\n')
    expect(aside.map((line) => JSON.parse(line))).toEqual(
      [7, 23].map((seq) => ({ log: ORIGIN, seq, kind: 'policy.loaded', reason: 'HTTP 400: what is this' })),
    )
    expect(warnings).toEqual([
      expect.stringMatching(
        /does not take entry 7 and 1 others \(HTTP 400: what is this\); set aside in .*siem\.refused\.jsonl/,
      ),
    ])
    expect(states.at(-1)).toMatchObject({ refused: 2, entries: 0 })
  })

  it('is not given up while the receiver takes nothing at all: then it is the receiver that is wrong', async () => {
    await append(30)
    const sink = poison(new Set(upTo(100)))
    const { warnings, states } = await run(sink, { sleeps: 3 })
    expect(warnings).toEqual(['waits and tries again: it refuses everything: HTTP 400: what is this'])
    expect(states.at(-1)).toMatchObject({ refused: 0, failure: expect.stringContaining('refuses everything') })
    expect(sink.asked.length).toBeLessThan(60) // a few probes a try, not every entry
    await expect(readFile(join(stateDir, 'siem.refused.jsonl'))).rejects.toThrow('ENOENT')
  })

  it('never costs another entry: whichever are refused, exactly the others are taken, in order', async () => {
    const all = itemsOf()
    await fc.assert(
      fc.asyncProperty(fc.subarray(upTo(all.length)), async (bad) => {
        const sink = poison(new Set(bad))
        const offer = createOffer(sink, Math.random)
        const refused = await offer(all).catch((cause: Error) => cause)
        if (refused instanceof Unavailable) {
          expect(sink.taken).toEqual([]) // all are bad, or the probes met only bad ones: it is tried again with others
          return
        }
        if (refused instanceof Error) throw refused
        expect(refused.map(({ item }) => item.entry.seq)).toEqual(bad)
        const good = upTo(all.length).filter((seq) => !bad.includes(seq))
        expect([...new Set(sink.taken)].sort((a, b) => a - b)).toEqual(good)
        expect(sink.taken.slice(-good.length)).toEqual(good) // after the probes
      }),
      { numRuns: 60 },
    )
  })
})
