/** What every provider that asks a token endpoint does the same: key, request, check, attach, revoke. What it presents is its own. */
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { certificateOf } from '../placement/certificate.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential, IssueRequest, Provider } from '../provider.ts'
import { settingsIdentity } from '../settings-identity.ts'
import type { ClientConfig } from './client-schema.ts'
import { createProofs, newProofKey, PROOF_KEY } from './dpop.ts'
import { excessScope, scopeWords, tokenCredential } from './token-credential.ts'
import { type EndpointTools, openTokenEndpoint } from './token-endpoint.ts'

export type TokenTools = Omit<EndpointTools, 'proofs'> & { readonly placement: Placement }

export interface TokenGrant {
  /** Key in settings. */
  readonly name: string
  readonly grantType: string
  /** What is presented besides scope, resource and audience. Asked anew for every attempt. */
  parameters(request: IssueRequest, signal: AbortSignal): Promise<Readonly<Record<string, string>>>
  /** `issued_token_type` must be one of these. Default: it does not matter. */
  readonly issuedTypes?: readonly string[]
  /** False: what is presented says what is asked for, and `audience` is of no concern here. Default true. */
  readonly saysTarget?: boolean
}

export function createTokenProvider(
  config: ClientConfig & { readonly provider: string },
  tools: TokenTools,
  grant: TokenGrant,
): Provider {
  const proofs = createProofs(tools.clock, tools.placement)
  const endpoint = openTokenEndpoint(config, { ...tools, proofs })
  const { revoke } = endpoint
  const asksFor = grant.saysTarget === false ? [] : list(config.audience)
  const audience = list(config.token_audience ?? [...list(config.resource), ...asksFor])
  const isBound =
    config.client_auth.endsWith('tls_client_auth') && 'certificate_bound' in config && config.certificate_bound

  async function obtain(request: IssueRequest, signal: AbortSignal): Promise<Credential> {
    const key = config.dpop ? newProofKey() : undefined
    const askedAtS = Math.floor(tools.clock.nowMs() / 1000)
    const parameters = async () => {
      const asked = new URLSearchParams(await grant.parameters(request, signal))
      if (grant.saysTarget !== false) addTarget(asked, config)
      return asked
    }
    const answer = await endpoint.request({ grantType: grant.grantType, parameters, key }, signal)
    try {
      const credential = tokenCredential(answer, {
        server: endpoint.server,
        askedAtS,
        scope: config.scope,
        audience,
        jkt: key && proofs.thumbprint(key),
        issuedTypes: grant.issuedTypes,
      })
      const excess = excessScope(config.scope, credential.scope)
      if (excess.length > 0) throw tooWide(endpoint.server, excess, config.client_id)
      const parts = { ...answer.parts, ...(key && { [PROOF_KEY]: key }) }
      return Object.keys(parts).length === 0 ? credential : { ...credential, parts }
    } catch (cause) {
      // Nobody will use the token, so it is ended where that is possible.
      await revoke?.(new Secret(answer.token), signal).catch(() => undefined)
      throw cause
    }
  }

  return {
    name: grant.name,
    narrows: 'scope',
    identity: settingsIdentity(config),
    issue: obtain,
    attach(credential, outbound) {
      const shown = isBound ? { ...outbound, certificate: certificateOf(credential) } : outbound
      return config.dpop ? proofs.attach(credential, shown) : tools.placement.place(credential, shown)
    },
    derived: (credential, service) => tools.placement.derived(credential, service),
    ...(config.dpop && { accommodates: proofs.accommodates }),
    ...(revoke && { revoke: ({ secret }: { readonly secret: Secret }, signal: AbortSignal) => revoke(secret, signal) }),
  }
}

function addTarget(asked: URLSearchParams, { scope, resource, audience }: ClientConfig): void {
  if (scope !== undefined) asked.set('scope', scope)
  // RFC 8707 §2, RFC 8693 §2.1: both may be repeated.
  for (const one of list(resource)) asked.append('resource', one)
  for (const one of list(audience)) asked.append('audience', one)
}

export function list(value: string | readonly string[] | undefined): readonly string[] {
  if (value === undefined) return []
  return typeof value === 'string' ? [value] : value
}

function tooWide(server: string, excess: readonly string[], clientId: string | undefined): GatewayError {
  return new GatewayError(
    'credential_too_wide',
    `${server.charAt(0).toUpperCase()}${server.slice(1)} granted scope that was not asked for: ${scopeWords(excess)}. Narrow ${clientId === undefined ? 'what is granted' : `client ${clientId}`} there, or name the scope in settings.`,
  )
}
