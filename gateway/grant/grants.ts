/**
 * The room of grants: proposes and performs what the instruction flow asks, says who is calling, and keeps the count of budgets
 * and heartbeats. A grant always has a human, a registered agent and a declared intent; without one it is not made.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Facts } from '../protocol/decision.ts'
import type { Agent, Confirmation, Grant } from '../protocol/grant.ts'
import type { Identities } from '../protocol/identity.ts'
import type { Instruction, IssuedGrant, Mandate, Proposal } from '../protocol/instruction.ts'
import type { Inbound } from '../protocol/message.ts'
import type { Traffic } from '../protocol/meter.ts'
import type { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { Authenticator } from './authenticate.ts'
import { createBudgets, type MOVED, type Spending } from './budget.ts'
import type { Allowance } from './bytes.ts'
import type { AatRoot } from './chain/aat.ts'
import { type Bundle, bundleOf } from './chain/bundle.ts'
import { createFirstSight } from './chain/first-sight.ts'
import { createTokenSeal, SIGN_AGE_MS, type SigningKeys } from './chain/token.ts'
import { type Introspector, introspect } from './introspect.ts'
import { watchClock } from './life/clock-watch.ts'
import { Liveness } from './life/liveness.ts'
import { chainTo, heldGrant, namedGrant } from './life/living.ts'
import { createFacts } from './life/past.ts'
import { perform } from './life/perform.ts'
import { livingTask, mandated } from './life/task.ts'
import { Orders } from './orders/orders.ts'
import { createRevocation, type Revocation } from './orders/revoking.ts'
import { Watch } from './orders/watch.ts'
import { issuing } from './propose/issuing.ts'
import { presentChain } from './propose/present.ts'
import { propose } from './propose/propose.ts'
import type { Room } from './room.ts'
import { type SeatLimits, Seats, type Waiter } from './seats.ts'
import { obeying } from './store/obeying.ts'
import { createRecords, type Records, type TaskRecord } from './store/record.ts'
import type { OrderKeep } from './store/sqlite-orders.ts'
import type { Eventual, GrantStore, StoredTask } from './store/store.ts'

export interface GrantsOptions {
  /** Of the doors: whose grants `holder` and `introspect` look at. */
  readonly tenant: string
  readonly store: GrantStore
  /** This replica's own copy of the orders, where the store is shared. */
  readonly keep?: OrderKeep | undefined
  /** The same of ends that the store did not take. */
  readonly endsKeep?: OrderKeep | undefined
  /** Exact `iss` and `aud` of signed grants: the settings' `public_url`. */
  readonly issuer: string
  readonly signing: SigningKeys
  /** 32 bytes, seals what is stored of grants and tasks. */
  readonly storeKey: KeyObject
  readonly identities: Pick<Identities, 'human' | 'workload' | 'client'>
  /** Registered agents by id, the default one first. Looked at whenever one is asked for: who is not in it any more acts no more. */
  readonly agents: ReadonlyMap<string, Agent>
  /** Does the catalogue have at least one operation under this pattern? */
  knowsOperation(pattern: string): boolean
  readonly ttl: { readonly defaultS: number; readonly maxS: number }
  /** Delegations below a root grant, when it asks for nothing else; none may ask for more. */
  readonly maxDepth: number
  /** Seconds between promised heartbeats; silence of twice that ends a task. */
  readonly heartbeatS: number
  /** Calls of one agent at once. */
  readonly limits: SeatLimits
  /** Digest of the policies in force now. */
  policySet(): string
  /** Whether policies in force now look at earlier calls: tasks that are opened then are counted. Default: none does. */
  countsPast?(): boolean
  readonly clock: Clock
  /** Key of the root token of an AAT chain. Default: nobody is trusted with one. */
  chainKey?(root: AatRoot): KeyObject | undefined | Promise<KeyObject | undefined>
  /** Take one hop of an offline delegation through the flow of instructions, as `grant.present`. */
  serveOffline(token: string, tenant: string): Promise<unknown>
  /** A grant has ended: what was leased under it can go. Failures are the callee's to record. @returns how much that was. */
  onEnded(grant: Grant): number | undefined | Promise<number | undefined>
}

