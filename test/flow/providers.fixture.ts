/**
 * Issuers over TLS, one for each kind of credential that is asked for at an API: each verifies what it is shown, tells nobody anything in
 * its errors, and keeps what it gave and for whom. After the documentation that `docs/providers/*` follows.
 */
import { randomBytes } from 'node:crypto'
import { generateKeyPair, type JWTPayload, type JWTVerifyGetKey, jwtVerify, SignJWT } from 'jose'
import { type ThrowAwayTls, throwAwayTls } from '../../deploy/demo/certificate.ts'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { MAKER, startGitlab } from '../provider/gitlab.fixture.ts'
import { POOL, READER, startGoogle } from '../provider/google.fixture.ts'
import { type Answered, type Asked, type JsonServer, startJsonServer } from '../provider/json-server.fixture.ts'

export const OWN = 'canary-own-token-of-the-gateway'
export const ISSUER = 'https://keyless.acme.test/assertions'
const TENANT = '11111111-2222-3333-4444-555555555555'
const CLIENT = '66666666-7777-8888-9999-000000000000'
const CHAT = 'https://chat.acme.test'
const ID_JAG = 'urn:ietf:params:oauth:token-type:id-jag'
const LIFE_S = 300

export type Issuer = Pick<JsonServer, 'url' | 'asked' | 'stop' | 'interrupt'>

export interface Issuers {
  readonly at: Readonly<Record<IssuerName, Issuer>>
  /** Tokens that a service would take, newest last. */
  readonly given: string[]
  /** Claims of the assertions that were taken, newest last. */
  readonly told: JWTPayload[]
  /** Ids of API keys and names of Secrets that are still there. */
  readonly alive: Set<string>
  /** Settings of one credential for each, without what they have in common. `secret(text)` writes a file and refers to it. */
  credentials(secret: (text: string) => object): Readonly<Record<IssuerName, object>>
  readonly caPem: string
  readonly gitlab: Awaited<ReturnType<typeof startGitlab>>
  readonly google: Awaited<ReturnType<typeof startGoogle>>
  stop(): Promise<void>
}

export type IssuerName =
  | 'google'
  | 'azure'
  | 'gitlab'
  | 'kubernetes'
  | 'elasticsearch'
  | 'oauth_jwt_bearer'
  | 'oauth_id_jag'
  | 'openai'
  | 'anthropic'

/** @param keys of the gateway's assertions, fetched when the first one is shown. */
export async function startIssuers(keys: JWTVerifyGetKey): Promise<Issuers> {
  const tls = await throwAwayTls(['127.0.0.1'])
  const given: string[] = []
  const told: JWTPayload[] = []
  const alive = new Set<string>()
  const give = (): string => {
    given.push(`canary-${randomBytes(18).toString('base64url')}`)
    return given.at(-1) as string
  }
  const verified = async (text: unknown, audience: string): Promise<JWTPayload> => {
    const { payload } = await jwtVerify(String(text), keys, { issuer: ISSUER, audience })
    told.push(payload)
    return payload
  }
  const parts: Parts = { give, verified, alive, given }
  const start = (answer: (asked: Asked) => Promise<Answered>) =>
    startJsonServer((asked) => refusing(answer(asked)), tls)
  const [google, gitlab, azure, kubernetes, elasticsearch, bearer, jag, openai, anthropic] = await Promise.all([
    startGoogle(keys, tls),
    startGitlab(systemClock, tls),
    start((asked) => entra(asked, parts)),
    start((asked) => cluster(asked, parts)),
    start((asked) => search(asked, parts)),
    start((asked) => server(asked, parts)),
    crossApp(tls, parts),
    start((asked) => vendor(asked, parts, ['subject_token', 'https://api.openai.com/v1', 'identity_provider_id'])),
    start((asked) => vendor(asked, parts, ['assertion', 'https://api.anthropic.com', 'federation_rule_id'])),
  ])
  const at = {
    google,
    azure,
    gitlab,
    kubernetes,
    elasticsearch,
    oauth_jwt_bearer: bearer,
    oauth_id_jag: jag,
    openai,
    anthropic,
  }
  return {
    ...{ at, given, told, alive, google, gitlab },
    caPem: tls.caPem,
    credentials: (secret) => credentialsAt(at, secret),
    stop: async () => void (await Promise.all(Object.values(at).map((one) => one.stop()))),
  }
}

