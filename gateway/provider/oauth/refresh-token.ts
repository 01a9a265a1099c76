/**
 * Access tokens from the connection of a human (RFC 6749 §6): each lease gets one of its own by a refresh. Which connection follows from
 * who stands behind the grant. The refresh token never leaves the sealed store but for its own server.
 */
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Connector } from '../connection/connection.ts'
import type { Refreshes } from '../connection/refresh.ts'
import { createConnectionServer, excessScope } from '../connection/server.ts'
import type { Placement } from '../placement/placement.ts'
import type { Credential, FetchFor, IssueRequest, Provider } from '../provider.ts'
import { type ReadSecret, referenceIdentity } from '../reference.ts'
import type { OauthRefreshConfig } from './refresh-schema.ts'
import { scopeWords } from './token-credential.ts'

/** What the provider needs of the connections there are. */
export interface ConnectionTools {
  readonly refreshes: Pick<Refreshes, 'run'>
  /** Where a human reads how to connect this credential. */
  url(credential: string): string
}

interface OauthRefreshTools {
  /** Of the credential in settings. */
  readonly name: string
  readonly connections: ConnectionTools
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly placement: Placement
}

export function createOauthRefresh(config: OauthRefreshConfig, tools: OauthRefreshTools): Provider {
  const { name: credential, connections, placement } = tools
  const server = createConnectionServer(config, tools)
  const connectorOf = ({ grant }: IssueRequest): Connector => {
    const { iss, sub } = grant.human
    return { credential, human: config.per === 'human' ? { iss, sub } : undefined }
  }
  return {
    name: 'oauth_refresh_token',
    narrows: 'scope',
    identity: identityOf(config),
    async issue(request, signal) {
      const connector = connectorOf(request)
      const answer = await connections.refreshes
        .run(connector, server.issuedTo, (token, { scope }, until) => server.refresh(token, scope, until), signal)
        .catch((cause: unknown) => {
          throw cause instanceof GatewayError && cause.code === 'reauthorize'
            ? reauthorize(connector, connections)
            : cause
        })
      const excess = excessScope(config.scope, answer.scope)
      const refusal = answer.refusal ?? (excess.length === 0 ? undefined : tooWide(server.host, excess))
      // RFC 6749 §5.1: an answer without `scope` grants exactly what was asked.
      const scope = answer.scope ?? config.scope
      if (refusal === undefined)
        return {
          secret: answer.accessToken,
          expiresAt: answer.expiresAt,
          ephemeral: true,
          ...(scope !== undefined && { scope }),
        }
      if (config.revoke_access) await server.revoke(answer.accessToken, 'access_token', signal).catch(() => undefined)
      throw refusal
    },
    attach: (one, outbound) => placement.place(one, outbound),
    derived: (one, service) => placement.derived(one, service),
    ...(config.revocation_url !== undefined &&
      config.revoke_access && {
        revoke: async (one: Credential, signal: AbortSignal) => {
          await server.revoke(one.secret, 'access_token', signal)
        },
      }),
  }
}

/** The agent can only pass it on: who is meant, what is to be done, and where. */
function reauthorize({ credential, human }: Connector, { url }: ConnectionTools): GatewayError {
  const [whose, who, command] =
    human === undefined
      ? ['this gateway', 'Its operator has', `keyless connect ${credential}`]
      : [`${human.sub} (${human.iss})`, 'They have', `keyless connect ${credential} --for "${human.iss} ${human.sub}"`]
  return new GatewayError(
    'reauthorize',
    `Credential ${credential} has no connection of ${whose} that works. ${who} to connect it: \`${command}\` where the gateway runs, or see ${url(credential)}. Until then every call is refused.`,
  )
}

function tooWide(host: string, excess: readonly string[]): GatewayError {
  return new GatewayError(
    'credential_too_wide',
    `The authorization server at ${host} granted scope that was not asked for: ${scopeWords(excess)}. Narrow the client there, or name the scope in settings.`,
  )
}

function identityOf(config: OauthRefreshConfig): string {
  const secret =
    config.client_auth === 'private_key_jwt'
      ? referenceIdentity(config.key)
      : config.client_auth === 'none'
        ? null
        : referenceIdentity(config.client_secret)
  return JSON.stringify([
    'oauth_refresh_token',
    config.token_url ?? null,
    config.issuer ?? null,
    config.addresses,
    config.client_id,
    config.client_auth,
    secret,
    config.scope?.split(' ').sort() ?? null,
    config.resource ?? null,
    config.per,
  ])
}
