/**
 * Microsoft Entra: client credentials with a secret, a certificate or a federated assertion. learn.microsoft.com: "OAuth 2.0 client
 * credentials flow on the Microsoft identity platform", "certificate credentials".
 */
import { hash, randomUUID, X509Certificate } from 'node:crypto'
import { SignJWT } from 'jose'
import { z } from 'zod'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { keptKey } from '../jwt-key.ts'
import { exchange, isPassing, unavailable } from '../oauth/issuer-exchange.ts'
import { subjectClaims } from '../oauth/subject-claims.ts'
import type { Placement } from '../placement/placement.ts'
import type { Assertions, Credential, FetchFor, GuardedFetch, IssueRequest, Provider } from '../provider.ts'
import { type ReadSecret, referenceIdentity } from '../reference.ts'
import { rsaPrivateKey } from '../rsa-key.ts'
import { azureRefusal } from './failure.ts'
import { AZURE_CLOUDS, type AzureConfig } from './schema.ts'

interface AzureTools {
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
  readonly placement: Placement
}

/** Seconds. "Keep it short - 5-10 minutes after nbf at most." */
const ASSERTION_LIFE_S = 300

export function createAzure(config: AzureConfig, tools: AzureTools): Provider {
  const authority = (config.authority_url ?? AZURE_CLOUDS[config.cloud].authority).replace(/\/+$/, '')
  const far: Far = {
    config,
    tools,
    url: `${authority}/${config.tenant}/oauth2/v2.0/token`,
    name: `Entra at ${new URL(authority).host}`,
    fetch: tools.fetchFor(config.addresses),
  }
  return {
    name: 'azure',
    narrows: 'none',
    identity: identityOf(config),
    issue: (request, signal) => issue(far, request, signal),
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}

interface Far {
  readonly config: AzureConfig
  readonly tools: AzureTools
  readonly url: string
  /** For messages. */
  readonly name: string
  readonly fetch: GuardedFetch
}

const answered = z.object({
  token_type: z.string(),
  access_token: z.string().min(1),
  expires_in: z.number().positive(),
})

async function issue(far: Far, request: IssueRequest, signal: AbortSignal): Promise<Credential> {
  const { config, tools, url, name } = far
  const form = {
    grant_type: 'client_credentials',
    client_id: config.client_id,
    scope: config.scope,
    ...(await clientProof(far, request, signal)),
  }
  const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
  const headers = { Accept: 'application/json' }
  const answer = await exchange(far.fetch, name, {
    url,
    method: 'POST',
    headers,
    body: new URLSearchParams(form),
    signal,
  })
  if (isPassing(answer.status)) throw unavailable(name, `answered ${answer.status}`, answer.retryAfterMs)
  if (answer.status !== 200) throw azureRefusal(name, answer)
  const { success, data } = answered.safeParse(answer.json)
  if (!success) throw unavailable(name, 'answered something that is not a token')
  if (data.token_type.toLowerCase() !== 'bearer')
    throw new GatewayError('credential_rejected', `${name} gave a token that is not Bearer, which cannot be used.`)
  return {
    secret: new Secret(data.access_token),
    expiresAt: askedAtS + Math.floor(data.expires_in),
    ephemeral: true,
    scope: config.scope,
  }
}

/** How the application proves who it is: form fields. */
async function clientProof(far: Far, request: IssueRequest, signal: AbortSignal): Promise<Record<string, string>> {
  const { config, tools } = far
  if (config.client_secret !== undefined)
    return { client_secret: (await tools.readSecret(config.client_secret, signal)).reveal() }
  const assertion =
    config.certificate === undefined
      ? await federatedAssertion(far, request)
      : await certificateAssertion(far, await tools.readSecret(config.certificate, signal))
  return {
    client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
    client_assertion: assertion.reveal(),
  }
}

/** Entra compares `iss`, `sub` and `aud` as they are; the lineage rides along for whoever reads the assertion. It verifies RS256 alone. */
function federatedAssertion({ config, tools }: Far, { grant }: IssueRequest): Promise<Secret> {
  const { subject, audience = AZURE_CLOUDS[config.cloud].audience } = config.federation ?? { subject: '' }
  const claims = { ...subjectClaims(grant), sub: subject }
  return tools.assertions.sign(claims, { audience, lifeS: ASSERTION_LIFE_S, algorithm: 'RS256' })
}

async function certificateAssertion({ config, tools, url }: Far, pem: Secret): Promise<Secret> {
  const text = pem.reveal()
  const key = keptKey(config, text, () => rsaPrivateKey(text, 'certificate'))
  const nowS = Math.floor(tools.clock.nowMs() / 1000)
  const jwt = new SignJWT({})
    .setProtectedHeader({ alg: 'PS256', typ: 'JWT', 'x5t#S256': thumbprint(text) })
    .setIssuer(config.client_id)
    .setSubject(config.client_id)
    .setAudience(url)
    .setJti(randomUUID())
    .setIssuedAt(nowS)
    .setNotBefore(nowS)
    .setExpirationTime(nowS + ASSERTION_LIFE_S)
  return new Secret(await jwt.sign(key))
}

/** base64url SHA-256 of the DER form. */
function thumbprint(pem: string): string {
  // Parser errors could quote what stands beside the certificate: a private key.
  const block = /-----BEGIN CERTIFICATE-----[\s\S]+?-----END CERTIFICATE-----/.exec(pem)?.[0]
  try {
    if (block !== undefined) return hash('sha256', new X509Certificate(block).raw, 'base64url')
  } catch {}
  throw new GatewayError(
    'credential_unconfigured',
    'The certificate of the application cannot be used: the file holds no certificate in PEM beside the key.',
  )
}

function identityOf(config: AzureConfig): string {
  const { client_secret, certificate } = config
  return JSON.stringify([
    'azure',
    config.tenant.toLowerCase(),
    config.client_id,
    config.scope,
    client_secret === undefined ? null : referenceIdentity(client_secret),
    certificate === undefined ? null : referenceIdentity(certificate),
    config.federation ?? null,
    config.cloud,
    config.authority_url ?? null,
    config.addresses,
  ])
}
