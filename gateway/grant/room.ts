/** What the files of this room share: the parts that `createGrants` puts together once. */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Identities } from '../protocol/identity.ts'
import type { Authenticator } from './authenticate.ts'
import type { AatRoot } from './chain/aat.ts'
import type { TokenSeal } from './chain/token.ts'
import type { ClockWatch } from './life/clock-watch.ts'
import type { Records } from './store/record.ts'
import type { GrantStore } from './store/store.ts'
import type { Limits } from './terms.ts'

export interface Room extends Limits {
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  readonly store: GrantStore
  readonly records: Records
  readonly seal: TokenSeal
  readonly authenticator: Authenticator
  readonly identities: Pick<Identities, 'human' | 'workload' | 'client'>
  /** Exact `iss` of grants. */
  readonly issuer: string
  /** Key of the root token of a chain to import; undefined for an issuer that is not trusted with any. */
  chainKey(root: AatRoot): KeyObject | undefined | Promise<KeyObject | undefined>
  /** @see GrantsOptions.countsPast */
  countsPast?(): boolean
  /** Digest of the policies in force now; attestations name it. */
  policySet(): string
  readonly clock: Clock
  readonly clockWatch: ClockWatch
  /** A grant has ended: what was leased under it can go. Failures are the callee's to record. @returns how much that was. */
  onEnded(grant: Grant): number | undefined | Promise<number | undefined>
}
