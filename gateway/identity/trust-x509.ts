/** The part `trust.x509` of settings: SPIFFE trust domains whose X.509-SVIDs are accepted on connections. */
import { z } from 'zod'
import { agentId, spiffeId } from './trust-parts.ts'

export const x509TrustSchema = z.strictObject({
  trust_domain: z
    .string()
    .max(255)
    .regex(/^[a-z0-9._-]+$/)
    .describe('SPIFFE trust domain, such as acme.test.'),
  bundle: z
    .strictObject({ file: z.string().min(1) })
    .describe(
      'CA certificates of the domain: PEM, or a SPIFFE bundle (JSON), { file: PATH }. Read anew whenever it is used.',
    ),
  agents: z
    .array(
      z.strictObject({
        match: z.strictObject({ spiffe_id: spiffeId }),
        agent: agentId,
      }),
    )
    .min(1)
    .optional()
    .describe('Default: the SPIFFE ID is the agent id.'),
  clock_skew_s: z.int().min(0).max(60).default(30).describe('Seconds that the clock of its CA may be off. Default 30.'),
})

export type X509Trust = z.output<typeof x509TrustSchema>
