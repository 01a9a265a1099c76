/**
 * Whoever should know is told: signed as Standard Webhooks say, in words as Slack shows them, as security event tokens that others act
 * on; and what could not be delivered is kept, by name, and sent again when somebody says so. Requirements 104, 111.
 */
import { generateKeyPairSync, randomBytes, verify as verifySignature } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import type { ServerResponse } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, type JSONWebKeySet, jwtVerify } from 'jose'
import { Webhook } from 'standardwebhooks'
import { afterAll, beforeAll, expect, it } from 'vitest'

import { readWritten } from '../../gateway/audit/files/follow.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { type Receiver, startReceiver } from './receiver.fixture.ts'

const HMAC_KEY = `whsec_${randomBytes(32).toString('base64')}`
const signing = generateKeyPairSync('ed25519')
const SEED = Buffer.from(signing.privateKey.export({ format: 'jwk' }).d as string, 'base64url')
const TOKEN = randomBytes(32).toString('base64url')

let receiver: Receiver
let gateway: TestGateway
let control: string
let dir: string
/** What the receiver answers at a path. */
const answers = new Map<string, (response: ServerResponse) => void>()

beforeAll(async () => {
  receiver = await startReceiver()
  receiver.answer = (response, { path }) => (answers.get(path) ?? ((one) => void one.writeHead(202).end()))(response)
  answers.set('/gone', (response) => void response.writeHead(410).end('gone'))
  dir = await mkdtemp(join(tmpdir(), 'keyless-letters-'))
  await writeFile(join(dir, 'hmac'), HMAC_KEY)
  await writeFile(join(dir, 'ed25519'), `whsk_${SEED.toString('base64')}`)
  await writeFile(join(dir, 'token'), TOKEN)
  await writeFile(join(dir, 'chat'), `${receiver.url}/services/T0/B0/abcdefgh`)
  const file = (name: string) => `{ file: ${join(dir, name)} }`
  const told = 'kinds: [grant.revoked], addresses: [127.0.0.0/8]'
  gateway = await startGateway(`services: [github]
webhooks:
  security: { url: ${receiver.url}/hook, keys: [${file('hmac')}, ${file('ed25519')}], ${told} }
  chat: { url: ${file('chat')}, format: slack, ${told} }
  gone: { url: ${receiver.url}/gone, keys: [${file('hmac')}], kinds: [grant.revoked, signal.*], addresses: [127.0.0.0/8] }
  inside: { url: ${receiver.url}/inside, keys: [${file('hmac')}], kinds: [policy.loaded] }
signals:
  send:
    siem: { audience: https://siem.acme.test, manage: ${file('token')}, to: { url: ${receiver.url}/events, addresses: [127.0.0.0/8] } }
    partner: { audience: https://partner.test, to: { poll: { token: ${file('token')} } } }
`)
  control = `http://127.0.0.1:${new URL((await gateway.control.status()).control).port}`
})

afterAll(async () => {
  await gateway?.stop()
  await receiver.stop()
  await rm(dir, { recursive: true, force: true })
})

async function undelivered() {
  const found: { kind: string; facts: { about: string } }[] = []
  for await (const { entries } of readWritten(join(gateway.settings.dataDir, 'audit'), 0))
    for (const line of entries) found.push(JSON.parse(line.toString('utf8')))
  return found.filter(({ kind }) => kind === 'signal.undelivered').map(({ facts }) => facts)
}

/** Ends a task of the default agent, which is news. */
async function endTask(purpose = 'triage'): Promise<string> {
  const { task } = await gateway.openTask('github:issues.read', purpose)
  await gateway.control.completeTask(task)
  return task
}

const claimsOf = (token: string) => Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8')
const at = (path: string, task = '') => receiver.got((one) => one.path === path && one.body.includes(task))
const named = async (name: string) => (await gateway.control.webhooks()).find((one) => one.name === name)