export interface LiveTask {
  readonly task: TaskRecord
  /** Its living grants, oldest first. */
  readonly grants: readonly Grant[]
}

export interface Grants extends Revocation, Facts {
  /** What an instruction that leaves them out gets. `agent` is the first one registered. */
  readonly defaults: { readonly agent: string | undefined; readonly heartbeatS: number }
  /** @see Authenticator.authenticate */
  authenticate(inbound: Inbound): Grant | Promise<Grant>
  /** @see Watch.watch */
  watch(grant: Grant, cut: (why: GatewayError) => void, service?: Service): () => void
  /** @param tell other orders may be in force here. Must not throw. For as long as this room lives. */
  onOrders(tell: () => void): void
  /** @see Seats.take. @throws {GatewayError} what `authenticate` does as well, when the grant ended while it waited. */
  seat(grant: Grant, waiter: Waiter): Eventual<Disposable>
  /** @see Seats.aside */
  aside(grant: Grant): Disposable
  /** @see Budgets.debit */
  debit(permit: Spending): Eventual<Allowance | undefined | typeof MOVED>
  /** @see Budgets.afford */
  afford(permit: Spending): Promise<void>
  /** @see Budgets.settle */
  settle(permit: Spending, traffic: Traffic): void
  /** @throws {GatewayError} whatever is wrong with the instruction, see `propose-….ts` */
  propose(instruction: Instruction): Proposal | Promise<Proposal>
  /** @param receipt proof that the decision is in the log; only its presence counts here. */
  perform(proposal: Proposal, receipt: unknown): Promise<IssuedGrant | null>
  /** A sign of life of a task. @returns the task as it is now. @throws {GatewayError} `task_unknown`, `delegation_refused` */
  heartbeat(i: { readonly tenant: string; readonly task: string; readonly by: Mandate }): Promise<TaskRecord>
  /** Root grants of tasks whose promised heartbeats have stayed away for twice `heartbeatS`. Each is returned to one replica. */
  overdue(): Promise<readonly Grant[]>
  /** Living tasks of a tenant, newest first. */
  list(tenant: string): Promise<readonly TaskRecord[]>
  /** @throws {GatewayError} `task_unknown` */
  task(tenant: string, id: string): Promise<LiveTask>
  /** A living grant by handle, token or id. @throws {GatewayError} `grant_invalid`, `grant_expired`, `grant_revoked`, … */
  named(tenant: string, name: string): Promise<Grant>
  /** A living grant with all above it and their attestations, for whoever verifies it elsewhere. */
  bundle(tenant: string, id: string): Promise<Bundle>
  /** Who presents this, with the keys that were proved along. @throws {GatewayError} as `authenticate` */
  holder(token: string, proof?: Confirmation): Promise<Grant>
  /** RFC 7662 §2.2: `{active: false}` and nothing else for what is dead, unknown, or not for this caller to know. */
  introspect(token: string, by: Introspector): Promise<object>
  /** RFC 7517 key set that verifies signed grants. */
  jwks(): Promise<object>
}

