/**
 * Every kind of credential, in one table. A new provider is one file, one line here, one docs page and one call of the
 * conformance suite.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { createAws } from './aws/aws.ts'
import { awsSchema } from './aws/schema.ts'
import { createAzure } from './azure/azure.ts'
import { azureSchema } from './azure/schema.ts'
import { basicSchema, createBasic } from './basic.ts'
import { createElasticsearch } from './elasticsearch.ts'
import { elasticsearchSchema } from './elasticsearch-schema.ts'
import { createExec, execSchema } from './exec.ts'
import { createGithubApp } from './github/app.ts'
import { githubAppSchema } from './github/schema.ts'
import { createGitlab } from './gitlab/gitlab.ts'
import { gitlabSchema } from './gitlab/schema.ts'
import { createGoogle } from './google/google.ts'
import { googleSchema } from './google/schema.ts'
import { createHmacSigner } from './hmac.ts'
import { hmacSchema } from './hmac-schema.ts'
import { createJwt, jwtSchema } from './jwt.ts'
import { createKubernetes } from './kubernetes.ts'
import { kubernetesSchema } from './kubernetes-schema.ts'
import { createMtls, mtlsSchema } from './mtls.ts'
import { createClientCredentials } from './oauth/client-credentials.ts'
import { clientCredentialsSchema } from './oauth/client-schema.ts'
import { createJwtBearer } from './oauth/jwt-bearer.ts'
import { createIdJag } from './oauth/jwt-id-jag.ts'
import { oauthRefreshSchema } from './oauth/refresh-schema.ts'
import { type ConnectionTools, createOauthRefresh } from './oauth/refresh-token.ts'
import { createTokenExchange } from './oauth/token-exchange.ts'
import { idJagSchema, jwtBearerSchema, tokenExchangeSchema } from './oauth/token-schema.ts'
import { createPlacement, type Placement } from './placement/placement.ts'
import type { Assertions, CertifyClient, FetchFor, Provider } from './provider.ts'
import type { ReadSecret } from './reference.ts'
import { createStatic, staticSchema } from './static.ts'
import type { VaultConnection } from './vault/connection.ts'
import { vaultSchema } from './vault/credential-schema.ts'
import { createVault } from './vault/vault.ts'
import { createWorkloadIdentity } from './workload-identity.ts'
import { workloadIdentitySchema } from './workload-identity-schema.ts'

/** What a provider is built with. */
export interface ProviderTools {
  /** `fetch` through the guarded dial. */
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
  readonly certifyClient: CertifyClient
  readonly connections: ConnectionTools
  /** The server that `vault` of the settings names; undefined: they name none. */
  readonly vault?: VaultConnection | undefined
}

/** The same with what every provider shares. */
export type BuiltTools = ProviderTools & {
  readonly placement: Placement
  /** Of the credential in settings. */
  readonly name: string
}

/** name in settings → settings schema (strict) and factory */
export const providerKinds = {
  aws: { schema: awsSchema, create: createAws },
  azure: { schema: azureSchema, create: createAzure },
  basic: { schema: basicSchema, create: createBasic },
  elasticsearch: { schema: elasticsearchSchema, create: createElasticsearch },
  exec: { schema: execSchema, create: createExec },
  github_app: { schema: githubAppSchema, create: createGithubApp },
  gitlab: { schema: gitlabSchema, create: createGitlab },
  google: { schema: googleSchema, create: createGoogle },
  hmac: { schema: hmacSchema, create: createHmacSigner },
  jwt: { schema: jwtSchema, create: createJwt },
  kubernetes: { schema: kubernetesSchema, create: createKubernetes },
  mtls: { schema: mtlsSchema, create: createMtls },
  oauth_client_credentials: { schema: clientCredentialsSchema, create: createClientCredentials },
  oauth_id_jag: { schema: idJagSchema, create: createIdJag },
  oauth_jwt_bearer: { schema: jwtBearerSchema, create: createJwtBearer },
  oauth_refresh_token: { schema: oauthRefreshSchema, create: createOauthRefresh },
  oauth_token_exchange: { schema: tokenExchangeSchema, create: createTokenExchange },
  static: { schema: staticSchema, create: createStatic },
  vault: { schema: vaultSchema, create: createVault },
  workload_identity: { schema: workloadIdentitySchema, create: createWorkloadIdentity },
} as const

type Kind = (typeof providerKinds)[keyof typeof providerKinds]
type KindSchema = Kind['schema']

export const credentialSchema = z.discriminatedUnion(
  'provider',
  Object.values(providerKinds).map(({ schema }) => schema) as [KindSchema, ...KindSchema[]],
  { error: `provider is one of ${Object.keys(providerKinds).join(', ')}` },
)

export type CredentialConfig = z.output<typeof credentialSchema>

/** @param name of the credential in settings. Default: that of its kind. */
export function createProvider(
  config: CredentialConfig,
  tools: ProviderTools,
  name: string = config.provider,
): Provider {
  const create = providerKinds[config.provider].create as (config: CredentialConfig, tools: BuiltTools) => Provider
  return create(config, { ...tools, name, placement: createPlacement() })
}