it('tells a webhook what happens, signed so that the reference library of Standard Webhooks takes it', async () => {
  const task = await endTask()
  const { headers, body } = await at('/hook', task)
  const told = new Webhook(HMAC_KEY).verify(body, headers as Record<string, string>)
  expect(told).toMatchObject({ type: 'grant.revoked', data: { task: { id: task } } })
  // The asymmetric signature beside it, which that library does not know.
  const [, asymmetric] = String(headers['webhook-signature']).split(' ')
  const content = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`
  const signature = Buffer.from(asymmetric?.replace('v1a,', '') ?? '', 'base64')
  expect(verifySignature(null, Buffer.from(content), signing.publicKey, signature)).toBe(true)
})

it('writes to a chat in words, and no word of an agent mentions a channel or makes a link', async () => {
  await endTask('<!channel> *urgent* <https://evil.test|approve> *Human:* ana')
  const { body } = await receiver.got((one) => one.path === '/services/T0/B0/abcdefgh' && one.body.includes('channel'))
  const message = JSON.parse(body) as { text: string; blocks: { type: string }[] }
  expect(message.blocks.map(({ type }) => type)).toEqual(['header', 'section', 'context'])
  expect(body).not.toMatch(/<!|<https:\/\/evil| \*Human:\* ana/)
  expect(body).toContain('&lt;!channel&gt;')
  expect(JSON.stringify(await gateway.control.webhooks())).not.toContain('abcdefgh')
})

it('keeps what a receiver does not want, and sends it again under the same id when somebody says so', async () => {
  await endTask()
  const first = await at('/gone')
  const id = first.headers['webhook-id']
  await expect.poll(async () => (await named('webhook.gone'))?.dead[0]).toMatchObject({ id, attempts: 1 })
  // News of that went the same way, and nothing is told of that again.
  await expect
    .poll(async () => (await named('webhook.gone'))?.dead.map(({ kind }) => kind))
    .toContain('signal.undelivered')
  expect((await undelivered()).map(({ about }) => about)).not.toContain('signal.undelivered')
  answers.delete('/gone')
  expect(await gateway.control.retryWebhook('gone')).toBeGreaterThanOrEqual(1)
  const again = await receiver.got((one) => one !== first && one.path === '/gone' && one.headers['webhook-id'] === id)
  new Webhook(HMAC_KEY).verify(again.body, again.headers as Record<string, string>)
  await expect.poll(() => named('webhook.gone')).toMatchObject({ dead_count: 0, waiting: 0 })
  await expect(gateway.control.retryWebhook('nobody')).rejects.toMatchObject({ code: 'webhook_unknown' })
})

it('says what a receiver answers to a test', async () => {
  expect(await gateway.control.testWebhook('security')).toEqual({ taken: true })
  answers.set('/hook', (response) => void response.writeHead(302, { location: 'http://127.0.0.1:1/' }).end())
  expect(await gateway.control.testWebhook('security')).toMatchObject({ taken: false, reason: /redirects/ })
  expect(await gateway.control.testWebhook('inside')).toMatchObject({ taken: false, reason: /127\.0\.0\.1/ })
  answers.delete('/hook')
  expect(receiver.received.filter(({ path }) => path === '/inside')).toEqual([])
})

it('pushes security event tokens that verify with the keys it publishes, and says how a stream is set up', async () => {
  const task = await endTask()
  const { body, headers } = await receiver.got((one) => one.path === '/events' && claimsOf(one.body).includes(task))
  expect(headers['content-type']).toBe('application/secevent+jwt')
  const metadata = (await (await fetch(`${control}/.well-known/ssf-configuration`)).json()) as Record<string, string>
  expect(metadata).toMatchObject({ spec_version: '1_0', issuer: gateway.settings.publicUrl })
  const keys = (await (await fetch(`${control}/assertions/jwks.json`)).json()) as JSONWebKeySet
  const { payload } = await jwtVerify(body, createLocalJWKSet(keys), {
    typ: 'secevent+jwt',
    issuer: metadata.issuer as string,
    audience: 'https://siem.acme.test',
    algorithms: ['RS256'],
  })
  expect(payload).not.toHaveProperty('exp')
  expect(payload).not.toHaveProperty('sub')
  expect(payload).toMatchObject({
    sub_id: { format: 'complex', session: { format: 'opaque', id: task }, user: { format: 'iss_sub' } },
    events: {
      'https://schemas.openid.net/secevent/caep/event-type/session-revoked': { reason_admin: { en: 'completed' } },
    },
  })
  const authorization = `Bearer ${TOKEN}`
  expect((await fetch(`${control}/signals/streams`)).status).toBe(401)
  const streams = (await (await fetch(`${control}/signals/streams`, { headers: { authorization } })).json()) as object[]
  expect(streams).toMatchObject([
    { stream_id: 'stream.siem', aud: 'https://siem.acme.test' },
    { stream_id: 'stream.partner' },
  ])
  const asked = await fetch(`${control}/signals/verification`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/json' },
    body: JSON.stringify({ stream_id: 'stream.siem', state: 'abc' }),
  })
  expect(asked.status).toBe(204)
  const verification = await receiver.got(
    (one) => one.path === '/events' && claimsOf(one.body).includes('verification'),
  )
  const { payload: verified } = await jwtVerify(verification.body, createLocalJWKSet(keys))
  expect(verified).toMatchObject({
    sub_id: { format: 'opaque', id: 'stream.siem' },
    events: { 'https://schemas.openid.net/secevent/ssf/event-type/verification': { state: 'abc' } },
  })
})

it('keeps tokens for a receiver that fetches them, until it acknowledges them', async () => {
  const poll = async (body: object) => {
    const answer = await fetch(`${control}/signals/streams/stream.partner/poll`, {
      method: 'POST',
      headers: { authorization: `Bearer ${TOKEN}`, 'content-type': 'application/json' },
      body: JSON.stringify(body),
    })
    return (await answer.json()) as { sets: Record<string, string>; moreAvailable: boolean }
  }
  await endTask()
  const { sets } = await poll({}) // waits until there is one
  const ack = Object.keys(sets)
  expect(ack.length).toBeGreaterThanOrEqual(1)
  expect(Object.keys((await poll({ returnImmediately: true })).sets)).toEqual(expect.arrayContaining(ack))
  expect((await poll({ ack, maxEvents: 0 })).sets).toEqual({})
  expect(Object.keys((await poll({ returnImmediately: true })).sets).filter((jti) => ack.includes(jti))).toEqual([])
})
