import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-static-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const KEY = 'canary-standing-key-4711'
writeFileSync(join(dir, 'key'), `${KEY}\n`)
writeFileSync(join(dir, 'other'), 'other')
writeFileSync(join(dir, 'empty'), '\n')

function provider(value: unknown): Provider {
  const config = credentialSchema.parse({ provider: 'static', value })
  return createProvider(config, providerTools(dir))
}

providerConformance('static', () => ({
  working: () => provider({ file: 'key' }),
  isEphemeral: false,
  wider: () => [
    ['another file', provider({ file: 'other' })],
    ['an environment variable of that name', provider({ env: 'key' })],
    ['a command', provider({ exec: ['cat', 'key'] })],
    ['a command with a secret argument', provider({ exec: ['cat', 'key', KEY] })],
  ],
  failing: () => [
    ['no such file', 'credential_unconfigured', provider({ file: 'absent' })],
    ['an empty file', 'credential_unconfigured', provider({ file: 'empty' })],
    ['a directory', 'credential_unconfigured', provider({ file: '.' })],
    ['an unset variable', 'credential_unconfigured', provider({ env: 'KEYLESS_TEST_IS_NOT_SET' })],
    ['no such command', 'credential_unconfigured', provider({ exec: ['./absent', KEY] })],
    [
      'a command that fails',
      'credential_unavailable',
      provider({ exec: ['sh', '-c', `echo ${KEY}; echo ${KEY} >&2; exit 3`] }),
    ],
  ],
  hanging: () => provider({ exec: ['sleep', '60'] }),
  secrets: () => [KEY],
}))

test('reads the key again at every issue, so that a rotated one is used', async () => {
  const one = provider({ file: 'rotating' })
  const ask = { service: service(), grant: grant(), ttlS: 60, role: undefined }
  const signal = new AbortController().signal
  const seen: string[] = []
  for (const value of ['first', 'second']) {
    writeFileSync(join(dir, 'rotating'), value)
    seen.push((await one.issue(ask, signal)).secret.reveal())
  }
  expect(seen).toEqual(['first', 'second'])
})
