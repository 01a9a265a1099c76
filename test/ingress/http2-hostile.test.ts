/** A client that speaks HTTP/2 to do harm is sent away, costs bounded memory, and no other agent's calls suffer. */
import { constants } from 'node:http2'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest'
import { manualClock } from '../rig/clock.ts'
import { type OpenDoor, openDoor } from './door.fixture.ts'
import { call, openSession } from './http2.fixture.ts'
import {
  ACK,
  block,
  codeOf,
  END_HEADERS,
  END_STREAM,
  FRAME,
  type Frame,
  type FrameWire,
  frame,
  openFrames,
  request,
} from './http2-frames.fixture.ts'

const { NGHTTP2_ENHANCE_YOUR_CALM, NGHTTP2_CANCEL } = constants
const MIB = 1024 * 1024

let door: OpenDoor
beforeAll(async () => {
  door = await openDoor()
})
afterAll(() => door.close())
// Whatever was done to it, the door serves the next agent.
afterEach(async () => {
  const session = await openSession(door)
  expect((await call(session, { ':path': '/' })).status).toBe(200)
  session.destroy()
})

const uint32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}
const reset = (id: number) => frame(FRAME.RST_STREAM, 0, id, uint32(NGHTTP2_CANCEL))

const LAST = Buffer.from('last one')
const isLast = ({ type, flags, payload }: Frame) => type === FRAME.PING && flags === ACK && payload.equals(LAST)

/**
 * Send what `next` makes until the connection is closed, at most `count` times. Ten at a time, each answered: much more at once,
 * and nghttp2 gives up before we do, without a word. @returns the last GOAWAY's code, and how often it was sent.
 */
async function flood(wire: FrameWire, count: number, next: (i: number) => readonly Buffer[]) {
  let sent = 0
  while (sent < count) {
    const batch = Array.from({ length: 10 }, () => next(sent++)).flat()
    wire.write(...batch, frame(FRAME.PING, 0, 0, LAST))
    const said = await wire.next((frame) => isLast(frame) || frame.type === FRAME.GOAWAY).catch(() => undefined)
    if (said?.type === FRAME.GOAWAY) return { code: codeOf(said), sent }
    if (said === undefined) break
  }
  return { code: undefined, sent }
}

describe('a connection is closed with ENHANCE_YOUR_CALM when its client', () => {
  // The clock stands still, so nothing is forgiven.
  let still: OpenDoor
  let wire: FrameWire
  beforeAll(async () => {
    still = await openDoor({ clock: manualClock(Date.now()) })
  })
  beforeEach(async () => {
    wire = await openFrames(still)
  })
  afterEach(() => wire.socket.destroy())
  afterAll(() => still.close())

  test('asks and resets, over and over (CVE-2023-44487)', async () => {
    const before = still.calls.length
    const { code, sent } = await flood(wire, 2_000, (i) => [request(2 * i + 1, { isWhole: true }), reset(2 * i + 1)])
    expect(code).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
    await wire.closed()
    expect(sent).toBeLessThanOrEqual(510)
    expect(still.calls.length - before).toBeLessThanOrEqual(510)
  })

  test('makes us reset what it asks for, over and over (CVE-2025-8671)', async () => {
    const short = { method: 'POST', fields: [['content-length', '3']] } as const
    const end = (id: number) => frame(FRAME.DATA, END_STREAM, id, 'ab')
    const { code, sent } = await flood(wire, 2_000, (i) => [request(2 * i + 1, short), end(2 * i + 1)])
    expect(code).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
    expect(sent).toBeLessThanOrEqual(510)
  })

  test('sends PINGs faster than anybody measures (CVE-2019-9512)', async () => {
    const pings = Buffer.concat(Array.from({ length: 50 }, () => frame(FRAME.PING, 0, 0, Buffer.alloc(8))))
    const { code, sent } = await flood(wire, 1_000, () => [pings])
    expect(code).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
    expect(sent).toBeGreaterThan(150) // gRPC clients measure the network by PINGs
  })

  test('sends SETTINGS faster than anybody changes them (CVE-2019-9515)', async () => {
    const { code, sent } = await flood(wire, 2_000, () => [frame(FRAME.SETTINGS, 0, 0)])
    expect(code).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
    expect(sent).toBeLessThanOrEqual(510)
  })
})

