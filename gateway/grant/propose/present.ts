/**
 * First sight of a grant that its parent's holder signed without asking. It is checked like any other delegation, by today's
 * registry, limits and policies, and from then on known by its id.
 */
import type { Grant } from '../../protocol/grant.ts'
import type { Instruction, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { excessOf } from '../attenuate/attenuate.ts'
import { readChain } from '../chain/chain.ts'
import { MAX_HOPS, SKEW_S } from '../chain/claims.ts'
import { offlineChild, readOffline, SEPARATOR } from '../chain/offline.ts'
import { offlineOf } from '../chain/presented.ts'
import type { Room } from '../room.ts'
import { tooWide } from '../terms.ts'
import { delegated } from './child.ts'
import { registered } from './draft.ts'

/** @throws {GatewayError} `lineage_…`, `invalid_scope`, `delegation_refused`, `agent_unknown`, `grant_invalid`, `grant_expired` */
export async function proposePresented(
  { token, tenant }: Extract<Instruction, { kind: 'grant.present' }>,
  room: Room,
): Promise<Proposal> {
  const { parent, grant } = await offlineGrant(token, tenant, room)
  const above = await knownGrant(parent.id, tenant, room)
  if (above === undefined) {
    throw new GatewayError(
      'lineage_truncated',
      'The delegation above this one has not been presented. Present the whole chain, as it was handed over.',
    )
  }
  // Whoever signs chooses the id: a twin of what is known has been decided by nobody.
  if (above.signedHash !== parent.signedHash) {
    throw new GatewayError(
      'lineage_duplicated',
      `The delegation above this one has the id ${parent.id} of another grant. Delegate it again, with a fresh id.`,
    )
  }
  checkTime(grant, room.clock.nowMs() / 1000)
  const excess = excessOf(parent.authority, grant.authority)
  if (excess.length > 0) throw tooWide(`its parent ${parent.id}`, excess)
  return delegated({ parent, grant, attestation: grant.attestations.at(-1) })
}

/**
 * Present what is not known yet of a chain, oldest hop first: each is decided and recorded by itself.
 * @throws {GatewayError} `lineage_…` before any hop is presented, when together they are no chain
 */
export async function presentChain(
  token: string,
  o: { serve(hop: string): Promise<unknown>; isKnown(id: string): Promise<boolean> },
): Promise<void> {
  const hops = token.split(SEPARATOR, MAX_HOPS + 2)
  readChain(hops.toReversed(), { count: undefined, first: undefined })
  for (let i = hops.length - 1; i >= 0; i--) {
    const chain = hops.slice(i).join(SEPARATOR)
    const own = offlineOf(chain)
    if (own === undefined || !(await o.isKnown(own.id))) await o.serve(chain)
  }
}

/** What a chain of delegations comes to: its newest grant, and the one above, which may not have been presented yet. */
export async function offlineGrant(
  token: string,
  tenant: string,
  room: Room,
): Promise<{ readonly parent: Grant; readonly grant: Grant }> {
  const known = (id: string) => knownGrant(id, tenant, room)
  const { parent: root, hops } = await readOffline(token, known, room.issuer)
  const chain = [root]
  for (const hop of hops) {
    chain.push(offlineChild(chain.at(-1) as Grant, hop, registered(hop.agent, room.agents)))
  }
  return { parent: chain.at(-2) as Grant, grant: chain.at(-1) as Grant }
}

async function knownGrant(id: string, tenant: string, room: Room): Promise<Grant | undefined> {
  const standing = await room.store.byId(tenant, id)
  return standing === undefined ? undefined : room.authenticator.admit(standing)
}

function checkTime({ issuedAt, expiresAt }: Grant, nowS: number): void {
  if (nowS >= expiresAt)
    throw new GatewayError(
      'grant_expired',
      `The delegation expired at ${new Date(expiresAt * 1000).toISOString()}. Ask its signer for a new one.`,
    )
  if (issuedAt > nowS + SKEW_S)
    throw new GatewayError(
      'grant_invalid',
      `The delegation is from the future by more than ${SKEW_S} s. Set the clock of whoever signs it.`,
    )
}
