/** HTTP/2 inside a tunnel of a door: as Node's client speaks it, and as raw frames for what no client would send. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { basic, HANDLE, type OpenDoor } from './door.fixture.ts'
import { openWire } from './wire.fixture.ts'

export const PLACE = 'api.github.test:443'

/** TLS inside a CONNECT, after ALPN chose `h2`. */
export async function secured(door: OpenDoor, place = PLACE): Promise<TLSSocket> {
  const wire = await openWire(door.port)
  wire.write(
    `CONNECT ${place} HTTP/1.1\r\nHost: ${place}\r\nUser-Agent: probe/2\r\nProxy-Authorization: ${basic('t', HANDLE)}\r\n\r\n`,
  )
  const { status } = await wire.answer()
  if (status !== 200) throw new Error(`CONNECT answered ${status}`)
  const servername = place.split(':')[0] ?? ''
  const tls = await wire.secure({ servername, ca: door.authority.caPem, ALPNProtocols: ['h2'] })
  tls.stream.removeAllListeners('data')
  tls.stream.pause()
  return tls.stream as TLSSocket
}

export async function openSession(
  door: OpenDoor,
  place = PLACE,
  options: ClientSessionOptions = {},
): Promise<ClientHttp2Session> {
  const socket = await secured(door, place)
  const session = connect(`https://${place.replace(/:443$/, '')}`, { ...options, createConnection: () => socket })
  session.on('error', () => {})
  return session
}

export interface StreamAnswer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  /** As they came: `name, value, name, value`. */
  readonly raw: readonly string[]
  readonly body: string
  readonly trailers: IncomingHttpHeaders | undefined
  /** Did the head end the stream? */
  readonly isTrailersOnly: boolean
  /** 0 unless the stream was reset. */
  readonly rstCode: number
}

/** Everything about an answer once its stream is closed, whichever way it closed. */
export function answerOf(stream: ClientHttp2Stream): Promise<StreamAnswer> {
  return new Promise((resolve) => {
    let headers: IncomingHttpHeaders = {}
    let raw: readonly string[] = []
    let trailers: IncomingHttpHeaders | undefined
    let isTrailersOnly = false
    const chunks: Buffer[] = []
    stream.on('response', (given, flags, rawHeaders: readonly string[]) => {
      headers = given
      raw = rawHeaders
      isTrailersOnly = (flags & 1) === 1
    })
    stream.on('trailers', (given) => {
      trailers = given
    })
    stream.on('data', (chunk: Buffer) => chunks.push(chunk))
    stream.on('error', () => {})
    stream.on('close', () => {
      const status = Number(headers[':status'] ?? 0)
      const body = Buffer.concat(chunks).toString()
      resolve({ status, headers, raw, body, trailers, isTrailersOnly, rstCode: stream.rstCode ?? 0 })
    })
  })
}

export function call(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
  body?: string | Buffer,
): Promise<StreamAnswer> {
  const stream = session.request(headers, { endStream: body === undefined })
  if (body !== undefined) stream.end(body)
  return answerOf(stream)
}

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
