/**
 * SECURITY.md 6: whenever a gateway is killed under load, no call has gone out whose decision is not in the log, and the log is
 * whole. A stopped process is what a killed one leaves behind: what it had written is in the files, what it had sent is on its
 * way. So a moment costs a copy of the files, and each gateway is killed for good at the last of them.
 */
import { readFileSync } from 'node:fs'
import { cp, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readEntries } from '../../gateway/audit/files/follow.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { openTestLog } from '../audit/log.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, type Running, start } from '../rig/process.ts'
import { reverse } from './agent.fixture.ts'
import { type Site, writeSite } from './services.fixture.ts'

const SLOW_DISK = new URL('slow-disk.fixture.ts', import.meta.url).href
const GATEWAYS = 5
const MOMENTS = 40
/** Calls that are under way at each of them. */
const AT_ONCE = 8
/** Gateways that run at a time: most of a moment is waiting for a slow disk. */
const SIDE_BY_SIDE = 2

let upstream: EchoUpstream
let sites: Site[]

beforeAll(async () => {
  upstream = await startEcho({ names: ['notes.keyless.test'] })
  sites = await Promise.all(Array.from({ length: GATEWAYS }, prepare))
})

afterAll(async () => {
  await upstream.stop()
  await Promise.all(sites.map((site) => site.remove()))
})

async function prepare(): Promise<Site> {
  const site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { read: { match: ['GET /echo/{round}/{call}'], access: 'read' } } }],
      credentials: { notes: 'a-standing-key-of-some-length' },
      // Small files and frequent entries of its own: both are moments too.
      settings: { audit: { segment_mb: 1, heartbeat_s: 1 } },
    },
  )
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(join(site.dir, 'keyless.yaml'), `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  return site
}

async function startIn(site: Site): Promise<{ gateway: Running; call(path: string): Promise<unknown> }> {
  const settings = join(site.dir, 'keyless.yaml')
  const args = ['--import', SLOW_DISK, join(ROOT, 'gateway', 'keyless.ts'), 'start', '--config', settings]
  const gateway = start(process.execPath, args)
  const [, port] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
  await gateway.says(/Ctrl-C/)
  const control = controlClient(join(site.dir, 'data', 'control.sock'))
  const { handle } = await control.openTask({ scope: 'notes:*', purpose: 'be killed' })
  return { gateway, call: (path) => reverse(Number(port), handle, { path: `/notes${path}` }).catch(() => {}) }
}

/** Holds the process still while `look` looks at what it has done so far. */
async function still<T>(gateway: Running, look: () => Promise<T>): Promise<T> {
  process.kill(gateway.pid, 'SIGSTOP')
  const state = () => /\) (\w)/.exec(readFileSync(`/proc/${gateway.pid}/stat`, 'latin1'))?.[1]
  await expect.poll(state, { interval: 1 }).toBe('T')
  try {
    return await look()
  } finally {
    process.kill(gateway.pid, 'SIGCONT')
  }
}

/** A gateway recovers the log, which is sound then and has the decision of every one of these calls. */
async function requireDecided(dir: string, gone: ReadonlySet<string>): Promise<void> {
  await (await openTestLog(dir, { origin: 'keyless.local/default' })).close()
  const verdict = await verifyLog(dir)
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true, torn_bytes: 0, uncovered: 0 })
  const paths = new Set<string>()
  for await (const { entries } of readEntries(dir))
    for (const bytes of entries) {
      const { kind, decision, target } = JSON.parse(bytes.toString())
      if (kind === 'call.decision' && decision.effect === 'allow') paths.add(target.path)
    }
  expect([...gone].filter((path) => !paths.has(path))).toEqual([])
}

it(`has the decision of every call that went out, at ${GATEWAYS * MOMENTS} moments under load, and is never torn`, {
  timeout: 180_000,
}, async () => {
  const waiting = [...sites.entries()]
  const work = async () => {
    for (let next = waiting.shift(); next !== undefined; next = waiting.shift()) await killAtMoments(...next)
  }
  await Promise.all(Array.from({ length: SIDE_BY_SIDE }, work))
})

async function killAtMoments(n: number, site: Site): Promise<void> {
  const log = join(site.dir, 'data', 'audit')
  const { gateway, call } = await startIn(site)
  const sent = () => new Set(upstream.requests.map(({ path }) => path).filter((path) => path.startsWith(`/echo/${n}/`)))
  let earlier = (): Promise<unknown> => Promise.resolve()
  for (let moment = 0; moment < MOMENTS; moment++) {
    const calls = Array.from({ length: AT_ONCE }, (_, i) => call(`/echo/${n}/${moment}-${i}`))
    await pause(Math.random() * 40)
    const copy = join(site.dir, `moment-${moment}`)
    const gone = await still(gateway, async () => {
      await pause(5) // what is on its way arrives
      const seen = sent()
      await cp(log, copy, { recursive: true })
      return seen
    })
    if (moment === MOMENTS - 1) gateway.kill('SIGKILL')
    // The copy before this one is looked at while the gateway goes on.
    await Promise.all([earlier(), ...calls])
    earlier = () => requireDecided(copy, gone).then(() => rm(copy, { recursive: true }))
  }
  await earlier()
  await gateway.ended
  const gone = sent()
  await requireDecided(log, gone)
  expect(gone.size).toBeGreaterThan(MOMENTS * AT_ONCE * 0.9)
}
