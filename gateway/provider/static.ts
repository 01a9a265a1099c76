/**
 * Standing keys: the fallback for APIs that issue nothing shorter. The key is read from its reference at every issue; only
 * the lease around it ends. Always `ephemeral: false`, so that it is counted and reported.
 */
import { z } from 'zod'
import { GatewayError } from '../protocol/problem.ts'
import type { Placement } from './placement/placement.ts'
import type { Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity, type SecretReference, secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

/** Name of a part, as slots of service files ask for it. */
const partName = z
  .string()
  .regex(/^[a-z][a-z0-9_]*$/, { error: 'is not the name of a part: lower-case letters, digits and _' })

/** Part → where it is kept. */
export const partReferences = z.record(partName, secretReference)

export const staticSchema = z
  .strictObject({
    provider: z.literal('static'),
    ...credentialTerms,
    /** Where the key is kept. */
    value: secretReference.optional(),
    /** Keys of an API that takes several at once: name of the slot's `part` → where it is kept. */
    values: partReferences.optional(),
  })
  .refine(({ value, values }) => value !== undefined || Object.keys(values ?? {}).length > 0, {
    path: ['value'],
    error:
      'is missing: write value: { file: path }, or values: { part: { file: path }, … } for an API that takes several keys',
  })

export type StaticConfig = z.output<typeof staticSchema>

export function createStatic(config: StaticConfig, tools: { placement: Placement; readSecret: ReadSecret }): Provider {
  const { value, values = {} } = config
  return {
    name: 'static',
    narrows: 'none',
    identity: JSON.stringify(['static', ...(value ? referenceIdentity(value) : []), ...partsIdentity(values)]),
    async issue(_request, signal) {
      const parts = await readParts(values, tools.readSecret, signal)
      const secret = value === undefined ? Object.values(parts)[0] : await tools.readSecret(value, signal)
      if (secret === undefined) throw new GatewayError('credential_unconfigured', 'The credential has no value.')
      const named = values === undefined || Object.keys(values).length === 0 ? {} : { parts }
      return { secret, ...named, expiresAt: Number.POSITIVE_INFINITY, ephemeral: false }
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
    derived: (credential, service) => tools.placement.derived(credential, service),
  }
}

type References = Readonly<Record<string, SecretReference>>

export function partsIdentity(references: References): readonly (readonly string[])[] {
  return Object.entries(references).map(([part, reference]) => [part, ...referenceIdentity(reference)])
}

/** All of them, or the first failure. */
export async function readParts(references: References, readSecret: ReadSecret, signal: AbortSignal) {
  const read = Object.entries(references).map(
    async ([part, reference]) => [part, await readSecret(reference, signal)] as const,
  )
  return Object.fromEntries(await Promise.all(read))
}
