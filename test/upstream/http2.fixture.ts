/** Upstreams that speak HTTP/2: a real one, and one that writes frames by hand. */
import type { RequestListener } from 'node:http'
import {
  createSecureServer,
  type Http2SecureServer,
  type IncomingHttpHeaders,
  type SecureServerOptions,
  type ServerHttp2Session,
  type ServerHttp2Stream,
} from 'node:http2'
import { createServer as createHttpsServer } from 'node:https'
import { createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { type Authority, makeAuthority } from './certificate.fixture.ts'
import { type Door, type DoorOptions, HOST, listen, openDoor, service, shut } from './upstream.fixture.ts'

let made: Promise<{ authority: Authority; cert: string; key: string }> | undefined

/** One authority and certificate for all upstreams of a test file. */
async function identity() {
  made ??= makeAuthority().then(async (authority) => ({ authority, ...(await authority.issue([HOST])) }))
  return made
}

/** What to trust to reach these upstreams. */
export async function authorityPem(): Promise<string> {
  return (await identity()).authority.pem
}

/** For servers that are not of this process; for the name given, trusted like the others. */
export async function certificateFor(name: string): Promise<{ cert: string; key: string }> {
  return (await identity()).authority.issue([name])
}

/** A door whose calls ask for HTTP/2, in front of an upstream with TLS. */
export async function openHttp2Door(port: number, options: Partial<DoorOptions> = {}): Promise<Door> {
  const { authority } = await identity()
  return openDoor({
    port,
    isHttp2: true,
    service: service({ scheme: 'https' }),
    ...options,
    upstream: { ca: [authority.pem], ...options.upstream },
  })
}

export type ServeStream = (stream: ServerHttp2Stream, headers: IncomingHttpHeaders, raw: string[]) => void

export interface Http2Origin {
  readonly port: number
  readonly server: Http2SecureServer
  /** Sessions accepted so far, in order. */
  readonly sessions: ServerHttp2Session[]
  /** Sessions that are open. */
  open(): number
  close(): Promise<void>
}

/** A real HTTP/2 upstream; with `allowHTTP1` one that speaks both. */
export async function openHttp2Origin(serve: ServeStream, options: SecureServerOptions = {}): Promise<Http2Origin> {
  const { cert, key } = await identity()
  const server = createSecureServer({ cert, key, ...options })
  const sessions: ServerHttp2Session[] = []
  const open = new Set<ServerHttp2Session>()
  server.on('session', (session) => {
    sessions.push(session)
    open.add(session)
    session.on('close', () => open.delete(session)).on('error', () => {})
  })
  // The declarations know of three arguments only.
  server.on('stream', (stream, headers, _flags, ...rest: unknown[]) => {
    stream.on('error', () => {})
    serve(stream as ServerHttp2Stream, headers, (rest[0] ?? []) as string[])
  })
  const port = await listen(server as never)
  return {
    port,
    server,
    sessions,
    open: () => open.size,
    async close() {
      for (const session of open) session.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

export const FRAME = {
  data: 0,
  headers: 1,
  reset: 3,
  settings: 4,
  push: 5,
  ping: 6,
  goaway: 7,
  window: 8,
  continuation: 9,
} as const
export const END_STREAM = 1
export const ACK = 1
export const END_HEADERS = 4

export function frame(type: number, flags: number, stream: number, payload: Buffer = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(9)
  head.writeUIntBE(payload.length, 0, 3)
  head[3] = type
  head[4] = flags
  head.writeUInt32BE(stream, 5)
  return Buffer.concat([head, payload])
}

/** RFC 7541 §6.2.2: literals without indexing, nothing compressed. */
export function block(fields: readonly (readonly [string, string])[]): Buffer {
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), literal(name), literal(value)]))
}

function literal(text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1')
  if (bytes.length < 127) return Buffer.concat([Buffer.from([bytes.length]), bytes])
  const length = [127]
  let rest = bytes.length - 127
  for (; rest >= 128; rest = Math.floor(rest / 128)) length.push((rest % 128) + 128)
  return Buffer.concat([Buffer.from([...length, rest]), bytes])
}

export function number(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

/** A setting as SETTINGS carries it. */
export function setting(id: number, value: number): Buffer {
  return Buffer.concat([Buffer.from([0, id]), number(value)])
}

export interface Frame {
  readonly type: number
  readonly flags: number
  readonly stream: number
  readonly payload: Buffer
}

export interface FrameOrigin {
  readonly port: number
  /** Frames received on all connections. */
  readonly received: Frame[]
  /** The first frame of a kind, now or later. */
  saw(is: (frame: Frame) => boolean): Promise<Frame>
  connections(): number
  /** Connections that are open. */
  open(): number
  close(): Promise<void>
}

const PREFACE = 24

/** An upstream that is polite about SETTINGS and otherwise does what `serve` says with each frame. */
export async function openFrameOrigin(
  serve: (socket: TLSSocket, frame: Frame, connection: number) => void,
): Promise<FrameOrigin> {
  const { cert, key } = await identity()
  const sockets = new Set<TLSSocket>()
  const received: Frame[] = []
  const waiting = new Set<() => void>()
  let connections = 0
  const server = createTlsServer({ cert, key, ALPNProtocols: ['h2'] }, (socket) => {
    connections += 1
    const connection = connections
    sockets.add(socket)
    socket.on('error', () => {}).on('close', () => sockets.delete(socket))
    socket.write(frame(FRAME.settings, 0, 0))
    let buffer = Buffer.alloc(0)
    let preface = PREFACE
    socket.on('data', (chunk: Buffer) => {
      buffer = Buffer.concat([buffer, chunk])
      if (buffer.length < preface) return
      const { frames, rest } = cut(buffer.subarray(preface))
      preface = 0
      buffer = rest
      for (const one of frames) {
        received.push(one)
        for (const look of waiting) look()
        if (one.type === FRAME.settings && (one.flags & ACK) === 0) socket.write(frame(FRAME.settings, ACK, 0))
        serve(socket, one, connection)
      }
    })
  })
  const port = await listen(server as never)
  return {
    port,
    received,
    saw: (is) =>
      new Promise((resolve) => {
        const look = () => {
          const found = received.find(is)
          if (found === undefined) return
          waiting.delete(look)
          resolve(found)
        }
        waiting.add(look)
        look()
      }),
    connections: () => connections,
    open: () => sockets.size,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Whole frames from the front, and what is left. */
function cut(buffer: Buffer): { frames: Frame[]; rest: Buffer<ArrayBuffer> } {
  const frames: Frame[] = []
  let at = 0
  while (buffer.length >= at + 9 && buffer.length >= at + 9 + buffer.readUIntBE(at, 3)) {
    const end = at + 9 + buffer.readUIntBE(at, 3)
    frames.push({
      type: buffer[at + 3] as number,
      flags: buffer[at + 4] as number,
      stream: buffer.readUInt32BE(at + 5),
      payload: Buffer.from(buffer.subarray(at + 9, end)),
    })
    at = end
  }
  return { frames, rest: Buffer.from(buffer.subarray(at)) }
}

/** An upstream with TLS that offers HTTP/1.1 alone. */
export async function openTlsOrigin(
  serve: RequestListener,
): Promise<{ port: number; connections(): number; close(): Promise<void> }> {
  const { cert, key } = await identity()
  let connections = 0
  const server = createHttpsServer({ cert, key }, serve)
  server.on('secureConnection', () => {
    connections += 1
  })
  const port = await listen(server as never)
  return { port, connections: () => connections, close: () => shut(server as never) }
}
