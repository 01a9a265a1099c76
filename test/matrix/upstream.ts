/**
 * The far side of the client matrix: one TLS server that is a plain API, an LLM of two vendors, an object store, an npm
 * registry and a Python index, and remembers which credential came with every request. Everything is below `/<client>/`.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo, Socket } from 'node:net'
import { WebSocketServer } from 'ws'
import { type ThrowAwayTls, throwAwayTls } from '../../deploy/demo/certificate.ts'

export interface Arrival {
  /** First segment of the path: which client of the matrix. */
  readonly client: string
  readonly method: string
  readonly path: string
  /** What stands where the service takes a credential. */
  readonly credential: string | undefined
  /** Head and query as they arrived, for whoever looks for placeholders. */
  readonly head: string
}

export interface MatrixUpstream {
  readonly port: number
  readonly tls: ThrowAwayTls
  readonly arrivals: readonly Arrival[]
  stop(): Promise<void>
}

/** What `/download` answers, in bytes of `d`. */
export const DOWNLOAD_BYTES = 3 * 1024 * 1024

export interface Packages {
  readonly npm: Buffer
  readonly wheel: Buffer
}

interface Asked {
  readonly client: string
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly base: string
}

export async function startMatrixUpstream(names: readonly string[], packages: Packages): Promise<MatrixUpstream> {
  const tls = await throwAwayTls(names)
  const arrivals: Arrival[] = []
  /** client → what lets its event stream go on */
  const waiting = new Map<string, () => void>()
  const server = createServer({ key: tls.key, cert: tls.cert })
  const sockets = new WebSocketServer({ noServer: true })
  const arrive = (request: IncomingMessage): string => {
    const [, client = ''] = (request.url ?? '/').split('/')
    const { method = '', url: path = '', headers } = request
    const head = `${method} ${path}\n${JSON.stringify(request.rawHeaders)}`
    const key = headers['x-api-key'] as string | undefined
    arrivals.push({ client, method, path, credential: key ?? headers.authorization?.replace('Bearer ', ''), head })
    return client
  }
  server.on('request', (request, response) => {
    const client = arrive(request)
    const base = `https://${request.headers.host}/${client}`
    answer({ client, request, response, base }, { waiting, packages }).catch(() => response.destroy())
  })
  server.on('upgrade', (request: IncomingMessage, socket: Socket, head: Buffer) => {
    arrive(request)
    sockets.handleUpgrade(request, socket, head, (accepted) => {
      accepted.on('message', (data) => accepted.send(String(data)))
      accepted.send('hello')
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    tls,
    arrivals,
    async stop() {
      for (const socket of sockets.clients) socket.terminate()
      const closed = once(server.close(), 'close')
      server.closeAllConnections()
      await closed
    },
  }
}

interface Held {
  readonly waiting: Map<string, () => void>
  readonly packages: Packages
}

async function answer(asked: Asked, { waiting, packages }: Held): Promise<void> {
  const { client, request, response, base } = asked
  const path = (request.url ?? '').slice(client.length + 1).replace(/\?.*/, '')
  const read = await digestOf(request)
  switch (path) {
    case '/get':
      return json(response, { authorization: request.headers.authorization })
    case '/post':
      return json(response, { got: JSON.parse(read.text) })
    case '/upload':
      return json(response, { bytes: read.bytes, sha256: read.sha256 })
    case '/bucket/upload':
      return void response.writeHead(200, { etag: '"upload"' }).end()
    case '/download':
    case '/bucket/download':
      return download(response)
    case '/sse':
      return stream(
        asked,
        waiting,
        ['one', 'two', 'three'].map((text) => `data: ${text}\n\n`),
      )
    case '/seen':
      waiting.get(client)?.()
      return json(response, {})
    case '/v1/chat/completions':
      return JSON.parse(read.text).stream ? stream(asked, waiting, openaiEvents()) : json(response, openaiAnswer())
    case '/v1/messages':
      return JSON.parse(read.text).stream
        ? stream(asked, waiting, anthropicEvents())
        : json(response, anthropicAnswer())
    case '/matrix-package':
      return json(response, npmDocument(base, packages.npm))
    case '/matrix-package/-/matrix-package-1.0.0.tgz':
      return void response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(packages.npm)
    case '/simple/matrix-package/':
      return void response
        .writeHead(200, { 'content-type': 'text/html' })
        .end(`<a href="${base}/${WHEEL}#sha256=${sha256(packages.wheel)}">${WHEEL}</a>`)
    case `/${WHEEL}`:
      return void response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(packages.wheel)
    default:
      return void response.writeHead(404).end()
  }
}

export const WHEEL = 'matrix_package-1.0.0-py3-none-any.whl'

async function digestOf(request: IncomingMessage) {
  const sum = createHash('sha256')
  let bytes = 0
  const kept: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) {
    sum.update(chunk)
    bytes += chunk.length
    if (bytes < 65_536) kept.push(chunk)
  }
  return { bytes, sha256: sum.digest('hex'), text: Buffer.concat(kept).toString() }
}

function json(response: ServerResponse, body: unknown): void {
  response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body))
}

