import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { Tally } from '../../gateway/audit/entries/tally.ts'
import { startHeartbeat } from '../../gateway/audit/heartbeat.ts'
import { manualClock } from '../rig/clock.ts'
import { ROOT, run } from '../rig/process.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

function heart() {
  const clock = manualClock()
  const written: Record<string, unknown>[] = []
  const state: { failure: Error | undefined; answer: Promise<unknown> } = {
    failure: undefined,
    answer: Promise.resolve(),
  }
  const tally = new Tally()
  const stop = startHeartbeat({
    ...{ everyMs: 60_000, clock, tally, kept: () => 2, failure: () => state.failure },
    write(facts) {
      written.push(facts)
      return state.answer
    },
  })
  const pass = async (ms: number) => {
    clock.advance(ms)
    await vi.advanceTimersByTimeAsync(ms)
  }
  return { written, state, tally, stop, pass }
}

it('beats at once and then in time, with what was done since the start', async () => {
  const { written, tally, stop, pass } = heart()
  tally.allowed = 5
  tally.refused = 1
  tally.open = 3
  await pass(60_000)
  await pass(60_000)
  stop()
  await pass(600_000)
  expect(written).toMatchObject([
    { allowed: 0, refused: 0, open: 0, kept: 2, up_ms: 0, every_ms: 60_000 },
    { allowed: 5, refused: 1, open: 3, up_ms: 60_000 },
    { allowed: 5, refused: 1, open: 3, up_ms: 120_000 },
  ])
})

it('is silent while nothing can be written, and beats again afterwards', async () => {
  const { written, state, pass, stop } = heart()
  state.failure = new Error('ENOSPC')
  await pass(180_000)
  expect(written.length).toBe(1)
  state.failure = undefined
  await pass(60_000)
  expect(written.map(({ up_ms }) => up_ms)).toEqual([0, 240_000])
  stop()
})

it('has one beat under way on a slow disk, not many, and outlives one that failed', async () => {
  const { written, state, pass, stop } = heart()
  await pass(0)
  let fail: (cause: Error) => void = () => {}
  state.answer = new Promise((_, reject) => {
    fail = reject
  })
  await pass(60_000)
  await pass(60_000)
  expect(written.length).toBe(2)
  state.answer = Promise.resolve()
  fail(new Error('EIO'))
  await pass(60_000)
  expect(written.length).toBe(3)
  stop()
})

it('keeps no process alive', async () => {
  vi.useRealTimers()
  const script = `
    import { startHeartbeat } from './gateway/audit/heartbeat.ts'
    import { Tally } from './gateway/audit/entries/tally.ts'
    import { systemClock as clock } from './gateway/protocol/clock.ts'
    const quiet = { kept: () => 0, failure: () => undefined, write: async () => undefined }
    startHeartbeat({ everyMs: 3_600_000, clock, tally: new Tally(), ...quiet })`
  expect(await run(process.execPath, ['--input-type=module', '-e', script], { cwd: ROOT })).toMatchObject({ code: 0 })
})
