/** The part of the composition root that lets the owner of the gateway look after credentials: warm, revoke, see what is pending. */
import type { Audit } from '../audit/audit.ts'
import type { Grants } from '../grant/grants.ts'
import type { Leases } from '../lease/leases.ts'
import type { PendingRevocation } from '../lease/revocations.ts'
import type { PendingRevocationView, RevokeLeasesBody, WarmBody } from '../protocol/control-leases.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { requireKnown } from '../protocol/nearest.ts'
import { GatewayError } from '../protocol/problem.ts'
import { type WarmRooms, warm } from '../warm.ts'

interface LeaseHouse {
  readonly audit: Pick<Audit, 'recordUnder' | 'administer'>
  readonly catalogue: WarmRooms['catalogue'] & { readonly services: readonly { readonly name: string }[] }
  readonly grants: Pick<Grants, 'list' | 'task' | 'named'>
  readonly leases: Leases
  readonly policy: WarmRooms['policy']
  readonly nowMs: () => number
}

interface Configured {
  readonly tenant: string
  /** By name. */
  readonly credentials: Readonly<Record<string, unknown>>
}

/** What the control door needs of it. */
export function leaseDoorOf(house: LeaseHouse, { tenant, credentials }: Configured) {
  const warmAll = (grant: Grant, targets: readonly string[]) =>
    Promise.all(targets.map((target) => warm(target, grant, house)))
  return {
    async warm({ task, grant, targets }: WarmBody) {
      const root = task === undefined ? grant : (await house.grants.task(tenant, task)).task.root.id
      if (root === undefined) throw whose()
      return warmAll(await house.grants.named(tenant, root), targets)
    },
    warmPlan(id: string) {
      house.grants
        .named(tenant, id)
        .then((grant) => warmAll(grant, servicesOf(grant)))
        .catch(() => undefined) // what failed is in the log (lease.failed), and the call tries again
    },
    async revoke(body: RevokeLeasesBody, human: Human) {
      const { credential, service } = body
      // In an incident "0 dropped" would read as "there was none".
      requireKnown('credential', credential, Object.keys(credentials))
      if (service !== undefined && house.catalogue.service(service) === undefined)
        requireKnown(
          'service',
          service,
          house.catalogue.services.map(({ name }) => name),
        )
      const grants = await grantsOf(body, house.grants, tenant)
      await house.audit.administer('admin.leases_revoked', { tenant, human }, { ...body })
      return house.leases.revoke({ grants, credential, service })
    },
    pending: () => house.leases.pending.map(viewOf),
  }
}

function whose(): GatewayError {
  return new GatewayError('instruction_invalid', 'It is not said for whom: name a task or a grant.')
}

/** Every service that an operation of the grant belongs to. */
function servicesOf({ authority }: Grant): readonly string[] {
  const names = authority.flatMap(({ operations }) => operations.map((pattern) => pattern.split(':', 1)[0] ?? ''))
  return [...new Set(names)].filter((name) => name !== 'unmanaged')
}

async function grantsOf(
  { task, grant }: RevokeLeasesBody,
  grants: LeaseHouse['grants'],
  tenant: string,
): Promise<readonly Grant[]> {
  if (grant !== undefined) return [await grants.named(tenant, grant)]
  if (task !== undefined) return (await grants.task(tenant, task)).grants
  const tasks = await grants.list(tenant)
  const living = await Promise.all(tasks.map(({ id }) => grants.task(tenant, id).catch(() => undefined)))
  return living.flatMap((one) => one?.grants ?? [])
}

function viewOf({ unused, attempts, dueMs }: PendingRevocation): PendingRevocationView {
  const { claim, credential, credentialId, reason } = unused
  return {
    credential: claim.name,
    provider: claim.provider.name,
    service: claim.service.name,
    cred_id: credentialId,
    grant: claim.grant.id,
    task: claim.grant.task.id,
    reason,
    attempts,
    next_attempt_at: Math.ceil(dueMs / 1000),
    expires_at: Math.floor(credential.expiresAt),
  }
}