test('what a client cancels now and then is forgiven', async () => {
  const clock = manualClock(Date.now())
  const own = await openDoor({ clock })
  const wire = await openFrames(own)
  for (let second = 0; second < 12; second++) {
    const ids = Array.from({ length: 90 }, (_, i) => 2 * (second * 90 + i) + 1)
    wire.write(...ids.flatMap((id) => [request(id, { isWhole: true }), reset(id)]), frame(FRAME.PING, 0, 0, LAST))
    await wire.next(isLast)
    clock.advance(1_000)
  }
  wire.socket.destroy()
  await own.close()
})

describe('a connection is closed when its client', () => {
  test('sends a head that never ends (CVE-2024-27983)', async () => {
    const wire = await openFrames(door)
    wire.write(frame(FRAME.HEADERS, 0, 1, block([[':method', 'GET']])))
    const { code } = await flood(wire, 10_000, (i) => [frame(FRAME.CONTINUATION, 0, 1, block([['x', String(i)]]))])
    expect(code).not.toBe(constants.NGHTTP2_NO_ERROR)
  })

  test('sends content without content (CVE-2019-9518)', async () => {
    const wire = await openFrames(door)
    wire.write(request(1, { method: 'POST' }))
    const { code } = await flood(wire, 20_000, () => [frame(FRAME.DATA, 0, 1)])
    expect(code).not.toBe(constants.NGHTTP2_NO_ERROR)
  })

  test.each([
    ['nothing', 0],
    ['more than there can be', 0x7fff_ffff],
  ])('opens a window by %s', async (_what, by) => {
    const wire = await openFrames(door)
    wire.write(request(1, { path: '/slow', isWhole: true }), frame(FRAME.WINDOW_UPDATE, 0, 1, uint32(by)))
    await wire.closed()
  })

  test('sends garbage', async () => {
    const wire = await openFrames(door)
    wire.write(Buffer.alloc(100, 0xff))
    const frames = await wire.closed()
    expect(frames.some(({ type }) => type === FRAME.GOAWAY)).toBe(true)
  })

  test('reads none of the answers it makes us queue', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const wire = await openFrames(door)
      wire.pause()
      const pings = Buffer.concat(Array.from({ length: 1_000 }, () => frame(FRAME.PING, 0, 0, Buffer.alloc(8))))
      let isClosed = false
      wire.socket.on('close', () => {
        isClosed = true
      })
      for (let i = 0; i < 2_000 && !isClosed; i++) {
        wire.write(pings)
        await new Promise((resolve) => setImmediate(resolve))
        if (i % 100 === 0) vi.advanceTimersByTime(10_000)
      }
      wire.socket.resume()
      await wire.closed()
    } finally {
      vi.useRealTimers()
    }
  })

  test('has not asked for anything in two minutes', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const wire = await openFrames(door)
      wire.write(request(1, { isWhole: true }))
      await wire.next(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0)
      vi.advanceTimersByTime(100_000)
      wire.write(request(3, { isWhole: true }))
      await wire.next(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0)
      vi.advanceTimersByTime(120_000)
      wire.write(request(5, { isWhole: true }))
      await wire.next(({ type, flags }) => type === FRAME.DATA && (flags & END_STREAM) !== 0)
      vi.advanceTimersByTime(130_000)
      expect((await wire.closed()).at(-1)).toMatchObject({ type: FRAME.GOAWAY })
    } finally {
      vi.useRealTimers()
    }
  })
})

