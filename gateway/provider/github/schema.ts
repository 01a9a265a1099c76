/** Settings of `github_app`: which app, at which GitHub, and how narrow its tokens are. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'
import { credentialTerms } from '../terms.ts'
import { GITHUB_LEVELS } from './permissions.ts'

const githubPermissions = z.record(z.string().regex(/^[a-z][a-z_]*$/), z.enum(GITHUB_LEVELS))

export const githubAppSchema = z
  .strictObject({
    provider: z.literal('github_app'),
    ...credentialTerms,
    /** Id of the app; or its `client_id`, which GitHub recommends as `iss`. */
    app_id: z.int().positive().optional(),
    client_id: z
      .string()
      .regex(/^[A-Za-z0-9._-]{1,100}$/)
      .optional(),
    /** Private key of the app, PEM as GitHub hands it out. */
    private_key: secretReference,
    /** Absent: looked up by the owner in the path. Needed for what names no owner, such as searching. */
    installation_id: z.int().positive().optional(),
    /** REST API. `https://HOST/api/v3` for GitHub Enterprise Server. */
    api_url: endpointUrl.default('https://api.github.com'),
    /**
     * One token for each repository and the permissions of the `call`; or for each repository and all that the `grant` may do there:
     * fewer tokens, never more than the grant.
     */
    per: z.enum(['call', 'grant']).default('call'),
    /** Permissions for operations whose service file names none, such as GraphQL. Absent: they are refused. */
    otherwise: githubPermissions.optional(),
    addresses: z.array(addressRange).default([]),
  })
  .refine((config) => (config.app_id === undefined) !== (config.client_id === undefined), {
    path: ['client_id'],
    message: 'write either client_id or app_id',
  })
  .superRefine(refuseCleartext(['api_url']))

export type GithubAppConfig = z.output<typeof githubAppSchema>
