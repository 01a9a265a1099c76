/** Signatures as real APIs verify them: each scheme is computed here a second time, by the words of its documentation. */
import { createHmac, hash } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, test } from 'vitest'
import type { Outbound } from '../../gateway/protocol/message.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { fakeClock, grant, plain, service, T0 } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-hmac-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const SECRET = Buffer.from('canary-shared-secret-4711').toString('base64')
const ID = 'key-id-08154711'
const PASSPHRASE = 'canary-passphrase-42'
for (const [name, text] of Object.entries({ secret: SECRET, id: ID, passphrase: PASSPHRASE, odd: 'ä€' }))
  writeFileSync(join(dir, name), text)

const binance = {
  secret: { file: 'secret' },
  values: { key_id: { file: 'id' } },
  sign: '{query}{body}',
  timestamp: 'ms',
  headers: { 'X-MBX-APIKEY': '{key_id}' },
  query: { timestamp: '{timestamp}', signature: '{signature}' },
}
const coinbase = {
  secret: { file: 'secret' },
  secret_encoding: 'base64',
  values: { key_id: { file: 'id' }, passphrase: { file: 'passphrase' } },
  sign: '{timestamp}{method}{target}{body}',
  encoding: 'base64',
  headers: {
    'CB-ACCESS-KEY': '{key_id}',
    'CB-ACCESS-SIGN': '{signature}',
    'CB-ACCESS-TIMESTAMP': '{timestamp}',
    'CB-ACCESS-PASSPHRASE': '{passphrase}',
  },
}

function provider(o: object = {}): Provider {
  const config = credentialSchema.parse({ provider: 'hmac', ...coinbase, ...o })
  return createProvider(config, providerTools(dir, { clock: fakeClock() }))
}

providerConformance(
  'hmac',
  () => ({
    working: () => provider(),
    isEphemeral: false,
    wider: () => [
      ['another secret', provider({ secret: { file: 'id' }, secret_encoding: 'utf8' })],
      ['another key id', provider({ values: { ...coinbase.values, key_id: { file: 'passphrase' } } })],
      ['another scheme', provider({ algorithm: 'sha512' })],
    ],
    failing: () => [
      ['no secret', 'credential_unconfigured', provider({ secret: { file: 'absent' } })],
      ['a secret in another encoding', 'credential_rejected', provider({ secret_encoding: 'hex' })],
    ],
    hanging: () => provider({ secret: { exec: ['sleep', '60'] } }),
    secrets: () => [SECRET, PASSPHRASE],
  }),
  [],
)

const signal = new AbortController().signal
const signed = service({ slots: [{ in: 'signature', scheme: 'hmac' }] })

async function attached(one: Provider, o: Partial<Outbound>): Promise<Outbound> {
  const credential = await one.issue({ service: signed, grant: grant(), ttlS: 60, role: undefined }, signal)
  return one.attach(credential, plain({ service: signed, headers: [], ...o }))
}

describe('a signature', () => {
  test('is in the query behind everything it signs, as Binance wants it', async () => {
    const body = Buffer.from('symbol=LTCBTC&side=BUY')
    const { path, headers } = await attached(provider({ ...binance, secret_encoding: 'utf8', encoding: 'hex' }), {
      method: 'POST',
      path: '/api/v3/order?quantity=1',
      body,
    })
    const query = `quantity=1&timestamp=${T0}`
    const signature = createHmac('sha256', SECRET).update(query).update(body).digest('hex')
    expect(path).toBe(`/api/v3/order?${query}&signature=${signature}`)
    expect(headers).toEqual(['X-MBX-APIKEY', ID])
  })

  test('is in a field beside key and passphrase, as Coinbase wants it', async () => {
    const body = Buffer.from('{"size":"1.0"}')
    const { headers } = await attached(provider(), { method: 'POST', path: '/orders?a=1', body })
    const at = String(T0 / 1000)
    const mac = createHmac('sha256', Buffer.from(SECRET, 'base64')).update(`${at}POST/orders?a=1`).update(body)
    const wanted = ['CB-ACCESS-KEY', ID, 'CB-ACCESS-SIGN', mac.digest('base64'), 'CB-ACCESS-TIMESTAMP', at]
    expect(headers).toEqual([...wanted, 'CB-ACCESS-PASSPHRASE', PASSPHRASE])
  })

  test('covers a hash of the body, a nonce and lines, where a scheme wants these', async () => {
    const sign = '{method}\n{host}\n{path}\n{query}\n{nonce}\n{body_hash}'
    const headers = { 'X-Sign': 'v1={signature}', 'X-Nonce': '{nonce}', 'X-Hash': '{body_hash}' }
    const one = provider({
      ...binance,
      sign,
      headers,
      query: {},
      algorithm: 'sha512',
      body_hash: 'md5',
      encoding: 'hex',
      secret_encoding: 'utf8',
    })
    const body = Buffer.from([0, 255, 10])
    const fields = (await attached(one, { method: 'PUT', path: '/a%2Fb?x', body })).headers
    const [, shown, , nonce, , digest] = fields
    expect(digest).toBe(hash('md5', body))
    const text = `PUT\napi.billing.test\n/a%2Fb\nx\n${nonce}\n${digest}`
    expect(shown).toBe(`v1=${createHmac('sha512', SECRET).update(text).digest('hex')}`)
  })

  test('replaces what the agent sent under its names, however spelt', async () => {
    const one = provider({ ...binance, encoding: 'hex' })
    const { path, headers } = await attached(one, {
      path: '/v1?signature=mine&Timestamp=1&time%73tamp=2&a=b',
      headers: ['x-mbx-apikey', 'mine', 'X-Other', 'stays'],
    })
    expect(path).toMatch(/^\/v1\?a=b&timestamp=\d+&signature=[0-9a-f]{64}$/)
    expect(headers).toEqual(['X-Other', 'stays', 'X-MBX-APIKEY', ID])
  })

  test('is not made for a body that nobody read, nor for another host', async () => {
    const stream = { pipe: () => undefined } as unknown as NonNullable<Outbound['body']>
    await expect(attached(provider(), { method: 'POST', body: stream })).rejects.toMatchObject({
      code: 'credential_unconfigured',
    })
    await expect(attached(provider(), { host: 'evil.test' })).rejects.toMatchObject({ code: 'target_mismatch' })
  })

  test('is not sent beside a value that no header can carry', async () => {
    const one = provider({ values: { ...coinbase.values, passphrase: { file: 'odd' } } })
    await expect(attached(one, {})).rejects.toMatchObject({ code: 'credential_rejected' })
  })
})

test.each([
  [{ sign: '{timestamp}{mehtod}{path}' }, /has \{mehtod\}, which nobody knows/],
  [{ headers: { 'X-Key': '{key_id}' } }, /have no \{signature\}/],
  [{ sign: '{timestamp}' }, /says nothing of the request/],
  [{ query: { a: '{body_hash}' } }, /has \{body_hash\}, which nobody knows/],
  [{ headers: { 'X Sign': '{signature}' } }, /./],
])('refuses settings that sign nothing or name what is not there: %j', (o, why) => {
  expect(() => provider(o)).toThrow(why)
})
