/** A user name and a password that stand: HTTP Basic, or wherever the service takes the two (parts `username` and `password`). */
import { z } from 'zod'
import { Secret } from '../protocol/secret.ts'
import type { Placement } from './placement/placement.ts'
import type { Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity, secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

export const basicSchema = z.strictObject({
  provider: z.literal('basic'),
  ...credentialTerms,
  /** The user name itself, or where it is kept. A colon would move the border to the password (RFC 7617 §2). */
  username: z.union([z.string().regex(/^[^:\p{Cc}]+$/u, { error: 'is no user name without colon' }), secretReference], {
    error: 'is neither a user name without colon nor a reference such as { file: path }',
  }),
  /** Where the password is kept. */
  password: secretReference,
})

export type BasicConfig = z.output<typeof basicSchema>

export function createBasic(config: BasicConfig, tools: { placement: Placement; readSecret: ReadSecret }): Provider {
  const { username, password } = config
  const name = typeof username === 'string' ? new Secret(username) : undefined
  return {
    name: 'basic',
    narrows: 'none',
    identity: JSON.stringify([
      'basic',
      typeof username === 'string' ? username : referenceIdentity(username),
      ...referenceIdentity(password),
    ]),
    async issue(_request, signal) {
      const [secret, read] = await Promise.all([
        tools.readSecret(password, signal),
        typeof username === 'string' ? name : tools.readSecret(username, signal),
      ])
      const parts = { username: read as Secret, password: secret }
      return { secret, parts, expiresAt: Number.POSITIVE_INFINITY, ephemeral: false }
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}
