/** Clients that are known by their TLS certificate (RFC 8705), at a real authorization server over real TLS. */
import { createHash, X509Certificate } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createLocalJWKSet, decodeJwt } from 'jose'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, plain, service } from '../lease/lease.fixture.ts'
import { type FalseServer, json, startFalseServer } from './authorization-server.fixture.ts'
import { API, type Federation, LIFE_S, startFederation } from './federation.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-client-cert-'))
let federation: Federation
let other: FalseServer

beforeAll(async () => {
  federation = await startFederation({ keys: createLocalJWKSet({ keys: [] }), assertedBy: 'nobody' })
  other = await startFalseServer()
  const stranger = await federation.authority.issue(['stranger'])
  const foreign = await (await import('../upstream/certificate.fixture.ts')).makeAuthority()
  for (const [name, pair] of Object.entries({
    certified: federation.certified,
    alone: federation.selfSigned,
    stranger,
    forged: await foreign.issue(['keyless']),
  })) {
    writeFileSync(join(dir, `${name}.pem`), pair.cert)
    writeFileSync(join(dir, `${name}.key`), pair.key)
  }
})
afterAll(async () => {
  await Promise.all([federation.stop(), other.stop()])
  rmSync(dir, { recursive: true, force: true })
})

const client = (o: Record<string, unknown> = {}, by = 'certified'): Provider =>
  createProvider(
    credentialSchema.parse({
      provider: 'oauth_client_credentials',
      ...{ token_url: federation.tokenUrl, addresses: ['127.0.0.1/32'], scope: 'read', resource: API },
      ...{ client_id: 'certified', client_auth: 'tls_client_auth' },
      ...{ client_certificate: { file: `${by}.pem` }, client_key: { file: `${by}.key` } },
      ...o,
    }),
    providerTools(dir, { fetchFor: federation.fetchFor }),
  )
const issue = (from: Provider): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: undefined }, new AbortController().signal)
const thumbprint = (pem: string) => createHash('sha256').update(new X509Certificate(pem).raw).digest('base64url')

for (const [name, own, by] of [
  ['tls_client_auth', {}, 'certified'],
  ['self_signed_tls_client_auth', { client_id: 'alone', client_auth: 'self_signed_tls_client_auth' }, 'alone'],
] as const) {
  providerConformance(`oauth_client_credentials with ${name}`, () => ({
    working: () => client(own, by),
    isEphemeral: true,
    lifeS: LIFE_S,
    wider: () => [
      ['another certificate', client(own, 'stranger')],
      ['tokens that need no certificate', client({ ...own, certificate_bound: true }, by)],
    ],
    failing: () => [
      ['a certificate of somebody else', 'credential_rejected', client(own, 'stranger')],
      ['a certificate from elsewhere', 'credential_rejected', client(own, 'forged')],
      [
        'a key of another certificate',
        'credential_rejected',
        client({ ...own, client_key: { file: 'forged.key' } }, by),
      ],
      ['no certificate', 'credential_unconfigured', client({ ...own, client_certificate: { file: 'none' } }, by)],
    ],
    hanging: () => client({ ...own, client_key: { exec: ['sleep', '30'] } }, by),
    secrets: () => [federation.certified.key, federation.selfSigned.key],
  }))
}

describe('a token that is bound to the certificate', () => {
  test('goes to the service together with it, and is good with no other', async () => {
    const provider = client({ certificate_bound: true })
    const credential = await issue(provider)
    const { cnf } = decodeJwt(credential.secret.reveal()) as { cnf: Record<string, string> }
    expect(cnf['x5t#S256']).toBe(thumbprint(federation.certified.cert))
    const { certificate } = await provider.attach(credential, plain())
    expect(certificate?.id).toBe(new X509Certificate(federation.certified.cert).fingerprint256)
  })

  test('shows nothing where settings do not say that it is', async () => {
    const provider = client()
    const credential = await issue(provider)
    expect(credential.parts).toBeUndefined()
    expect((await provider.attach(credential, plain())).certificate).toBeUndefined()
  })
})

test('a certificate that was renewed on disk is shown at the next issue', async () => {
  const provider = client({}, 'renewed')
  for (const pair of [federation.certified, await federation.authority.issue(['keyless'])]) {
    writeFileSync(join(dir, 'renewed.pem'), pair.cert)
    writeFileSync(join(dir, 'renewed.key'), pair.key)
    expect((await issue(provider)).ephemeral).toBe(true)
  }
})

test('over http there is no certificate to be known by', () => {
  expect(() => client({ token_url: other.tokenUrl })).toThrow(/shows a certificate in TLS/)
})

test('the gateway can be known by its own assertion, and shares no secret', async () => {
  const asked: URLSearchParams[] = []
  other.answer = (_request, response, body) => {
    asked.push(new URLSearchParams(body))
    json(response, 200, { access_token: 'opaque', token_type: 'Bearer' })
  }
  const { Secret } = await import('../../gateway/protocol/secret.ts')
  const signed: unknown[] = []
  const sign = async (...args: unknown[]) => {
    signed.push(args)
    return new Secret('an.assertion.here')
  }
  const config = credentialSchema.parse({
    provider: 'oauth_client_credentials',
    ...{ token_url: other.tokenUrl, addresses: ['127.0.0.1/32'], client_id: 'keyless', client_auth: 'assertion' },
    assertion_audience: 'https://id.acme.test',
  })
  const assertions = { issuer: 'https://keyless.test/assertions', sign }
  await issue(createProvider(config, providerTools(dir, { assertions, fetchFor: () => fetch })))
  expect(signed).toEqual([[{ sub: 'keyless' }, { audience: 'https://id.acme.test', lifeS: 60, algorithm: 'RS256' }]])
  expect(Object.fromEntries(asked[0] ?? [])).toMatchObject({
    client_id: 'keyless',
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: 'an.assertion.here',
  })
})
