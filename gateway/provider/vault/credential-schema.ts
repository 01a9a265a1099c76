/** Settings of `vault`: which path, which fields of its answer, and how it depends on the call. */
import { z } from 'zod'
import { credentialTerms } from '../terms.ts'
import { placeholders, textsOf, unknownPlaceholder } from './request.ts'
import { namespaceName, vaultConnectionSchema } from './schema.ts'

/** Below `/v1/`; placeholders in braces, no dot segment, nothing that would need encoding. */
const path = z.string().regex(/^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9_.{}-]+(?:\/[A-Za-z0-9_.{}-]+)+$/, {
  error: 'is not a path such as database/creds/readonly: without /v1, a leading slash or a query',
})

const field = z.string().min(1)

export const vaultSchema = z
  .strictObject({
    provider: z.literal('vault'),
    ...credentialTerms,
    /** `database/creds/{role}`. In braces: `role`, `task`, and `params.NAME` of the operation's path. */
    path,
    /** Default: GET, POST with `parameters`. */
    method: z.enum(['GET', 'POST']).optional(),
    /** Sent as JSON, or as the query of a GET. Texts can hold what `path` can, and `{agent}` and `{human}`. */
    parameters: z.record(z.string().min(1), z.union([z.string(), z.number(), z.boolean()])).default({}),
    /** Operation (`invoices.read`) or access (`read`, `write`, `admin`) → what `{role}` stands for. */
    roles: z.record(z.string().min(1), z.string().regex(/^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$/)).default({}),
    /** Default: that of the connection. */
    namespace: namespaceName.optional(),
    /** Field of the answer's data that is the secret. Default `password`. A list is joined, line by line. */
    value: z.union([field, z.array(field).min(1)]).default('password'),
    /** Part of the credential → field of the answer's data: `{ username: username }`. Default: none. */
    parts: z
      .record(
        z.string().regex(/^(?!lease_id$|token_ends$)[a-z][a-z0-9_]*$/, {
          error: 'is not the name of a part; lease_id and token_ends are taken',
        }),
        z.union([field, z.array(field).min(1)]),
      )
      .default({}),
    /** For paths that give no lease: field that says when it ends, as epoch seconds or RFC 3339. */
    expires_at: field.optional(),
    /** The same, as seconds from now. */
    expires_in: field.optional(),
    /** Another server than `vault` of the settings. */
    connection: vaultConnectionSchema.optional(),
  })
  .superRefine((config, context) => {
    const issue = (at: string, message: string) => context.addIssue({ code: 'custom', path: [at], message })
    const texts = textsOf(config)
    const unknown = unknownPlaceholder(texts)
    if (unknown !== undefined)
      issue('path', `{${unknown}} stands for nothing: there are {role}, {task}, {agent}, {human} and {params.NAME}`)
    const needsRoles = placeholders(texts).includes('role')
    if (needsRoles && Object.keys(config.roles).length === 0)
      issue('roles', 'is missing: say what {role} stands for, as in { read: readonly, write: readwrite }')
    if (!needsRoles && Object.keys(config.roles).length > 0)
      issue('roles', 'has no effect: write {role} where it belongs in path or parameters')
    if (config.expires_at !== undefined && config.expires_in !== undefined)
      issue('expires_in', 'is one too many: keep expires_at or expires_in')
  })

export type VaultConfig = z.output<typeof vaultSchema>
