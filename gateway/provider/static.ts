/**
 * Standing keys: the fallback for APIs that issue nothing shorter. The key is read from its reference at every issue; only
 * the lease around it ends. Always `ephemeral: false`, so that it is counted and reported.
 */
import { z } from 'zod'
import type { Placement } from './placement.ts'
import type { Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity, secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

export const staticSchema = z.strictObject({
  provider: z.literal('static'),
  ...credentialTerms,
  /** Where the key is kept. */
  value: secretReference,
})

export type StaticConfig = z.infer<typeof staticSchema>

export function createStatic(config: StaticConfig, tools: { placement: Placement; readSecret: ReadSecret }): Provider {
  return {
    name: 'static',
    narrows: 'none',
    identity: JSON.stringify(['static', ...referenceIdentity(config.value)]),
    async issue(_request, signal) {
      const secret = await tools.readSecret(config.value, signal)
      return { secret, expiresAt: Number.POSITIVE_INFINITY, ephemeral: false }
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}