test('no sequence of frames takes the door down', { timeout: 30_000 }, async () => {
  const frames = fc.array(
    fc.tuple(fc.nat(11), fc.nat(255), fc.oneof(fc.nat(9), fc.constant(0x7fff_ffff)), fc.uint8Array({ maxLength: 64 })),
    { minLength: 1, maxLength: 40 },
  )
  await fc.assert(
    fc.asyncProperty(frames, async (drawn) => {
      const wire = await openFrames(door)
      wire.write(request(1, { method: 'POST' }))
      for (const [type, flags, id, payload] of drawn) wire.write(frame(type, flags, id, Buffer.from(payload)))
      wire.socket.end()
      await wire.closed()
    }),
    { numRuns: 60 },
  )
})

test('one request of a head that unpacks to megabytes is reset, and nothing of it is kept', async () => {
  const wire = await openFrames(door)
  // RFC 7541 §6.2.1, §6.1: one literal of 4,000 bytes that is remembered, then a byte for each repetition.
  const value = Buffer.alloc(4_000, 'x')
  const remembered = Buffer.concat([Buffer.from([0x40, 1]), Buffer.from('a'), Buffer.from([127, 0xa1, 30]), value])
  const pseudo = request(1).subarray(9)
  const bomb = Buffer.concat([pseudo, remembered, Buffer.alloc(10_000, 0xbe)])
  wire.write(frame(FRAME.HEADERS, END_HEADERS | END_STREAM, 1, bomb))
  const end = await wire.next(({ type, id }) => type === FRAME.RST_STREAM && id === 1)
  expect(codeOf(end)).toBe(NGHTTP2_ENHANCE_YOUR_CALM)
  wire.socket.destroy()
})

describe('as many streams as are allowed', () => {
  test('are answered', async () => {
    const session = await openSession(door)
    const answers = await Promise.all(Array.from({ length: 128 }, () => call(session, { ':path': '/slow' })))
    expect(answers.every(({ status }) => status === 200)).toBe(true)
    session.destroy()
  })

  test.each([129, 5_000])('and not %d, or the connection goes', async (count) => {
    const wire = await openFrames(door)
    wire.write(...Array.from({ length: count }, (_, i) => request(2 * i + 1, { method: 'POST' })))
    await wire.closed()
  })
})

test('clients that read nothing hold bounded memory, and their upstreams wait', async () => {
  const noWindow = Buffer.concat([Buffer.from([0, 4]), uint32(0)])
  const before = process.memoryUsage.rss()
  const wire = await openFrames(door, { settings: noWindow })
  wire.write(...Array.from({ length: 100 }, (_, i) => request(2 * i + 1, { path: '/flowing', isWhole: true })))
  for (let i = 0; i < 100; i++) await wire.next(({ type }) => type === FRAME.HEADERS)
  const session = await openSession(door)
  for (let i = 0; i < 20; i++) expect((await call(session, { ':path': '/' })).status).toBe(200)
  // Upstream, too, is in this process: a few buffers at each of the three places where a body waits.
  expect(process.memoryUsage.rss() - before).toBeLessThan(100 * MIB)
  session.destroy()
  wire.socket.destroy()
})

test('a thousand clients that leave in the middle leave nothing behind', async () => {
  const own = await openDoor()
  for (let round = 0; round < 10; round++) {
    const sessions = await Promise.all([openSession(own), openSession(own)])
    const streams = sessions.flatMap((session) =>
      Array.from({ length: 50 }, (_, i) => session.request({ ':path': i % 10 === 0 ? '/endless' : '/silent' })),
    )
    for (const stream of streams) stream.on('error', () => {})
    await expect.poll(() => own.upstream.received, { timeout: 5_000 }).toBe(100 * (round + 1))
    for (const session of sessions) session.destroy()
  }
  await expect.poll(() => own.upstream.aborted, { timeout: 5_000 }).toBe(1_000)
  await own.door.drain(1_000) // would wait for any line that is left
  await own.close()
})
