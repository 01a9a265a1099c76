/** The part `trust.aws` of settings: AWS roles and users that say who they are by a signed GetCallerIdentity. */
import ipaddr from 'ipaddr.js'
import { z } from 'zod'

const addressRange = z.string().superRefine((value, context) => {
  if (ipaddr.isValidCIDR(value)) return
  const allowed = 'an address range'
  const fix = 'write a CIDR such as 10.20.0.0/16'
  context.addIssue({ code: 'custom', message: allowed, params: { allowed, fix } })
})

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
          agent: z
            .string()
            .max(255)
            .regex(/^[\x21-\x7e]+$/)
            .describe('Id of a registered agent.'),
        }),
      )
      .min(1)
      .optional()
      .describe('Default: the ARN of the role (without its path) or user is the agent id.'),
    addresses: z.array(addressRange).default([]).describe('Ranges besides public ones that `hosts` may resolve to.'),
  })
  .describe('AWS roles and users, known by a GetCallerIdentity request that they signed for this gateway.')

export type AwsTrust = z.output<typeof awsTrustSchema>