interface Parts {
  give(): string
  verified(text: unknown, audience: string): Promise<JWTPayload>
  readonly alive: Set<string>
  readonly given: string[]
}

function refused(status: number, error = 'invalid_grant'): Answered {
  return { status, json: { error, error_description: 'canary-text', message: 'canary-text' } }
}

function refusing(answer: Promise<Answered>): Promise<Answered> {
  return answer.catch(() => refused(400))
}

const token = (access_token: string, more: object = {}): Answered => ({
  status: 200,
  json: { access_token, token_type: 'Bearer', expires_in: LIFE_S, ...more },
})

async function entra({ path, body }: Asked, { give, verified }: Parts): Promise<Answered> {
  const form = body as Record<string, string>
  const { sub } = await verified(form.client_assertion, 'api://AzureADTokenExchange')
  if (path !== `/${TENANT}/oauth2/v2.0/token` || form.client_id !== CLIENT || sub !== 'keyless-graph')
    return refused(400)
  return token(give())
}

async function cluster({ method, path, headers, body }: Asked, { give, alive }: Parts): Promise<Answered> {
  if (headers.authorization !== `Bearer ${OWN}`) return refused(401)
  const [, rest = ''] = /^\/api\/v1\/namespaces\/agents\/(.+)$/.exec(path) ?? []
  if (method === 'DELETE') return alive.delete(rest.replace('secrets/', '')) ? { status: 200, json: {} } : refused(404)
  if (rest === 'secrets') {
    const { metadata } = body as { metadata: { name: string } }
    alive.add(metadata.name)
    return { status: 201, json: { metadata: { ...metadata, uid: `uid-${metadata.name}` } } }
  }
  const { spec } = body as { spec: { expirationSeconds: number; boundObjectRef: { name: string; uid: string } } }
  const isBound = alive.has(spec.boundObjectRef.name) && spec.boundObjectRef.uid === `uid-${spec.boundObjectRef.name}`
  if (rest !== 'serviceaccounts/viewer/token' || !isBound) return refused(404)
  const expirationTimestamp = new Date(Date.now() + spec.expirationSeconds * 1000).toISOString()
  return { status: 201, json: { spec: { audiences: [] }, status: { token: give(), expirationTimestamp } } }
}

async function search({ method, headers, body }: Asked, { give, given, alive }: Parts): Promise<Answered> {
  if (headers.authorization !== `Bearer ${OWN}`) return refused(401)
  if (method === 'DELETE') {
    const { ids } = body as { ids: string[] }
    const ended = ids.filter((id) => alive.delete(id))
    return { status: 200, json: { invalidated_api_keys: ended, previously_invalidated_api_keys: [] } }
  }
  const { expiration } = body as { expiration: string }
  const [id, api_key] = [`id-${alive.size}-${given.length}`, give()]
  alive.add(id)
  given.push(Buffer.from(`${id}:${api_key}`).toString('base64'))
  return { status: 200, json: { id, api_key, expiration: Date.now() + Number.parseInt(expiration, 10) * 1000 } }
}

/** RFC 7523 §2.1, for an assertion of the gateway. */
async function server({ body, path }: Asked, { give, verified }: Parts): Promise<Answered> {
  const form = body as Record<string, string>
  if (path === '/revoke') return { status: 200 }
  await verified(form.assertion, 'https://id.acme.test')
  return token(give(), { scope: 'invoices:read' })
}

/** Identity provider at `/idp/token`, and the server that takes its ID-JAGs at `/token`. */
async function crossApp(tls: ThrowAwayTls, { give, verified }: Parts): Promise<JsonServer> {
  const { privateKey, publicKey } = await generateKeyPair('ES256')
  return startJsonServer(async ({ path, body }) => {
    const form = body as Record<string, string>
    if (path === '/token') {
      const taken = jwtVerify(form.assertion ?? '', publicKey, { audience: CHAT, typ: 'oauth-id-jag+jwt' })
      return taken.then(() => token(give(), { scope: 'chat.read' })).catch(() => refused(400))
    }
    if (form.client_secret !== OWN) return refused(401, 'invalid_client')
    const { sub } = await verified(form.subject_token, 'https://idp.acme.test')
    const jwt = new SignJWT({ client_id: 'keyless-at-chat', scope: 'chat.read' })
      .setProtectedHeader({ alg: 'ES256', typ: 'oauth-id-jag+jwt' })
      .setIssuer('https://idp.acme.test')
      .setSubject(String(sub))
      .setAudience(CHAT)
      .setExpirationTime('5m')
    return token(await jwt.sign(privateKey), { token_type: 'N_A', issued_token_type: ID_JAG })
  }, tls)
}

