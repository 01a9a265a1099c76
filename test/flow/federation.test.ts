/** A whole gateway that keeps no secret of its API: tokens for its own assertions, and tokens that only it can use. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createRemoteJWKSet, type JWTVerifyGetKey } from 'jose'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { type Federation, SECRET, startFederation } from '../provider/federation.fixture.ts'
import { type DpopApi, startDpopApi } from '../rig/dpop-api.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'

const HOST = 'api.billing.test'
let dir: string
let federation: Federation
let api: DpopApi
let gateway: TestGateway

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-federation-'))
  // The server fetches the gateway's keys when it is first shown an assertion.
  let published: JWTVerifyGetKey | undefined
  const keys: JWTVerifyGetKey = (header, token) => {
    published ??= createRemoteJWKSet(new URL(`${gateway.gateway.control}/assertions/jwks.json`))
    return published(header, token)
  }
  federation = await startFederation({ keys, assertedBy: 'https://keyless.acme.test/assertions', wantsNonce: true })
  api = await startDpopApi(await federation.authority.issue([HOST, `b.${HOST}`]))
  for (const name of ['bound', 'traveled'])
    await writeFile(
      join(dir, `${name}.yaml`),
      `name: ${name}
title: ${name}
hosts: [${name === 'bound' ? HOST : `b.${HOST}`}]
ports: [${api.port}]
addresses: [127.0.0.1/32]
slots: [{ in: header, name: authorization, prefix: "Bearer " }]
operations: { all.read: { match: [GET /v1/invoices, POST /v1/invoices, GET /bearer/whoami], access: read } }
`,
    )
  await writeFile(join(dir, 'ca.pem'), federation.authority.pem)
  await writeFile(join(dir, 'secret'), SECRET)
  const place = `token_url: ${federation.tokenUrl}, assertion_audience: "${federation.issuer}", addresses: [127.0.0.1/32]`
  const client = `client_id: keyless, client_auth: client_secret_basic, client_secret: { file: ${dir}/secret }`
  gateway = await startGateway(`
public_url: https://keyless.acme.test
services: [${dir}/bound.yaml, ${dir}/traveled.yaml]
credentials:
  bound: { provider: oauth_client_credentials, ${place}, ${client}, resource: "https://api.billing.test", scope: read, dpop: true }
  traveled: { provider: oauth_token_exchange, ${place}, ${client}, resource: "https://api.billing.test", scope: read }
upstream: { ca: [${dir}/ca.pem], hosts: { ${HOST}: 127.0.0.1, b.${HOST}: 127.0.0.1 } }
`)
})
afterAll(async () => {
  await gateway?.stop()
  await Promise.all([federation?.stop(), api?.stop()])
  await rm(dir, { recursive: true, force: true })
})

async function curl(handle: string, url: string, ...args: string[]) {
  const proxy = ['-x', `http://task:${handle}@127.0.0.1:${gateway.proxyPort}`]
  const trust = ['--cacert', `${gateway.settings.keysDir}/ca.pem`]
  return run('curl', ['-sS', '-w', '\n%{http_code}', ...trust, ...proxy, ...args, url])
}

it('proves every request to the API, gives the nonce that it wants, and sends nothing of the agent along', async () => {
  const { handle } = await gateway.openTask('bound:*', 'read invoices')
  const url = `https://${HOST}:${api.port}/v1/invoices?page=2`
  const own = ['-H', 'DPoP: forged', '-H', 'Authorization: Bearer own']
  expect((await curl(handle, url, ...own)).stdout).toBe('{}\n200')
  expect((await curl(handle, url, '-d', 'a small body')).stdout).toBe('{}\n200')
  expect(api.seen).toEqual(['use_dpop_nonce', 'GET /v1/invoices?page=2', 'POST /v1/invoices?page=2'])
})

it('lets the API know for whom and through whom, with a token that names both', async () => {
  const { handle, agent, task } = await gateway.openTask('traveled:*', 'read invoices')
  const url = `https://b.${HOST}:${api.port}/bearer/whoami`
  const { stdout } = await curl(handle, url)
  const [text = '', status] = stdout.split('\n')
  expect(status).toBe('200')
  expect(JSON.parse(text)).toMatchObject({ act: { sub: agent }, task, aud: 'https://api.billing.test' })
})

it('keeps neither token, key nor proof in the log', async () => {
  await gateway.checkLog()
  const { stdout } = await run('grep', ['-rlE', 'eyJ|dpop_key', `${gateway.settings.dataDir}/audit`])
  expect(stdout).toBe('')
})
