/**
 * Messages are kept until they are taken: a receiver that is down for days, one message that it never takes, a crash anywhere, a disk
 * that is full of them. Time is the test's.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import type { Item } from '../../../gateway/records/export/item.ts'
import { createLetterbox, type Letterbox, type LetterState } from '../../../gateway/records/export/letterbox.ts'
import type { Push, Pushed } from '../../../gateway/records/export/sink-http.ts'
import { openSpool, type Spool } from '../../../gateway/records/export/spool.ts'

const HOUR = 3_600_000
/** Each step waits for the disk, which others use as well. */
const PATIENT = { timeout: 20_000 }

let dir: string
let spool: Spool
let nowMs: number
/** Who waits for what time. */
let timers: Set<{ atMs: number; done: () => void }>
let states: LetterState[]
let gaveUp: string[]
let taken: string[]
let attempts: { atMs: number; id: string }[]
let answer: (id: string) => Partial<Pushed> | Error
let stop: AbortController
let running: Promise<void> | undefined

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-letters-'))
  spool = openSpool(dir)
  nowMs = Date.UTC(2026, 5, 1)
  timers = new Set()
  states = []
  gaveUp = []
  taken = []
  attempts = []
  answer = () => ({ status: 200 })
  stop = new AbortController()
})

afterEach(async () => {
  stop.abort()
  await running
  await rm(dir, { recursive: true, force: true })
})

async function send({ headers }: Push): Promise<Pushed> {
  const id = headers['webhook-id'] as string
  attempts.push({ atMs: nowMs, id })
  const said = answer(id)
  if (said instanceof Error) throw said
  const whole = { status: 200, retryAfter: null, text: '', ...said }
  if (whole.status === 200) taken.push(id)
  return whole
}

function open(): Letterbox {
  const box = createLetterbox({
    format: 'standard',
    terms: { publicUrl: 'https://keyless.test', audience: '', stream: '' },
    spool: watched(spool),
    send,
    report: (state) => void states.push(state),
    warn: () => undefined,
    gaveUp: ({ id }) => void gaveUp.push(id),
    nowMs: () => nowMs,
    random: () => 0.5,
    after(ms, done) {
      const timer = { atMs: nowMs + ms, done }
      timers.add(timer)
      return () => timers.delete(timer)
    },
  })
  running = box.run(stop.signal)
  return box
}

function item(seq: number): Item {
  const entry = { v: 'ar/1', seq, ts: '2026-06-01T00:00:00.000Z', kind: 'leak.detected', log: 'test' }
  return { uid: `test:${seq}`, entry, decision: undefined, proven: undefined }
}

/** The disk is at work for the box. */
let busy = 0

function watched(real: Spool): Spool {
  const watch =
    <A extends unknown[], R>(work: (...args: A) => Promise<R>) =>
    (...args: A): Promise<R> => {
      busy += 1
      return work(...args).finally(() => {
        busy -= 1
      })
    }
  const { put, get, remove, list } = real
  const keys: Spool['keys'] = (place) => real.keys(place)
  return { put: watch(put), get: watch(get), remove: watch(remove), keys: watch(keys), list: watch(list) }
}

/** Until nothing moves any more at this time. */
async function settle(): Promise<void> {
  for (let quiet = 0; quiet < 3; quiet = busy === 0 ? quiet + 1 : 0) await new Promise((done) => setImmediate(done))
}

async function pass(ms: number): Promise<void> {
  const untilMs = nowMs + ms
  for (;;) {
    await settle()
    const [next] = [...timers].sort((a, b) => a.atMs - b.atMs)
    if (next === undefined || next.atMs > untilMs) break
    nowMs = Math.max(nowMs, next.atMs)
    timers.delete(next)
    next.done()
  }
  nowMs = untilMs
}

it('writes nothing to the disk while a receiver takes everything', PATIENT, async () => {
  await open().deliver([item(1), item(2)])
  expect(taken).toHaveLength(2)
  expect(await spool.keys('waiting')).toEqual([])
})

