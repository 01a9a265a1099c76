/** An upstream over TLS that repeats nothing of what it gets: a credential that comes back in an answer is burnt. */
import { once } from 'node:events'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'

export interface QuietUpstream {
  readonly port: number
  readonly caPem: string
  /** `authorization` of what it got, in order. */
  readonly sent: readonly (string | undefined)[]
  stop(): Promise<void>
}

export async function startQuiet(names: readonly string[]): Promise<QuietUpstream> {
  const tls = await throwAwayTls(names)
  const sent: (string | undefined)[] = []
  const server = createServer(tls, (request, response) => {
    sent.push(request.headers.authorization)
    response.end('[]')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    caPem: tls.caPem,
    sent,
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
