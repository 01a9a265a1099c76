/** As what a credential is issued, by what the call does: settings map operations and kinds of access to names or terms. Pure. */
import { GatewayError } from '../protocol/problem.ts'
import type { Operation } from '../protocol/service.ts'

/** Operation (`invoices.read`) or access (`read`, `write`, `admin`) → whatever its issuer calls a role. */
export type Roles<Role> = Readonly<Record<string, Role>>

/** The operation's own before that of its access. @throws {GatewayError} `credential_unconfigured` where neither is meant. */
export function roleKey(roles: Roles<unknown>, operation: Pick<Operation, 'id' | 'name' | 'access'>): string {
  const key = [operation.id, operation.access].find((one) => Object.hasOwn(roles, one))
  if (key !== undefined) return key
  throw new GatewayError(
    'credential_unconfigured',
    `No credential is meant for ${operation.name}, which is ${operation.access}. Add ${operation.access}, or ${operation.id}, to the roles of the credential.`,
  )
}
