/** What stays of a credential in the memory of a real gateway when its one call is over, and who may look. */
import { randomBytes } from 'node:crypto'
import { open, readdir, readFile, writeFile } from 'node:fs/promises'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { throwAwayTls } from '../../deploy/demo/certificate.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { exposures } from '../../gateway/cli/exposure.ts'
import { ROOT, type Running, run, start } from '../rig/process.ts'
import { reverse } from './agent.fixture.ts'
import { type Operations, type Site, writeSite } from './services.fixture.ts'

/** In two halves, so that the test's own text is not what is found. */
const issued = () => `once-${randomBytes(24).toString('hex')}`
let site: Site
let gateway: Running
let proxyPort = 0
let arrived: string[] = []
let stop: () => Promise<void>

beforeAll(async () => {
  const tls = await throwAwayTls(['api.keyless.test'])
  const server = createServer({ key: tls.key, cert: tls.cert }, (request, response) => {
    arrived.push(request.headers.authorization ?? '')
    response.end('fine')
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  stop = () => new Promise((resolve) => server.close(() => resolve()).closeAllConnections())
  const operations: Operations = {
    once: { match: ['GET /once'], access: 'write' },
    kept: { match: ['GET /kept'], access: 'read' },
  }
  const place = { port: (server.address() as AddressInfo).port, caPem: tls.caPem }
  site = await writeSite(place, {
    services: [{ name: 'api', operations }],
    credentials: { api: { provider: 'exec', command: ['sh', '-c', 'cat value'] } },
    policies: {
      text: '@id("once") @owner("test") @single_use("true") permit (principal, action == Action::"api:once", resource);',
    },
  })
  const file = join(site.dir, 'keyless.yaml')
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(file, `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  const switches = ['--disable-sigusr1', '--heapsnapshot-signal=SIGUSR2', '--expose-gc']
  const args = [...switches, join(ROOT, 'gateway/keyless.ts'), 'start', '--config', file, '--unsafe-inspector']
  gateway = start(process.execPath, args, { cwd: site.dir, env: { PATH: process.env.PATH } })
  proxyPort = Number((await gateway.says(/proxy +http:\/\/127\.0\.0\.1:(\d+)/))[1])
  await gateway.says(/Ctrl-C stops it/)
})

afterAll(async () => {
  await gateway?.stop()
  await stop?.()
  await site?.remove()
})

async function call(path: string, value: string): Promise<void> {
  await writeFile(join(site.dir, 'value'), JSON.stringify({ value, expires_in: 300 }))
  const { handle } = await controlClient(join(site.dir, 'data', 'control.sock')).openTask({
    scope: 'api:*',
    purpose: 'test',
  })
  const answer = await reverse(proxyPort, handle, { path: `/api${path}` })
  expect(answer.status).toBe(200)
}

/** Every string in the heap, after a collection of what nobody holds. */
async function snapshot(): Promise<string> {
  const before = new Set(await readdir(site.dir))
  process.kill(gateway.pid, 'SIGUSR2')
  for (;;) {
    const name = (await readdir(site.dir)).find((one) => one.endsWith('.heapsnapshot') && !before.has(one))
    if (name !== undefined && /\]\}\s*$/.test(await endOf(join(site.dir, name)))) {
      return await readFile(join(site.dir, name), 'utf8')
    }
    await pause(20)
  }
}

/** Its last characters: the whole is large, and is written for seconds. */
async function endOf(path: string): Promise<string> {
  await using file = await open(path)
  const { size } = await file.stat()
  const { buffer, bytesRead } = await file.read(Buffer.alloc(4), 0, 4, Math.max(0, size - 4))
  return buffer.toString('latin1', 0, bytesRead)
}

describe('the memory of a gateway', () => {
  it('holds no copy of a single-use credential when its call is over', { timeout: 60_000 }, async () => {
    const [once, kept] = [issued(), issued()]
    arrived = []
    await call('/kept', kept)
    await call('/once', once)
    expect(arrived).toEqual([`Bearer ${kept}`, `Bearer ${once}`])
    const heap = await snapshot()
    expect(heap.includes(kept)).toBe(true) // or nothing would be found by looking
    // The answer is with the client a moment before the gateway is done with the call.
    await expect.poll(async () => (await snapshot()).includes(once), { timeout: 30_000, interval: 200 }).toBe(false)
  })
})

describe('a gateway', () => {
  it.each([
    [['--inspect'], {}],
    [[], { NODE_OPTIONS: '--inspect=127.0.0.1:0' }],
    [['--tls-keylog=keys'], {}],
    [['--heapsnapshot-signal=SIGUSR2'], {}],
    [[], { NODE_DEBUG: 'http' }],
  ])('does not start where its memory or traffic would be shown: %j %j', (execArgv, env) => {
    expect(exposures({ execArgv, env, inspectorUrl: undefined })).toHaveLength(1)
  })

  it('says so in words that help, and starts where nothing shows', async () => {
    expect(exposures({ execArgv: ['--disable-sigusr1'], env: {}, inspectorUrl: undefined })).toEqual([])
    expect(exposures({ execArgv: [], env: {}, inspectorUrl: 'ws://x' })).toHaveLength(1)
    const args = ['--inspect=127.0.0.1:0', join(ROOT, 'gateway/keyless.ts'), 'start']
    const { code, stderr } = await run(process.execPath, args, { cwd: site.dir, env: { PATH: process.env.PATH } })
    expect(code).toBe(1)
    expect(stderr).toMatch(/keyless: Whoever looks could read every credential: --inspect.*--unsafe-inspector/)
  })

  it.runIf(process.platform === 'linux')(
    'writes no memory into a core dump, and lets no debugger in by a signal',
    async () => {
      expect((await readFile(`/proc/${gateway.pid}/coredump_filter`, 'utf8')).trim()).toBe('00000000')
      process.kill(gateway.pid, 'SIGUSR1')
      await call('/kept', issued())
      expect(gateway.stderr).not.toMatch(/Debugger listening/)
    },
  )
})
