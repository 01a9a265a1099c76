/**
 * What orders mean for grants that are made now: each says up to which of them it was made, so that one that comes meanwhile ends it,
 * and none is made for what is blocked.
 */
import type { Grant, Issuance } from '../../protocol/grant.ts'
import type { Instruction, Proposal } from '../../protocol/instruction.ts'
import type { Orders } from '../orders/orders.ts'
import type { Room } from '../room.ts'
import { TAKING } from './propose.ts'

/** @throws {GatewayError} `access_blocked`, `grant_revoked`, `store_unavailable` */
export async function issuing(
  i: Instruction,
  { orders, policySet }: Pick<Room, 'policySet'> & { readonly orders: Orders },
  propose: () => Proposal | Promise<Proposal>,
): Promise<Proposal> {
  if (TAKING.has(i.kind)) return propose()
  // Asked before anything is looked at: whatever is ended from here on was looked at while it lived.
  const issued: Issuance = { after: await orders.current(), policySet: policySet() }
  const p = await propose()
  if (!('ttlS' in p)) return p
  const living = p.kind === 'grant.replace' ? [p.old] : []
  const above = p.kind === 'grant.delegate' ? issuancesOf(p.parent) : []
  const grant: Grant = { ...p.grant, issuance: [...above, issued] }
  for (const one of [...living, grant]) {
    const why = orders.endOf(one)
    if (why !== undefined) throw why
  }
  return { ...p, grant }
}

/** One for each of its hops: of those that a gateway from before orders made, nobody knows when. */
function issuancesOf({ depth, issuance }: Grant): readonly Issuance[] {
  return Array.from({ length: depth + 1 }, (_, hop) => issuance?.[hop] ?? { after: 0, policySet: '' })
}
