/** An agent on bare sockets: says exactly what a test gives it, and keeps every byte that comes back. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'

export interface Answer {
  readonly status: number
  /** Head and body as they came, informational answers before them included. */
  readonly bytes: Buffer
}

export const basic = (handle: string) => `Basic ${Buffer.from(`task:${handle}`).toString('base64')}`

/** One exchange on a connection of its own, until the gateway closes it: send `Connection: close`. */
export async function say(port: number, ...texts: readonly (string | Buffer)[]): Promise<Answer> {
  const socket = connect(port, '127.0.0.1')
  return answerOf(await converse(socket, texts))
}

/** Request head and body on the reverse route of a service, whose credential slot is filled by `fields` or by the handle. */
export function reverse(
  port: number,
  handle: string,
  o: { method?: string; path: string; fields?: string },
): Promise<Answer> {
  const fields = o.fields ?? `Proxy-Authorization: ${basic(handle)}\r\n`
  return say(
    port,
    `${o.method ?? 'GET'} ${o.path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${fields}Connection: close\r\n\r\n`,
  )
}

/** In absolute form, as proxies are asked. */
export function forward(
  port: number,
  handle: string,
  o: { method?: string; url: string; host?: string; fields?: string },
): Promise<Answer> {
  const host = o.host ?? new URL(o.url).host
  return say(
    port,
    `${o.method ?? 'GET'} ${o.url} HTTP/1.1\r\nHost: ${host}\r\nProxy-Authorization: ${basic(handle)}\r\n${o.fields ?? ''}Connection: close\r\n\r\n`,
  )
}

export interface TunnelOptions {
  readonly handle: string
  /** `host:port` of the CONNECT. */
  readonly authority: string
  readonly ca: string
  /** Default: the host of `authority`. */
  readonly servername?: string
}

export interface Tunnel {
  /** One request on the tunnel's connection; the answer must have a length. */
  ask(method: string, path: string, fields?: string): Promise<Answer>
  /** Everything until the end of the connection. */
  sayLast(text: string): Promise<Answer>
  readonly isOpen: boolean
  close(): void
}

/** @throws {Error} with the status line when the CONNECT is refused. */
export async function openTunnel(port: number, o: TunnelOptions): Promise<Tunnel> {
  const raw = connect(port, '127.0.0.1')
  raw.write(
    `CONNECT ${o.authority} HTTP/1.1\r\nHost: ${o.authority}\r\nProxy-Authorization: ${basic(o.handle)}\r\n\r\n`,
  )
  const [first] = (await once(raw, 'data')) as [Buffer]
  const line = first.toString('latin1').split('\r\n', 1)[0] ?? ''
  if (!line.includes(' 200 ')) {
    raw.destroy()
    throw new Error(line)
  }
  const host = o.authority.replace(/:\d+$/, '')
  const socket = connectTls({ socket: raw, servername: o.servername ?? host, ca: o.ca, ALPNProtocols: ['http/1.1'] })
  await once(socket, 'secureConnect')
  return {
    async ask(method, path, fields = '') {
      socket.write(`${method} ${path} HTTP/1.1\r\nHost: ${o.authority}\r\n${fields}\r\n`)
      return answerOf(await readOne(socket))
    },
    sayLast: async (text) => answerOf(await converse(socket, [text])),
    get isOpen() {
      return !socket.destroyed
    },
    close: () => socket.destroy(),
  }
}

/** Stable code of a refusal; undefined for an answer of the upstream. */
export const codeOf = (answer: Answer) => /^keyless-error: *(\w+)/im.exec(answer.bytes.toString('latin1'))?.[1]

function answerOf(bytes: Buffer): Answer {
  const statuses = [...bytes.toString('latin1').matchAll(/^HTTP\/1\.1 ([2-5]\d\d) /gm)]
  return { status: Number(statuses[0]?.[1] ?? 0), bytes }
}

/** A connection that breaks is an answer too: what came until then. */
async function converse(socket: Socket, texts: readonly (string | Buffer)[]): Promise<Buffer> {
  const chunks: Buffer[] = []
  const { promise, resolve } = Promise.withResolvers<void>()
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  socket.on('error', () => {})
  socket.on('close', () => resolve())
  for (const text of texts) socket.write(text)
  await promise
  return Buffer.concat(chunks)
}

async function readOne(socket: Socket): Promise<Buffer> {
  let bytes: Buffer = Buffer.alloc(0)
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>()
  const take = (chunk: Buffer) => {
    bytes = Buffer.concat([bytes, chunk])
    const end = bytes.indexOf('\r\n\r\n')
    if (end === -1) return
    const length = Number(/^content-length: *(\d+)/im.exec(bytes.toString('latin1', 0, end))?.[1] ?? 0)
    if (bytes.length >= end + 4 + length) resolve(bytes)
  }
  const fail = () => reject(new Error(`the tunnel closed after ${bytes.length} bytes`))
  socket.on('data', take).once('close', fail).once('error', fail)
  try {
    return await promise
  } finally {
    socket.off('data', take).off('close', fail).off('error', fail)
  }
}
