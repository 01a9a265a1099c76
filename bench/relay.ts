/**
 * The least that a proxy in Node costs on this machine: the same HTTP server and upstream client as the gateway's, a fixed
 * header attached, and nothing decided, recorded or scrubbed. A process of its own: `node bench/relay.ts PORT UPSTREAM_PORT`.
 */
import { createServer, type ServerResponse } from 'node:http'
import { Client, type Dispatcher } from 'undici'

const [port, upstream] = process.argv.slice(2).map(Number)
const idle: Client[] = []

/** Header name as received → whether it goes on. Not those of one hop, nor what the client says to the proxy alone. */
const goesOn = new Map<string, boolean>()

/** As lean as it can be made: no closures, one string for the head of an answer, and one for all that is written. */
class Relayed implements Dispatcher.DispatchHandler {
  readonly #reply: ServerResponse
  readonly #client: Client
  #body: Buffer | undefined
  #status = 0
  #head: readonly Buffer[] = []

  constructor(reply: ServerResponse, client: Client) {
    this.#reply = reply
    this.#client = client
  }

  onRequestStart(): void {}

  onResponseStart({ rawHeaders }: Dispatcher.DispatchController, status: number): void {
    this.#status = status
    this.#head = rawHeaders as Buffer[]
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.#body = this.#body === undefined ? chunk : Buffer.concat([this.#body, chunk])
  }

  onResponseEnd(): void {
    idle.push(this.#client)
    this.#reply.writeHead(this.#status, textsOf(this.#head))
    this.#reply.end(this.#body?.toString('latin1') ?? '', 'latin1')
  }

  onResponseError(): void {
    this.#reply.destroy()
  }
}

/** The parser cuts them from one piece of memory, which becomes text once. */
function textsOf(parts: readonly Buffer[]): string[] {
  const [first, last] = [parts[0], parts.at(-1)]
  if (first === undefined || last === undefined) return []
  const start = first.byteOffset
  const text = Buffer.from(first.buffer, start, last.byteOffset + last.length - start).toString('latin1')
  return parts.map((part) => text.slice(part.byteOffset - start, part.byteOffset - start + part.length))
}

function leaving(rawHeaders: readonly string[]): string[] {
  const headers: string[] = []
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = rawHeaders[i] as string
    const known = goesOn.get(name)
    const goes = known ?? !/^(?:connection|proxy-.*)$/i.test(name)
    if (known === undefined) goesOn.set(name, goes)
    if (goes) headers.push(name, rawHeaders[i + 1] as string)
  }
  headers.push('authorization', 'Bearer fixed')
  return headers
}

const server = createServer({ highWaterMark: 65_536 }, ({ url = '/', method = 'GET', rawHeaders }, reply) => {
  const client = idle.pop() ?? new Client(`http://127.0.0.1:${upstream}`, { pipelining: 1 })
  const path = url.startsWith('/') ? url : url.slice(url.indexOf('/', 'http://'.length))
  client.dispatch({ path, method, headers: leaving(rawHeaders), blocking: false }, new Relayed(reply, client))
})
server.listen(port, '127.0.0.1')
