/**
 * Keys that sign the root tokens of AAT chains: the rows of `trust.chains`. What a chain allows and whether it holds is read by
 * the room of grants; here is only whose word its root may be.
 */
import type { KeyObject } from 'node:crypto'
import { type KeySet, keyFailure } from './key-set.ts'
import { refusing } from './refuse.ts'
import type { ChainTrust } from './trust-chain.ts'

export interface ChainIssuer {
  readonly row: ChainTrust
  readonly keys: KeySet
}

/** What the root token says of itself: a claim until its signature verifies with the key found here. */
export interface ChainRoot {
  readonly issuer: string
  readonly kid: string | undefined
  /** `EdDSA`, as older drafts call Ed25519, is Ed25519 already. */
  readonly alg: string
}

/**
 * @returns undefined for an issuer, algorithm or key id that no row trusts.
 * @throws {GatewayError} `subject_invalid` when the keys of a trusted issuer cannot be had.
 */
export function createChainKeys(issuers: readonly ChainIssuer[]): (root: ChainRoot) => Promise<KeyObject | undefined> {
  return async ({ issuer, kid, alg }) => {
    const found = issuers.find(({ row }) => row.issuer === issuer)
    if (found === undefined || !found.row.algorithms.some((name) => name === alg)) return undefined
    try {
      return await found.keys.find(kid, alg)
    } catch (cause) {
      const refuse = refusing('subject_invalid', 'The AAT chain')
      throw refuse(`the keys of its issuer cannot be had (${keyFailure(cause)}); try again later`, cause)
    }
  }
}
