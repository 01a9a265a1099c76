/** SECURITY.md 3 and 8: whenever a gateway is killed, what was spent is spent, and what was ended has ended. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type ControlClient, controlClient } from '../../gateway/cli/control-client.ts'
import type { IssuedView } from '../../gateway/protocol/control.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, type Running, start } from '../rig/process.ts'
import { reverse } from './agent.fixture.ts'
import { detailsOf, idOf, said } from './pair.fixture.ts'
import { type Site, writeSite } from './services.fixture.ts'

const LIMIT = 40

let upstream: EchoUpstream
let site: Site
let control: ControlClient
let gateway: Running
let port: number

beforeAll(async () => {
  upstream = await startEcho({ names: ['notes.keyless.test'] })
  site = await writeSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [{ name: 'notes', operations: { read: { match: ['GET /echo'], access: 'read' } } }],
      credentials: { notes: 'a-standing-key-of-some-length' },
      settings: {
        agents: ['lead', 'mid'].map((name) => ({ id: idOf(name as 'lead'), owner: 'ana', purpose: 'test' })),
      },
    },
  )
  const listen = 'listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }'
  await writeFile(join(site.dir, 'keyless.yaml'), `data_dir: ${site.dir}/data\n${listen}\n${site.yaml}`)
  control = controlClient(join(site.dir, 'data', 'control.sock'))
  await restart()
}, 60_000)

afterAll(async () => {
  await gateway?.stop()
  await upstream.stop()
  await site.remove()
})

/** The old one is dead at once, without a word. */
async function restart() {
  if (gateway !== undefined) {
    gateway.kill('SIGKILL')
    await gateway.ended
  }
  gateway = start(process.execPath, [
    join(ROOT, 'gateway', 'keyless.ts'),
    'start',
    '--config',
    join(site.dir, 'keyless.yaml'),
  ])
  const [, proxy = ''] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
  await gateway.says(/Ctrl-C/)
  port = Number(proxy)
}

const read = (handle = '') => reverse(port, handle, { path: '/notes/echo' })

describe('a gateway that is killed', () => {
  it('in the middle of calls gives none of them back, to no grant of the tree', { timeout: 120_000 }, async () => {
    const root = await control.openTask({
      agent: idOf('lead'),
      purpose: 'be killed',
      authorization_details: detailsOf({ operations: ['notes:read'], constraints: { max_calls: LIMIT } }),
    })
    const child = await control.delegate({ parent: root.handle, agent: idOf('mid') })
    const before = upstream.requests.length
    for (let round = 0; round < 2; round++) {
      const seen = upstream.requests.length
      const calls = Array.from({ length: 24 }, (_, i) =>
        read(i % 2 ? root.handle : child.handle).catch(() => undefined),
      )
      await expect.poll(() => upstream.requests.length - seen, { interval: 1 }).toBeGreaterThan(round)
      await restart()
      await Promise.all(calls)
    }
    for (let i = 0; i < LIMIT + 5; i++) await read(child.handle)
    expect(upstream.requests.length - before).toBeLessThanOrEqual(LIMIT)
    expect(said(await read(root.handle))).toBe('limit_exceeded')
  })

  it('in the middle of a new intent leaves one living grant at most, and no budget more', {
    timeout: 120_000,
  }, async () => {
    const details = detailsOf({ operations: ['notes:read'], constraints: { max_calls: 10 } })
    for (let round = 0; round < 2; round++) {
      const task = await control.openTask({ agent: idOf('lead'), purpose: 'change', authorization_details: details })
      const before = upstream.requests.length
      for (let i = 0; i < 4; i++) await read(task.handle)
      const url = `${(await control.status()).control}/tasks/${task.task}/intent`
      const changing = Array.from({ length: 3 }, () =>
        fetch(url, {
          method: 'POST',
          headers: { authorization: `Bearer ${task.handle}`, 'content-type': 'application/json' },
          body: '{"purpose":"change it"}',
        })
          .then(async (answer) => (await answer.json()) as Partial<IssuedView>)
          .catch(() => ({}) as Partial<IssuedView>),
      )
      await Promise.race(round === 0 ? changing : [new Promise((resolve) => setImmediate(resolve))])
      await restart()
      const made = (await Promise.all(changing)).flatMap(({ handle }) => handle ?? [])
      for (let i = 0; i < 12; i++) for (const handle of [task.handle, ...made]) await read(handle)
      expect(upstream.requests.length - before).toBeLessThanOrEqual(10)
    }
  })

  it('right after an end has ended it', { timeout: 60_000 }, async () => {
    const root = await control.openTask({ agent: idOf('lead'), scope: 'notes:*', purpose: 'end' })
    const child = await control.delegate({ parent: root.handle, agent: idOf('mid') })
    expect(said(await read(child.handle))).toBe(200)
    await control.revoke(child.grant)
    await restart()
    expect(said(await read(child.handle))).toBe('grant_revoked')
    expect(said(await read(root.handle))).toBe(200)
  })
})