it(
  'keeps what is told while a receiver is down for a day, asks it seldom, and delivers all once it is back',
  PATIENT,
  async () => {
    answer = () => new Error('connection refused')
    const box = open()
    await box.deliver([1, 2, 3, 4, 5].map(item))
    await pass(24 * HOUR)
    expect(taken).toEqual([])
    // One message at a time, at most once an hour after the first hour.
    expect(attempts.length).toBeLessThan(35)
    expect(states.at(-1)).toMatchObject({ waiting: 5, dead: 0, failure: 'connection refused' })
    answer = () => ({ status: 200 })
    await pass(1.2 * HOUR)
    expect(new Set(taken).size).toBe(5)
    expect(await spool.keys('waiting')).toEqual([])
    expect(states.at(-1)).toMatchObject({ waiting: 0, failure: undefined })
  },
)

it('gives up after three days, keeps the message, and sends it again under the same id', PATIENT, async () => {
  answer = () => ({ status: 503 })
  const box = open()
  await box.deliver([item(7)])
  await pass(71 * HOUR)
  expect(gaveUp).toEqual([])
  await pass(3 * HOUR)
  const [dead] = await spool.list('dead', 10)
  expect(gaveUp).toEqual([dead?.id])
  expect(dead).toMatchObject({ seq: 7, kind: 'leak.detected', reason: 'HTTP 503' })
  // What `keyless webhooks retry` does.
  answer = () => ({ status: 200 })
  const letter = await spool.get('dead', dead as { id: string; seq: number })
  await spool.put('waiting', { ...(letter as NonNullable<typeof letter>), attempts: 0, firstMs: nowMs })
  await spool.remove('dead', { id: dead?.id as string, seq: 7 })
  await box.wake()
  await settle()
  expect(taken).toEqual([dead?.id])
})

it('does not let one message that is never taken keep the others, and gives that one up', PATIENT, async () => {
  const box = open()
  let poison: string | undefined
  answer = (id) => {
    poison ??= id
    return { status: id === poison ? 500 : 200 }
  }
  await box.deliver([item(1)])
  for (let seq = 2; seq < 40; seq += 1) {
    await box.deliver([item(seq)])
    await pass(HOUR / 2)
  }
  expect(taken).toHaveLength(38)
  expect(gaveUp).toEqual([poison])
})

it('waits as long as a busy receiver asks', PATIENT, async () => {
  answer = () => ({ status: 429, retryAfter: '300' })
  await open().deliver([item(1)])
  await pass(299_000)
  expect(attempts).toHaveLength(1)
  await pass(2_000)
  expect(attempts).toHaveLength(2)
})

it('sends nothing more to a receiver that says 410, and keeps what it would have sent', PATIENT, async () => {
  answer = () => ({ status: 410 })
  const box = open()
  await box.deliver([item(1), item(2), item(3)])
  await pass(HOUR)
  expect(attempts).toHaveLength(1)
  expect(await spool.list('dead', 10)).toHaveLength(3)
})

it('goes on where it was after a crash, and sends nothing under another id', PATIENT, async () => {
  answer = () => new Error('down')
  await open().deliver([item(1), item(2)])
  await settle()
  const before = await spool.keys('waiting')
  stop.abort() // as a crash leaves it: what is on disk, and the same entries from the log again
  await running
  stop = new AbortController()
  answer = () => ({ status: 200 })
  const box = open()
  await box.deliver([item(1), item(2)])
  await pass(HOUR)
  expect([...new Set(taken)].sort()).toEqual(before.map(({ id }) => id).sort())
  expect(await spool.keys('waiting')).toEqual([])
})

it('waits for a disk that cannot be read, and then sends what lies on it', PATIENT, async () => {
  await spool.put('waiting', {
    id: 'msg_x',
    kind: 'k',
    seq: 1,
    at: '',
    text: '{}',
    attempts: 0,
    firstMs: nowMs,
    reason: undefined,
  })
  const { keys } = spool
  spool.keys = () => Promise.reject(new Error('EACCES'))
  open()
  await pass(1_000)
  expect(states.at(-1)).toMatchObject({ failure: 'EACCES' })
  spool.keys = keys
  await pass(HOUR)
  expect(taken).toEqual(['msg_x'])
})

it('calls a redirect what it is, and follows none', PATIENT, async () => {
  answer = () => ({ status: 307 })
  await open().deliver([item(1)])
  await settle()
  expect(states.at(-1)?.failure).toMatch(/redirects are not followed/)
})
