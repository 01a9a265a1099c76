/** Settings of `kubernetes`: which cluster, which service account, and by what the gateway is known there. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from './endpoint-schema.ts'
import { secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

/** RFC 1123 label, as names of namespaces are. */
const label = z.string().regex(/^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/, {
  error: 'is not a name of Kubernetes: a-z 0-9 -, at most 63 characters',
})
/** RFC 1123 subdomain, as names of service accounts, pods and secrets are. */
const objectName = z
  .string()
  .max(253)
  .regex(/^[a-z0-9](?:[a-z0-9-]*[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]*[a-z0-9])?)*$/, {
    error: 'is not a name of Kubernetes: a-z 0-9 - .',
  })

export const kubernetesSchema = z
  .strictObject({
    provider: z.literal('kubernetes'),
    ...credentialTerms,
    /** URL of the API server. */
    server: endpointUrl,
    /** Of the service account. */
    namespace: label,
    /** Whose tokens are issued; or one for each operation (`pods.read`) or access (`read`, `write`, `admin`). */
    service_account: z.union([
      objectName,
      z.record(z.string().min(1), objectName).refine((by) => Object.keys(by).length > 0, {
        error: 'names no service account: write { read: viewer, write: editor }',
      }),
    ]),
    /** Who may take the token. Default: the API server alone. */
    audiences: z.array(z.string().min(1)).max(16).default([]),
    /** An object without which the token is void. Default: none. */
    bound_to: z
      .strictObject({ kind: z.enum(['Pod', 'Secret']), name: objectName, uid: z.string().min(1).optional() })
      .optional(),
    /** Bind every token to an empty Secret made for it, and delete that to revoke it. Default false: tokens end by expiring. */
    revocable: z.boolean().default(false),
    /** By what the gateway is known to the API server: the token of a service account that may create `serviceaccounts/token`. */
    token: secretReference,
    /** Ranges outside the public Internet that `server` may resolve to. Default: none. */
    addresses: z.array(addressRange).default([]),
  })
  .superRefine(refuseCleartext(['server']))
  .superRefine(({ bound_to, revocable }, context) => {
    if (bound_to !== undefined && revocable)
      context.addIssue({
        code: 'custom',
        path: ['revocable'],
        message: 'is one too many: a token is bound to one object, so keep bound_to or revocable',
      })
  })

export type KubernetesConfig = z.output<typeof kubernetesSchema>
