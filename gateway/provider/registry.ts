/**
 * Every kind of credential, in one table. A new provider is one file, one line here, one docs page and one call of the
 * conformance suite.
 */
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import { clientCredentialsSchema } from './client-credentials-schema.ts'
import { createClientCredentials } from './oauth-client-credentials.ts'
import { createPlacement, type Placement } from './placement.ts'
import type { GuardedFetch, Provider } from './provider.ts'
import { createStatic, staticSchema } from './static.ts'

/** What a provider is built with. */
export interface ProviderTools {
  /** `fetch` through the guarded dial; `addresses` are CIDR ranges it may reach besides public ones. */
  readonly fetchFor: (addresses: readonly string[]) => GuardedFetch
  readonly clock: Clock
  /** Directory that relative file references start from: where the settings file is. */
  readonly baseDir: string
}

type Built = ProviderTools & { readonly placement: Placement }

/** name in settings → settings schema (strict) and factory */
export const providerKinds = {
  static: { schema: staticSchema, create: createStatic },
  oauth_client_credentials: { schema: clientCredentialsSchema, create: createClientCredentials },
} as const

export const credentialSchema = z.discriminatedUnion(
  'provider',
  [providerKinds.static.schema, providerKinds.oauth_client_credentials.schema],
  { error: `provider is one of ${Object.keys(providerKinds).join(', ')}` },
)

export type CredentialConfig = z.output<typeof credentialSchema>

export function createProvider(config: CredentialConfig, tools: ProviderTools): Provider {
  const built: Built = { ...tools, placement: createPlacement() }
  switch (config.provider) {
    case 'static':
      return providerKinds.static.create(config, built)
    case 'oauth_client_credentials':
      return providerKinds.oauth_client_credentials.create(config, built)
    default:
      return config satisfies never
  }
}
