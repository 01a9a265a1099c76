/** HTTP/2 inside a tunnel of a door, as Node's client speaks it. */
import {
  type ClientHttp2Session,
  type ClientHttp2Stream,
  type ClientSessionOptions,
  connect,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
} from 'node:http2'
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
