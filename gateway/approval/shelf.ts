/** The store and its seal as one: records in, records out. What no gateway of ours wrote for exactly its place is not there. */
import { GatewayError } from '../protocol/problem.ts'
import { type ApprovalRecord, isStanding } from './record.ts'
import type { ApprovalSeal } from './seal.ts'
import { type ApprovalStore, type StoredApproval, storable } from './store.ts'

export class Shelf {
  readonly #store: ApprovalStore
  readonly #seal: ApprovalSeal

  constructor(store: ApprovalStore, seal: ApprovalSeal) {
    this.#store = store
    this.#seal = seal
  }

  /** @returns the one that is there now: itself, or the first of the same request; undefined: its agent has too many. */
  async add(record: ApprovalRecord, most: number): Promise<ApprovalRecord | undefined> {
    const added = await this.#store.add(storable(record, this.#seal.close(record)), most)
    if (added === 'full') return undefined
    return 'first' in added ? this.#require(added.first, record) : record
  }

  /** @returns false when another change was first. */
  async change(next: ApprovalRecord): Promise<boolean> {
    return this.#store.change(storable(next, this.#seal.close(next)))
  }

  async inSlot(tenant: string, fingerprint: string, nowMs: number): Promise<ApprovalRecord | undefined> {
    const stored = await this.#store.inSlot(tenant, fingerprint)
    const record = stored && this.#require(stored, { tenant, fingerprint })
    return record && isStanding(record, nowMs) ? record : undefined
  }

  async byId(tenant: string, id: string): Promise<ApprovalRecord | undefined> {
    const stored = await this.#store.byId(tenant, id)
    // Under the id that was asked for, whatever is stored says: a yes to one is a yes to no other.
    return stored && this.#seal.open({ ...stored, tenant, id })
  }

  /** Those that nobody can read count for nothing, so there is nothing to show. */
  async pending(tenant: string): Promise<ApprovalRecord[]> {
    return this.#readable(tenant, await this.#store.pending(tenant))
  }

  async lapsed(tenant: string): Promise<ApprovalRecord[]> {
    return this.#readable(tenant, await this.#store.lapsed(tenant))
  }

  #readable(tenant: string, all: readonly StoredApproval[]): ApprovalRecord[] {
    return all.flatMap((stored) => this.#seal.open({ ...stored, tenant }) ?? [])
  }

  /** Whoever writes to the store may have put another one into the slot. */
  #require(
    stored: StoredApproval,
    { tenant, fingerprint }: Pick<ApprovalRecord, 'tenant' | 'fingerprint'>,
  ): ApprovalRecord {
    const record = this.#seal.open({ ...stored, tenant })
    if (record?.fingerprint === fingerprint) return record
    throw new GatewayError(
      'approval_required',
      'What is stored of the approval was not written by this gateway, so it counts for nothing. Nothing was sent; its operator finds who writes to the store of approvals.',
    )
  }
}