async function vendor(
  { body }: Asked,
  { give, verified }: Parts,
  [member, audience, rule]: readonly [string, string, string],
): Promise<Answered> {
  const json = body as Record<string, string>
  if (json[rule] !== 'rule-1') return refused(400, 'invalid_request')
  const { sub, agent } = await verified(json[member], audience)
  return sub === agent ? token(give()) : refused(400)
}

function credentialsAt(at: Issuers['at'], secret: (text: string) => object): Record<IssuerName, object> {
  const addresses = ['127.0.0.1/32']
  const federated = (audience: string) => ({ assertion: { audience, algorithm: 'RS256', claims: { sub: '{agent}' } } })
  return {
    google: {
      ...{ provider: 'google', addresses, federation: { provider: POOL }, impersonate: READER, storage: 'bucket' },
      ...{ sts_url: `${at.google.url}/v1/token`, iam_url: `${at.google.url}/v1` },
    },
    azure: {
      ...{ provider: 'azure', addresses, tenant: TENANT, client_id: CLIENT, authority_url: at.azure.url },
      ...{ scope: 'https://graph.microsoft.com/.default', federation: { subject: 'keyless-graph' } },
    },
    gitlab: { provider: 'gitlab', addresses, url: at.gitlab.url, token: secret(MAKER) },
    kubernetes: {
      ...{ provider: 'kubernetes', addresses, server: at.kubernetes.url, namespace: 'agents', revocable: true },
      ...{ service_account: { read: 'viewer' }, token: secret(OWN) },
    },
    elasticsearch: {
      ...{ provider: 'elasticsearch', addresses, url: at.elasticsearch.url, own: { token: secret(OWN) } },
      roles: { read: { indices: [{ names: ['{params.index}'], privileges: ['read'] }] } },
    },
    oauth_jwt_bearer: {
      ...{
        provider: 'oauth_jwt_bearer',
        addresses,
        token_url: `${at.oauth_jwt_bearer.url}/token`,
        client_auth: 'none',
      },
      ...{ assertion_audience: 'https://id.acme.test', scope: 'invoices:read' },
      revocation_url: `${at.oauth_jwt_bearer.url}/revoke`,
    },
    oauth_id_jag: {
      ...{ provider: 'oauth_id_jag', addresses, token_url: `${at.oauth_id_jag.url}/token`, assertion_audience: CHAT },
      ...{ client_id: 'keyless-at-chat', client_auth: 'client_secret_post', client_secret: secret(OWN) },
      ...{ scope: 'chat.read', subject_token_type: 'jwt' },
      idp: {
        ...{ token_url: `${at.oauth_id_jag.url}/idp/token`, assertion_audience: 'https://idp.acme.test', addresses },
        ...{ client_id: 'keyless', client_auth: 'client_secret_post', client_secret: secret(OWN) },
      },
    },
    openai: {
      ...{ provider: 'workload_identity', addresses, token_url: `${at.openai.url}/oauth/token`, format: 'json' },
      ...{ token: federated('https://api.openai.com/v1'), parameters: { identity_provider_id: 'rule-1' } },
    },
    anthropic: {
      ...{ provider: 'workload_identity', addresses, token_url: `${at.anthropic.url}/v1/oauth/token`, format: 'json' },
      ...{ grant: 'jwt_bearer', token: federated('https://api.anthropic.com') },
      ...{ parameters: { federation_rule_id: 'rule-1' }, headers: { 'anthropic-beta': 'oidc-federation-2026-04-01' } },
      ...{ slot: 'authorization', request_headers: { 'anthropic-beta': 'oauth-2025-04-20' } },
    },
  }
}
