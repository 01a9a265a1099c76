import { createHash, generateKeyPairSync, type KeyObject, randomBytes, webcrypto } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import '../../gateway/protocol/reflect.ts'
import * as x509 from '@peculiar/x509'
import { decodeProtectedHeader, errors, jwtVerify, SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { createAzure } from '../../gateway/provider/azure/azure.ts'
import { azureSchema } from '../../gateway/provider/azure/schema.ts'
import { createPlacement } from '../../gateway/provider/placement/placement.ts'
import type { Assertions, Credential, GuardedFetch, Provider } from '../../gateway/provider/provider.ts'
import { credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { grant, service } from '../lease/lease.fixture.ts'
import { pem } from './authorization-server.fixture.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from './json-server.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-azure-'))
const TENANT = '11111111-2222-3333-4444-555555555555'
const CLIENT = '66666666-7777-8888-9999-000000000000'
const SCOPE = 'https://graph.microsoft.com/.default'
const SECRET = 'canary-client-secret+/='
const LIFE_S = 3599
const own = generateKeyPairSync('rsa', { modulusLength: 2048 })
let entra: JsonServer
let key: KeyObject
let thumbprint: string

/** What the gateway signs with, in short. */
const assertions: Assertions = {
  issuer: 'https://keyless.test/assertions',
  async sign(claims, { audience, lifeS, algorithm = 'ES256' }) {
    const jwt = new SignJWT({ ...claims }).setProtectedHeader({ alg: algorithm }).setIssuer(assertions.issuer)
    return new Secret(
      await jwt.setAudience(audience).setIssuedAt().setExpirationTime(`${lifeS} s`).sign(own.privateKey),
    )
  },
}

beforeAll(async () => {
  entra = await startJsonServer(answer)
  const pair = generateKeyPairSync('rsa', { modulusLength: 2048 })
  key = pair.publicKey
  const certificate = await certificateFor(pair.privateKey)
  thumbprint = createHash('sha256').update(Buffer.from(certificate.rawData)).digest('base64url')
  writeFileSync(join(dir, 'app.pem'), `${certificate.toString('pem')}\n${pem(pair.privateKey)}`)
  writeFileSync(join(dir, 'key.pem'), pem(pair.privateKey))
  const other = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey
  writeFileSync(join(dir, 'other.pem'), `${(await certificateFor(other)).toString('pem')}\n${pem(other)}`)
  writeFileSync(join(dir, 'secret'), `${SECRET}\n`)
  writeFileSync(join(dir, 'wrong'), 'canary-wrong')
})

afterEach(() => {
  entra.asked.length = 0
  entra.interrupt = undefined
})

afterAll(async () => {
  await entra.stop()
  rmSync(dir, { recursive: true, force: true })
})

async function certificateFor(privateKey: KeyObject): Promise<x509.X509Certificate> {
  const algorithm = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const jwk = privateKey.export({ format: 'jwk' })
  const { n, e, kty } = jwk
  const keys = {
    privateKey: await webcrypto.subtle.importKey('jwk', jwk as webcrypto.JsonWebKey, algorithm, true, ['sign']),
    publicKey: await webcrypto.subtle.importKey('jwk', { n, e, kty } as webcrypto.JsonWebKey, algorithm, true, [
      'verify',
    ]),
  }
  return x509.X509CertificateGenerator.createSelfSigned({ name: 'CN=app', keys, signingAlgorithm: algorithm })
}

/** Entra, as "OAuth 2.0 client credentials flow" and "certificate credentials" describe it. */
async function answer({ path, body }: Asked): Promise<Answered> {
  const form = body as Record<string, string>
  const url = `${entra.url}${path}`
  if (path !== `/${TENANT}/oauth2/v2.0/token`) return refused('invalid_request', 90002)
  if (form.grant_type !== 'client_credentials') return refused('unsupported_grant_type', 70003)
  if (form.client_id !== CLIENT) return refused('unauthorized_client', 700016)
  if (form.scope !== SCOPE) return refused('invalid_resource', 500011)
  if (form.client_secret !== undefined && form.client_secret !== SECRET) return refused('invalid_client', 7000215)
  const fault = form.client_secret === undefined ? await assertionFault(form, url) : undefined
  if (fault !== undefined) return refused('invalid_client', fault)
  const access_token = `eyJ0.${randomBytes(24).toString('base64url')}`
  return { status: 200, json: { token_type: 'Bearer', expires_in: LIFE_S, ext_expires_in: LIFE_S, access_token } }
}

async function assertionFault(form: Record<string, string>, url: string): Promise<number | undefined> {
  if (form.client_assertion_type !== 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer') return 7000218
  const jwt = form.client_assertion ?? ''
  const header = decodeProtectedHeader(jwt)
  try {
    if (header['x5t#S256'] !== undefined) {
      if (header['x5t#S256'] !== thumbprint) return 700027
      const terms = { algorithms: ['PS256'], audience: url, issuer: CLIENT, subject: CLIENT, maxTokenAge: '10 minutes' }
      const { payload } = await jwtVerify(jwt, key, terms)
      return payload.jti === undefined || payload.nbf === undefined ? 50027 : undefined
    }
    // It verifies RS256 alone, and compares these as they are.
    const terms = { algorithms: ['RS256'], audience: 'api://AzureADTokenExchange', issuer: assertions.issuer }
    const { payload } = await jwtVerify(jwt, own.publicKey, terms)
    return payload.sub === 'Keyless-Graph' ? undefined : 700213
  } catch (cause) {
    return cause instanceof errors.JWTClaimValidationFailed ? 700212 : 700027
  }
}

function refused(error: string, number: number): Answered {
  const error_description = `AADSTS${number}: canary-text ${CLIENT}. Trace ID: 1`
  return { status: 400, json: { error, error_codes: [number], error_description } }
}

const bySecret = { client_secret: { file: 'secret' } }
const byCertificate = { certificate: { file: 'app.pem' } }
const byFederation = { federation: { subject: 'Keyless-Graph' } }

function provider(o: Record<string, unknown>, fetch: GuardedFetch = globalThis.fetch): Provider {
  const written = { provider: 'azure', tenant: TENANT, client_id: CLIENT, scope: SCOPE, authority_url: entra.url }
  const config = azureSchema.parse({ ...written, addresses: ['127.0.0.1/32'], ...o })
  const tools = providerTools(dir, { fetchFor: () => fetch, assertions })
  return createAzure(config, { ...tools, placement: createPlacement() })
}

const issue = (from: Provider): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: undefined }, new AbortController().signal)

async function failure(from: Provider): Promise<GatewayError> {
  const error = await issue(from).catch((cause: unknown) => cause)
  expect(error).toBeInstanceOf(GatewayError)
  expect(JSON.stringify([(error as GatewayError).message, (error as GatewayError).detail])).not.toContain('canary')
  return error as GatewayError
}

for (const [name, proof, wrong, code] of [
  ['a secret', bySecret, { client_secret: { file: 'wrong' } }, 7000215],
  ['a certificate', byCertificate, { certificate: { file: 'other.pem' } }, 700027],
  ['federation', byFederation, { federation: { subject: 'keyless-graph' } }, 700213],
] as const) {
  providerConformance(`azure with ${name}`, () => ({
    working: () => provider(proof),
    isEphemeral: true,
    lifeS: LIFE_S,
    wider: () => [
      ['another scope', provider({ ...proof, scope: 'https://vault.azure.net/.default' })],
      ['another application', provider({ ...proof, client_id: TENANT })],
      ['another tenant', provider({ ...proof, tenant: 'other.test' })],
      ['another cloud', provider({ ...proof, cloud: 'china' })],
      ['another Entra', provider({ ...proof, authority_url: 'http://127.0.0.1:1' })],
      ['another proof', provider(wrong)],
    ],
    failing: () => [
      ['a wrong proof', 'credential_rejected', provider(wrong)],
      ['an unknown application', 'credential_rejected', provider({ ...proof, client_id: TENANT })],
      ['an Entra that is down', 'credential_unavailable', provider({ ...proof, authority_url: 'http://127.0.0.1:1' })],
    ],
    hanging: () => {
      entra.interrupt = () => 'hang'
      return provider(proof)
    },
    secrets: () => [SECRET, 'canary-wrong'],
  }))

  test(`a wrong proof by ${name} is refused with what to change`, async () => {
    expect((await failure(provider(wrong))).detail).toContain(`AADSTS${code}`)
  })
}

describe('says what to change when', () => {
  test.each([
    ['there is no such tenant', { tenant: 'nobody.test' }, 'correct tenant or cloud'],
    ['there is no such application', { client_id: TENANT }, 'correct client_id or tenant'],
    ['there is no such resource', { scope: 'https://nobody.test/.default' }, 'correct scope'],
  ])('%s', async (_what, o, words) => {
    expect((await failure(provider({ ...bySecret, ...o }))).detail).toContain(words)
  })

  test('the number is unknown: the OAuth code, and nothing of the text', async () => {
    entra.interrupt = () => refused('invalid_client', 999_999)
    const { code, detail } = await failure(provider(bySecret))
    expect({ code, hasCode: detail.includes('invalid_client'), hasNumber: detail.includes('999') }).toEqual({
      code: 'credential_rejected',
      hasCode: true,
      hasNumber: false,
    })
  })

  test.each([
    ['errors that are no list', { error: 'invalid_client', error_codes: 7000215 }],
    ['numbers that are none', { error: 'invalid_client', error_codes: ['7000215', null, 1.5] }],
    ['a code of its own', { error: '<script>', error_codes: [] }],
    ['no object', [1]],
  ])('Entra answers %s', async (_what, said) => {
    entra.interrupt = () => ({ status: 400, json: said })
    const { code, detail } = await failure(provider(bySecret))
    expect(code).toBe('credential_rejected')
    expect(detail).not.toContain('script')
  })
})

test.each([
  [429, { error: 'invalid_request' }],
  [503, {}],
  [400, { error: 'temporarily_unavailable' }],
  [400, { error: 'invalid_request', error_codes: [90033] }],
])('an Entra that is busy (%s %j) may be asked again, after the time that it says', async (status, said) => {
  entra.interrupt = () => ({ status, json: said, headers: { 'retry-after': '12' } })
  expect(await failure(provider(bySecret))).toMatchObject({ code: 'credential_unavailable', retryAfterMs: 12_000 })
})

test('a file with a key and no certificate is not used', async () => {
  expect((await failure(provider({ certificate: { file: 'key.pem' } }))).code).toBe('credential_unconfigured')
})

test('a token that is not Bearer is not used', async () => {
  entra.interrupt = () => ({ status: 200, json: { token_type: 'pop', access_token: 'a', expires_in: 60 } })
  expect((await failure(provider(bySecret))).code).toBe('credential_rejected')
})

test.each([
  ['public', 'https://login.microsoftonline.com/'],
  ['usgovernment', 'https://login.microsoftonline.us/'],
  ['china', 'https://login.partner.microsoftonline.cn/'],
])('the cloud %s is asked at its own endpoint', async (cloud, url) => {
  const asked: string[] = []
  const fetch: GuardedFetch = (input) => {
    asked.push(String(input))
    return Promise.reject(new Error('not here'))
  }
  await failure(provider({ ...bySecret, cloud, authority_url: undefined }, fetch))
  expect(asked).toEqual([`${url}${TENANT}/oauth2/v2.0/token`])
})

test.each([
  ['no proof', {}, 'client_secret'],
  ['two proofs', { ...bySecret, ...byFederation }, 'client_secret'],
  ['scopes of its own', { ...bySecret, scope: 'https://graph.microsoft.com/Mail.Read' }, 'scope'],
  ['a path as tenant', { ...bySecret, tenant: '../common' }, 'tenant'],
  ['no application id', { ...bySecret, client_id: 'app' }, 'client_id'],
])('settings with %s are refused at the start', (_what, o, path) => {
  const written = { provider: 'azure', tenant: TENANT, client_id: CLIENT, scope: SCOPE, ...o }
  expect(credentialSchema.safeParse(written).error?.issues.map((one) => one.path.join('.'))).toContain(path)
})
