/** What the gateway signs itself: nobody is asked, so all of it is work of this process. Providers alone, without the log and the cache. */
import { generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { AWS4, AWS4A } from '../gateway/protocol/aws-claim.ts'
import { systemClock } from '../gateway/protocol/clock.ts'
import type { Outbound } from '../gateway/protocol/message.ts'
import { Secret } from '../gateway/protocol/secret.ts'
import { createAssertions } from '../gateway/provider/assertions.ts'
import { createProofs, newProofKey, PROOF_KEY } from '../gateway/provider/oauth/dpop.ts'
import { createPlacement } from '../gateway/provider/placement/placement.ts'
import { createProvider, credentialSchema } from '../gateway/provider/registry.ts'
import { loadKeys } from '../gateway/settings/keys.ts'
import { certifyingIn, openClientRoots } from '../gateway/settings/keys-client-ca.ts'
import { plain, service } from '../test/lease/lease.fixture.ts'
import { pem } from '../test/provider/authorization-server.fixture.ts'
import { providerTools } from '../test/provider/tools.fixture.ts'
import { livingGrant } from './lease-issuers.ts'
import { row, timed } from './timing.ts'

const PLAN = { signed: 300, attached: 2000 } as const
const ISSUE = () => ({ service: service(), grant: livingGrant(), ttlS: 300, role: undefined })
const never = new AbortController().signal

type Work = () => unknown

export async function signingTable(dir: string): Promise<string[]> {
  const rows: string[] = []
  for (const [name, count, work] of [...(await issued(dir)), ...(await attached(dir))]) {
    const { p50, p99, cpu } = await timed(count, work)
    rows.push(row(name, `${p50.toFixed(2)} / ${p99.toFixed(2)}`, (cpu / 1000).toFixed(2)))
  }
  return ['| Signed by the gateway | p50 / p99 ms | CPU ms |', '|---|--:|--:|', ...rows]
}

/** Once per lease. */
async function issued(dir: string): Promise<[name: string, count: number, work: Work][]> {
  const keysDir = join(dir, 'keys')
  const keys = await loadKeys(keysDir)
  await openClientRoots(keysDir, Date.now())
  const assertions = createAssertions(keys.assertions, 'https://keyless.test/assertions', systemClock)
  const tools = providerTools(dir, { assertions, certifyClient: certifyingIn(keysDir, systemClock) })
  const provider = (config: object) => createProvider(credentialSchema.parse(config), tools)
  const jwt = async (alg: string, key: KeyObject) => {
    await writeFile(join(dir, `${alg}.pem`), pem(key), { mode: 0o600 })
    const signer = provider({ provider: 'jwt', alg, key: { file: `${alg}.pem` }, claims: { sub: '{agent}' } })
    return () => signer.issue(ISSUE(), never)
  }
  const mtls = provider({ provider: 'mtls' })
  const assertion = (algorithm: 'ES256' | 'RS256') => () =>
    assertions.sign({ sub: 'ana' }, { audience: 'https://as.test', lifeS: 120, algorithm })
  return [
    ['`jwt`, ES256', PLAN.signed, await jwt('ES256', generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey)],
    ['`jwt`, RS256', PLAN.signed, await jwt('RS256', generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey)],
    ['`mtls`: key pair and certificate', PLAN.signed, () => mtls.issue(ISSUE(), never)],
    ['assertion, ES256', PLAN.signed, assertion('ES256')],
    ['assertion, RS256', PLAN.signed, assertion('RS256')],
  ]
}

/** Once per call. */
async function attached(dir: string): Promise<[name: string, count: number, work: Work][]> {
  const tools = providerTools(dir)
  await writeFile(join(dir, 'shared'), randomBytes(32).toString('base64'), { mode: 0o600 })
  const hmac = createProvider(
    credentialSchema.parse({
      ...{ provider: 'hmac', secret: { file: 'shared' }, secret_encoding: 'base64' },
      ...{ sign: '{timestamp}{method}{target}{body}', headers: { 'X-Sign': '{signature}', 'X-Time': '{timestamp}' } },
    }),
    tools,
  )
  const held = await hmac.issue(ISSUE(), never)
  const request = plain({ service: service(), grant: livingGrant() })
  const proofs = createProofs(systemClock, createPlacement())
  const life = { expiresAt: Math.floor(Date.now() / 1000) + 900, ephemeral: true }
  const bound = { secret: new Secret(randomBytes(32).toString('hex')), parts: { [PROOF_KEY]: newProofKey() }, ...life }
  const aws = createProvider(
    credentialSchema.parse({
      ...{ provider: 'aws', session: 'none', region: 'eu-west-1' },
      source: { access_key_id: { file: 'shared' }, secret_access_key: { file: 'shared' } },
    }),
    tools,
  )
  const parts = { access_key_id: new Secret('ASIABENCHBENCHBENCH0'), session_token: new Secret('session') }
  const session = { secret: new Secret(randomBytes(30).toString('base64')), parts, ...life }
  return [
    ['`hmac`: one request', PLAN.attached, () => hmac.attach(held, request)],
    ['DPoP: one proof', PLAN.attached, () => proofs.attach(bound, request)],
    ['`aws`: one request signed anew, SigV4', PLAN.attached, () => aws.attach(session, awsRequest(AWS4))],
    ['`aws`: one request signed anew, SigV4a', PLAN.attached, () => aws.attach(session, awsRequest(AWS4A))],
  ]
}

function awsRequest(algorithm: typeof AWS4 | typeof AWS4A): Outbound {
  const host = 'dynamodb.eu-west-1.amazonaws.com'
  return plain({
    ...{ service: service({ slots: [{ in: 'signature', scheme: 'aws4', services: ['dynamodb'] }], hosts: [host] }) },
    ...{ host, method: 'POST', path: '/', body: Buffer.alloc(256, '{}'), headers: ['Host', host] },
    signed: { place: 'header', scope: { algorithm, region: 'eu-west-1', service: 'dynamodb' } },
  })
}
