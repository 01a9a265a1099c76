/** A raw connection that writes exactly what it is told and reads HTTP answers one after another. */
import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type ConnectionOptions, connect as connectTls } from 'node:tls'

export interface Answer {
  readonly status: number
  readonly reason: string
  readonly headers: ReadonlyMap<string, string>
  readonly body: string
}

export interface Wire {
  readonly stream: Duplex
  write(bytes: string | Buffer): void
  /** The next complete answer. Interim (1xx) answers count as answers. */
  answer(options?: { head?: boolean }): Promise<Answer>
  /** Resolves when the other side has closed; what was not read as an answer. */
  closed(): Promise<string>
  destroy(): void
  /** TLS inside this connection, after a CONNECT. */
  secure(options: ConnectionOptions): Promise<Wire>
}

export async function openWire(port: number): Promise<Wire> {
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  await new Promise<void>((resolve, reject) => {
    socket.once('connect', resolve)
    socket.once('error', reject)
  })
  return wireOn(socket)
}

export function wireOn(stream: Duplex): Wire {
  let seen = Buffer.alloc(0)
  let isClosed = false
  let wake = (): void => {}
  const changed = (): void => wake()
  const onData = (chunk: Buffer): void => {
    seen = Buffer.concat([seen, chunk])
    changed()
  }
  stream.on('data', onData)
  stream.on('error', () => {})
  const onEnd = (): void => {
    isClosed = true
    changed()
  }
  stream.on('end', onEnd)
  stream.on('close', onEnd)
  const more = (): Promise<void> =>
    new Promise((resolve) => {
      wake = resolve
    })
  async function until(complete: () => number): Promise<Buffer> {
    for (;;) {
      const length = complete()
      if (length >= 0) {
        const taken = seen.subarray(0, length)
        seen = seen.subarray(length)
        return taken
      }
      if (isClosed) throw new Error(`closed after ${JSON.stringify(seen.toString('latin1').slice(0, 300))}`)
      await more()
    }
  }
  return {
    stream,
    write(bytes) {
      stream.write(bytes)
    },
    async answer({ head = false } = {}) {
      const headBytes = await until(() => {
        const end = seen.indexOf('\r\n\r\n')
        return end === -1 ? -1 : end + 4
      })
      const [first = '', ...lines] = headBytes.toString('latin1').trimEnd().split('\r\n')
      const [, status = '', reason = ''] = /^HTTP\/1\.[01] (\d+) ?(.*)$/.exec(first) ?? []
      const headers = new Map(
        lines.map((line) => [line.slice(0, line.indexOf(':')).toLowerCase(), line.slice(line.indexOf(':') + 1).trim()]),
      )
      const isEmpty = head || status.startsWith('1') || status === '204' || (status === '200' && headers.size === 0)
      const body = isEmpty ? '' : await bodyOf(headers)
      return { status: Number(status), reason, headers, body }
    },
    async closed() {
      while (!isClosed) await more()
      return seen.toString('latin1')
    },
    destroy() {
      stream.destroy()
    },
    secure(options) {
      stream.off('data', onData)
      stream.off('end', onEnd)
      const secure = connectTls({ ...options, socket: stream as Socket })
      return new Promise((resolve, reject) => {
        secure.once('secureConnect', () => resolve(wireOn(secure)))
        secure.once('error', reject)
      })
    },
  }

  async function bodyOf(headers: ReadonlyMap<string, string>): Promise<string> {
    const length = headers.get('content-length')
    if (length !== undefined)
      return (await until(() => (seen.length >= Number(length) ? Number(length) : -1))).toString()
    if (headers.get('transfer-encoding') !== 'chunked') {
      while (!isClosed) await more()
      return (await until(() => seen.length)).toString()
    }
    let body = ''
    for (;;) {
      const size = await until(() => (seen.indexOf('\r\n') === -1 ? -1 : seen.indexOf('\r\n') + 2))
      const bytes = Number.parseInt(size.toString(), 16)
      const chunk = await until(() => (seen.length >= bytes + 2 ? bytes + 2 : -1))
      if (bytes === 0) return body
      body += chunk.subarray(0, bytes).toString()
    }
  }
}
