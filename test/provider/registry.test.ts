import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { credentialSchema, providerKinds } from '../../gateway/provider/registry.ts'

const oauth = {
  provider: 'oauth_client_credentials',
  token_url: 'https://id.acme.test/token',
  client_id: 'keyless',
  client_auth: 'client_secret_basic',
  client_secret: { env: 'BILLING_SECRET' },
}

function problems(config: unknown): { path: string; message: string }[] {
  const parsed = credentialSchema.safeParse(config)
  return parsed.success
    ? []
    : parsed.error.issues.map((issue) => ({ path: issue.path.join('.'), message: issue.message }))
}

test('every kind is named in settings as in the table', () => {
  for (const name of Object.keys(providerKinds)) {
    const schema = z.toJSONSchema(providerKinds[name as keyof typeof providerKinds].schema, { io: 'input' })
    expect(JSON.stringify(schema)).toContain(`"const":"${name}"`)
  }
})

test('becomes a JSON Schema for editors', () => {
  expect(JSON.stringify(z.toJSONSchema(credentialSchema, { io: 'input' }))).toContain('private_key_jwt')
})

describe('accepts', () => {
  test.each([
    [{ provider: 'static', value: { env: 'OPENAI_API_KEY' } }],
    [{ provider: 'static', value: { file: '/run/secrets/key' } }],
    [{ provider: 'static', value: { exec: ['op', 'read', 'op://vault/key'] } }],
    [oauth],
    [{ ...oauth, token_url: 'http://127.0.0.1:9/token', addresses: ['127.0.0.0/8'] }],
    [{ ...oauth, token_url: 'http://[::1]:9/token', addresses: ['::1/128'] }],
    [{ ...oauth, client_secret: undefined, client_auth: 'private_key_jwt', key: { file: 'billing.pem' } }],
  ])('%j', (config) => {
    const { client_secret, ...rest } = config as Record<string, unknown>
    expect(problems(client_secret === undefined ? rest : config)).toEqual([])
  })
})

describe('refuses, saying what to write', () => {
  test.each([
    ['an inline key', { provider: 'static', value: 'sk-live-canary' }, 'value', 'never written into settings'],
    [
      'an inline client secret',
      { ...oauth, client_secret: 'canary' },
      'client_secret',
      '{ env: NAME }, { file: path }',
    ],
    [
      'a key in place of a variable name',
      { provider: 'static', value: { env: 'sk-live-canary' } },
      'value.env',
      'name of an environment variable',
    ],
    ['two places at once', { provider: 'static', value: { env: 'A', file: 'b' } }, 'value', 'not a reference'],
    ['an empty command', { provider: 'static', value: { exec: [] } }, 'value.exec', ''],
    ['an unknown kind', { provider: 'vaultt', value: { env: 'A' } }, 'provider', 'provider is one of '],
    ['an unknown key', { provider: 'static', value: { env: 'A' }, vallue: 1 }, '', 'vallue'],
    ['an unknown way to authenticate', { ...oauth, client_auth: 'none' }, 'client_auth', 'private_key_jwt'],
    ['cleartext', { ...oauth, token_url: 'http://id.acme.test/token' }, 'token_url', 'https'],
    [
      'cleartext to a name',
      { ...oauth, token_url: 'http://localhost/token', addresses: ['127.0.0.0/8'] },
      'token_url',
      'https',
    ],
    [
      'cleartext beyond the ranges',
      { ...oauth, token_url: 'http://10.0.0.1/', addresses: ['127.0.0.0/8'] },
      'token_url',
      'https',
    ],
    ['cleartext revocation', { ...oauth, revocation_url: 'http://id.acme.test/' }, 'revocation_url', 'https'],
    [
      'a password in the URL',
      { ...oauth, token_url: 'https://me:canary@id.acme.test/' },
      'token_url',
      'user or password',
    ],
    ['a fragment', { ...oauth, token_url: 'https://id.acme.test/#a' }, 'token_url', 'fragment'],
    ['another scheme', { ...oauth, token_url: 'file:///etc/passwd' }, 'token_url', 'https'],
    ['scope that is none', { ...oauth, scope: 'a  b' }, 'scope', 'single spaces'],
    ['ranges that are none', { ...oauth, addresses: ['10.0.0.1'] }, 'addresses.0', 'range'],
    ['a key for a secret client', { ...oauth, key: { file: 'a' } }, '', 'key'],
    ['a secret for a key client', { ...oauth, client_auth: 'private_key_jwt' }, 'key', 'reference'],
  ])('%s', (_what, config, path, words) => {
    const found = problems(config)
    expect(found.some((problem) => problem.path === path && problem.message.includes(words))).toBe(true)
    expect(JSON.stringify(found)).not.toContain('canary')
  })
})
