/** Trees of grants in a store, without the instructions that make them: for what holds of any tree. */
import { Authenticator } from '../../gateway/grant/authenticate.ts'
import type { Spending } from '../../gateway/grant/budget.ts'
import { lineageHash, rootLineage } from '../../gateway/grant/chain/lineage.ts'
import { createTokenSeal } from '../../gateway/grant/chain/token.ts'
import { digestOf, newHandle } from '../../gateway/grant/handle.ts'
import { Liveness } from '../../gateway/grant/life/liveness.ts'
import { marksOf } from '../../gateway/grant/life/task.ts'
import { createRecords } from '../../gateway/grant/store/record.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import type { Confirmation, Constraints, Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { human, ISSUER, signingKey, storeKey, triage } from './grant.fixture.ts'

export const records = createRecords(storeKey)
export const seal = createTokenSeal({ issuer: ISSUER, keys: { current: signingKey, retired: [] } })

/** A grant below another, or a root; whatever a test does not care about holds. */
export function grantBelow(parent: Grant | undefined, clock: Clock, changes: Partial<Grant> = {}): Grant {
  const id = uuidv7(clock.nowMs())
  const issuedAt = Math.floor(clock.nowMs() / 1000)
  const lineage = rootLineage(human, triage.id, id)
  return {
    id,
    tenant: 'acme',
    human,
    agent: triage,
    task: parent?.task ?? { id: `task_${uuidv7(clock.nowMs())}`, purpose: 'triage issue 42' },
    authority: [{ operations: ['github:issues.read'] }],
    issuedAt,
    expiresAt: issuedAt + 900,
    lineage,
    lineageHash: lineageHash(lineage),
    depth: (parent?.depth ?? -1) + 1,
    maxDepth: 8,
    delegable: true,
    ancestry: parent === undefined ? [] : [...parent.ancestry, { id: parent.id, authority: parent.authority }],
    attestations: parent === undefined ? [] : [...parent.attestations, `attested by ${parent.id}`],
    ...(parent?.step !== undefined && { step: parent.step }),
    ...changes,
  }
}

export interface Kept {
  readonly grant: Grant
  readonly handle: string
}

export async function keep(store: GrantStore, grant: Grant): Promise<Kept> {
  const handle = newHandle()
  await store.create(records.close(grant, { handleDigest: digestOf(handle), marks: marksOf(grant) }))
  return { grant, handle }
}

export function authenticatorOver(
  store: GrantStore,
  clock: Clock,
  present?: (token: string, tenant: string) => Promise<void>,
): Authenticator {
  const agents = new Map([[triage.id, triage]])
  const firstSight = async () => {} // these trees are of grants that nobody attested
  return new Authenticator({
    store,
    records,
    seal,
    agents,
    clock,
    liveness: new Liveness(clock),
    firstSight,
    ...(present !== undefined && { present }),
  })
}

/** What the flow hands to `debit`: every level of the chain with its one entry, as `reach` names them. */
export function spendingOf(grant: Grant, o: { operation?: string; singleUse?: boolean } = {}): Spending {
  const chain = [...grant.ancestry, grant]
  const constraintsOf = (authority: Grant['authority']): Constraints | undefined => authority[0]?.constraints
  const hasBudget = chain.some(({ authority }) => constraintsOf(authority) !== undefined)
  return {
    grant,
    endpoint: { operation: { name: o.operation ?? 'github:issues.read', access: 'read', sensitivity: 'internal' } },
    decision: {
      levels: hasBudget
        ? chain.map(({ id, authority }) => ({ grant: id, entry: 0, constraints: constraintsOf(authority) }))
        : [],
      obligations: { singleUse: o.singleUse ?? false, ttlS: undefined },
    },
  }
}

export function limited(constraints: Constraints): Pick<Grant, 'authority'> {
  return { authority: [{ operations: ['github:issues.read'], constraints }] }
}

export const bound = (cnf: Confirmation): Pick<Grant, 'cnf'> => ({ cnf })
