/** The end of a grant and of everything below it: by its holder, by the holder of one above, or from the local socket. */
import type { Grant } from '../../protocol/grant.ts'
import type { ClientEvidence } from '../../protocol/identity.ts'
import type { Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { isProved, offlineOf } from '../chain/presented.ts'
import { endableGrant, isGrantId, proofOf } from '../life/living.ts'
import type { Room } from '../room.ts'
import { offlineGrant } from './present.ts'

/** @throws {GatewayError} `grant_invalid`, `grant_expired`, `grant_revoked` for what is dead or unknown, `client_invalid` */
export async function proposeRevoke(i: Extract<Instruction, { kind: 'grant.revoke' }>, room: Room): Promise<Proposal> {
  const { tenant, token, by } = i
  if ('human' in by) return { kind: 'grant.revoke', grant: await endableGrant(room, tenant, token), reason: 'revoked' }
  // An id is in every record, so naming one proves nothing.
  if (isGrantId(token))
    throw new GatewayError('grant_invalid', 'A grant is revoked here by its token or handle, not by its id.')
  const client = await room.identities.client(by.client)
  const grant = await revocable(token, tenant, room)
  const isNamed = client !== undefined && grant.lineage.some(({ type, id }) => type === 'ai_agent' && id === client.id)
  if (!isNamed && !(await holdsKey(grant, by, room))) {
    throw new GatewayError(
      'client_invalid',
      `The grant ${grant.id} is bound to a key. Prove it or one above it with DPoP, or authenticate as an agent of its lineage.`,
    )
  }
  return { kind: 'grant.revoke', grant, reason: 'revoked' }
}

/** A delegation that was signed offline can be revoked before anyone has presented it: its id is known beforehand. */
async function revocable(token: string, tenant: string, room: Room): Promise<Grant> {
  try {
    return await endableGrant(room, tenant, token)
  } catch (cause) {
    const isUnknown = cause instanceof GatewayError && cause.code === 'grant_invalid'
    if (!isUnknown || offlineOf(token) === undefined) throw cause
    return (await offlineGrant(token, tenant, room)).grant
  }
}

/** Whoever has a grant that is bound to no key could use it, so may end it; of a bound one, its key or one above is asked. */
async function holdsKey(
  grant: Grant,
  { client, jkt }: { client: ClientEvidence; jkt?: string },
  room: Room,
): Promise<boolean> {
  const proof = proofOf(client, jkt)
  if (isProved(grant.cnf, proof)) return true
  if (proof === undefined) return false
  for (const { id } of grant.ancestry) {
    const standing = await room.store.byId(grant.tenant, id)
    if (standing === undefined) continue
    const { cnf } = room.records.open(standing.stored)
    if (cnf !== undefined && isProved(cnf, proof)) return true
  }
  return false
}
