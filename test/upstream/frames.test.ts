/** RFC 6455 §5, held to for all splits of the bytes; and no credential in any cut of any message. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { FrameFlow } from '../../gateway/upstream/frame-flow.ts'
import {
  type ControlFrame,
  closeFrame,
  FrameError,
  FrameReader,
  type FrameSink,
  type Sender,
} from '../../gateway/upstream/frames.ts'
import { Searcher } from '../../gateway/upstream/searcher.ts'
import { type Frame, frameBytes, inPieces, readFrames } from './frames.fixture.ts'

const LIMITS = { maxFrameBytes: 1_000, maxMessageBytes: 1_500 }

/** What a reader cuts out: bytes in order, payload by message, control frames. */
function record() {
  const seen = { bytes: [] as Buffer[], messages: [] as Buffer[][], control: [] as ControlFrame[] }
  let current: Buffer[] = []
  const sink: FrameSink = {
    header: (bytes) => void seen.bytes.push(bytes),
    payload(bytes, isLast) {
      seen.bytes.push(Buffer.from(bytes))
      current.push(Buffer.from(bytes))
      if (!isLast) return
      seen.messages.push(current)
      current = []
    },
    control(frame) {
      seen.bytes.push(frame.bytes)
      seen.control.push(frame)
    },
  }
  return { seen, sink }
}

function read(bytes: Buffer, sender: Sender = 'upstream', cuts: readonly number[] = []) {
  const { seen, sink } = record()
  const reader = new FrameReader(sender, LIMITS, sink)
  for (const piece of inPieces(bytes, cuts)) reader.push(piece)
  return { seen, reader }
}

/** A legal conversation of one side: messages in fragments, control frames between them. */
const payload = fc.uint8Array({ maxLength: 400 }).map((bytes) => Buffer.from(bytes))
const control = fc.record({
  opcode: fc.constantFrom(0x9, 0xa),
  payload: fc.uint8Array({ maxLength: 125 }).map((bytes) => Buffer.from(bytes)),
})
const message = fc
  .tuple(
    fc.constantFrom(0x1, 0x2),
    fc.array(payload, { minLength: 1, maxLength: 3 }),
    fc.array(control, { maxLength: 2 }),
  )
  .map(([opcode, parts, between]): Frame[] =>
    parts.flatMap((part, i) => [
      { opcode: i === 0 ? opcode : 0, isFinal: i === parts.length - 1, payload: part },
      ...(between[i] === undefined ? [] : [{ ...between[i], isFinal: true }]),
    ]),
  )
const conversation = fc.array(message, { maxLength: 5 }).map((messages) => messages.flat())
const cuts = fc.array(fc.nat(3_000), { maxLength: 40 })
const sender = fc.constantFrom<Sender>('agent', 'upstream')

