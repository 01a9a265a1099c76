/** An upstream that no longer accepts a token gets a new one once, and the agent notices nothing. */
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let gateway: TestGateway
let task: OpenedTask

beforeAll(async () => {
  upstream = await startUpstream()
  gateway = await startGateway(await upstream.settings())
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

/** A credential that has just replaced a rejected one is not replaced again, so each test brings a task of its own. */
beforeEach(async () => {
  task = await gateway.openTask('demo:*', 'outlive a token')
  await call('/notes')
})

const call = (path: string, ...args: string[]) =>
  run('curl', [
    '-sS',
    '-w',
    '\n%{http_code}',
    '--cacert',
    `${gateway.settings.keysDir}/ca.pem`,
    '-x',
    `http://task:${task.handle}@127.0.0.1:${gateway.proxyPort}`,
    ...args,
    upstream.facts.api + path,
  ])

it('issues once for many calls', async () => {
  const fresh = await gateway.openTask('demo:*', 'call at once')
  const before = upstream.issuedTokens
  task = fresh
  await Promise.all(Array.from({ length: 12 }, () => call('/notes')))
  expect(upstream.issuedTokens).toBe(before + 1)
})

it('drops a rejected token, issues once more and replays the request once', async () => {
  const before = upstream.issuedTokens
  upstream.revokeTokens()
  const answer = await call('/notes')
  expect(answer.stdout).toMatch(/\n200$/)
  expect(upstream.issuedTokens).toBe(before + 1)
})

it('replays a small body whole', async () => {
  upstream.revokeTokens()
  const answer = await call('/files/a.txt', '--data-binary', 'a small body, sent twice, received once whole')
  expect(answer.stdout).toBe('a small body, sent twice, received once whole\n200')
})

it('passes a second rejection on as 403 instead of asking for token after token', async () => {
  upstream.revokeTokens()
  expect((await call('/notes')).stdout).toMatch(/\n200$/)
  const before = upstream.issuedTokens
  upstream.revokeTokens()
  expect((await call('/notes')).stdout).toMatch(/\n403$/)
  expect(upstream.issuedTokens).toBe(before)
})

it('shares the new token among everybody who was rejected at once', async () => {
  const before = upstream.issuedTokens
  upstream.revokeTokens()
  const answers = await Promise.all(Array.from({ length: 8 }, () => call('/notes')))
  for (const answer of answers) expect(answer.stdout).toMatch(/\n200$/)
  expect(upstream.issuedTokens).toBe(before + 1)
})
