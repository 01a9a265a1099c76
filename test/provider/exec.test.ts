import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, describe, expect, test } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { readPrinted } from '../../gateway/provider/exec-output.ts'
import type { Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-exec-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))

const VALUE = 'canary-printed-4711'
writeFileSync(join(dir, 'short'), JSON.stringify({ value: VALUE, expires_in: 600 }))
writeFileSync(join(dir, 'text'), VALUE)
writeFileSync(join(dir, 'list'), JSON.stringify([VALUE]))
writeFileSync(join(dir, 'broken'), `{"value":"${VALUE}"`)
writeFileSync(join(dir, 'twice'), `{"value":"a","value":"${VALUE}"}`)
writeFileSync(join(dir, 'nothing'), '{}')

function provider(command: readonly string[], o: object = {}): Provider {
  return createProvider(credentialSchema.parse({ provider: 'exec', command, ...o }), providerTools(dir))
}

const failing = (): readonly (readonly [string, GatewayError['code'], Provider])[] => [
  ['no such program', 'credential_unconfigured', provider(['./absent', VALUE])],
  ['a program that fails', 'credential_unavailable', provider(['sh', '-c', `echo ${VALUE}; exit 3`])],
  ['a program that prints nothing', 'credential_unconfigured', provider(['true'])],
  ['JSON that is none', 'credential_rejected', provider(['cat', 'broken'])],
  ['JSON with a name twice', 'credential_rejected', provider(['cat', 'twice'])],
  ['JSON with nothing in it', 'credential_rejected', provider(['cat', 'nothing'])],
  ['too much', 'credential_unavailable', provider(['head', '-c', '70000', '/dev/zero'])],
]

providerConformance('exec, saying when it ends', () => ({
  working: () => provider(['cat', 'short']),
  isEphemeral: true,
  lifeS: 600,
  wider: () => [
    ['another program', provider(['cat', 'text'])],
    ['another time', provider(['cat', 'short'], { ttl_s: 60 })],
  ],
  failing,
  hanging: () => provider(['sleep', '60']),
  secrets: () => [VALUE],
}))

providerConformance('exec, plain text', () => ({
  working: () => provider(['cat', 'text']),
  isEphemeral: false,
  wider: () => [['another program', provider(['cat', 'short'])]],
  failing,
  hanging: () => provider(['sleep', '60']),
  secrets: () => [VALUE],
}))

const NOW = 1_800_000_000
const read = (printed: unknown, ttlS?: number) => {
  const text = typeof printed === 'string' ? printed : JSON.stringify(printed)
  const { secret, parts = {}, ...rest } = readPrinted(new Secret(text), NOW, ttlS)
  return {
    ...rest,
    secret: secret.reveal(),
    parts: Object.fromEntries(Object.entries(parts).map(([n, s]) => [n, s.reveal()])),
  }
}

describe('what a command prints', () => {
  test.each([
    ['text', 'abc def', undefined, { secret: 'abc def', parts: {}, expiresAt: Infinity, ephemeral: false }],
    ['text for a while', 'abc', 60, { secret: 'abc', parts: {}, expiresAt: NOW + 60, ephemeral: false }],
    ['a value', { value: 'v' }, undefined, { secret: 'v', parts: {}, expiresAt: Infinity, ephemeral: false }],
    [
      'a value and its life',
      { value: 'v', expires_in: 9 },
      60,
      { secret: 'v', parts: {}, expiresAt: NOW + 9, ephemeral: true },
    ],
    [
      'an end in seconds',
      { value: 'v', expires_at: NOW + 5 },
      undefined,
      { secret: 'v', parts: {}, expiresAt: NOW + 5, ephemeral: true },
    ],
    [
      'an end in words',
      { value: 'v', expires_at: new Date((NOW + 5) * 1000).toISOString() },
      undefined,
      { secret: 'v', parts: {}, expiresAt: NOW + 5, ephemeral: true },
    ],
    [
      'parts',
      { username: 'u', password: 'p', expires_in: 9 },
      undefined,
      { secret: 'u', parts: { username: 'u', password: 'p' }, expiresAt: NOW + 9, ephemeral: true },
    ],
    [
      'a Kubernetes token',
      {
        apiVersion: 'client.authentication.k8s.io/v1',
        kind: 'ExecCredential',
        status: { token: 't', expirationTimestamp: new Date((NOW + 90) * 1000).toISOString() },
      },
      undefined,
      { secret: 't', parts: {}, expiresAt: NOW + 90, ephemeral: true },
    ],
    [
      'a Kubernetes certificate',
      { kind: 'ExecCredential', status: { clientCertificateData: 'c', clientKeyData: 'k' } },
      undefined,
      { secret: 'k', parts: { certificate: 'c', private_key: 'k' }, expiresAt: Infinity, ephemeral: false },
    ],
    [
      'AWS keys',
      { Version: 1, AccessKeyId: 'A', SecretAccessKey: 'S', SessionToken: 'T', Expiration: '2027-02-01T00:00:00Z' },
      undefined,
      {
        secret: 'S',
        parts: { access_key_id: 'A', secret_access_key: 'S', session_token: 'T' },
        expiresAt: Date.UTC(2027, 1, 1) / 1000,
        ephemeral: true,
      },
    ],
  ] as const)('may be %s', (_, printed, ttlS, credential) => {
    expect(read(printed, ttlS)).toEqual(credential)
  })

  test.each([
    ['an end that is past', { value: 'v', expires_at: NOW }],
    ['a life of no time', { value: 'v', expires_in: 0 }],
    ['a life that is no number', { value: 'v', expires_in: '9' }],
    ['an end without a time zone', { value: 'v', expires_at: '2027-02-01T00:00:00' }],
    ['a value that is no text', { value: 1 }],
    ['an empty value', { value: '' }],
    ['parts that are no names', { 'API-Key': 'v' }],
    ['AWS keys of another version', { Version: 2, AccessKeyId: 'A', SecretAccessKey: 'S' }],
  ])('is refused with %s', (_, printed) => {
    expect(() => read(printed)).toThrow(expect.objectContaining({ code: 'credential_rejected' }))
  })

  test('is a credential or a coded refusal that repeats nothing of it, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ minLength: 1 }),
          fc.json().map((json) => `{"value":${json}}`),
        ),
        (printed) => {
          try {
            expect(read(printed).secret).not.toBe('')
          } catch (cause) {
            expect(cause).toBeInstanceOf(GatewayError)
            if (printed.length > 12) expect((cause as GatewayError).detail).not.toContain(printed)
          }
        },
      ),
      { numRuns: 200 },
    )
  })
})
