/** SECURITY.md, two people break the glass: what emergency access cannot be made to do, and what ends it. */
import { generateKeyPairSync } from 'node:crypto'
import { cp, mkdir, readdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { draftSealed, signSealed } from '../../gateway/grant/break-glass-request.ts'
import { publicJwk } from '../../gateway/grant/chain/jws.ts'
import type { OpenedBreakGlass } from '../../gateway/protocol/break-glass.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { ROOT, start } from '../rig/process.ts'
import { codeOf, reverse } from './agent.fixture.ts'
import { entriesOf, type OpenSite, type Operations, openSite } from './services.fixture.ts'

const AGENT = 'spiffe://acme.test/agents/repair'
const KEY = 'a-standing-key-for-emergencies'
const keys = ['ana', 'ben'].map((name) => ({ name, key: generateKeyPairSync('ed25519').privateKey }))

let upstream: EchoUpstream
let site: OpenSite
let plain: OpenSite

const operations: Operations = {
  'any.read': { match: ['GET /{rest**}'], access: 'read' },
  'two.delete': { match: ['DELETE /echo/two'], access: 'write' },
  'three.delete': { match: ['DELETE /echo/three'], access: 'write' },
  'never.delete': { match: ['DELETE /echo/never'], access: 'write' },
}

const POLICIES = `
@id("two") @owner("test") @approval("on-call") @approvers("2")
permit (principal, action == Action::"api:two.delete", resource) when { context.break_glass };
@id("three") @owner("test") @approval("on-call") @approvers("3")
permit (principal, action == Action::"api:three.delete", resource) when { context.break_glass };
@id("never") @owner("test")
forbid (principal, action == Action::"api:never.delete", resource) when { context.break_glass };`

beforeAll(async () => {
  upstream = await startEcho({ names: ['api.keyless.test'] })
  const wanted = { services: [{ name: 'api', operations }], credentials: { api: KEY } }
  const agents = [{ id: AGENT, owner: 'ops', purpose: 'repair things' }]
  const custodians = keys.map(({ name, key }) => ({ name, key: publicJwk(key).x ?? '' }))
  const place = { port: upstream.tlsPort, caPem: upstream.caPem }
  site = await openSite(place, {
    ...wanted,
    policies: { text: POLICIES },
    settings: {
      agents,
      limits: { agent_concurrency: 1, agent_queue: 0 },
      break_glass: { custodians, scope: 'api:*' },
      audit: { export: { alarm: { format: 'jsonl', to: { file: './alarm.jsonl' }, kinds: ['breakglass.*'] } } },
      approvals: {
        groups: { 'on-call': ['ana'] },
        approvers: [{ name: 'ana', iss: 'https://id.acme.test', sub: 'ana' }],
      },
    },
  })
  plain = await openSite(place, { ...wanted, settings: { agents } })
}, 30_000)

afterAll(async () => {
  await Promise.all([site.stop(), plain.stop()])
  await upstream.stop()
})

const sealed = (change: object = {}) => {
  const nowS = Math.floor(Date.now() / 1000)
  const asked = {
    ...{ id: uuidv7(), tenant: 'default', who: 'dee', agent: AGENT, why: 'things are broken', scope: 'api:*' },
    ...{ ttl_s: 60, not_before: nowS - 1, not_after: nowS + 600, ...change },
  }
  return keys.reduce((file, { key }) => signSealed(file, key), draftSealed(asked))
}
const open = (change: object = {}): Promise<OpenedBreakGlass> => site.gateway.control.openBreakGlass(sealed(change))
const call = (handle: string, path = '/echo', method = 'GET') =>
  reverse(site.gateway.proxyPort, handle, { path: `/api${path}`, method })
const refusalOf = async (handle: string, path?: string, method?: string) => {
  const answer = await call(handle, path, method)
  return [answer.status, codeOf(answer)]
}
const closed = async () =>
  (await entriesOf(site.gateway.settings.dataDir)).filter(({ kind }) => kind === 'breakglass.closed')

it('does not exist without the setting: no route, no handle, no metric', async () => {
  await expect(plain.gateway.control.breakGlass()).rejects.toThrow(/no such route/)
  await expect(plain.gateway.control.openBreakGlass(sealed())).rejects.toThrow(/no such route/)
  const answer = await reverse(plain.gateway.proxyPort, `bkh_${'A'.repeat(43)}`, { path: '/api/echo' })
  expect(codeOf(answer)).toBe('grant_invalid')
  expect(await plain.gateway.gateway.house.metrics.text()).not.toContain('break_glass')
})

it('is opened at the unix socket alone, and by no page', async () => {
  const { control } = await site.gateway.gateway.status()
  const answer = await fetch(`${control}/break-glass/open`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(sealed()),
  })
  expect(answer.status).toBe(404)
  expect((await fetch(`${control}/break-glass`)).status).toBe(404)
})