async function download(response: ServerResponse): Promise<void> {
  response.writeHead(200, { 'content-type': 'application/octet-stream' })
  const piece = Buffer.alloc(65_536, 'd')
  for (let left = DOWNLOAD_BYTES; left > 0; left -= piece.length) {
    if (!response.write(piece)) await once(response, 'drain')
  }
  response.end()
}

/** The first event, then nothing until the client says that it has seen it: whoever buffers waits for ever. */
async function stream({ client, response }: Asked, waiting: Held['waiting'], events: readonly string[]): Promise<void> {
  response.writeHead(200, { 'content-type': 'text/event-stream', 'cache-control': 'no-store' })
  const seen = new Promise<void>((resolve) => waiting.set(client, resolve))
  const [first = '', ...rest] = events
  response.write(first)
  await Promise.race([seen, once(response, 'close')])
  waiting.delete(client)
  response.end(rest.join(''))
}

const SAID = JSON.stringify({ got: 'hello' })

function openaiAnswer(): object {
  const choice = { index: 0, finish_reason: 'stop', message: { role: 'assistant', content: SAID } }
  return { id: 'c', object: 'chat.completion', created: 1, model: 'm', choices: [choice] }
}

function openaiEvents(): string[] {
  const events = ['one', 'two', 'three'].map((content) => ({
    id: 'c',
    object: 'chat.completion.chunk',
    created: 1,
    model: 'm',
    choices: [{ index: 0, delta: { role: 'assistant', content }, finish_reason: null }],
  }))
  return [...events.map((event) => `data: ${JSON.stringify(event)}\n\n`), 'data: [DONE]\n\n']
}

const MESSAGE = {
  id: 'a',
  type: 'message',
  role: 'assistant',
  model: 'm',
  stop_reason: 'end_turn',
  stop_sequence: null,
}
const USAGE = { input_tokens: 1, output_tokens: 1 }

function anthropicAnswer(): object {
  return { ...MESSAGE, content: [{ type: 'text', text: SAID }], usage: USAGE }
}

function anthropicEvents(): string[] {
  const events = [
    { type: 'message_start', message: { ...MESSAGE, content: [], stop_reason: null, usage: USAGE } },
    { type: 'content_block_start', index: 0, content_block: { type: 'text', text: '' } },
    ...['one', 'two', 'three'].map((text) => ({
      type: 'content_block_delta',
      index: 0,
      delta: { type: 'text_delta', text },
    })),
    { type: 'content_block_stop', index: 0 },
    { type: 'message_stop' },
  ].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)
  // A client sees nothing of the opening: it goes along with the first word.
  return [events.slice(0, 3).join(''), ...events.slice(3)]
}

function npmDocument(base: string, tarball: Buffer): object {
  const shasum = createHash('sha1').update(tarball).digest('hex')
  const dist = { shasum, tarball: `${base}/matrix-package/-/matrix-package-1.0.0.tgz` }
  const version = { name: 'matrix-package', version: '1.0.0', dist }
  return { name: 'matrix-package', 'dist-tags': { latest: '1.0.0' }, versions: { '1.0.0': version } }
}

function sha256(bytes: Buffer): string {
  return createHash('sha256').update(bytes).digest('hex')
}
