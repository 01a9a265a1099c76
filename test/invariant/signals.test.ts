/**
 * Nobody ends somebody's access by a token that its issuer did not sign for this gateway, about its own people, now: not by another
 * algorithm, key, type, audience or age, not by sending it again, not about another's people, and not by sending very many.
 */
import { createHmac, generateKeyPairSync } from 'node:crypto'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { readWritten } from '../../gateway/audit/files/follow.ts'
import type { Claims } from '../../gateway/identity/jwt.ts'
import { signalEventOf, signalEvents } from '../../gateway/identity/set-events.ts'
import { targetOf } from '../../gateway/identity/set-subject.ts'
import type { Item } from '../../gateway/records/export/item.ts'
import { letterOf } from '../../gateway/records/export/letter.ts'
import { HERE, ISSUER, makeTransmitter, push, type Transmitter } from '../flow/transmitter.fixture.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'

let transmitter: Transmitter
let gateway: TestGateway
let control: string
let task: string

beforeAll(async () => {
  transmitter = await makeTransmitter()
  gateway = await startGateway(`services: [github]\nsignals: { receive: [${transmitter.row()}] }`)
  control = `http://127.0.0.1:${new URL((await gateway.control.status()).control).port}`
  task = (await gateway.openTask('github:issues.read')).task
})

afterAll(async () => {
  await gateway.stop()
  await transmitter.stop()
})

const nowS = () => Math.floor(Date.now() / 1000)
const other = generateKeyPairSync('ec', { namedCurve: 'P-256' })

/** As an attacker writes it who knows the public key and how a token looks. */
function withHmac(token: string): string {
  const header = Buffer.from(JSON.stringify({ alg: 'HS256', kid: 'one', typ: 'secevent+jwt' })).toString('base64url')
  const input = `${header}.${token.split('.')[1]}`
  const pem = transmitter.publicKey.export({ type: 'spki', format: 'pem' })
  return `${input}.${createHmac('sha256', pem).update(input).digest('base64url')}`
}

function unsigned(token: string): string {
  const header = Buffer.from(JSON.stringify({ alg: 'none', typ: 'secevent+jwt' })).toString('base64url')
  return `${header}.${token.split('.')[1]}.`
}

/** In its first character: the last one has bits that stand for nothing. */
function changed(token: string): string {
  const [header, claims, signature = ''] = token.split('.')
  return `${header}.${claims}.${signature.startsWith('A') ? 'B' : 'A'}${signature.slice(1)}`
}

const attacks: readonly (readonly [name: string, token: () => Promise<string>, err: string])[] = [
  ['signed by somebody else', () => transmitter.token({}, {}, other.privateKey), 'authentication_failed'],
  [
    'signed by a key that is not published',
    () => transmitter.token({}, { kid: 'two' }, other.privateKey),
    'invalid_key',
  ],
  ['with the public key as a secret', async () => withHmac(await transmitter.token()), 'authentication_failed'],
  ['not signed', async () => unsigned(await transmitter.token()), 'invalid_request'],
  ['an ID token', () => transmitter.token({}, { typ: 'JWT' }), 'authentication_failed'],
  [
    'with a key of its own',
    () => transmitter.token({}, { jwk: other.publicKey.export({ format: 'jwk' }) }, other.privateKey),
    'authentication_failed',
  ],
  ['for somebody else', () => transmitter.token({ aud: 'another-gateway' }), 'invalid_audience'],
  ['for nobody', () => transmitter.token({ aud: undefined }), 'invalid_audience'],
  ['of an issuer that nobody trusts', () => transmitter.token({ iss: 'https://evil.test' }), 'invalid_issuer'],
  ['with an end, like an ID token', () => transmitter.token({ exp: nowS() + 60 }), 'invalid_request'],
  ['with a subject, like an ID token', () => transmitter.token({ sub: HERE.sub }), 'invalid_request'],
  ['from the future', () => transmitter.token({ iat: nowS() + 3600 }), 'invalid_request'],
  ['from long ago', () => transmitter.token({ iat: nowS() - 30 * 86_400 }), 'invalid_request'],
  ['of no time', () => transmitter.token({ iat: undefined }), 'invalid_request'],
  ['without a name', () => transmitter.token({ jti: undefined }), 'invalid_request'],
  ['without an event', () => transmitter.token({ events: {} }), 'invalid_request'],
  ['with a changed signature', async () => changed(await transmitter.token()), 'authentication_failed'],
  ['that is none', async () => 'nothing', 'invalid_request'],
]

it.each(attacks)('refuses a token %s, and ends nothing', async (_name, token, err) => {
  expect(await push(control, await token())).toEqual({ status: 400, err })
  await gateway.control.heartbeat(task)
})

