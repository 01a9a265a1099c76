/**
 * An upstream on bare sockets that forgives nothing: it reads only the one form in which requests may arrive (RFC 9112 without
 * any of its choices), keeps every byte, and says so when a byte does not fit. Over TLS and in the clear.
 */
import { once } from 'node:events'
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net'
import { createServer as createTlsServer } from 'node:tls'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { acceptOf } from '../../gateway/protocol/websocket.ts'

export interface Received {
  readonly method: string
  /** Request target, byte for byte (latin1). */
  readonly target: string
  /** `[name, value]` as they came. */
  readonly fields: readonly (readonly [string, string])[]
  readonly body: string
}

export interface Recorder {
  readonly tlsPort: number
  readonly cleartextPort: number
  readonly caPem: string
  readonly requests: Received[]
  /** Bytes that are no request in its plainest form, each with why. */
  readonly strange: string[]
  stop(): Promise<void>
}

const TCHAR = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]+"
/** No control character, no space, nothing but one SP around the target. */
const REQUEST_LINE = /^([A-Z][A-Z-]*) (\/[\x21-\x7e\x80-\xff]*) HTTP\/1\.1$/
/** One SP after the colon, no whitespace at either end of the value. */
const FIELD = new RegExp(
  `^(${TCHAR}): ((?:[\\x21-\\x7e\\x80-\\xff](?:[\\t\\x20-\\x7e\\x80-\\xff]*[\\x21-\\x7e\\x80-\\xff])?)?)$`,
)

export async function startRecorder(names: readonly string[]): Promise<Recorder> {
  const tls = await throwAwayTls(names)
  const sockets = new Set<Socket>()
  const requests: Received[] = []
  const strange: string[] = []
  const accept = (socket: Socket) => {
    sockets.add(socket)
    socket.setNoDelay(true)
    socket.once('close', () => sockets.delete(socket)).on('error', () => {})
    read(socket, requests, strange)
  }
  const servers = [createTlsServer({ key: tls.key, cert: tls.cert }, accept), createServer(accept)] as const
  const [tlsPort = 0, cleartextPort = 0] = await Promise.all(servers.map(listen))
  return {
    tlsPort,
    cleartextPort,
    caPem: tls.caPem,
    requests,
    strange,
    async stop() {
      const closed = servers.map((server) => once(server.close(), 'close'))
      for (const socket of sockets) socket.destroy()
      await Promise.all(closed)
    },
  }
}

function read(socket: Socket, requests: Received[], strange: string[]): void {
  let unread = ''
  let isFrames = false
  socket.on('data', (chunk: Buffer) => {
    if (isFrames) return
    unread += chunk.toString('latin1')
    for (;;) {
      const cut = cutRequest(unread)
      if (cut === undefined) return
      if (typeof cut === 'string') {
        strange.push(`${cut}: ${JSON.stringify(unread.slice(0, 300))}`)
        socket.destroy()
        return
      }
      requests.push(cut.request)
      unread = unread.slice(cut.length)
      const key = fieldOf(cut.request, 'sec-websocket-key')
      isFrames = key !== undefined
      if (key === undefined) socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok')
      else
        socket.write(
          `HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-accept: ${acceptOf(key)}\r\n\r\n`,
        )
    }
  })
}

export function fieldOf({ fields }: Received, name: string): string | undefined {
  return fields.find(([given]) => given.toLowerCase() === name)?.[1]
}

/** One request off the front. Undefined: more has to come. A text: why these bytes are none. */
export function cutRequest(text: string): { request: Received; length: number } | string | undefined {
  const end = text.indexOf('\r\n\r\n')
  if (end === -1) return undefined
  const [line = '', ...rest] = text.slice(0, end).split('\r\n')
  const [, method, target] = REQUEST_LINE.exec(line) ?? []
  if (method === undefined || target === undefined) return 'a request line'
  const fields: [string, string][] = []
  for (const one of rest) {
    const [, name, value] = FIELD.exec(one) ?? []
    if (name === undefined || value === undefined) return `the field ${JSON.stringify(one)}`
    fields.push([name, value])
  }
  const framing = framingOf(fields)
  if (typeof framing === 'string') return framing
  const start = end + 4
  const body = framing.isChunked ? cutChunks(text, start) : cutLength(text, start, framing.length)
  if (body === undefined || typeof body === 'string') return body
  return { request: { method, target, fields, body: body.text }, length: body.end }
}

function framingOf(fields: readonly (readonly [string, string])[]): { isChunked: boolean; length: number } | string {
  const all = (name: string) => fields.filter(([given]) => given.toLowerCase() === name).map(([, value]) => value)
  const [lengths, codings, hosts] = [all('content-length'), all('transfer-encoding'), all('host')]
  if (hosts.length !== 1) return `${hosts.length} Host fields`
  if (lengths.length + codings.length > 1) return 'framed twice'
  if (lengths.length === 1 && !/^(?:0|[1-9]\d{0,14})$/.test(lengths[0] ?? '')) return `the length ${lengths[0]}`
  if (codings.length === 1 && codings[0] !== 'chunked') return `the coding ${codings[0]}`
  return { isChunked: codings.length === 1, length: Number(lengths[0] ?? 0) }
}

type Body = { readonly text: string; readonly end: number } | string | undefined

function cutLength(text: string, start: number, length: number): Body {
  return text.length < start + length ? undefined : { text: text.slice(start, start + length), end: start + length }
}

/** Sizes in hexadecimal and nothing beside them, no trailers. */
function cutChunks(text: string, start: number): Body {
  let body = ''
  for (let at = start; ; ) {
    const end = text.indexOf('\r\n', at)
    if (end === -1) return text.length - at > 16 ? 'a chunk without a size' : undefined
    const size = text.slice(at, end)
    if (!/^[0-9a-fA-F]{1,8}$/.test(size)) return `the chunk size ${JSON.stringify(size.slice(0, 40))}`
    const length = Number.parseInt(size, 16)
    const next = end + 2 + length
    if (text.length < next + 2) return undefined
    if (text.slice(next, next + 2) !== '\r\n') return 'a chunk that is longer than it says'
    if (length === 0) return { text: body, end: next + 2 }
    body += text.slice(end + 2, next)
    at = next + 2
  }
}

async function listen(server: Server): Promise<number> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
