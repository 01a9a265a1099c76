/** A TCP relay that a test can cut or hang: a network between gateway and Redis, with any Redis behind it. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface Relay {
  readonly url: string
  /** Break every connection and take no new one. */
  cut(): void
  /** Keep connections, pass nothing on. */
  hang(): void
  /** Pass everything on again, in order, and take new connections. */
  heal(): void
  close(): Promise<void>
}

export async function openRelay(target: string): Promise<Relay> {
  const { hostname, port, pathname } = new URL(target)
  const pairs = new Set<readonly [Socket, Socket]>()
  let isCut = false
  let isHung = false
  const server = createServer((near) => {
    if (isCut) return near.destroy()
    const far = connect(Number(port || 6379), hostname)
    const pair = [near, far] as const
    pairs.add(pair)
    for (const [from, onto] of [pair, [far, near] as const]) {
      from.on('data', (chunk) => onto.write(chunk))
      from.on('error', () => onto.destroy())
      from.on('close', () => {
        onto.destroy()
        pairs.delete(pair)
      })
      if (isHung) from.pause()
    }
  })
  const { promise, resolve } = Promise.withResolvers<void>()
  server.listen(0, '127.0.0.1', resolve)
  await promise
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}${pathname}`,
    cut() {
      isCut = true
      for (const [near] of pairs) near.destroy()
    },
    hang() {
      isHung = true
      for (const pair of pairs) for (const socket of pair) socket.pause()
    },
    heal() {
      isCut = false
      isHung = false
      for (const pair of pairs) for (const socket of pair) socket.resume()
    },
    async close() {
      for (const [near] of pairs) near.destroy()
      server.close()
    },
  }
}