it('goes through policy like everything: allowed, forbidden, and by as many people as signed', async () => {
  const { handle, id } = await open()
  const answer = await call(handle)
  expect(answer.status).toBe(200)
  expect(answer.bytes.toString()).not.toContain(KEY)
  expect(upstream.requests.at(-1)?.head.toString()).toContain(`Bearer ${KEY}`)
  expect((await call(handle, '/echo/two', 'DELETE')).status).toBe(200)
  expect(await refusalOf(handle, '/echo/three', 'DELETE')).toEqual([403, 'approval_required'])
  expect(await refusalOf(handle, '/echo/never', 'DELETE')).toEqual([403, 'policy_denied'])
  expect(await site.gateway.gateway.house.metrics.text()).toMatch(/^keyless_break_glass_open 1$/m)
  expect((await fetch(`${(await site.gateway.gateway.status()).control}/health/ready`)).status).toBe(200)
  await site.gateway.control.closeBreakGlass(id)
  expect(await refusalOf(handle)).toEqual([401, 'grant_revoked'])
})

it('gives nothing to whoever takes the handle of an ordinary grant for it, or adds to it', async () => {
  const { handle, id } = await open()
  const { handle: ordinary } = await site.gateway.control.openTask({
    scope: 'api:any.read',
    purpose: 'an ordinary day',
  })
  const changed = `${handle.slice(0, -1)}${handle.endsWith('A') ? 'E' : 'A'}`
  for (const made of [handle.replace('bkh_', 'kh_'), `b${ordinary}`, changed, `${handle}x`])
    expect(codeOf(await call(made))).toBe('grant_invalid')
  await expect(site.gateway.control.delegate({ parent: handle, agent: AGENT, scope: 'api:any.read' })).rejects.toThrow()
  await site.gateway.control.closeBreakGlass(id)
})

it('is ended by whoever reports its handle as leaked; what nobody opened, or somebody closed, is nothing to report', async () => {
  const { handle, id } = await open()
  const report = async (token: string) => (await site.gateway.control.reportLeaks({ leaks: [{ token }] }))[0]
  expect(await report(`bkh_${'A'.repeat(43)}`)).toMatchObject({ kind: 'unknown' })
  expect((await call(handle)).status).toBe(200)
  expect(await report(handle)).toMatchObject({ kind: 'break_glass', outcome: 'revoked' })
  expect(await refusalOf(handle)).toEqual([401, 'grant_revoked'])
  expect(await report(handle)).toMatchObject({ kind: 'unknown' })
  await expect(site.gateway.control.closeBreakGlass(id)).rejects.toThrow(/Nothing is open/)
})

it('has seats of its own: whoever fills the ordinary ones does not shut it out', async () => {
  const { handle, id } = await open()
  const { handle: ordinary } = await site.gateway.control.openTask({ scope: 'api:*', purpose: 'takes its time' })
  const held = call(ordinary, '/hang') // never answered
  await expect.poll(async () => (await call(ordinary)).status).toBe(503)
  expect((await call(handle)).status).toBe(200)
  await site.gateway.control.revoke(ordinary)
  await held
  await site.gateway.control.closeBreakGlass(id)
})