const nobodies: readonly (readonly [name: string, subject: object])[] = [
  ['another issuer’s human', { format: 'iss_sub', iss: 'https://other.test', sub: HERE.sub }],
  ['an e-mail address', { format: 'email', email: HERE.sub }],
  ['an agent', { format: 'complex', application: { format: 'opaque', id: 'spiffe://keyless.local/agent/default' } }],
  ['a tenant', { format: 'complex', tenant: { format: 'opaque', id: 'default' } }],
  [
    'another issuer’s human among aliases',
    { format: 'aliases', identifiers: [{ format: 'iss_sub', iss: 'https://other.test', sub: HERE.sub }] },
  ],
]

it.each(nobodies)(
  'takes a good token about %s, of whom its issuer may not speak, and ends nothing',
  async (_name, subject) => {
    expect((await push(control, await transmitter.token({ sub_id: subject }))).status).toBe(202)
    await gateway.control.heartbeat(task)
  },
)

it('does not let an issuer name a task, though it knows its id', async () => {
  const session = { format: 'complex', session: { format: 'opaque', id: task } }
  expect((await push(control, await transmitter.token({ sub_id: session }))).status).toBe(202)
  await gateway.control.heartbeat(task)
})

it('takes tokens from programs alone, of the one type, and of bounded size', async () => {
  const token = await transmitter.token()
  const post = (headers: Record<string, string>, body: string) =>
    fetch(`${control}/signals/events`, { method: 'POST', headers, body })
  expect((await post({ 'content-type': 'application/secevent+jwt', origin: 'https://evil.test' }, token)).status).toBe(
    403,
  )
  expect((await post({ 'content-type': 'text/plain' }, token)).status).toBe(400)
  expect((await post({ 'content-type': 'application/secevent+jwt' }, token + 'A'.repeat(64 * 1024))).status).toBe(400)
  await gateway.control.heartbeat(task)
})

it('bounds what strangers can write into the log, however many tokens they make up', async () => {
  const forged = await transmitter.token({}, {}, other.privateKey)
  const answers = await Promise.all(Array.from({ length: 60 }, () => push(control, forged)))
  expect(answers.filter(({ status }) => status === 202)).toEqual([])
  let refused = 0
  for await (const { entries } of readWritten(join(gateway.settings.dataDir, 'audit'), 0))
    refused += entries.filter((line) => line.includes('"signal.refused"')).length
  expect(refused).toBeLessThanOrEqual(10)
  // And whoever is believed is still heard.
  expect((await push(control, await transmitter.token())).status).toBe(202)
  await expect(gateway.control.heartbeat(task)).rejects.toMatchObject({ code: 'task_unknown' })
})

it('speaks for no human of an issuer that is not named, whatever the subject looks like', () => {
  const terms = { issuer: ISSUER, may: ['human'] as const, humans: [ISSUER], emailIsSub: false }
  const part = fc.oneof(fc.string(), fc.constant(ISSUER), fc.constant('https://other.test'), fc.constant(undefined))
  const simple = fc.record({
    format: fc.constantFrom('iss_sub', 'email', 'opaque', 'uri', 'did'),
    iss: part,
    sub: part,
    email: part,
    id: part,
  })
  const subject = fc.oneof(
    simple,
    fc.record({ format: fc.constant('complex'), user: simple, session: simple, application: simple }),
    fc.anything(),
  )
  fc.assert(
    fc.property(subject, (one) => {
      const target = targetOf(one, terms)
      if (typeof target !== 'string') expect(target).toMatchObject({ human: { iss: ISSUER } })
    }),
  )
})

it('does nothing but note an event that it does not know, whatever its name', () => {
  const known = new Set(Object.keys(signalEvents))
  fc.assert(
    fc.property(fc.string(), fc.constantFrom('caep', 'risc', 'ssf', '__proto__'), (name, family) => {
      fc.pre(!known.has(name))
      const uri = `https://schemas.openid.net/secevent/${family}/event-type/${name}`
      expect(signalEventOf(uri, {}, {}).action).toBe('note')
    }),
  )
})

it('ends nobody because another gateway has let go of a credential: two that hear each other come to an end', () => {
  const entry = {
    v: 'ar/1',
    seq: 1,
    ts: '2026-06-01T00:00:00.000Z',
    kind: 'lease.revoked',
    facts: { outcome: 'revoked' },
  }
  const told = { ...entry, human: { iss: ISSUER, sub: 'ana' } } as unknown as Item['entry']
  const item = { uid: 'l:1', entry: told, decision: undefined, proven: undefined }
  const terms = { publicUrl: ISSUER, audience: 'other', stream: 's' }
  const { events } = JSON.parse(letterOf('set', item, terms)?.text ?? '{}') as { events: Record<string, object> }
  const [[uri = '', members = {}] = []] = Object.entries(events)
  expect(uri).toMatch(/credential-change$/)
  expect(signalEventOf(uri, members as Claims, {}).action).toBe('note')
  expect(signalEventOf(uri, { change_type: 'revoke', credential_type: 'password' }, {}).action).toBe('end')
})
