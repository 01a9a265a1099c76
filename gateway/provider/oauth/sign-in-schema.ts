/** Settings of signing in at the gateway's own pages: at which OpenID provider, as which client, how fresh it has to be. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'

export const signInSchema = z
  .strictObject({
    issuer: endpointUrl.describe(
      'OpenID provider, exactly as `iss` of its ID tokens has it. Its metadata says the rest.',
    ),
    client_id: z.string().min(1).describe('Of this gateway there. Its redirect URI is <public_url>/approve/signed-in.'),
    client_secret: secretReference
      .optional()
      .describe('By reference. Default: a public client, whose code PKCE alone protects.'),
    client_auth: z
      .enum(['client_secret_basic', 'client_secret_post'])
      .optional()
      .describe('How the secret is sent. Default client_secret_basic.'),
    max_auth_age_s: z
      .int()
      .min(60)
      .max(3600)
      .optional()
      .describe('Seconds after signing in for which somebody may decide; then they sign in again. Default 900.'),
    acr: z
      .array(
        z
          .string()
          .min(1)
          .max(255)
          .regex(/^[\x21-\x7e]+$/),
      )
      .min(1)
      .max(8)
      .optional()
      .describe('Ways of signing in that count (acr), such as one by passkey. Default: whatever the provider takes.'),
    addresses: z
      .array(addressRange)
      .optional()
      .describe(
        'CIDR ranges that its endpoints may be in besides public ones: private addresses are refused otherwise.',
      ),
  })
  .superRefine((written, context) =>
    refuseCleartext<{ issuer: string; addresses: readonly string[] }>(['issuer'])(
      { issuer: written.issuer, addresses: written.addresses ?? [] },
      context,
    ),
  )
  .describe('How approvers sign in at the pages of the control door. Default: there are no pages.')

export type SignInConfig = z.output<typeof signInSchema>
