/**
 * Every kind of credential, in one table. A new provider is one file, one line here, one docs page and one call of the
 * conformance suite.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { createAws } from './aws.ts'
import { awsSchema } from './aws-schema.ts'
import { createAzure } from './azure.ts'
import { azureSchema } from './azure-schema.ts'
import { clientCredentialsSchema } from './client-credentials-schema.ts'
import { createElasticsearch, elasticsearchSchema } from './elasticsearch.ts'
import { createGithubApp } from './github-app.ts'
import { githubAppSchema } from './github-schema.ts'
import { createGitlab } from './gitlab.ts'
import { gitlabSchema } from './gitlab-schema.ts'
import { createGoogle } from './google.ts'
import { googleSchema } from './google-schema.ts'
import { createKubernetes } from './kubernetes.ts'
import { kubernetesSchema } from './kubernetes-schema.ts'
import { createClientCredentials } from './oauth-client-credentials.ts'
import { createPlacement, type Placement } from './placement.ts'
import type { Assertions, FetchFor, Provider } from './provider.ts'
import type { ReadSecret } from './reference.ts'
import { createStatic, staticSchema } from './static.ts'
import { createVault, vaultSchema } from './vault.ts'
import type { VaultConnection } from './vault-connection.ts'

/** What a provider is built with. */
export interface ProviderTools {
  /** `fetch` through the guarded dial. */
  readonly fetchFor: FetchFor
  readonly clock: Clock
  readonly readSecret: ReadSecret
  readonly assertions: Assertions
  /** The server that `vault` of the settings names; undefined: they name none. */
  readonly vault?: VaultConnection | undefined
}

/** The same with what every provider shares. */
export type BuiltTools = ProviderTools & { readonly placement: Placement }

/** name in settings → settings schema (strict) and factory */
export const providerKinds = {
  aws: { schema: awsSchema, create: createAws },
  azure: { schema: azureSchema, create: createAzure },
  elasticsearch: { schema: elasticsearchSchema, create: createElasticsearch },
  github_app: { schema: githubAppSchema, create: createGithubApp },
  gitlab: { schema: gitlabSchema, create: createGitlab },
  google: { schema: googleSchema, create: createGoogle },
  kubernetes: { schema: kubernetesSchema, create: createKubernetes },
  oauth_client_credentials: { schema: clientCredentialsSchema, create: createClientCredentials },
  static: { schema: staticSchema, create: createStatic },
  vault: { schema: vaultSchema, create: createVault },
} as const

type Kind = (typeof providerKinds)[keyof typeof providerKinds]
type KindSchema = Kind['schema']

export const credentialSchema = z.discriminatedUnion(
  'provider',
  Object.values(providerKinds).map(({ schema }) => schema) as [KindSchema, ...KindSchema[]],
  { error: `provider is one of ${Object.keys(providerKinds).join(', ')}` },
)

export type CredentialConfig = z.output<typeof credentialSchema>

export function createProvider(config: CredentialConfig, tools: ProviderTools): Provider {
  const create = providerKinds[config.provider].create as (config: CredentialConfig, tools: BuiltTools) => Provider
  return create(config, { ...tools, placement: createPlacement() })
}
