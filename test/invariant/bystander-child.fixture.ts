/**
 * Another agent, with an upstream of its own, in a process of its own, so that what is measured is the gateway alone. Says the
 * port of its upstream; gets where the gateway is; calls from then on every few milliseconds, and says on request how it went.
 */
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'

interface Way {
  readonly port: number
  readonly authorization: string
  readonly url: string
}

const EVERY_MS = 5

const server = createServer((asked, answer) => void asked.resume().on('end', () => answer.end('hello')))
server.listen(0, '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))

let times: number[] = []
let failures: string[] = []

function call(agent: Agent, { port, authorization, url }: Way): Promise<void> {
  const begun = performance.now()
  return new Promise((resolve) => {
    const failed = (why: unknown) => {
      failures.push(String(why))
      resolve()
    }
    const headers = { host: new URL(url).host, 'proxy-authorization': authorization }
    const asked = request({ host: '127.0.0.1', port, path: url, agent, headers }, (answer) => {
      if (answer.statusCode !== 200) failures.push(`${answer.statusCode} ${answer.headers['keyless-error']}`)
      answer
        .on('error', failed)
        .resume()
        .on('end', () => {
          times.push(performance.now() - begun)
          resolve()
        })
    })
    asked.on('error', failed).end()
  })
}

process.once('message', async (way: Way) => {
  process.on('message', () => {
    process.send?.({ times, failures })
    times = []
    failures = []
  })
  const agent = new Agent({ keepAlive: true })
  for (;;) {
    await call(agent, way)
    await new Promise((resolve) => setTimeout(resolve, EVERY_MS))
  }
})
process.on('disconnect', () => process.exit())
