/** An engine outside the gateway, over real HTTP: keeps what it was asked, and answers what a test wants. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface AskedOf {
  readonly path: string
  readonly headers: NodeJS.Dict<string | string[]>
  /** As sent, parsed. */
  readonly body: { readonly input?: unknown } & Readonly<Record<string, unknown>>
}

export interface Engine {
  readonly url: string
  readonly asked: AskedOf[]
  /** What is answered from now on: a JSON value with 200, a text as it is, or what a function of the question says. */
  answer: unknown
  status: number
  /** Milliseconds before it answers; undefined: never. */
  delayMs: number | undefined
  stop(): Promise<void>
}

export async function startEngine(answer: unknown): Promise<Engine> {
  const engine = { asked: [] as AskedOf[], answer, status: 200, delayMs: 0 as number | undefined }
  const server = createServer(async (request, response) => {
    let text = ''
    for await (const chunk of request) text += chunk
    const body = JSON.parse(text) as AskedOf['body']
    engine.asked.push({ path: request.url ?? '', headers: request.headers, body })
    if (engine.delayMs === undefined) return
    if (engine.delayMs > 0) await new Promise((done) => setTimeout(done, engine.delayMs))
    const given = typeof engine.answer === 'function' ? engine.answer(body) : engine.answer
    response.writeHead(engine.status, { 'content-type': 'application/json' })
    response.end(typeof given === 'string' ? given : JSON.stringify(given))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  return Object.assign(engine, {
    url: `http://127.0.0.1:${port}`,
    stop: async () => {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  })
}
