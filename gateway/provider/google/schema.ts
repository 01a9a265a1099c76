/** Settings of `google`: by what the gateway proves who it is, as which service account, for which scope and where. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

const email = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]*@[A-Za-z0-9.-]+$/, { error: 'is not an e-mail address' })

export const googleSchema = z
  .strictObject({
    provider: z.literal('google'),
    ...credentialTerms,
    /** Key of a service account: the JSON file as Google hands it out. Or `federation`. */
    key: secretReference.optional(),
    /** Workload identity federation: Google verifies assertions of this gateway. */
    federation: z
      .strictObject({
        /** Full resource name of the provider in its pool. */
        provider: z
          .string()
          .regex(
            /^\/\/iam\.googleapis\.com\/projects\/[0-9]+\/locations\/global\/workloadIdentityPools\/[a-z0-9-]+\/providers\/[a-z0-9-]+$/,
            {
              error:
                'is not //iam.googleapis.com/projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/PROVIDER',
            },
          ),
        /** `aud` of the assertions. Default: the one that Google expects of itself, `https:` and the resource name. */
        audience: z.string().min(1).optional(),
      })
      .optional(),
    /** Scopes, separated by single spaces. Not beside `storage`, whose boundary says what the token can do. */
    scope: z
      .string()
      .regex(/^[\x21\x23-\x5b\x5d-\x7e]+(?: [\x21\x23-\x5b\x5d-\x7e]+)*$/, {
        error: 'is not a list of scopes separated by single spaces',
      })
      .optional(),
    /** Service account whose token is issued, for no longer than is needed. Absent: the key's own, for an hour. */
    impersonate: email.optional(),
    /** Service accounts between the two, in order. */
    delegates: z.array(email).max(4).default([]),
    /** Sign the access token here instead of asking for one: for Google Cloud APIs, and for no longer than is needed. */
    self_signed: z.boolean().default(false),
    /** Domain-wide delegation: the user that the key's service account acts as. */
    subject: email.optional(),
    /** Credential access boundary of Cloud Storage: no further than the `bucket`, or the `object`, of the call. */
    storage: z.enum(['bucket', 'object']).optional(),
    token_url: endpointUrl.default('https://oauth2.googleapis.com/token'),
    sts_url: endpointUrl.default('https://sts.googleapis.com/v1/token'),
    iam_url: endpointUrl.default('https://iamcredentials.googleapis.com/v1'),
    addresses: z.array(addressRange).default([]),
  })
  .superRefine((config, context) => {
    const fault = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    if ((config.key === undefined) === (config.federation === undefined)) fault('key', 'write either key or federation')
    if (config.subject !== undefined && (config.key === undefined || config.impersonate !== undefined))
      fault('subject', 'goes with key alone: only a key signs for a user')
    if (
      config.self_signed &&
      (config.key === undefined ||
        config.impersonate !== undefined ||
        config.subject !== undefined ||
        config.storage !== undefined)
    )
      fault('self_signed', 'goes with key and scope alone')
    if ((config.scope === undefined) === (config.storage === undefined)) fault('scope', 'write either scope or storage')
    if (config.delegates.length > 0 && config.impersonate === undefined) fault('delegates', 'goes with impersonate')
  })
  .superRefine(refuseCleartext(['token_url', 'sts_url', 'iam_url']))

export type GoogleConfig = z.output<typeof googleSchema>
