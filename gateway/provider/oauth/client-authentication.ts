/** How a client proves to an authorization server that it is the one (RFC 6749 §2.3, RFC 7523 §2.2, RFC 8705 §2), made anew for every request. */
import * as oauth from 'oauth4webapi'
import type { Clock } from '../../protocol/clock.ts'
import type { ClientCertificate } from '../../protocol/message.ts'
import type { Secret } from '../../protocol/secret.ts'
import { clientCertificate } from '../placement/certificate.ts'
import type { Assertions } from '../provider.ts'
import type { ReadSecret } from '../reference.ts'
import { clientAssertion } from './client-assertion.ts'
import type { EndpointConfig } from './client-schema.ts'

/** Seconds; as long as the client's own (client-assertion.ts). */
const ASSERTION_LIFE_S = 60

export interface ClientTools {
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
}

/** What a client shows of itself, once. */
export interface ClientProof {
  readonly authentication: oauth.ClientAuth
  /** Shown in TLS. */
  readonly certificate?: ClientCertificate
  /** Of the certificate, for tokens that are bound to it: the parts that the service is shown them by (placement-certificate.ts). */
  readonly parts?: Readonly<Record<'certificate' | 'private_key', Secret>>
}

/** @throws {GatewayError} when a secret, key or certificate cannot be read or used */
export async function proveClient(
  config: EndpointConfig,
  tools: ClientTools,
  signal: AbortSignal,
): Promise<ClientProof> {
  const { clock, readSecret, assertions } = tools
  const audience = config.assertion_audience ?? config.token_url
  switch (config.client_auth) {
    case 'private_key_jwt':
      return {
        authentication: await clientAssertion({
          owner: config,
          key: await readSecret(config.key, signal),
          kid: config.kid,
          audience,
          clock,
        }),
      }
    case 'client_secret_basic':
      return { authentication: oauth.ClientSecretBasic((await readSecret(config.client_secret, signal)).reveal()) }
    case 'client_secret_post':
      return { authentication: oauth.ClientSecretPost((await readSecret(config.client_secret, signal)).reveal()) }
    case 'tls_client_auth':
    case 'self_signed_tls_client_auth': {
      const [certificate, key] = await Promise.all([
        readSecret(config.client_certificate, signal),
        readSecret(config.client_key, signal),
      ])
      return {
        authentication: oauth.TlsClientAuth(),
        certificate: clientCertificate(certificate.reveal(), key),
        ...(config.certificate_bound && { parts: { certificate, private_key: key } }),
      }
    }
    case 'assertion': {
      const claims = { sub: config.client_id }
      const assertion = await assertions.sign(claims, { audience, lifeS: ASSERTION_LIFE_S, algorithm: 'RS256' })
      return { authentication: byAssertion(assertion) }
    }
    case 'none':
      return { authentication: config.client_id === undefined ? () => undefined : oauth.None() }
    default:
      return config satisfies never
  }
}

/** RFC 7523 §2.2. */
function byAssertion(assertion: Secret): oauth.ClientAuth {
  return (_server, client, body) => {
    body.set('client_id', client.client_id)
    body.set('client_assertion_type', 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer')
    body.set('client_assertion', assertion.reveal())
  }
}