describe('frames', () => {
  it('come out as they went in, however the bytes are cut', () => {
    fc.assert(
      fc.property(conversation, cuts, sender, (frames, at, from) => {
        const bytes = Buffer.concat(frames.map((frame) => frameBytes(frame, from)))
        const { seen, reader } = read(bytes, from, at)
        expect(Buffer.concat(seen.bytes).equals(bytes)).toBe(true)
        expect(reader.isBetweenFrames).toBe(true)
        expect(seen.messages.length).toBe(frames.filter(({ opcode, isFinal }) => opcode < 8 && isFinal).length)
        expect(seen.control.map(({ opcode }) => opcode)).toEqual(
          frames.map(({ opcode }) => opcode).filter((opcode) => opcode >= 8),
        )
      }),
    )
  })

  it('of any bytes at all are read or refused, and nothing that is refused went on', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 600 }), cuts, sender, (raw, at, from) => {
        const bytes = Buffer.from(raw)
        const { seen, sink } = record()
        const reader = new FrameReader(from, LIMITS, sink)
        try {
          for (const piece of inPieces(bytes, at)) reader.push(piece)
        } catch (cause) {
          expect(cause).toBeInstanceOf(FrameError)
        }
        const passed = Buffer.concat(seen.bytes)
        expect(bytes.subarray(0, passed.length).equals(passed)).toBe(true)
        const isWhole = (frame: Frame) =>
          frame.payload.length <= LIMITS.maxFrameBytes && frame.isMasked === (from === 'agent')
        expect(readFrames(passed).every(isWhole)).toBe(true)
      }),
      { numRuns: 500 },
    )
  })

  const legal = { opcode: 0x1, isFinal: true, payload: Buffer.from('hello') }
  it.each([
    ['a reserved bit', Buffer.from([0xc1, 0x00]), 1002],
    ['a reserved opcode', Buffer.from([0x83, 0x00]), 1002],
    ['a reserved control opcode', Buffer.from([0x8b, 0x00]), 1002],
    ['a mask from an upstream', frameBytes(legal, 'agent'), 1002],
    ['a fragmented ping', Buffer.from([0x09, 0x00]), 1002],
    ['a ping of 126 bytes', Buffer.from([0x89, 0x7e, 0x00, 0x7e]), 1002],
    ['a continuation of nothing', Buffer.from([0x80, 0x00]), 1002],
    ['a message inside a message', Buffer.from([0x01, 0x00, 0x81, 0x00]), 1002],
    ['125 bytes in the long form', Buffer.from([0x81, 0x7e, 0x00, 0x7d]), 1002],
    ['65535 bytes in the longest form', Buffer.from([0x81, 0x7f, 0, 0, 0, 0, 0, 0, 0xff, 0xff]), 1002],
    ['a length with its first bit set', Buffer.from([0x82, 0x7f, 0x80, 0, 0, 0, 0, 0, 0, 1]), 1002],
    ['more bytes than a frame may have', Buffer.from([0x82, 0x7e, 0x03, 0xe9]), 1009],
    ['2^53 bytes', Buffer.from([0x82, 0x7f, 0, 0x20, 0, 0, 0, 0, 0, 0]), 1009],
    ['a close frame with half a code', Buffer.from([0x88, 0x01, 0x03]), 1002],
    ['a close frame with the code 1006', Buffer.from([0x88, 0x02, 0x03, 0xee]), 1002],
    ['a close frame with the code 999', Buffer.from([0x88, 0x02, 0x03, 0xe7]), 1002],
    ['a close frame with the code 5000', Buffer.from([0x88, 0x02, 0x13, 0x88]), 1002],
  ])('with %s are refused', (_, bytes, status) => {
    expect(() => read(bytes)).toThrow(expect.objectContaining({ status }))
  })

  it('without a mask from an agent are refused', () => {
    expect(() => read(frameBytes(legal, 'upstream'), 'agent')).toThrow(expect.objectContaining({ status: 1002 }))
  })

  it('of a message that is too large together are refused', () => {
    const part = (opcode: number) => frameBytes({ opcode, isFinal: false, payload: Buffer.alloc(900) }, 'upstream')
    expect(() => read(Buffer.concat([part(2), part(0)]))).toThrow(expect.objectContaining({ status: 1009 }))
  })

  it('after a close frame are not looked at', () => {
    const { seen } = read(Buffer.concat([closeFrame(1000, 'bye'), Buffer.from('\xff nonsense', 'latin1')]))
    expect(seen.control.length).toBe(1)
  })

  it('that close are ours to make, in both directions', () => {
    fc.assert(
      fc.property(fc.constantFrom(1000, 1001, 1008, 3000, 4999), fc.string({ maxLength: 200 }), (code, reason) => {
        for (const from of ['agent', 'upstream'] as const) {
          const bytes = closeFrame(code, reason, from === 'agent' ? Buffer.from([1, 2, 3, 4]) : undefined)
          const { payload } = readFrames(read(bytes, from).seen.control[0]?.bytes ?? Buffer.alloc(0))[0] as Frame
          expect(payload.readUInt16BE(0)).toBe(code)
          expect(
            Buffer.from(reason)
              .subarray(0, payload.length - 2)
              .equals(payload.subarray(2)),
          ).toBe(true)
        }
      }),
    )
  })
})

