/** Bytes that are cut into frames, or looked at before anybody knows what they are. */
import fc from 'fast-check'
import { serverNameIn } from '../../gateway/ingress/server-name.ts'
import { parseStrictJson } from '../../gateway/protocol/strict-json.ts'
import { closeFrame, FrameError, FrameReader } from '../../gateway/upstream/frames.ts'
import { frameBytes, inPieces } from '../upstream/frames.fixture.ts'
import { nearly } from './mutations.ts'
import { must, type Property, property } from './property.ts'

const LIMITS = { maxFrameBytes: 300, maxMessageBytes: 500 }
const bytes = fc.uint8Array({ maxLength: 200 }).map((given) => Buffer.from(given))
const frame = fc.record({
  opcode: fc.constantFrom(0, 1, 2, 8, 9, 10, 3, 11),
  isFinal: fc.boolean(),
  payload: fc.oneof(bytes, fc.constant(Buffer.alloc(0)), fc.constant(Buffer.from([0x03, 0xe8]))),
})
/** Frames, some of them legal, with a byte or two changed. */
const stream = fc
  .tuple(fc.array(frame, { maxLength: 5 }), fc.boolean(), fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 2 }))
  .map(([frames, isAgent, damage]) => {
    const sender = isAgent ? ('agent' as const) : ('upstream' as const)
    const all = Buffer.concat(frames.map((one) => frameBytes(one, sender)))
    for (const [at, byte] of damage) if (all.length > 0) all[at % all.length] = byte
    return { sender, all }
  })
const cuts = fc.array(fc.nat(400), { maxLength: 6 })

/** What came out of a reader, and how it ended. */
function cut({ sender, all }: { sender: 'agent' | 'upstream'; all: Buffer }, places: readonly number[]) {
  const out: Buffer[] = []
  let messages = 0
  let status: number | undefined
  const reader = new FrameReader(sender, LIMITS, {
    header: (head) => void out.push(Buffer.from(head)),
    payload(piece, isLast) {
      out.push(Buffer.from(piece))
      if (isLast) messages += 1
    },
    control: (one) => void out.push(Buffer.from(one.bytes)),
  })
  try {
    for (const piece of inPieces(all, places)) reader.push(piece)
  } catch (cause) {
    if (!(cause instanceof FrameError)) throw cause
    status = cause.status
  }
  return { bytes: Buffer.concat(out), messages, status }
}

const SEEDS = [
  '{"a":1,"a":2}',
  '{"a":{"b":[1,2,{"c":null}]}}',
  '[[[[[[]]]]]]',
  '{"__proto__":{"x":1}}',
  '"\\ud800"',
  '{"a":1e999,"b":-0}',
]

export const FRAME_PROPERTIES: readonly Property[] = [
  property('frames go on as they came, and nothing goes on after what is wrong', stream, (given) => {
    const whole = cut(given, [])
    must(given.all.subarray(0, whole.bytes.length).equals(whole.bytes), 'other bytes')
  }),
  property('frames are the same however their bytes are cut', fc.tuple(stream, cuts), ([given, places]) => {
    const [whole, pieces] = [cut(given, []), cut(given, places)]
    must(whole.bytes.equals(pieces.bytes) || whole.status !== undefined, 'other bytes')
    must(whole.status === pieces.status && whole.messages === pieces.messages, 'another end')
  }),
  property('any bytes are frames or a broken rule', fc.tuple(bytes, cuts, fc.boolean()), ([all, places, isAgent]) => {
    cut({ all, sender: isAgent ? 'agent' : 'upstream' }, places)
  }),
  property(
    'our last frame is one that anybody takes',
    fc.tuple(fc.constantFrom(1000, 1002, 1008, 1009, 4001), fc.string({ unit: 'binary' })),
    ([code, reason]) => {
      const sent = closeFrame(code, reason)
      must(cut({ all: sent, sender: 'upstream' }, []).bytes.equals(sent), 'it is refused')
    },
  ),
  property('any bytes name a server or none', fc.oneof(bytes, bytes.map(asHello)), (record) => {
    const found = serverNameIn(record)
    must(found === undefined || typeof found === 'string', 'neither')
  }),
  property('JSON that is read has each key once, and throws nothing but what it is', nearly(SEEDS), (text) => {
    try {
      parseStrictJson(text)
    } catch (cause) {
      must(cause instanceof SyntaxError, `${cause}`)
    }
  }),
]

function asHello(tail: Buffer): Buffer {
  return Buffer.concat([
    Buffer.from([0x16, 3, 1, 0, tail.length & 0xff, 1, 0, 0, tail.length & 0xff, 3, 3]),
    Buffer.alloc(33),
    tail,
  ])
}
