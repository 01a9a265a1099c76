/** A whole gateway whose control door has TLS: who asks over it, and who asks over the socket. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { type Gateway, openGateway } from '../../gateway/main.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { trustDomain } from '../identity/svid.fixture.ts'
import { run, runOk } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'

let dir: string
let gateway: Gateway
let upstream: TestUpstream
const at = (name: string) => join(dir, name)

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-tls-'))
  upstream = await startUpstream()
  const authority = await makeAuthority()
  const door = await authority.issue(['127.0.0.1'])
  const acme = await trustDomain('acme.test', Date.now())
  const svid = await acme.issue('/agents/triage')
  const yaml = `
data_dir: data
listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0", control_tls: { cert: door.pem, key: door.key } }
SERVICE
agents: [{ id: "spiffe://acme.test/agents/triage", owner: ana, purpose: triage }]
trust: { x509: [{ trust_domain: acme.test, bundle: { file: acme.pem } }] }
`
  const files = {
    'keyless.yaml': yaml.replace('SERVICE', await upstream.settings()),
    'door.pem': door.cert,
    'door.key': door.key,
    'root.pem': authority.pem,
  }
  const own = { 'acme.pem': acme.pem, 'svid.pem': svid.pem, 'svid.key': svid.key }
  for (const [name, text] of Object.entries({ ...files, ...own })) writeFileSync(at(name), text)
  gateway = await openGateway(await loadSettings(at('keyless.yaml')))
})

afterAll(async () => {
  await gateway?.stop()
  await upstream?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const curl = (...args: readonly string[]) => runOk('curl', ['-sS', '--cacert', at('root.pem'), ...args])

it('says https where it says its address, and answers there', async () => {
  expect(gateway.control).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/)
  expect((await gateway.status()).control).toBe(gateway.control)
  // Nothing is said of a Redis that there is none of.
  const ready = { ready: true, checks: { audit: true, policy: true } }
  expect(JSON.parse(await curl(`${gateway.control}/health/ready`))).toEqual(ready)
  expect(await curl(`${gateway.control}/ca.pem`)).toContain('BEGIN CERTIFICATE')
})

it('leaves the socket as it is, for the commands of this machine', async () => {
  const socket = at('data/control.sock')
  expect((await controlClient(socket).status()).control).toBe(gateway.control)
  const ca = await runOk('curl', ['-sS', '--unix-socket', socket, 'http://localhost/ca.pem'])
  expect(ca).toContain('BEGIN CERTIFICATE')
})

const own = () => ['--cert', at('svid.pem'), '--key', at('svid.key')]
const fieldsOf = (form: object) =>
  Object.entries(form).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
const form = { grant_type: 'client_credentials', scope: 'demo:notes.list', purpose: 'triage issue 42' }
const BOUND = { tls_client_certificate_bound_access_tokens: 'true' }

async function asked(more: object, ...shown: readonly string[]) {
  const answer = JSON.parse(await curl(...shown, ...fieldsOf({ ...form, ...more }), `${gateway.control}/oauth/token`))
  const [, claims = ''] = (answer.access_token ?? '').split('.')
  return { answer, cnf: claims && JSON.parse(Buffer.from(claims, 'base64url').toString()).cnf }
}

async function call(credential: string): Promise<string> {
  const proxy = `http://agent:${credential}@${new URL(gateway.proxy).host}`
  const shape = ['-sS', '-o', '/dev/null', '-w', '%{http_code} %{http_connect}', '--cacert', at('data/keys/ca.pem')]
  return (await run('curl', [...shape, '-x', proxy, `${upstream.facts.api}/notes`])).stdout
}

it('gives an agent that shows its X.509-SVID a grant, with which it calls through the proxy door', async () => {
  const { answer, cnf } = await asked({}, ...own())
  expect(answer).toMatchObject({ token_type: 'Bearer', scope: 'demo:notes.list', handle: expect.any(String) })
  expect(cnf).toBeUndefined()
  expect(await call(answer.handle)).toBe('200 200')
  expect(await call(answer.access_token)).toBe('200 200')
  expect((await asked({})).answer).toMatchObject({ error: 'invalid_client' })
})

it('binds the grant to the certificate when the client asks for that, and then takes it with the certificate alone', async () => {
  const metadata = JSON.parse(await curl(`${gateway.control}/.well-known/oauth-authorization-server`))
  expect(metadata).toMatchObject({ tls_client_certificate_bound_access_tokens: true })
  expect(metadata.token_request_parameters_supported).toContain(Object.keys(BOUND)[0])
  const { answer, cnf } = await asked(BOUND, ...own())
  expect(cnf?.['x5t#S256']).toMatch(/^[\w-]{43}$/)
  expect(answer).not.toHaveProperty('handle')
  expect(await call(answer.access_token)).toMatch(/ 407$/)
  const introspect = (...shown: readonly string[]) =>
    curl(
      ...shown,
      ...['-H', `authorization: Bearer ${answer.access_token}`],
      ...fieldsOf({ token: answer.access_token }),
      `${gateway.control}/oauth/introspect`,
    )
  expect(JSON.parse(await introspect(...own()))).toMatchObject({ active: true, cnf })
  expect(JSON.parse(await introspect())).toMatchObject({ error: 'invalid_token' })
})

it('binds to no certificate that the agent did not authenticate with', async () => {
  const refused = await asked(BOUND)
  expect(refused.answer).toMatchObject({ error: 'invalid_client' })
  const odd = await asked({ tls_client_certificate_bound_access_tokens: 'yes' }, ...own())
  expect(odd.answer).toMatchObject({ error: 'invalid_request' })
})
