/**
 * What the identity provider knows ends access here: a security event token, pushed or fetched, ends the grants of its subject at once,
 * keeps new ones from being made where that is asked, and counts once. Requirements 87, 104, 111.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readWritten } from '../../gateway/audit/files/follow.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { startRedis } from '../rig/redis.ts'
import { stopwatch } from '../rig/stopwatch.ts'
import { makeTransmitter, push, RISC, startPolled, type Transmitter } from './transmitter.fixture.ts'

let transmitter: Transmitter
let gateway: TestGateway
let control: string
let polled: Awaited<ReturnType<typeof startPolled>>
/** What was started, in the order in which it was. */
const endings: (() => Promise<unknown>)[] = []

beforeAll(async () => {
  transmitter = await makeTransmitter()
  polled = await startPolled()
  endings.push(
    () => transmitter.stop(),
    () => polled.stop(),
  )
  const poll = `addresses: [127.0.0.0/8], poll: { url: "${polled.url}", every_s: 1 }`
  gateway = await startGateway(
    `services: [github]\nsignals: { receive: [${transmitter.row(`actions: { account-enabled: lift }, ${poll}`)}] }`,
  )
  endings.push(() => gateway.stop())
  control = await doorOf(gateway)
})

afterAll(async () => {
  for (const end of endings.splice(0).reverse()) await end()
})

async function doorOf(one: TestGateway): Promise<string> {
  return `http://127.0.0.1:${new URL((await one.control.status()).control).port}`
}

async function entries(kind: string) {
  const found: { kind: string; facts: Record<string, unknown> }[] = []
  for await (const { entries: lines } of readWritten(join(gateway.settings.dataDir, 'audit'), 0))
    for (const line of lines) found.push(JSON.parse(line.toString('utf8')))
  return found.filter((entry) => entry.kind === kind).map(({ facts }) => facts)
}

it('ends the grants of a human whose session the identity provider revoked, and says so in the log', async () => {
  const { task } = await gateway.openTask('github:issues.read')
  expect(await push(control, await transmitter.token({ jti: 'a' }))).toEqual({ status: 202, err: undefined })
  await expect(gateway.control.heartbeat(task)).rejects.toMatchObject({ code: 'task_unknown' })
  const received = (await entries('signal.received')).find(({ jti }) => jti === 'a')
  expect(received).toMatchObject({ jti: 'a', events: ['session-revoked'], action: 'end', about: 'human', grants: 1 })
  expect(await entries('revocation.ordered')).toContainEqual(
    expect.objectContaining({ order: received?.order, by: 'signal', target: 'human' }),
  )
})

it('counts a token once: sent again it is taken, and ends nothing', async () => {
  const token = await transmitter.token({ jti: 'once' })
  expect((await push(control, token)).status).toBe(202)
  const { task } = await gateway.openTask('github:issues.read')
  expect((await push(control, token)).status).toBe(202)
  await gateway.control.heartbeat(task)
  expect((await entries('signal.received')).filter(({ jti }) => jti === 'once')).toHaveLength(1)
})

it('lets nobody in whose account was disabled, until it is enabled again where settings say that', async () => {
  expect(
    (
      await push(
        control,
        await transmitter.token({ events: { [`${RISC}/account-disabled`]: { reason: 'hijacking' } } }),
      )
    ).status,
  ).toBe(202)
  await expect(gateway.openTask('github:issues.read')).rejects.toMatchObject({ code: 'access_blocked' })
  expect((await push(control, await transmitter.token({ events: { [`${RISC}/account-enabled`]: {} } }))).status).toBe(
    202,
  )
  await gateway.openTask('github:issues.read')
})

it('lets nobody in again whom people keep out, and nobody by a word that is older than the block', async () => {
  const enabled = { events: { [`${RISC}/account-enabled`]: {} } }
  const older = await transmitter.token({ ...enabled, jti: 'older', iat: Math.floor(Date.now() / 1000) - 60 })
  await push(control, await transmitter.token({ events: { [`${RISC}/account-disabled`]: {} } }))
  expect((await push(control, older)).status).toBe(202)
  await expect(gateway.openTask('github:issues.read')).rejects.toMatchObject({ code: 'access_blocked' })
  const [blocked] = await gateway.control.blocks()
  const target = blocked?.target ?? {}
  await gateway.control.endAccess({ target, reason: 'an incident', until: null })
  await push(control, await transmitter.token(enabled))
  await expect(gateway.openTask('github:issues.read')).rejects.toMatchObject({ code: 'access_blocked' })
  await gateway.control.lift({ target })
  await gateway.openTask('github:issues.read')
  expect((await entries('signal.received')).find(({ jti }) => jti === 'older')).toMatchObject({
    action: 'lift',
    reason: expect.stringContaining('later word'),
  })
})

it('fetches tokens from whoever keeps them, acknowledges what took effect, and says why not of the rest', async () => {
  const good = await transmitter.token({ jti: 'good' })
  const bad = await transmitter.token({ jti: 'bad', aud: 'somebody-else' })
  const { task } = await gateway.openTask('github:issues.read')
  polled.hold.set('good', good).set('bad', bad)
  await expect.poll(() => polled.hold.size).toBe(0)
  await expect(gateway.control.heartbeat(task)).rejects.toMatchObject({ code: 'task_unknown' })
  expect(polled.questions.find(({ ack }) => ack.length > 0)).toMatchObject({
    ack: ['good'],
    setErrs: { bad: { err: 'invalid_audience' } },
  })
})

it('is heard by every replica within a second, counts once at all of them, and waits while Redis is away', async () => {
  const redis = await startRedis()
  endings.push(() => redis.stop())
  const keysDir = await mkdtemp(join(tmpdir(), 'keyless-keys-'))
  endings.push(() => rm(keysDir, { recursive: true, force: true }))
  const yaml = `services: [github]\nredis: { url: "${redis.url}" }\nkeys_dir: ${keysDir}\npublic_url: http://127.0.0.1:1\nsignals: { receive: [${transmitter.row()}] }`
  const one = await startGateway(yaml)
  const second = await startGateway(yaml)
  endings.push(
    () => one.stop(),
    () => second.stop(),
    async () => redis.resume?.(),
  )
  const [first, other] = [await doorOf(one), await doorOf(second)]
  const { task } = await second.openTask('github:issues.read')
  const token = await transmitter.token()
  expect((await push(first, token)).status).toBe(202)
  using watch = stopwatch()
  await expect.poll(() => second.control.heartbeat(task).catch(({ code }) => code)).toBe('task_unknown')
  expect(watch.ms).toBeLessThan(1_000)
  const { task: later } = await one.openTask('github:issues.read')
  expect((await push(other, token)).status).toBe(202)
  await one.control.heartbeat(later)
  redis.pause?.()
  expect((await push(other, await transmitter.token())).status).toBe(503)
  redis.resume?.()
}, 20_000)
