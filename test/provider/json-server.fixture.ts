/** A server on loopback, HTTP or HTTPS, that answers JSON as a function says; what it was asked is kept. */
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { ThrowAwayTls } from '../../deploy/demo/certificate.ts'

export interface Asked {
  readonly method: string
  /** Path and query. */
  readonly path: string
  readonly headers: IncomingHttpHeaders
  /** Undefined: no content. A form is an object of its fields. */
  readonly body: unknown
}

/** `hang`: no answer ever. `reset`: the connection is cut. */
export type Answered =
  | 'hang'
  | 'reset'
  | {
      readonly status: number
      readonly json?: unknown
      readonly text?: string
      readonly headers?: Record<string, string>
    }

export interface JsonServer {
  readonly url: string
  readonly asked: Asked[]
  /** In front of what the server says; undefined: it says it. */
  interrupt: ((asked: Asked) => Answered | undefined | Promise<Answered | undefined>) | undefined
  stop(): Promise<void>
}

/** @param tls with a leaf for 127.0.0.1. Absent: HTTP. */
export async function startJsonServer(
  answer: (asked: Asked) => Answered | Promise<Answered>,
  tls?: ThrowAwayTls,
): Promise<JsonServer> {
  const listener = async (request: IncomingMessage, response: ServerResponse) => {
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const text = Buffer.concat(chunks).toString()
    const { method = '', url = '', headers } = request
    const asked = { method, path: url, headers, body: read(text, headers['content-type']) }
    self.asked.push(asked)
    const said = (await self.interrupt?.(asked)) ?? (await answer(asked))
    if (said === 'hang') return
    if (said === 'reset') return void response.destroy()
    response.writeHead(said.status, { 'content-type': 'application/json', ...said.headers })
    response.end(said.text ?? (said.json === undefined ? undefined : JSON.stringify(said.json)))
  }
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const self: JsonServer = {
    url: `${tls === undefined ? 'http' : 'https'}://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked: [],
    interrupt: undefined,
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
  return self
}

function read(text: string, type = ''): unknown {
  if (text === '') return undefined
  return type.startsWith('application/x-www-form-urlencoded')
    ? Object.fromEntries(new URLSearchParams(text))
    : JSON.parse(text)
}