export function createGrants(o: GrantsOptions): Grants {
  const { tenant, agents } = o
  const room = { chainKey: () => undefined, ...o, ...openRoom(o) }
  const { store, records, seal, authenticator, watch, ordered } = room
  const budgets = createBudgets(store)
  const seats = new Seats(o.limits)
  return {
    ...createRevocation(room, tenant),
    ...createFacts(store),
    defaults: {
      get agent() {
        return agents.keys().next().value
      },
      heartbeatS: o.heartbeatS,
    },
    authenticate: (inbound) => authenticator.authenticate(inbound),
    watch: (grant, cut, service) => watch.watch(grant, cut, service),
    onOrders: (tell) => void ordered.push(tell),
    seat(grant, waiter) {
      const seat = seats.take(grant, waiter)
      return seat instanceof Promise ? seat.then((its) => stillLiving(its, grant, room)) : seat
    },
    aside: (grant) => seats.aside(grant),
    debit: (permit) => budgets.debit(permit),
    afford: (permit) => budgets.afford(permit),
    settle: (permit, traffic) => budgets.settle(permit, traffic),
    propose: (i) => issuing(i, room, () => propose(i, room)),
    perform: (p) => perform(p, room),
    async heartbeat(i) {
      const task = await mandated(i, room)
      await store.beat(i.tenant, i.task)
      return task
    },
    overdue: async () => readable(await store.overdue(2000 * o.heartbeatS), records).map(({ root }) => root),
    list: async (of) => readable(await store.tasks(of), records),
    async task(of, id) {
      const task = await livingTask(of, id, room)
      const living = await store.grantsOf(of, id)
      return { task, grants: living.map((stored) => records.open(stored)) }
    },
    named: (of, name) => namedGrant(room, of, name),
    bundle: async (of, id) => bundleOf(await chainTo(room, of, id), seal),
    holder: (token, proof) => heldGrant(room, tenant, { token, proof }),
    introspect: (token, by) => introspect(token, by, tenant, room),
    async jwks() {
      await o.signing.refresh?.(SIGN_AGE_MS) // another replica may have changed the key
      return seal.jwks()
    },
  }
}

/** Who says which grants live: what is presented, what is watched and what is ordered meet here. */
function openRoom(o: GrantsOptions) {
  const { clock, tenant, agents } = o
  const records = createRecords(o.storeKey)
  const seal = createTokenSeal({ issuer: o.issuer, keys: o.signing })
  const clockWatch = watchClock(clock)
  const steady = { nowMs: () => clockWatch.nowMs(), elapsedMs: () => clock.elapsedMs() }
  const ordered: (() => void)[] = []
  const onChange = () => {
    authenticator.forgetOrdered()
    watch.recheck()
    for (const tell of ordered) tell()
  }
  const orders = new Orders({ ...o, key: o.storeKey, clock: steady, onChange })
  const store = obeying(o.store, orders, tenant)
  const liveness = new Liveness(steady)
  liveness.obey((grant) => orders.endOf(grant))
  const present = (token: string, of: string) =>
    presentChain(token, {
      serve: (hop) => o.serveOffline(hop, of),
      isKnown: async (id) => (await store.byId(of, id)) !== undefined,
    })
  const firstSight = createFirstSight({ store, records, seal, issuer: o.issuer })
  const parts = { store, records, seal, agents, clock: steady, liveness, firstSight, present }
  const authenticator = new Authenticator(parts)
  const watch = new Watch({ store, liveness, clock: steady, closureOf: (service) => orders.closureOf(service) })
  // What is heard only says where to look.
  o.store.onChange?.(tenant, (mark) => (mark === undefined ? orders.look() : authenticator.recheck(tenant, mark)))
  return { store, records, seal, authenticator, watch, clockWatch, orders, ordered }
}

/** Records that carry our seal. Others cannot be used by anyone, so there is nothing to show or to end. */
function readable(stored: readonly StoredTask[], records: Records): TaskRecord[] {
  return stored.flatMap((entry) => {
    try {
      return [records.openTask(entry)]
    } catch {
      return []
    }
  })
}

/** It waited for its seat, and its grant may have ended meanwhile. */
async function stillLiving(seat: Disposable, grant: Grant, room: Room): Promise<Disposable> {
  try {
    await namedGrant(room, grant.tenant, grant.id)
    return seat
  } catch (cause) {
    seat[Symbol.dispose]()
    throw cause
  }
}
