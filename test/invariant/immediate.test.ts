/** SECURITY.md 8: a task that has ended stops its next request, also on a connection that is open; silence ends a task. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway } from '../rig/gateway.ts'
import { ROOT, start } from '../rig/process.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { codeOf, openTunnel, reverse } from './agent.fixture.ts'
import { entriesOf, type OpenSite, openSite } from './services.fixture.ts'

const HEARTBEAT_S = 1
let upstream: EchoUpstream
let site: OpenSite
let authority: string
let ca: string

beforeAll(async () => {
  upstream = await startEcho({ names: ['notes.keyless.test'] })
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { read: { match: ['GET /echo'], access: 'read' } } }],
      credentials: { notes: 'a-standing-key-of-some-length' },
      settings: { grants: { heartbeat_s: HEARTBEAT_S } },
    },
  )
  authority = `notes.keyless.test:${upstream.tlsPort}`
  ca = (await site.gateway.control.status()).ca_pem
})

afterAll(async () => {
  await site.stop()
  await upstream.stop()
})

const call = (handle: string, path = '/notes/echo') => reverse(site.gateway.proxyPort, handle, { path })
const tunnelFor = (handle: string) => openTunnel(site.gateway.proxyPort, { handle, authority, ca })

describe('a task that was ended', () => {
  it('fails at its next request on the tunnel that it has open, and nothing is sent', async () => {
    const { handle, task } = await site.gateway.openTask('notes:*', 'end under way')
    const tunnel = await tunnelFor(handle)
    expect((await tunnel.ask('GET', '/echo')).status).toBe(200)
    await site.gateway.control.completeTask(task)
    const before = upstream.requests.length
    const answer = await tunnel.ask('GET', '/echo')
    expect([answer.status, codeOf(answer)]).toEqual([403, 'grant_revoked'])
    expect(upstream.requests.length).toBe(before)
    tunnel.close()
  })

  it('fails as handle and as signed grant, on every door', async () => {
    const { handle, token, task } = await site.gateway.openTask('notes:*', 'end everywhere')
    for (const credential of [handle, token]) expect((await call(credential)).status).toBe(200)
    await site.gateway.control.completeTask(task)
    for (const credential of [handle, token]) {
      const answer = await call(credential)
      expect([answer.status, codeOf(answer)]).toEqual([401, 'grant_revoked'])
      await expect(tunnelFor(credential)).rejects.toThrow(/407 .*grant_revoked/)
    }
  })

  it('stops a hundred requests that come at the moment of its end, each before or after it', async () => {
    const { handle, task } = await site.gateway.openTask('notes:*', 'end in a crowd')
    await call(handle)
    const before = upstream.requests.length
    const calls = Array.from({ length: 50 }, () => call(handle))
    await site.gateway.control.completeTask(task)
    const late = await Promise.all(Array.from({ length: 50 }, () => call(handle, '/notes/echo?late')))
    const early = await Promise.all(calls)
    expect(late.map(codeOf)).toEqual(Array.from({ length: 50 }, () => 'grant_revoked'))
    const answered = early.filter(({ status }) => status === 200)
    expect(early.filter((one) => !answered.includes(one)).every((one) => codeOf(one) === 'grant_revoked')).toBe(true)
    // One that was let in before may have been cut before its answer.
    const arrived = upstream.requests.slice(before)
    expect(arrived.length).toBeGreaterThanOrEqual(answered.length)
    expect(arrived.filter(({ path }) => path.includes('late'))).toEqual([])
  })

  it('leaves other tasks alone', async () => {
    const [one, other] = [await site.gateway.openTask('notes:*'), await site.gateway.openTask('notes:*')]
    const tunnel = await tunnelFor(other.handle)
    expect((await tunnel.ask('GET', '/echo')).status).toBe(200)
    await site.gateway.control.completeTask(one.task)
    expect((await tunnel.ask('GET', '/echo')).status).toBe(200)
    tunnel.close()
  })

  it('stays ended after a restart', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-restart-'))
    try {
      const first = await startGateway('services: [demo]\n', { dir })
      const { handle, task } = await first.openTask('demo:*')
      const living = await first.openTask('demo:*')
      await first.control.completeTask(task)
      await first.stop()
      const second = await startGateway('services: [demo]\n', { dir })
      const answer = await reverse(second.proxyPort, handle, { path: '/demo/notes' })
      expect([answer.status, codeOf(answer)]).toEqual([401, 'grant_revoked'])
      const other = await reverse(second.proxyPort, living.handle, { path: '/demo/notes' })
      expect(codeOf(other)).toBe('credential_unconfigured')
      await second.stop()
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })
})

describe('a task that promised heartbeats', () => {
  const open = () => site.gateway.control.openTask({ scope: 'notes:*', purpose: 'beat', heartbeat: true })
  const endOf = async (task: string) =>
    (await entriesOf(site.gateway.settings.dataDir)).find(
      (entry) => entry.task?.id === task && JSON.stringify(entry.facts ?? {}).includes('heartbeat_missed'),
    )

  it('lives as long as they come, and ends when they stay away, through the log', async () => {
    const { handle, task } = await open()
    const beats = setInterval(() => void site.gateway.control.heartbeat(task).catch(() => {}), HEARTBEAT_S * 300)
    try {
      const until = performance.now() + HEARTBEAT_S * 2_800
      while (performance.now() < until) expect((await call(handle)).status).toBe(200)
    } finally {
      clearInterval(beats)
    }
    await expect.poll(async () => codeOf(await call(handle)), { timeout: HEARTBEAT_S * 5_000 }).toBe('grant_revoked')
    expect(await endOf(task)).toBeDefined()
  })

  it('ends when `keyless run` is killed with -9', async () => {
    const config = join(site.gateway.dir, 'keyless.yaml')
    const child = start(process.execPath, [
      join(ROOT, 'gateway', 'keyless.ts'),
      ...['run', '--config', config, '--task', 'die young', '--verbose', '--'],
      ...['sh', '-c', 'echo orphan $$; exec sleep 60'],
    ])
    const [, task = ''] = await child.says(/task (task_[0-9a-f-]+)/)
    const [, orphan] = await child.says(/orphan (\d+)/)
    const alive = async () => (await site.gateway.control.tasks()).some((one) => one.task === task)
    expect(await alive()).toBe(true)
    child.kill('SIGKILL')
    process.kill(Number(orphan), 'SIGTERM')
    using watch = stopwatch()
    await expect.poll(alive, { interval: 50 }).toBe(false)
    // Twice the period after the last beat, and half a period between two looks.
    expect(watch.ms).toBeLessThan(HEARTBEAT_S * 3_500)
    expect(await endOf(task)).toBeDefined()
  })
})
