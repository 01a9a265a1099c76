/** HTTP/2 inside a tunnel of a door as raw frames, for what no client would send. */
import type { Socket } from 'node:net'
import type { OpenDoor } from './door.fixture.ts'
import { secured } from './http2.fixture.ts'

export const FRAME = {
  DATA: 0,
  HEADERS: 1,
  PRIORITY: 2,
  RST_STREAM: 3,
  SETTINGS: 4,
  PING: 6,
  GOAWAY: 7,
  WINDOW_UPDATE: 8,
  CONTINUATION: 9,
} as const
export const END_STREAM = 1
export const ACK = 1
export const END_HEADERS = 4

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly id: number
  readonly payload: Buffer
}

export function frame(type: number, flags: number, id: number, payload: Buffer | string = ''): Buffer {
  const bytes = Buffer.from(payload as string, 'latin1')
  const head = Buffer.alloc(9)
  head.writeUIntBE(bytes.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(id, 5)
  return Buffer.concat([head, bytes])
}

/** Fields as HPACK literals that nothing remembers (RFC 7541 §6.2.2), without Huffman coding: every byte as given. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]))
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value, 'latin1')
  return Buffer.concat([integer(bytes.length, 7), bytes])
}

/** RFC 7541 §5.1. */
function integer(value: number, bits: number): Buffer {
  const max = 2 ** bits - 1
  if (value < max) return Buffer.from([value])
  const bytes = [max]
  let rest = value - max
  for (; rest >= 128; rest = Math.floor(rest / 128)) bytes.push((rest % 128) + 128)
  bytes.push(rest)
  return Buffer.from(bytes)
}

interface RequestFrame {
  readonly method?: string
  readonly path?: string
  readonly fields?: readonly (readonly [string, string])[]
  /** Without content. */
  readonly isWhole?: boolean
}

/** A HEADERS frame of an honest request, and whatever fields are to follow. */
export function request(
  id: number,
  { method = 'GET', path = '/user', fields = [], isWhole }: RequestFrame = {},
): Buffer {
  const pseudo = [
    [':method', method],
    [':scheme', 'https'],
    [':authority', 'api.github.test'],
    [':path', path],
  ] as const
  return frame(FRAME.HEADERS, END_HEADERS | (isWhole ? END_STREAM : 0), id, block([...pseudo, ...fields]))
}

export interface FrameWire {
  readonly socket: Socket
  write(...frames: readonly Buffer[]): void
  /** The next frame that matches, of those not yet looked at. Rejects when the connection ends first. */
  next(matches: (frame: Frame) => boolean): Promise<Frame>
  /** All frames that came until the connection was closed. */
  closed(): Promise<readonly Frame[]>
  /** Read no more: the other side's writes pile up. */
  pause(): void
}

export interface FrameOptions {
  readonly place?: string
  /** Payload of the SETTINGS frame that opens the connection. */
  readonly settings?: Buffer
}

/** A connection on which the preface has been exchanged. */
export async function openFrames(door: OpenDoor, { place, settings }: FrameOptions = {}): Promise<FrameWire> {
  const socket = await secured(door, place)
  const frames: Frame[] = []
  let looked = 0
  let seen: Buffer = Buffer.alloc(0)
  let isClosed = false
  let wake = (): void => {}
  const more = () =>
    new Promise<void>((resolve) => {
      wake = resolve
    })
  socket.on('data', (chunk: Buffer) => {
    seen = seen.length === 0 ? chunk : Buffer.concat([seen, chunk])
    let at = 0
    for (;;) {
      if (seen.length < at + 9) break
      const end = at + 9 + seen.readUIntBE(at, 3)
      if (seen.length < end) break
      const id = seen.readUInt32BE(at + 5)
      frames.push({ type: seen[at + 3] ?? 0, flags: seen[at + 4] ?? 0, id, payload: seen.subarray(at + 9, end) })
      at = end
    }
    seen = seen.subarray(at)
    wake()
  })
  socket.on('error', () => {})
  socket.on('close', () => {
    isClosed = true
    wake()
  })
  socket.write(
    Buffer.concat([
      Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
      frame(FRAME.SETTINGS, 0, 0, settings),
      frame(FRAME.SETTINGS, ACK, 0),
    ]),
  )
  socket.resume()
  return {
    socket,
    write(...given) {
      if (!socket.destroyed) socket.write(Buffer.concat(given))
    },
    async next(matches) {
      for (;;) {
        while (looked < frames.length) {
          const found = frames[looked++] as Frame
          if (matches(found)) return found
        }
        if (isClosed) throw new Error(`closed after ${JSON.stringify(frames.slice(-3))}`)
        await more()
      }
    },
    async closed() {
      while (!isClosed) await more()
      return frames
    },
    pause() {
      socket.pause()
    },
  }
}

/** The code in a RST_STREAM or GOAWAY frame. */
export function codeOf({ type, payload }: Frame): number {
  return payload.readUInt32BE(type === FRAME.GOAWAY ? 4 : 0)
}
