/** Settings of `aws`: as whom, in which role, for which regions requests are signed. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'

const region = z.string().regex(/^[a-z0-9-]{1,32}$/, { error: 'is not a region such as eu-central-1' })

/** A session tag: AWS takes letters, digits, spaces and `_.:/=+-@`. */
const TAG_TEXT = /^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u

const source = z.union(
  [
    z.strictObject({
      access_key_id: secretReference,
      secret_access_key: secretReference,
      session_token: secretReference.optional(),
    }),
    z.strictObject({
      assertion: z.strictObject({
        /** Client id that the identity provider in IAM is registered with. */
        audience: z.string().min(1).default('sts.amazonaws.com'),
      }),
    }),
    z.strictObject({ token: secretReference }),
  ],
  {
    error:
      'is one of { access_key_id, secret_access_key }, each a reference, { assertion: {} } for tokens that the gateway signs, or { token: { file: path } }',
  },
)

export const awsSchema = z
  .strictObject({
    provider: z.literal('aws'),
    ...credentialTerms,
    /** Of the STS endpoint, and of requests to hosts that name no region. */
    region,
    /** Regions that may be signed for. Default: the one that a host names; elsewhere `region`, and at AWS `us-east-1`. */
    regions: z
      .array(z.union([region, z.literal('*')]))
      .min(1)
      .optional(),
    source,
    /** `none`: requests are signed with the source keys themselves, for servers without STS. They are no ephemeral credentials. */
    session: z.enum(['role', 'none']).default('role'),
    role_arn: z
      .string()
      .regex(/^arn:aws[a-z-]*:iam::\d{12}:role\/[\x21-\x7e]{1,512}$/, {
        error: 'is not arn:aws:iam::<account>:role/<name>',
      })
      .optional(),
    /** Most seconds a session may live. STS gives no less than 900; the role's own maximum bounds it. */
    duration_s: z.int().min(900).max(43_200).default(3_600),
    /**
     * How far a session is narrowed: to the operations and places of the `grant`, to its `operations` wherever, or `none`: to nothing
     * but the role and `policy_arns`.
     */
    session_policy: z.enum(['grant', 'operations', 'none']).default('grant'),
    /** Managed policies that narrow every session further. */
    policy_arns: z
      .array(z.string().regex(/^arn:aws[a-z-]*:iam::(?:\d{12}|aws):policy\/[\x21-\x7e]{1,512}$/))
      .max(10)
      .default([]),
    external_id: z
      .string()
      .regex(/^[\w+=,.@:/-]{2,1224}$/)
      .optional(),
    /** Whether the human is told as SourceIdentity; the role's trust policy has to allow sts:SetSourceIdentity. */
    source_identity: z.boolean().default(true),
    /** Whether agent, owner, task and lineage are told as session tags; the trust policy has to allow sts:TagSession. */
    lineage_tags: z.boolean().default(true),
    /** Further session tags, the same for everyone. */
    tags: z
      .record(z.string().min(1).max(128).regex(TAG_TEXT), z.string().max(256).regex(TAG_TEXT))
      .refine((tags) => Object.keys(tags).length <= 40, { error: 'are more than 40' })
      .default({}),
    /** Whether tags stay when a session assumes another role. */
    transitive_tags: z.boolean().default(false),
    /** Default: `https://sts.<region>.amazonaws.com`. */
    sts_url: endpointUrl.optional(),
    /** Ranges outside the public Internet that the STS endpoint may resolve to. Default: none. */
    addresses: z.array(addressRange).default([]),
  })
  .superRefine((config, context) => {
    const issue = (path: string, message: string) => context.addIssue({ code: 'custom', path: [path], message })
    if (config.session === 'role' && config.role_arn === undefined)
      issue('role_arn', 'is missing: name the role, or write session: none for a server without STS')
    if (config.session === 'none' && !('access_key_id' in config.source))
      issue('source', 'has no keys to sign with: session: none takes access_key_id and secret_access_key')
    if (config.session === 'none' && config.role_arn !== undefined)
      issue('role_arn', 'is of no use with session: none: remove one of the two')
    if ('token' in config.source && Object.keys(config.tags).length > 0)
      issue('tags', 'cannot be told with a token that somebody else signed: its issuer puts them into it')
  })
  .superRefine(refuseCleartext(['sts_url']))

export type AwsConfig = z.output<typeof awsSchema>
