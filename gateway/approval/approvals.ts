/**
 * The room of approvals: finds or asks for the consent that a request takes, holds the request while a human makes up their mind, and
 * lets it take the consent up, exactly once over all replicas. A time that runs out is nobody's no.
 */
import type { ApprovalFacts, Approvals, ApprovalView, Approved } from '../protocol/approval.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Grant, Human } from '../protocol/grant.ts'
import { Deciding } from './deciding.ts'
import type { Subject } from './fingerprint.ts'
import { Holding } from './holding.ts'
import type { People } from './people.ts'
import { refusals } from './refusals.ts'
import type { ApprovalSeal } from './seal.ts'
import { type Asked, type Facts, Seeking, type Wait } from './seeking.ts'
import { Shelf } from './shelf.ts'
import type { ApprovalStore } from './store.ts'

export interface ApprovalsOptions {
  readonly tenant: string
  readonly store: ApprovalStore
  readonly seal: ApprovalSeal
  readonly people: People
  readonly clock: Clock
  /** Milliseconds that an approval can be decided, and once it is, taken up. */
  readonly lifeMs: number
  /** Pending ones of one agent, and of one task. */
  readonly maxPending: number
  /** Where the holder of the grant asks how it stands. */
  statusUrl(id: string): string
  /** What happens is in the log when this resolves. @throws {GatewayError} `audit_unavailable` */
  readonly log: {
    under(kind: 'approval.requested' | 'approval.used', grant: Grant, facts: Facts): Promise<unknown>
    decided(who: { readonly tenant: string; readonly human: Human }, facts: Facts): Promise<unknown>
    expired(tenant: string, facts: Facts): Promise<unknown>
  }
  /** Whether the agent, and its task, may ask humans once more now; counts it. */
  paced(grant: Grant): boolean | Promise<boolean>
  /** Whether whoever asked could still use it. */
  isWanted(facts: ApprovalFacts, tenant: string): Promise<boolean>
}

export interface ApprovalRoom extends Approvals {
  /**
   * Have it approved: find the approval of this very request, or ask for one, and wait.
   * @param wait absent: it does not wait.
   * @returns true when it can be taken up; false when time has passed, and everything has to be asked anew, this included.
   * @throws {GatewayError} `approval_required`, `approval_denied`, `approval_expired`, `too_many_requests`; why its grant ended
   */
  seek(asked: Asked, wait?: Wait): Promise<boolean>
  /** Take it up. Asks for nothing. @throws {GatewayError} as `seek`; `approval_required` also when another call was first. */
  take(asked: Asked): Promise<Approved>
  /** As it stands in the log. */
  fingerprint(asked: Subject): string
  /** Policies have changed: what waits has to be decided again. */
  reconsider(): void
  /** Calls that wait here, and what their bodies take. */
  readonly held: { readonly calls: number; readonly bytes: number }
  /** @returns undefined for one that this grant has no business with. */
  ofGrant(grant: Grant, id: string): Promise<ApprovalView | undefined>
  close(): Promise<void>
}

/** Between two looks for those whose time has run out. */
const SWEEP_MS = 5_000

export function createApprovals(o: ApprovalsOptions): ApprovalRoom {
  const { store, tenant, log } = o
  const shelf = new Shelf(store, o.seal)
  const holding = new Holding()
  const parts = { ...o, shelf, holding, say: refusals(o) }
  const seeking = new Seeking({
    ...parts,
    count: (of, agent) => store.count(of, agent),
    record: (kind, grant, facts) => log.under(kind, grant, facts),
  })
  const deciding = new Deciding({
    ...parts,
    isWanted: (facts, of) => o.isWanted(facts, of),
    recordDecided: (who, facts) => log.decided(who, facts),
    recordExpired: (of, facts) => log.expired(of, facts),
  })
  const timers = new Set<NodeJS.Timeout>()
  let stop = () => {}
  const begin = once(() => {
    stop = store.onChange((of, id) => holding.wake(`${of} ${id}`))
    timers.add(setInterval(() => void deciding.lapse(tenant).catch(() => undefined), SWEEP_MS).unref()) // the next round tries again
    // Where replicas share a store, a message may get lost between them.
    if (store.lookMs !== undefined) timers.add(setInterval(() => holding.wakeAll(false), store.lookMs).unref())
  })
  return {
    seek(asked, wait) {
      begin()
      return seeking.seek(asked, wait)
    },
    take: (asked) => seeking.take(asked),
    fingerprint: (asked) => seeking.fingerprint(asked),
    pending(of) {
      begin()
      return deciding.pending(of)
    },
    get: (of, id) => deciding.get(of, id),
    hindrance: (view, human) => deciding.hindrance(view, human),
    decide: (of, id, verdict, by) => deciding.decide(of, id, verdict, by),
    reconsider: () => holding.wakeAll(true),
    get held() {
      return { calls: holding.size, bytes: holding.bytes }
    },
    async ofGrant({ tenant: of, task, agent }, id) {
      const view = await deciding.get(of, id)
      return view?.facts.task.id === task.id && view.facts.agent.id === agent.id ? view : undefined
    },
    async close() {
      for (const timer of timers) clearInterval(timer)
      stop()
      await store.close()
    },
  }
}

/** Nothing runs before it is needed. */
function once(work: () => void): () => void {
  let isDone = false
  return () => {
    if (isDone) return
    isDone = true
    work()
  }
}
