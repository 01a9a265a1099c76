/** The part `trust.aws` of settings: AWS roles and users that say who they are by a signed GetCallerIdentity. */
import { z } from 'zod'
import { addressRange, agentId } from './trust-parts.ts'

export const awsTrustSchema = z
  .strictObject({
    hosts: z
      .array(z.string().regex(/^[a-z0-9][a-z0-9.-]*(?::\d{1,5})?$/))
      .min(1)
      .describe('Hosts of STS that may be asked, exactly, such as sts.eu-central-1.amazonaws.com or a VPC endpoint.'),
    accounts: z
      .array(z.string().regex(/^\d{12}$/))
      .min(1)
      .describe('Account ids, quoted: 12 digits. Callers of any other account are nobody.'),
    agents: z
      .array(
        z.strictObject({
          match: z.strictObject({
            arn: z.string().regex(/^arn:aws[a-z-]*:iam::\d{12}:(?:role|user)\/[\x21-\x7e]+$/),
            /** Pins the role or user itself: one made anew under the same name has another id. */
            principal_id: z
              .string()
              .regex(/^[A-Z0-9]{16,128}$/)
              .optional(),
          }),
          agent: agentId,
        }),
      )
      .min(1)
      .optional()
      .describe('Default: the ARN of the role (without its path) or user is the agent id.'),
    addresses: z.array(addressRange).default([]).describe('Ranges besides public ones that `hosts` may resolve to.'),
  })
  .describe('AWS roles and users, known by a GetCallerIdentity request that they signed for this gateway.')

export type AwsTrust = z.output<typeof awsTrustSchema>
