/** What travels beside a signature is a credential too: a passphrase that an upstream says back, in a coding, under another name. */
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { gunzipSync, gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { type Answer, basic, say } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

const [secret, passphrase] = [newCanary(), newCanary().replaceAll(/\W/g, '_')]
const MINE = 'the-agents-own-value-0815'
const seen: string[] = []
let site: OpenSite
let stop: () => Promise<void>

beforeAll(async () => {
  const tls = await throwAwayTls(['signed.keyless.test'])
  const server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    const said = JSON.stringify([request.url, request.rawHeaders])
    seen.push(said)
    const isPacked = request.headers['accept-encoding']?.includes('gzip')
    response.writeHead(200, isPacked ? { 'content-encoding': 'gzip' } : {})
    response.end(isPacked ? gzipSync(said) : said)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  process.env.KEYLESS_TEST_SECRET = secret
  process.env.KEYLESS_TEST_PASSPHRASE = passphrase
  site = await openSite(
    { port: (server.address() as AddressInfo).port, caPem: tls.caPem },
    {
      services: [
        {
          name: 'signed',
          slots: [{ in: 'signature', scheme: 'hmac' }],
          operations: { call: { match: ['GET /v1/{path**}'], access: 'read' } },
        },
      ],
      credentials: {
        signed: {
          provider: 'hmac',
          secret: { env: 'KEYLESS_TEST_SECRET' },
          values: { passphrase: { env: 'KEYLESS_TEST_PASSPHRASE' } },
          sign: '{method} {target}',
          headers: { 'X-Passphrase': '{passphrase}' },
          query: { time: '{timestamp}', sign: '{signature}' },
        },
      },
    },
  )
  stop = async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
})

afterAll(async () => {
  await site?.stop()
  await stop?.()
  delete process.env.KEYLESS_TEST_SECRET
  delete process.env.KEYLESS_TEST_PASSPHRASE
})

async function call(path: string, fields: string): Promise<Answer> {
  const { gateway } = site
  const { handle } = await gateway.openTask('signed:call')
  const head = [`GET /signed${path} HTTP/1.1`, `Host: 127.0.0.1:${gateway.proxyPort}`]
  const text = [...head, `Proxy-Authorization: ${basic(handle)}`, fields, 'Connection: close', '', ''].join('\r\n')
  return say(gateway.proxyPort, text)
}

/** The body, unpacked where it came packed. */
function unpacked({ bytes }: Answer): Buffer {
  const start = bytes.indexOf(Buffer.from([0x1f, 0x8b]))
  return start === -1 ? bytes : gunzipSync(bytes.subarray(start), { finishFlush: 2 })
}

it('does not come back to the agent, packed or not', async () => {
  for (const coding of ['identity', 'gzip']) {
    const answer = await call('/v1/x', `Accept-Encoding: ${coding}`)
    expect(answer.status).toBe(200)
    for (const bytes of [answer.bytes, unpacked(answer)])
      for (const canary of [secret, passphrase]) expect(findCanary(bytes, canary)).toEqual([])
  }
  expect(seen.some((said) => said.includes(passphrase))).toBe(true)
})

it('takes the place of what the agent sent, however a server may read that', async () => {
  seen.length = 0
  await call(`/v1/x?a=1;sign=${MINE}&time=${MINE}&SIGN=${MINE}`, `X_Passphrase: ${MINE}\r\nx-passphrase: ${MINE}`)
  expect(seen).toHaveLength(1)
  expect(seen[0]).not.toContain(MINE)
})
