/**
 * A credential of ours that turns up where none may be ends at once, whoever finds it: its grant, what was leased under it, and the key
 * at its issuer. Bait that is used is told. Requirements 95, 99, 103, 104, 107, 109.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readWritten } from '../../gateway/audit/files/follow.ts'
import { canaryDigest, LOOKS } from '../../gateway/protocol/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'

const TOKEN = 'reporter-token-of-the-scanner'
const bait = { aws: LOOKS.aws.make(), generic: LOOKS.generic.make() }
let gateway: TestGateway
let door: string

beforeAll(async () => {
  process.env.LEAK_REPORTER = TOKEN
  gateway = await startGateway(`
services: [github]
leaks:
  reporters: { scanner: { token: { env: LEAK_REPORTER } } }
  canaries:
    backup: { look: aws, sha256: ${canaryDigest(bait.aws)} }
    notes: { look: generic, sha256: ${canaryDigest(bait.generic)} }
  canary_ends: task
`)
  door = `http://127.0.0.1:${new URL((await gateway.control.status()).control).port}`
})

afterAll(async () => {
  await gateway.stop()
  delete process.env.LEAK_REPORTER
})

async function entries(kind: string): Promise<Record<string, unknown>[]> {
  const found: { kind: string; facts: Record<string, unknown> }[] = []
  for await (const { entries: lines } of readWritten(join(gateway.settings.dataDir, 'audit'), 0))
    for (const line of lines) found.push(JSON.parse(line.toString('utf8')))
  return found.filter((entry) => entry.kind === kind).map(({ facts }) => facts)
}

async function report(body: unknown, headers: Record<string, string> = { authorization: `Bearer ${TOKEN}` }) {
  const text = typeof body === 'string' ? body : JSON.stringify(body)
  const answer = await fetch(`${door}/leaks`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: text,
  })
  return { status: answer.status, body: (await answer.json()) as { results: { outcome: string }[] } }
}

it('ends the grant behind a handle that a scanner found, within a minute by far, and says so without its value', async () => {
  const { task, handle } = await gateway.openTask('github:issues.read')
  const before = performance.now()
  const told = await report({
    leaks: [{ token: `https://x:${handle}@github.com`, type: 'handle', url: `https://ci.test/log?t=${handle}` }],
  })
  expect(told).toMatchObject({ status: 200, body: { results: [{ kind: 'handle', outcome: 'revoked' }] } })
  await expect(gateway.control.heartbeat(task)).rejects.toMatchObject({ code: 'task_unknown' })
  expect(performance.now() - before).toBeLessThan(5_000)
  expect(await entries('leak.reported')).toContainEqual(
    expect.objectContaining({ from: 'scanner', what: 'handle', action: 'revoke', url: 'https://ci.test/log' }),
  )
  expect(JSON.stringify(await entries('leak.reported'))).not.toContain(handle)
})

it('ends nothing for who merely names it: ids, other handles, and no token at all', async () => {
  const { task, grant } = await gateway.openTask('github:issues.read')
  const { body } = await report({
    leaks: [{ token: grant }, { token: task }, { token: `kh_${'A'.repeat(43)}` }, { token: 'local' }],
  })
  expect(body.results.map(({ outcome }) => outcome)).toEqual(Array(4).fill('unknown'))
  await gateway.control.heartbeat(task)
  expect((await report({ leaks: [{ token: 'x' }] }, {})).status).toBe(401)
  expect(
    (await report({ leaks: [{ token: 'x' }] }, { authorization: 'Bearer wrong-token-of-some-length' })).status,
  ).toBe(401)
  expect((await report({ leaks: [] })).status).toBe(400)
  expect((await report('{"leaks": [{"token": "a", "token": "b"}]}')).status).toBe(400)
})

it('keeps control characters, credentials and queries of a reporter out of the log', async () => {
  const { handle } = await gateway.openTask('github:issues.read')
  const { handle: other } = await gateway.openTask('github:issues.read')
  const type = `x\u001b[2J\u202e${'y'.repeat(500)}`
  await report({
    leaks: [{ token: handle, type, source: `beside ${other}`, url: `https://u:p@ci.test/${handle}/log#${handle}` }],
  })
  const said = (await entries('leak.reported')).at(-1)
  expect(said).toMatchObject({ url: 'https://ci.test/…/log' })
  expect(String(said?.type)).toMatch(/^x {1,2}\[2J y+$/)
  expect(String(said?.type).length).toBeLessThanOrEqual(200)
  expect(JSON.stringify(said)).not.toContain(other)
})

it('tells of bait in a report, and of bait in a call, which is refused like any foreign credential and ends the task', async () => {
  expect((await report({ leaks: [{ token: bait.generic }] })).body).toMatchObject({
    results: [{ kind: 'canary', outcome: 'alerted' }],
  })
  const { task, handle } = await gateway.openTask('github:*')
  const answer = await fetch(`http://127.0.0.1:${gateway.proxyPort}/github/user`, {
    headers: { authorization: `Bearer ${handle}`, 'x-note': Buffer.from(`found ${bait.aws} there`).toString('base64') },
  })
  expect(answer.headers.get('keyless-error')).toMatch(/foreign_credential|credential_unconfigured/)
  expect(await answer.text()).not.toContain('canar')
  await expect.poll(() => gateway.control.heartbeat(task).catch(({ code }) => code)).toBe('task_unknown')
  expect(await entries('leak.canary_used')).toMatchObject([
    { canary: 'notes', where: 'report', from: 'scanner' },
    { canary: 'backup', where: 'header x-note', action: 'task', host: expect.any(String) },
  ])
})

it('tells of bait that is presented in place of a grant', async () => {
  const answer = await fetch(`http://127.0.0.1:${gateway.proxyPort}/github/user`, {
    headers: { authorization: `Bearer ${bait.generic}` },
  })
  expect(answer.status).toBe(401)
  expect((await entries('leak.canary_used')).at(-1)).toMatchObject({ canary: 'notes', action: 'nothing' })
})

it('ends on every replica what one of them was told of, seconds after it was found; without Redis the report is to be sent again', async () => {
  await using ends = new AsyncDisposableStack()
  const redis = ends.adopt(await startRedis(), (server) => server.stop())
  const keysDir = ends.adopt(await mkdtemp(join(tmpdir(), 'keyless-keys-')), (dir) =>
    rm(dir, { recursive: true, force: true }),
  )
  const yaml = `services: [github]\nredis: { url: "${redis.url}" }\nkeys_dir: ${keysDir}\npublic_url: http://127.0.0.1:1`
  const one = ends.adopt(await startGateway(yaml), (room) => room.stop())
  const other = ends.adopt(await startGateway(yaml), (room) => room.stop())
  ends.defer(async () => redis.resume?.())
  const { task, handle = '' } = await other.openTask('github:issues.read')
  const { handle: later = '' } = await other.openTask('github:issues.read')
  expect(await one.control.reportLeaks({ leaks: [{ token: handle }] })).toMatchObject([{ outcome: 'revoked' }])
  using watch = stopwatch()
  await expect.poll(() => other.control.heartbeat(task).catch(({ code }) => code)).toBe('task_unknown')
  expect(watch.ms).toBeLessThan(1_000)
  redis.pause?.()
  await expect(one.control.reportLeaks({ leaks: [{ token: later }] })).rejects.toMatchObject({
    code: 'store_unavailable',
  })
}, 20_000)
