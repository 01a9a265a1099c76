/** What `GET /metrics` says after real calls, read by a parser that is not ours. */
import { request } from 'node:http'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'
import { type Family, parseExposition } from './exposition.fixture.ts'

const purpose = 'count what passes'
let upstream: TestUpstream
let gateway: TestGateway
let task: OpenedTask

beforeAll(async () => {
  upstream = await startUpstream()
  gateway = await startGateway(await upstream.settings())
  task = await gateway.openTask('demo:*', purpose)
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

async function call(path: string, handle = task.handle): Promise<string> {
  const shown = ['-sS', '-o', '/dev/null', '-w', '%{http_code}', '--cacert', `${gateway.settings.keysDir}/ca.pem`]
  const proxy = `http://task:${handle}@127.0.0.1:${gateway.proxyPort}`
  return (await run('curl', [...shown, '-x', proxy, upstream.facts.api + path])).stdout
}

async function scrape(): Promise<{ text: string; families: ReadonlyMap<string, Family> }> {
  const answer = await fetch(`${gateway.gateway.control}/metrics`)
  expect(answer.headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  const text = await answer.text()
  return { text, families: parseExposition(text) }
}

const toldOf = (families: ReadonlyMap<string, Family>, name: string, labels: Record<string, string> = {}) =>
  families
    .get(name.replace(/_(bucket|sum|count)$/, '')) // a counter ends in _total
    ?.samples.filter((sample) => sample.name === name)
    .find((sample) => Object.entries(labels).every(([label, value]) => sample.labels[label] === value))?.value

it('counts calls by service, effect and code, credentials by what became of them, and times all of it', async () => {
  expect(await call('/notes')).toBe('200')
  expect(await call('/notes')).toBe('200')
  expect(await call('/nowhere')).toBe('403')
  expect(await call('/notes', 'kh_nobody')).not.toBe('200')
  await gateway.control.completeTask(task.task)
  const { families } = await scrape()
  const told = (name: string, labels?: Record<string, string>) => toldOf(families, name, labels)
  expect(told('keyless_calls_total', { service: 'demo', effect: 'allow', code: '' })).toBe(2)
  expect(told('keyless_calls_total', { effect: 'deny' })).toBeGreaterThan(0)
  expect(told('keyless_unauthenticated_calls_total')).toBe(1)
  expect(told('keyless_call_duration_seconds_count', { service: 'demo' })).toBe(2)
  expect(told('keyless_call_decision_seconds_count')).toBe(2)
  expect(told('keyless_call_gateway_seconds_count', { cache: 'hit' })).toBe(1)
  expect(told('keyless_call_gateway_seconds_count', { cache: 'miss' })).toBe(1)
  expect(told('keyless_leases_total', { event: 'issued', ephemeral: 'true' })).toBe(1)
  expect(told('keyless_leases_total', { event: 'hit', ephemeral: 'true' })).toBe(1)
  expect(told('keyless_credential_lifetime_seconds_count', { ephemeral: 'true' })).toBe(1)
  expect(told('keyless_credential_lifetime_seconds_bucket', { ephemeral: 'true', le: '3600' })).toBe(1)
  expect(told('keyless_lease_issue_seconds_count')).toBe(1)
  expect(told('keyless_grants_total', { event: 'task.open' })).toBe(1)
  expect(told('keyless_grants_total', { event: 'task.complete' })).toBe(1)
  expect(told('keyless_revoke_latency_seconds_count')).toBe(1)
  expect(told('keyless_open_calls')).toBe(0)
  expect(told('keyless_log_failing')).toBe(0)
  // What the issuer says of the credential's end is written behind the task's.
  const entries = async () => toldOf((await scrape()).families, 'keyless_log_entries')
  await expect.poll(async () => (await entries()) === gateway.gateway.house.audit.size).toBe(true)
  expect(Math.abs(Date.now() / 1000 - (told('keyless_checkpoint_timestamp_seconds') ?? 0))).toBeLessThan(60)
})

it('counts orders to revoke, how long each took, and calls that wait for a human', async () => {
  const before = toldOf((await scrape()).families, 'keyless_revoke_latency_seconds_count') ?? 0
  await gateway.gateway.house.revocations.order({
    target: { agent: gateway.gateway.house.grants.defaults.agent ?? '' },
    reason: 'to see it counted',
    by: { automatic: 'anomaly' },
  })
  const { families } = await scrape()
  const told = (name: string, labels?: Record<string, string>) => toldOf(families, name, labels)
  expect(told('keyless_revocations_total', { target: 'agent', by: 'automatic' })).toBe(1)
  expect(told('keyless_revocations_failed_total')).toBe(0)
  expect(told('keyless_revoke_latency_seconds_count')).toBe(before + 1)
  expect([told('keyless_held_calls'), told('keyless_held_bytes')]).toEqual([0, 0])
})

it('says the same on the socket, and nothing of humans, agents, tasks or hosts', async () => {
  const { text } = await scrape()
  const local = await new Promise<string>((resolve, reject) => {
    const asked = request({ socketPath: gateway.settings.listen.controlSocket, path: '/metrics' }, async (answer) => {
      let all = ''
      for await (const chunk of answer) all += String(chunk)
      resolve(all)
    })
    asked.on('error', reject).end()
  })
  const named = (all: string) => [...parseExposition(all).keys()].filter((name) => name.startsWith('keyless_'))
  expect(named(local)).toEqual(named(text))
  for (const word of [purpose, task.task, task.handle, 'spiffe:', '127.0.0.1']) expect(text).not.toContain(word)
})

it('has a fixed number of lines, whatever hosts, paths and tokens callers make up', async () => {
  const lines = async () => (await scrape()).text.split('\n').length
  await call('/one', 'kh_one')
  // The thread that keeps the index says how far it is once it has begun.
  await expect.poll(async () => toldOf((await scrape()).families, 'keyless_index_lag_entries')).toBeDefined()
  const before = await lines()
  await Promise.all([call('/two', 'kh_two'), call('/three', 'kh_three'), call('/four?x=1', 'kh_four')])
  expect(await lines()).toBe(before)
})
