/**
 * The least that a proxy in Node costs on this machine: the same HTTP server and upstream client as the gateway's, a fixed
 * header attached, and nothing decided, recorded or scrubbed. A process of its own: `node bench/relay.ts PORT UPSTREAM_PORT`.
 */
import { createServer, type ServerResponse } from 'node:http'
import { Client, type Dispatcher } from 'undici'

const [port, upstream] = process.argv.slice(2).map(Number)
const idle: Client[] = []

/** Hop-by-hop, and what the client says to the proxy alone. */
const DROPPED = /^(?:connection|proxy-.*)$/i

class Relayed implements Dispatcher.DispatchHandler {
  readonly #reply: ServerResponse
  readonly #client: Client
  readonly #chunks: Buffer[] = []
  #status = 0
  #headers: string[] = []

  constructor(reply: ServerResponse, client: Client) {
    this.#reply = reply
    this.#client = client
  }

  onRequestStart(): void {}

  onResponseStart(controller: Dispatcher.DispatchController, status: number): void {
    this.#status = status
    this.#headers = ((controller.rawHeaders ?? []) as Buffer[]).map((text) => text.toString('latin1'))
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#chunks.push(chunk)
  }

  onResponseEnd(): void {
    idle.push(this.#client)
    this.#reply.writeHead(this.#status, this.#headers)
    this.#reply.end(Buffer.concat(this.#chunks).toString('latin1'), 'latin1')
  }

  onResponseError(): void {
    this.#reply.destroy()
  }
}

const server = createServer({ highWaterMark: 65_536 }, ({ url, method = 'GET', rawHeaders }, reply) => {
  const client = idle.pop() ?? new Client(`http://127.0.0.1:${upstream}`, { pipelining: 1 })
  const headers = rawHeaders.filter((_, i) => !DROPPED.test(rawHeaders[i - (i % 2)] as string))
  headers.push('authorization', 'Bearer fixed')
  const path = new URL(url ?? '/', 'http://relay').pathname
  client.dispatch({ path, method, headers }, new Relayed(reply, client))
})
server.listen(port, '127.0.0.1')
