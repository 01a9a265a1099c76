/** A Vault behind the gateway: a database user for each task, keys by reference, and nothing of either left when the task is over. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { stringify } from 'yaml'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { ROLE_ID, SECRET_ID, startVaultModel, type VaultModel } from '../provider/vault.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'

let vault: VaultModel
let echo: EchoUpstream
let gateway: TestGateway
let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-vault-flow-'))
  vault = await startVaultModel(systemClock)
  vault.stored['secret/data/ledger'] = { data: { api_key: 'canary-ledger-key' }, metadata: { version: 1 } }
  echo = await startEcho({ names: ['orders.keyless.test', 'ledger.keyless.test'] })
  const service = async (name: string, slot: object) => {
    const file = join(dir, `${name}.yaml`)
    const place = { hosts: [`${name}.keyless.test`], ports: [echo.tlsPort], addresses: ['127.0.0.1/32'] }
    const operations = {
      read: { match: ['GET /stream', 'GET /echo'], access: 'read' },
      write: { match: ['POST /stream'], access: 'write' },
    }
    await writeFile(file, stringify({ name, title: name, ...place, slots: [slot], operations }))
    return file
  }
  await writeFile(join(dir, 'secret-id'), SECRET_ID)
  await writeFile(join(dir, 'ca.pem'), echo.caPem)
  gateway = await startGateway(
    stringify({
      services: [
        await service('orders', { in: 'basic', username: 'nobody' }),
        await service('ledger', { in: 'header', name: 'x-api-key' }),
      ],
      vault: {
        address: vault.url,
        addresses: ['127.0.0.1/32'],
        login: { method: 'approle', role_id: ROLE_ID, secret_id: { file: join(dir, 'secret-id') } },
      },
      credentials: {
        orders: {
          provider: 'vault',
          path: 'database/creds/{role}',
          roles: { read: 'orders-ro', write: 'orders-rw' },
          parts: { username: 'username' },
        },
        ledger: { provider: 'static', value: { vault: 'secret/data/ledger', field: 'api_key' } },
      },
      upstream: {
        ca: [join(dir, 'ca.pem')],
        hosts: { 'orders.keyless.test': '127.0.0.1', 'ledger.keyless.test': '127.0.0.1' },
      },
    }),
  )
})

afterAll(async () => {
  await gateway?.stop()
  await echo?.stop()
  await vault?.stop()
  await rm(dir, { recursive: true, force: true })
})

/** By default an answer that repeats nothing: a credential that came back is replaced. */
async function call(handle: string, service: string, path = '/stream?bytes=3', ...args: string[]) {
  const ca = `${gateway.settings.keysDir}/ca.pem`
  const proxy = `http://task:${handle}@127.0.0.1:${gateway.proxyPort}`
  const url = `https://${service}.keyless.test:${echo.tlsPort}${path}`
  const { stdout } = await run('curl', ['-sS', '-w', '\n%{http_code}', '--cacert', ca, '-x', proxy, ...args, url])
  const [status = '', ...lines] = stdout.split('\n').reverse()
  return { status: Number(status), text: lines.reverse().join('\n') }
}

/** User and password that the upstream saw last. */
function lastPair(): string[] {
  const [, pair = ''] = /authorization: Basic (\S+)/i.exec(echo.requests.at(-1)?.head.toString() ?? '') ?? []
  return Buffer.from(pair, 'base64').toString().split(':')
}

it('gives each task a database user of its own, for what its calls do, and ends them with the task', async () => {
  const task = await gateway.openTask('orders:*', 'look at orders')
  expect((await call(task.handle, 'orders')).status).toBe(200)
  const [user = '', password = ''] = lastPair()
  expect(user).toMatch(/^v-approle-orders-ro-/)
  expect(password).toMatch(/^canary-/)
  await call(task.handle, 'orders')
  expect(lastPair(), 'the same lease').toEqual([user, password])
  expect((await call(task.handle, 'orders', '/stream?bytes=3', '-d', '{}')).status).toBe(200)
  expect(lastPair()[0]).toMatch(/^v-approle-orders-rw-/)
  expect([vault.leases.size, vault.logins()]).toEqual([2, 1])
  await gateway.control.completeTask(task.task)
  await vi.waitFor(() => expect(vault.leases.size).toBe(0), { timeout: 5_000 })
})

it('ends a password that came back, and shows it to nobody', async () => {
  const task = await gateway.openTask('orders:read', 'look at what is sent')
  const { status, text } = await call(task.handle, 'orders', '/echo')
  const [, password = ''] = lastPair()
  expect(status, text).toBe(200)
  expect(text).not.toContain(password)
  await vi.waitFor(() => expect(vault.leases.size).toBe(0), { timeout: 5_000 })
})

it('reads a standing key from Vault, which the agent never sees', async () => {
  const task = await gateway.openTask('ledger:read', 'look at the ledger')
  const { status, text } = await call(task.handle, 'ledger', '/echo')
  expect(status, text).toBe(200)
  expect(echo.requests.at(-1)?.head.toString()).toContain('canary-ledger-key')
  expect(text).not.toContain('canary-ledger-key')
})

it('makes no bare call while the server is sealed, and says what is wrong', async () => {
  vault.isSealed = true
  const task = await gateway.openTask('orders:read', 'look at orders')
  const before = echo.requests.length
  const { status, text } = await call(task.handle, 'orders')
  vault.isSealed = false
  expect(status).toBe(502)
  expect(JSON.parse(text)).toMatchObject({ code: 'credential_unavailable', detail: expect.stringContaining('sealed') })
  expect(echo.requests.length).toBe(before)
})

it('is refused at the start where a credential asks a Vault that settings do not name', async () => {
  const without =
    'credentials: { a: { provider: static, value: { vault: secret/data/a } }, b: { provider: vault, path: a/b } }'
  const error = await startGateway(without).catch((cause: unknown) => String(cause))
  expect(error).toContain('credentials.a')
  expect(error).toContain('credentials.b')
  expect(error).toContain('login: { method: approle')
})
