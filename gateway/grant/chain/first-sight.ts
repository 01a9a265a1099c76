/**
 * The lineage of a delegated grant at its first sight (LG/1 §1.6 step 8): whatever the store says, a grant is worth something
 * only when each delegation above it was signed by whom it must. What is remembered afterwards was checked here.
 */
import type { Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Records } from '../store/record.ts'
import { ask, type GrantStore } from '../store/store.ts'
import { fault } from './attestation.ts'
import { verifyAttestations } from './chain.ts'
import { type TokenSeal, UNKNOWN_AGE_MS } from './token.ts'

interface Parts {
  readonly store: Pick<GrantStore, 'byId'>
  readonly records: Records
  readonly seal: Pick<TokenSeal, 'keyOf' | 'refresh'>
  /** Exact `iss` of grants. */
  readonly issuer: string
}

/** @throws {GatewayError} `lineage_…` saying what was done to it, `store_unavailable` */
export type FirstSight = (grant: Grant) => Promise<void>

export function createFirstSight({ store, records, seal, issuer }: Parts): FirstSight {
  return async (grant) => {
    const { tenant, ancestry } = grant
    const above = ancestry[0]
    const root = above && (await ask(() => store.byId(tenant, above.id)))
    if (root === undefined) throw fault('lineage_truncated', 1, 'the root grant above it is not known here')
    const rootCnf = rootOf(records.open(root.stored), grant).cnf
    let isKeyUnknown = false
    const gateway = (kid: string) => {
      const key = seal.keyOf(kid)
      isKeyUnknown ||= key === undefined
      return key
    }
    try {
      verifyAttestations(grant, { issuer, gateway, rootCnf })
    } catch (cause) {
      if (!(isKeyUnknown && cause instanceof GatewayError)) throw cause
      // Another replica may have rotated: what it attested arrives here before we have looked.
      await seal.refresh(UNKNOWN_AGE_MS)
      verifyAttestations(grant, { issuer, gateway, rootCnf })
    }
  }
}

/** The key that the first delegation is held against must be that of the root of this very chain. */
function rootOf(root: Grant, { tenant, ancestry, task }: Grant): Grant {
  if (root.tenant === tenant && root.id === ancestry[0]?.id && root.task.id === task.id && root.depth === 0) return root
  throw fault('lineage_grafted', 1, 'the root grant above it is another one')
}
