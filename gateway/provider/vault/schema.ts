/** Settings that lead to a Vault or OpenBao server: where it is, and how this gateway logs in there. */
import { z } from 'zod'
import { addressRange, endpointUrl, refuseCleartext } from '../endpoint-schema.ts'
import { secretReference } from '../reference.ts'

/** Where a pod finds the token of its service account. */
const POD_TOKEN = '/var/run/secrets/kubernetes.io/serviceaccount/token'

/** Of a mount or a namespace: what needs no encoding in a URL, and no dot segment. */
const SEGMENTS = /^(?!.*(?:^|\/)\.{1,2}(?:\/|$))[A-Za-z0-9_.-]+(?:\/[A-Za-z0-9_.-]+)*$/

const mount = (usual: string) =>
  z.string().regex(SEGMENTS, { error: 'is not the path of a mount, such as approle or teams/approle' }).default(usual)
const role = z.string().min(1)

/** Child namespaces are separated by slashes; none at the ends. */
export const namespaceName = z.string().regex(SEGMENTS, { error: 'is not a namespace, such as agents or acme/agents' })

const ownReference = secretReference.refine((reference) => !('vault' in reference), {
  error: 'what opens Vault cannot lie in it: write { env: NAME }, { file: path } or { exec: [command, argument, …] }',
})

const login = z.discriminatedUnion(
  'method',
  [
    z.strictObject({
      method: z.literal('approle'),
      mount: mount('approle'),
      /** Not a secret, so it may stand here. */
      role_id: z.union([z.string().min(1), ownReference]),
      /** Absent: the role asks for none. */
      secret_id: ownReference.optional(),
    }),
    z.strictObject({
      method: z.literal('jwt'),
      mount: mount('jwt'),
      role,
      /** JWT of another issuer. Absent: the gateway signs one (docs/assertions.md). */
      token: ownReference.optional(),
      /** `aud` of what the gateway signs. Default: `address`. */
      audience: z.string().min(1).optional(),
      /** `sub` of what the gateway signs. Default `keyless`. */
      subject: z.string().min(1).default('keyless'),
    }),
    z.strictObject({
      method: z.literal('kubernetes'),
      mount: mount('kubernetes'),
      role,
      /** Token of a service account. Default: that of the gateway's own pod. */
      token: ownReference.default({ file: POD_TOKEN }),
    }),
    z.strictObject({ method: z.literal('token'), token: ownReference }),
  ],
  { error: 'method is one of approle, jwt, kubernetes, token' },
)

export const vaultConnectionSchema = z
  .strictObject({
    address: endpointUrl.describe('URL of the server or of its load balancer, without /v1.'),
    namespace: namespaceName.optional().describe('Namespace of login and paths. Default: the root namespace.'),
    addresses: z
      .array(addressRange)
      .default([])
      .describe('Ranges outside the public Internet that `address` may resolve to. Default: none.'),
    login: login.describe('How the gateway proves who it is: approle, jwt, kubernetes or token.'),
  })
  .superRefine(refuseCleartext(['address']))

export type VaultConnectionConfig = z.output<typeof vaultConnectionSchema>
export type VaultLogin = VaultConnectionConfig['login']