it('is opened once, whoever clicks twice at the same moment', async () => {
  const file = sealed()
  const both = await Promise.allSettled([1, 2, 3].map(() => site.gateway.control.openBreakGlass(file)))
  expect(both.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
  const [{ id } = { id: '' }] = (await site.gateway.control.breakGlass()).open
  await site.gateway.control.closeBreakGlass(id)
})

it('ends by itself, and the log says so', async () => {
  const { handle, id } = await open({ ttl_s: 1 })
  await expect.poll(async () => (await closed()).find(({ facts }) => facts?.reason === 'expired')).toBeDefined()
  expect(await refusalOf(handle)).toEqual([401, 'grant_expired'])
  await expect(site.gateway.control.closeBreakGlass(id)).rejects.toThrow(/Nothing is open/)
})

it('is ended by the kill switch, and nothing opens while that is on', async () => {
  const { handle } = await open()
  expect((await call(handle)).status).toBe(200)
  await site.gateway.control.endAccess({ target: { everything: true }, reason: 'drill' })
  expect((await call(handle)).status).toBeGreaterThanOrEqual(400)
  await expect.poll(async () => (await site.gateway.control.breakGlass()).open.length).toBe(0)
  const late = await open()
  expect((await refusalOf(late.handle))[1]).toBe('access_blocked')
  await site.gateway.control.lift({ target: { everything: true } })
  expect((await call(handle)).status).toBeGreaterThanOrEqual(400)
})

it('wakes whoever listens for it, with everything but the handle and the key', async () => {
  const alarm = join(site.gateway.dir, 'alarm.jsonl')
  const kinds = async () =>
    (await readFile(alarm, 'utf8').catch(() => ''))
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => (JSON.parse(line) as { kind: string }).kind)
  await expect
    .poll(async () => new Set(await kinds()))
    .toEqual(new Set(['breakglass.opened', 'breakglass.used', 'breakglass.refused', 'breakglass.closed']))
  const log = await readFile(join(site.gateway.settings.dataDir, 'audit', 'entries.jsonl'), 'utf8')
  for (const text of [log, await readFile(alarm, 'utf8')]) {
    expect(text).not.toContain(KEY)
    expect(text).not.toContain('bkh_')
  }
  await site.gateway.checkLog()
})

it('goes on at a gateway that is started on another disk, because its own cannot be written any more', {
  timeout: 60_000,
}, async () => {
  let opened = { handle: '', id: '' }
  const opening = async () => {
    opened = await open({ ttl_s: 300 })
    return (await call(opened.handle)).status
  }
  // Numbers of orders run ahead of the clock by a second or two: what is opened right after one for everything has ended with it.
  await expect.poll(opening, { interval: 250, timeout: 10_000 }).toBe(200)
  const { handle, id } = opened
  const { dir, settings } = site.gateway
  const human = { iss: 'https://id.acme.test', sub: 'eve' }
  await site.gateway.control.endAccess({ target: { human }, reason: 'left', until: null })
  await site.gateway.gateway.stop()
  await cp(join(settings.dataDir, 'break-glass'), join(dir, 'journal'), { recursive: true }) // as if it had been there always
  const healthy = join(dir, 'healthy')
  await mkdir(healthy, { mode: 0o700 })
  const kept = /^(state|orders|ends|credentials|approvals|sealed)\.sqlite/
  for (const name of (await readdir(settings.dataDir)).filter((one) => kept.test(one)))
    await cp(join(settings.dataDir, name), join(healthy, name))
  const written = parse(await readFile(join(dir, 'keyless.yaml'), 'utf8')) as Record<string, object>
  const elsewhere = {
    ...{ data_dir: healthy, keys_dir: join(settings.dataDir, 'keys') },
    audit: { ...written.audit, origin: 'keyless.local/emergency' },
    break_glass: { ...written.break_glass, journal: join(dir, 'journal') },
  }
  await writeFile(join(dir, 'healthy.yaml'), stringify({ ...written, ...elsewhere }))
  const entry = join(ROOT, 'gateway', 'keyless.ts')
  const readOnly = 'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0"'
  const script = `${readOnly} && ! node "$1" start -c "$2" && exec node "$1" start -c "$3"`
  const files = [settings.dataDir, entry, join(dir, 'keyless.yaml'), join(dir, 'healthy.yaml')]
  const unshare = [
    '--user',
    '--map-root-user',
    '--mount',
    'bash',
    '-c',
    script.replaceAll('node ', `${process.execPath} `),
  ]
  const gateway = start('unshare', [...unshare, ...files])
  try {
    expect((await gateway.says(/cannot be written[^\n]*/))[0]).toMatch(/read-only file system.*data_dir/)
    const [, port] = await gateway.says(/proxy +http:\/\/[\d.]+:(\d+)/)
    await gateway.says(new RegExp(`BREAK-GLASS: emergency access ${id} is still open`))
    expect(await controlClient(join(healthy, 'control.sock')).blocks()).toMatchObject([{ target: { human } }])
    const again = await reverse(Number(port), handle, { path: '/api/echo' })
    expect(again.status, again.bytes.toString()).toBe(200)
    expect(upstream.requests.at(-1)?.head.toString()).toContain(`Bearer ${KEY}`)
  } finally {
    gateway.kill('SIGTERM')
    await gateway.ended
  }
  const used = (await entriesOf(healthy)).filter(({ kind }) => kind === 'breakglass.used')
  expect(used).toHaveLength(1)
})
