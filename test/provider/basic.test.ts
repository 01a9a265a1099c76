import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Slot } from '../../gateway/protocol/service.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, plain, service } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-basic-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const PASSWORD = 'canary-password-4711'
writeFileSync(join(dir, 'password'), PASSWORD)
writeFileSync(join(dir, 'user'), 'ana\n')

function provider(o: object): Provider {
  const config = credentialSchema.parse({ provider: 'basic', username: 'ana', password: { file: 'password' }, ...o })
  return createProvider(config, providerTools(dir))
}

providerConformance('basic', () => ({
  working: () => provider({}),
  isEphemeral: false,
  wider: () => [
    ['another user', provider({ username: 'ben' })],
    ['a user by reference', provider({ username: { file: 'user' } })],
    ['another password', provider({ password: { file: 'user' } })],
  ],
  failing: () => [
    ['no password', 'credential_unconfigured', provider({ password: { file: 'absent' } })],
    ['no user', 'credential_unconfigured', provider({ username: { file: 'absent' } })],
  ],
  hanging: () => provider({ password: { exec: ['sleep', '60'] } }),
  secrets: () => [PASSWORD],
}))

const ask = { service: service(), grant: grant(), ttlS: 60, role: undefined }
const signal = new AbortController().signal

test.each([{}, { username: { file: 'user' } }])('sends its own user name, whatever the slot says: %j', async (o) => {
  const one = provider(o)
  const to = service({ slots: [{ in: 'basic', username: 'x' }] })
  const { headers } = await one.attach(await one.issue(ask, signal), plain({ service: to }))
  expect(headers.at(-1)).toBe(`Basic ${Buffer.from(`ana:${PASSWORD}`).toString('base64')}`)
})

test('fills slots that name user and password apart', async () => {
  const one = provider({})
  const slots: Slot[] = [
    { in: 'header', name: 'X-User', part: 'username' },
    { in: 'header', name: 'X-Password', part: 'password' },
  ]
  const { headers } = await one.attach(
    await one.issue(ask, signal),
    plain({ service: service({ slots }), headers: [] }),
  )
  expect(headers).toEqual(['X-User', 'ana', 'X-Password', PASSWORD])
})

test('refuses a user name with a colon in settings', () => {
  expect(() => provider({ username: 'a:b' })).toThrow(/user name without colon/)
})