describe('a credential in frames', () => {
  const CANARY = Buffer.from('sk-canary-0123456789')
  const searcher = new Searcher([CANARY])
  const flowOf = (bytes: Buffer, at: readonly number[]) => {
    const out: Buffer[] = []
    const flow = new FrameFlow({
      sender: 'upstream',
      limits: { maxFrameBytes: 10_000, maxMessageBytes: 20_000 },
      searcher,
      write: (piece) => void out.push(Buffer.from(piece)),
    })
    for (const piece of inPieces(bytes, at)) flow.push(piece)
    return { out: Buffer.concat(out), flow }
  }
  /** Around the credential: what looks like its beginning, and anything else. */
  const noise = fc.oneof(
    fc.uint8Array({ maxLength: 20 }).map((bytes) => Buffer.from(bytes)),
    fc.nat(CANARY.length - 1).map((n) => CANARY.subarray(0, n)),
  )
  const body = fc.array(fc.oneof(noise, fc.constant(CANARY)), { maxLength: 6 }).map((parts) => Buffer.concat(parts))

  it('is overwritten wherever frames and chunks are cut, and nothing else is changed', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(body, cuts, fc.boolean()), { maxLength: 3 }), cuts, (messages, at) => {
        const frames = messages.flatMap(([bytes, fragments, hasPing]) =>
          inPieces(bytes, fragments).flatMap((part, i, all): Frame[] => [
            { opcode: i === 0 ? 2 : 0, isFinal: i === all.length - 1, payload: part },
            ...(hasPing ? [{ opcode: 9, isFinal: true, payload: Buffer.from('ping') }] : []),
          ]),
        )
        const sent = Buffer.concat(frames.map((frame) => frameBytes(frame, 'upstream')))
        const { out, flow } = flowOf(sent, at)
        expect(out.length).toBe(sent.length)
        expect(flow.isBetweenFrames).toBe(true)
        const got = readFrames(out)
        expect(got.map(({ opcode, isFinal, payload }) => [opcode, isFinal, payload.length])).toEqual(
          frames.map(({ opcode, isFinal, payload }) => [opcode, isFinal, payload.length]),
        )
        const data = got.filter(({ opcode }) => opcode !== 9)
        let found = 0
        let next = 0
        for (const [bytes] of messages) {
          const expected = Buffer.from(bytes)
          found += searcher.mask(expected)
          const parts: Buffer[] = []
          for (let isFinal = false; !isFinal; next += 1) {
            parts.push(data[next]?.payload as Buffer)
            isFinal = data[next]?.isFinal === true
          }
          expect(Buffer.concat(parts).equals(expected)).toBe(true)
        }
        expect(flow.found).toBe(found)
      }),
      { numRuns: 300 },
    )
  })

  it('is overwritten in pings, pongs and reasons', () => {
    for (const opcode of [0x8, 0x9, 0xa]) {
      const reason = Buffer.concat([Buffer.from([0x0b, 0xb8]), CANARY])
      const { out, flow } = flowOf(frameBytes({ opcode, isFinal: true, payload: reason }, 'upstream'), [])
      expect(out.includes(CANARY)).toBe(false)
      expect(flow.found).toBe(1)
    }
  })

  it('holds back no more than could be its beginning', () => {
    const part = frameBytes({ opcode: 1, isFinal: false, payload: Buffer.from('hello sk-can') }, 'upstream')
    const { out, flow } = flowOf(part, [])
    expect(out.toString('latin1')).toContain('hello ')
    expect(out.length).toBe(part.length - 6)
    expect(flow.isBetweenFrames).toBe(false)
  })
})

describe('what an agent says', () => {
  it('is shown to the censor as it is meant, and does not go on when that says no', () => {
    fc.assert(
      fc.property(conversation, cuts, fc.nat(20), (frames, at, allowed) => {
        const shown: Buffer[] = []
        const out: Buffer[] = []
        const refusal = new GatewayError('foreign_credential', 'no')
        const censor = {
          look(chunk: Buffer) {
            shown.push(Buffer.from(chunk))
            return shown.length > allowed ? refusal : undefined
          },
          lookAlone: () => undefined,
        }
        const write = (bytes: Buffer) => void out.push(Buffer.from(bytes))
        const flow = new FrameFlow({ sender: 'agent', limits: LIMITS, searcher: null, censor, write })
        const sent = Buffer.concat(frames.map((frame) => frameBytes(frame, 'agent')))
        try {
          for (const piece of inPieces(sent, at)) flow.push(piece)
        } catch (cause) {
          expect(cause).toBe(refusal)
        }
        const said = Buffer.concat(frames.flatMap(({ opcode, payload }) => (opcode < 8 ? [payload] : [])))
        const seen = Buffer.concat(shown)
        expect(said.subarray(0, seen.length).equals(seen)).toBe(true)
        const gone = Buffer.concat(out)
        expect(sent.subarray(0, gone.length).equals(gone)).toBe(true)
        if (shown.length <= allowed) expect([seen.length, gone.length]).toEqual([said.length, sent.length])
      }),
    )
  })
})

describe('a peer that keeps a message open', () => {
  it.each([
    ['pings', 0x9, true],
    ['empty fragments', 0x0, false],
  ])('within a credential, and sends %s for ever, is stopped before memory is', (_, opcode, isFinal) => {
    const searcher = new Searcher([Buffer.from('a-secret-of-some-length')])
    const flow = new FrameFlow({ sender: 'upstream', limits: LIMITS, searcher, write: () => {} })
    flow.push(frameBytes({ opcode: 0x1, isFinal: false, payload: Buffer.from('it is a-secret') }, 'upstream'))
    const more = frameBytes({ opcode, isFinal, payload: Buffer.alloc(0) }, 'upstream')
    const flood = () => {
      for (let i = 0; i < 2_000; i++) flow.push(Buffer.from(more))
    }
    expect(flood).toThrow(FrameError)
  })

  it('and sends as many outside of one, goes on', () => {
    const searcher = new Searcher([Buffer.from('a-secret-of-some-length')])
    let written = 0
    const write = () => {
      written += 1
    }
    const flow = new FrameFlow({ sender: 'upstream', limits: LIMITS, searcher, write })
    const ping = frameBytes({ opcode: 0x9, isFinal: true, payload: Buffer.alloc(0) }, 'upstream')
    for (let i = 0; i < 2_000; i++) flow.push(Buffer.from(ping))
    expect(written).toBe(2_000)
  })
})
