/** The part `trust.chains` of settings: issuers of root tokens of AAT chains, which may be exchanged for grants. */
import { z } from 'zod'
import { keyPlace } from './trust-parts.ts'

/** What a chain's tokens may be signed with. `EdDSA`, as older drafts call it, counts as Ed25519. */
const CHAIN_SIGNATURES = ['Ed25519', 'ES256'] as const

export const chainTrustSchema = z.strictObject({
  issuer: z.string().trim().min(1).max(255).describe('Exact value of `iss` in the root token of a chain.'),
  ...keyPlace,
  algorithms: z
    .array(z.enum(CHAIN_SIGNATURES))
    .min(1)
    .default([...CHAIN_SIGNATURES])
    .describe('Signature algorithms accepted of its root tokens.'),
})

export type ChainTrust = z.output<typeof chainTrustSchema>
