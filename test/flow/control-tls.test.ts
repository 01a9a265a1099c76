/** A whole gateway whose control door has TLS: who asks over it, and who asks over the socket. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { type Gateway, openGateway } from '../../gateway/main.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { trustDomain } from '../identity/svid.fixture.ts'
import { runOk } from '../rig/process.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'

let dir: string
let gateway: Gateway
const at = (name: string) => join(dir, name)

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-tls-'))
  const authority = await makeAuthority()
  const door = await authority.issue(['127.0.0.1'])
  const acme = await trustDomain('acme.test', Date.now())
  const svid = await acme.issue('/agents/triage')
  const yaml = `
data_dir: data
listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0", control_tls: { cert: door.pem, key: door.key } }
services: [github]
agents: [{ id: "spiffe://acme.test/agents/triage", owner: ana, purpose: triage }]
trust: { x509: [{ trust_domain: acme.test, bundle: { file: acme.pem } }] }
`
  const files = { 'keyless.yaml': yaml, 'door.pem': door.cert, 'door.key': door.key, 'root.pem': authority.pem }
  const own = { 'acme.pem': acme.pem, 'svid.pem': svid.pem, 'svid.key': svid.key }
  for (const [name, text] of Object.entries({ ...files, ...own })) writeFileSync(at(name), text)
  gateway = await openGateway(await loadSettings(at('keyless.yaml')))
})

afterAll(async () => {
  await gateway?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const curl = (...args: readonly string[]) => runOk('curl', ['-sS', '--cacert', at('root.pem'), ...args])

it('says https where it says its address, and answers there', async () => {
  expect(gateway.control).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/)
  expect((await gateway.status()).control).toBe(gateway.control)
  expect(JSON.parse(await curl(`${gateway.control}/health/ready`))).toMatchObject({ ready: true })
  expect(await curl(`${gateway.control}/ca.pem`)).toContain('BEGIN CERTIFICATE')
})

it('leaves the socket as it is, for the commands of this machine', async () => {
  const socket = at('data/control.sock')
  expect((await controlClient(socket).status()).control).toBe(gateway.control)
  const ca = await runOk('curl', ['-sS', '--unix-socket', socket, 'http://localhost/ca.pem'])
  expect(ca).toContain('BEGIN CERTIFICATE')
})

it('gives an agent that shows its X.509-SVID a grant, bound to that certificate', async () => {
  const form = { grant_type: 'client_credentials', scope: 'github:issues.read', purpose: 'triage issue 42' }
  const fields = Object.entries(form).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
  const own = ['--cert', at('svid.pem'), '--key', at('svid.key')]
  const answer = JSON.parse(await curl(...own, ...fields, `${gateway.control}/oauth/token`))
  expect(answer).toMatchObject({ access_token: expect.any(String), scope: 'github:issues.read' })
  const claims = JSON.parse(Buffer.from(answer.access_token.split('.')[1], 'base64url').toString())
  expect(claims.cnf?.['x5t#S256']).toMatch(/^[\w-]{43}$/)
  const bare = JSON.parse(await curl(...fields, `${gateway.control}/oauth/token`))
  expect(bare).toMatchObject({ error: 'invalid_client' })
})
