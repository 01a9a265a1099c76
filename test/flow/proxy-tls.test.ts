/** A whole gateway whose both doors have TLS: a grant that is bound to a certificate, and a caller who shows it. */
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

const AGENT = 'spiffe://acme.test/agents/triage'

let dir: string
let gateway: Gateway
let upstream: TestUpstream
let bound: string
const at = (name: string) => join(dir, name)
const shown = (name: string, prefix = '') => [`--${prefix}cert`, at(`${name}.pem`), `--${prefix}key`, at(`${name}.key`)]

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-doors-tls-'))
  upstream = await startUpstream()
  const authority = await makeAuthority()
  const door = await authority.issue(['127.0.0.1', 'localhost'])
  const acme = await trustDomain('acme.test', Date.now())
  const [svid, other] = [await acme.issue('/agents/triage'), await acme.issue('/agents/triage')]
  const yaml = `
data_dir: data
listen:
  proxy: "127.0.0.1:0"
  proxy_tls: { cert: door.pem, key: door.key, client_ca: [acme.pem] }
  control: "127.0.0.1:0"
  control_tls: { cert: door.pem, key: door.key }
agents: [{ id: "${AGENT}", owner: ana, purpose: triage }]
trust: { x509: [{ trust_domain: acme.test, bundle: { file: acme.pem } }] }
${await upstream.settings()}`
  const files = {
    ...{ 'keyless.yaml': yaml, 'door.pem': door.cert, 'door.key': door.key, 'root.pem': authority.pem },
    ...{ 'acme.pem': acme.pem, 'svid.pem': svid.pem, 'svid.key': svid.key },
    ...{ 'other.pem': other.pem, 'other.key': other.key },
  }
  for (const [name, text] of Object.entries(files)) writeFileSync(at(name), text)
  gateway = await openGateway(await loadSettings(at('keyless.yaml')))
  const form = {
    ...{ grant_type: 'client_credentials', scope: 'demo:notes.list', purpose: 'triage issue 42' },
    tls_client_certificate_bound_access_tokens: 'true',
  }
  const fields = Object.entries(form).flatMap(([name, value]) => ['--data-urlencode', `${name}=${value}`])
  const asked = ['-sS', '--cacert', at('root.pem'), ...shown('svid'), ...fields, `${gateway.control}/oauth/token`]
  bound = JSON.parse(await runOk('curl', asked)).access_token
})

afterAll(async () => {
  await gateway?.stop()
  await upstream?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const port = () => new URL(gateway.proxy).port
/** Status of the answer, and of the CONNECT. */
const SHAPE = ['-sS', '-o', '/dev/null', '-w', '%{http_code} %{http_connect}']

async function call(scheme: string, credential: string | undefined, ...more: readonly string[]): Promise<string> {
  const trust = ['--cacert', at('data/keys/ca.pem'), '--proxy-cacert', at('root.pem')]
  const field = credential === undefined ? [] : ['--proxy-header', `Proxy-Authorization: Bearer ${credential}`]
  const proxy = ['-x', `${scheme}://127.0.0.1:${port()}`]
  return (await run('curl', [...SHAPE, ...trust, ...proxy, ...field, ...more, `${upstream.facts.api}/notes`])).stdout
}

it('takes a bound grant in a tunnel of a connection that shows its certificate, and on no other', async () => {
  expect(await call('https', bound, ...shown('svid', 'proxy-'))).toBe('200 200')
  expect(await call('https', bound, ...shown('other', 'proxy-'))).toBe('000 407')
  expect(await call('https', bound)).toBe('000 407')
  expect(await call('http', bound)).toBe('000 407')
})

it('takes it on a reverse route as well', async () => {
  const url = `https://127.0.0.1:${port()}/demo/notes`
  const ask = (...more: readonly string[]) =>
    run('curl', ['-sS', '-w', '%{http_code}', '-o', '/dev/null', '--cacert', at('root.pem'), ...more, url])
  const field = ['-H', `authorization: Bearer ${bound}`]
  expect((await ask(...field, ...shown('svid'))).stdout).toBe('200')
  expect((await ask(...field)).stdout).toBe('401')
})

it('tells whoever shows a certificate and no grant where to get one', async () => {
  const url = `https://127.0.0.1:${port()}/demo/notes`
  const { stdout } = await run('curl', ['-sS', '--cacert', at('root.pem'), ...shown('svid'), url])
  expect(JSON.parse(stdout)).toMatchObject({
    code: 'grant_missing',
    detail: expect.stringContaining('With that certificate, ask the token endpoint'),
  })
})

it('leaves bearer grants and handles as they are, over TLS, plainly and by SOCKS from this machine', async () => {
  const task = await controlClient(at('data/control.sock')).openTask({ scope: 'demo:notes.list', purpose: 'triage' })
  expect(await call('https', task.handle)).toBe('200 200')
  expect(await call('http', task.handle)).toBe('200 200')
  const socks = `socks5h://task:${task.handle}@127.0.0.1:${port()}`
  const asked = [...SHAPE, '--cacert', at('data/keys/ca.pem'), '-x', socks, `${upstream.facts.api}/notes`]
  expect((await run('curl', asked)).stdout).toBe('200 000')
})
