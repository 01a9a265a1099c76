/** An authorization server (`oidc-provider`) and an API that answers 1 KB, in a process of their own: it says where they are, and stays. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { pem, startAuthorizationServer } from '../test/provider/authorization-server.fixture.ts'

const BODY = Buffer.alloc(1024, 'x')

/** What is said, as one line of JSON. */
export interface FarSide {
  readonly tokenUrl: string
  /** Of client `basic`. */
  readonly secret: string
  /** PEM of the clients `jwt-ES256` and `jwt-RS256`, and their key ids. */
  readonly keys: Readonly<Record<string, { readonly pem: string; readonly kid: string }>>
  readonly apiPort: number
}

const server = await startAuthorizationServer()
const api = createServer((_request, response) => response.end(BODY)).listen(0, '127.0.0.1')
await once(api, 'listening')
const far: FarSide = {
  tokenUrl: server.tokenUrl,
  secret: server.secret,
  keys: Object.fromEntries(server.keys.map(({ id, kid, privateKey }) => [id, { pem: pem(privateKey), kid }])),
  apiPort: (api.address() as AddressInfo).port,
}
process.stdout.write(`FAR ${JSON.stringify(far)}\n`)
