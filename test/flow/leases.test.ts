/** Credentials that lie ready, are revoked on demand, and are revoked in the end although the gateway was killed: by the commands that people type. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type FalseServer, json, startFalseServer } from '../provider/authorization-server.fixture.ts'
import { ROOT, type Running, run, start } from '../rig/process.ts'
import { type QuietUpstream, startQuiet } from './quiet.fixture.ts'

let upstream: QuietUpstream
let issuer: FalseServer
let site: Site
let control: ControlClient
let gateway: Running
let port: number
let issued = 0
let canRevoke = true
const revoked: string[] = []

const keyless = join(ROOT, 'gateway', 'keyless.ts')

beforeAll(async () => {
  upstream = await startQuiet(['notes.keyless.test', 'files.keyless.test'])
  issuer = await startFalseServer()
  issuer.answer = (request, response, body) => {
    if (request.url !== '/revoke') {
      issued += 1
      return json(response, 200, { access_token: `canary-token-${issued}`, token_type: 'Bearer', expires_in: 600 })
    }
    if (canRevoke) revoked.push(new URLSearchParams(body).get('token') ?? '')
    return void response.writeHead(canRevoke ? 200 : 503).end()
  }
  const operations = {
    read: { match: ['GET /list'], access: 'read' },
    write: { match: ['POST /list'], access: 'write' },
  }
  const client = { client_id: 'keyless', client_auth: 'client_secret_basic', client_secret: { env: 'ISSUER_SECRET' } }
  const place = { addresses: ['127.0.0.1/32'], token_url: issuer.tokenUrl }
  const revocation = { revocation_url: issuer.tokenUrl.replace('/token', '/revoke') }
  const credential = { provider: 'oauth_client_credentials', ...place, ...revocation, ...client }
  site = await writeSite(upstream, {
    services: [
      { name: 'notes', operations },
      { name: 'files', operations },
    ] as Parameters<typeof writeSite>[1]['services'],
    credentials: { notes: credential, files: credential },
  })
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(join(site.dir, 'keyless.yaml'), `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  control = controlClient(join(site.dir, 'data', 'control.sock'))
  await restart()
}, 60_000)

afterAll(async () => {
  await gateway?.stop()
  await issuer.stop()
  await upstream.stop()
  await site.remove()
})

async function restart(): Promise<void> {
  if (gateway !== undefined) {
    gateway.kill('SIGKILL')
    await gateway.ended
  }
  gateway = start(process.execPath, [keyless, 'start', '--config', join(site.dir, 'keyless.yaml')], {
    env: { ...process.env, ISSUER_SECRET: 'a-secret-of-the-client' },
  })
  const [, proxy = ''] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
  await gateway.says(/Ctrl-C/)
  port = Number(proxy)
}

const command = (...args: string[]) => run(process.execPath, [keyless, ...args, '--data', join(site.dir, 'data')])
const call = (task: OpenedTask, path = '/notes/list') => reverse(port, task.handle, { path })
const leaseEntries = async () =>
  (await entriesOf(join(site.dir, 'data'))).filter(
    ({ kind }) => kind?.startsWith('lease.') || kind?.startsWith('admin.'),
  )

it('fetches what a task will need before it asks, as policy allows, and says what it cannot', async () => {
  const task = await control.openTask({ purpose: 'be quick', scope: 'notes:read' })
  const before = issued
  const warmed = await command(
    'warm',
    '--task',
    task.task,
    'notes',
    'GET https://notes.keyless.test/list',
    'files',
    'nothing',
  )
  expect(warmed.stderr).toBe('')
  expect(warmed.stdout.split('\n').slice(0, 2)).toEqual([
    'notes: ready (fetched now)',
    expect.stringContaining('GET https://notes.keyless.test/list: nothing lies ready. No service covers port 443'),
  ])
  expect(warmed.stdout).toContain('files: nothing lies ready. "files" is no service of this gateway with an operation')
  expect(warmed.code).toBe(0)
  const request = `GET https://notes.keyless.test:${upstream.port}/list`
  const again = await control.warm({ task: task.task, targets: ['notes:write', request] })
  expect(again).toMatchObject([
    { target: 'notes:write', ready: 0, code: 'scope_exceeded' },
    { target: request, ready: 1, fetched: 0 },
  ])
  expect((await call(task)).status).toBe(200)
  expect(issued).toBe(before + 1)
  expect((await leaseEntries()).map(({ kind }) => kind)).toEqual(['lease.warmed', 'lease.issued'])
  await control.completeTask(task.task)
}, 60_000)

it('fetches the services of its plan when a task is opened with warm: true', async () => {
  const before = issued
  const task = await control.openTask({ purpose: 'have a plan', scope: 'notes:* files:read', warm: true })
  await expect.poll(() => issued).toBe(before + 2)
  await expect.poll(async () => (await leaseEntries()).filter(({ kind }) => kind === 'lease.issued').length).toBe(3)
  expect((await call(task)).status).toBe(200)
  expect((await call(task, '/files/list')).status).toBe(200)
  expect(issued).toBe(before + 2)
  await control.completeTask(task.task)
}, 60_000)

it('revokes on demand, and the next call gets another credential', async () => {
  const task = await control.openTask({ purpose: 'lose a credential', scope: 'notes:* files:*' })
  const used = async (path: string) => {
    await call(task, path)
    return upstream.sent.at(-1)
  }
  const [note, file] = [await used('/notes/list'), await used('/files/list')]
  const misspelt = await command('lease', 'revoke', '--service', 'note')
  expect(misspelt).toMatchObject({ code: expect.not.toSatisfy((code: number) => code === 0) })
  expect(misspelt.stderr).toContain('no service "note". Did you mean notes?')
  const done = await command('lease', 'revoke', '--service', 'notes')
  expect(done.stdout).toBe('1 credential dropped.\n')
  expect(revoked.map((token) => `Bearer ${token}`)).toContain(note)
  expect(await used('/notes/list')).not.toBe(note)
  expect(await used('/files/list')).toBe(file)
  const entries = (await leaseEntries()).slice(-3)
  expect(entries.map(({ kind }) => kind)).toEqual(['admin.leases_revoked', 'lease.revoked', 'lease.issued'])
  expect(entries[1]?.facts).toMatchObject({ reason: 'ordered', outcome: 'revoked' })
  await control.completeTask(task.task)
}, 60_000)

it('goes on revoking after it was killed, and says until then what lives and for how long', async () => {
  const [ended, cut] = await Promise.all(
    ['end badly', 'be cut'].map((purpose) => control.openTask({ purpose, scope: 'notes:*' })),
  )
  if (ended === undefined || cut === undefined) throw new Error('no tasks')
  await call(ended)
  const one = upstream.sent.at(-1)
  await call(cut)
  const other = upstream.sent.at(-1)
  canRevoke = false
  await control.completeTask(ended.task)
  await expect.poll(async () => (await control.pendingRevocations()).length).toBe(1)
  expect((await command('lease', 'pending')).stdout).toMatch(
    /^1 credential not revoked yet:\n {2}lives until 20\S+Z {2}notes {2}notes {2}grant_ended/,
  )
  await restart() // kill -9
  expect((await control.pendingRevocations()).map(({ reason }) => reason).sort()).toEqual(['abandoned', 'grant_ended'])
  canRevoke = true
  await expect.poll(() => control.pendingRevocations(), { timeout: 5_000 }).toEqual([])
  expect(revoked.map((token) => `Bearer ${token}`)).toEqual(expect.arrayContaining([one, other]))
  const told = (await leaseEntries()).slice(-4).map(({ facts }) => `${facts?.reason} ${facts?.outcome}`)
  expect(told.sort()).toEqual(
    ['abandoned failed', 'abandoned revoked', 'grant_ended failed', 'grant_ended revoked'].sort(),
  )
  expect(await verifyLog(join(site.dir, 'data', 'audit'))).toMatchObject({ ok: true })
}, 60_000)
