/** A whole gateway in a network whose only way out is Squid, which wants a password. */
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { API_HOST, ISSUER_HOST } from '../../deploy/demo/upstream.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'
import { type Running, run, start } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

const PASSWORD = 'corporate-canary'

let dir: string
let squid: Running
let port: number
let upstream: TestUpstream
let gateway: TestGateway
const others: TestGateway[] = []

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-way-out-'))
  chmodSync(dir, 0o777) // Squid gives up being root
  upstream = await startUpstream()
  port = await freePort()
  squid = await startSquid()
  process.env.KEYLESS_TEST_PROXY = `http://gateway:${PASSWORD}@127.0.0.1:${port}`
  gateway = await startGateway(await throughProxy({ env: 'KEYLESS_TEST_PROXY' }))
})

afterAll(async () => {
  delete process.env.KEYLESS_TEST_PROXY
  for (const one of [gateway, ...others]) await one?.stop()
  await squid?.stop()
  await upstream?.stop()
  rmSync(dir, { recursive: true, force: true })
})

/** The settings of the demo upstream, whose names only the proxy can resolve. */
async function throughProxy(url: unknown): Promise<string> {
  const { upstream: far, ...rest } = parse(await upstream.settings())
  return stringify({ ...rest, upstream: { ca: far.ca, proxy: { url } } })
}

async function startSquid(): Promise<Running> {
  const helper = join(dir, 'auth.sh')
  writeFileSync(
    helper,
    `#!/bin/sh\nwhile read -r user password; do [ "$password" = ${PASSWORD} ] && echo OK || echo ERR; done\n`,
  )
  chmodSync(helper, 0o755)
  writeFileSync(join(dir, 'hosts'), `127.0.0.1 ${API_HOST} ${ISSUER_HOST}\n`)
  const conf = `
http_port 127.0.0.1:${port}
pid_filename none
cache deny all
access_log stdio:${join(dir, 'access.log')}
cache_log ${join(dir, 'cache.log')}
coredump_dir ${dir}
hosts_file ${join(dir, 'hosts')}
visible_hostname corporate
shutdown_lifetime 0 seconds
netdb_filename none
${userInfo().uid === 0 ? 'cache_effective_user proxy' : ''}
auth_param basic program ${helper}
acl known proxy_auth REQUIRED
acl outsiders proxy_auth outsider
acl api dstdomain ${API_HOST}
http_access deny outsiders api
http_access allow known
http_access deny all
`
  writeFileSync(join(dir, 'squid.conf'), conf)
  const running = start('squid', ['-N', '-d1', '-f', join(dir, 'squid.conf')], {
    env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` },
  })
  await running.says(/Accepting HTTP Socket connections/)
  return running
}

async function call(from: TestGateway): Promise<{ status: string; body: string }> {
  const { handle } = await from.openTask('demo:notes.list')
  const ca = join(from.settings.keysDir, 'ca.pem')
  const proxy = `http://task:${handle}@127.0.0.1:${from.proxyPort}`
  const { stdout } = await run('curl', [
    '-sS',
    '-w',
    '\n%{http_code}',
    '--cacert',
    ca,
    '-x',
    proxy,
    `${upstream.facts.api}/notes`,
  ])
  const [status = '', ...lines] = stdout.split('\n').reverse()
  return { status, body: lines.reverse().join('\n') }
}

it('gets the credential and makes the call through the proxy, which looks the names up', async () => {
  expect((await call(gateway)).status).toBe('200')
})

it('tells the agent in its own words when the proxy does not know it, and shows no password', async () => {
  const { status, body } = await call(await startOther('gateway', 'wrong-canary'))
  expect([status, body]).toEqual(['502', expect.stringMatching(/upstream\.proxy\.url/)])
  expect(body).not.toMatch(/canary|squid/i)
})

it('tells the agent that the proxy does not let it there, in our words', async () => {
  const { status, body } = await call(await startOther('outsider', PASSWORD))
  expect([status, JSON.parse(body)]).toMatchObject(['502', { code: 'upstream_proxy', remedy: 'fix_configuration' }])
  expect(body).toMatch(/does not let us reach .* \(403\)/)
  expect(body).not.toMatch(/canary|squid/i)
})

async function startOther(user: string, password: string): Promise<TestGateway> {
  const url = join(dir, `url-of-${user}`)
  writeFileSync(url, `http://${user}:${password}@127.0.0.1:${port}\n`)
  const other = await startGateway(await throughProxy({ file: url }))
  others.push(other)
  return other
}
