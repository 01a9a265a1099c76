/**
 * Emergency access: grants that custodians open while nothing shared can be asked. They live in a store of this gateway alone, are
 * never delegated, and end by themselves within minutes. A request is opened once here, also by two at once and after a crash.
 */
import { createHmac, createSecretKey, hash, type KeyObject } from 'node:crypto'
import type { BreakGlassRequest, Custodian } from '../protocol/break-glass.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Facts } from '../protocol/decision.ts'
import type { Agent, Authority, Grant } from '../protocol/grant.ts'
import type { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { excessOf } from './attenuate/attenuate.ts'
import { Authenticator } from './authenticate.ts'
import { refused, type Sealed, sealersOf } from './break-glass-request.ts'
import { type Budgets, createBudgets } from './budget.ts'
import { lineageHash, rootLineage } from './chain/lineage.ts'
import { type Caller, invalid } from './chain/presented.ts'
import { breakGlassHandle, digestOf } from './handle.ts'
import { watchClock } from './life/clock-watch.ts'
import { Liveness } from './life/liveness.ts'
import { createFacts } from './life/past.ts'
import { marksOf } from './life/task.ts'
import { versionAt } from './orders/order.ts'
import { Watch } from './orders/watch.ts'
import { draftRoot, registered } from './propose/draft.ts'
import { type SeatLimits, Seats, type Waiter } from './seats.ts'
import { createRecords, firstRecord } from './store/record.ts'
import type { Eventual, GrantStore } from './store/store.ts'
import { termsAsked, tooWide } from './terms.ts'

export interface BreakGlassOptions {
  readonly tenant: string
  /** Host name of this gateway, as in its entries. */
  readonly node: string
  readonly custodians: readonly Custodian[]
  /** Different custodians who have to sign, at least 2. */
  readonly threshold: number
  /** The most that can be opened. */
  readonly authority: readonly Authority[]
  /** Seconds, at most 900. */
  readonly maxTtlS: number
  /** Of this gateway alone. */
  readonly store: GrantStore
  /** 32 bytes, the same on all replicas. */
  readonly storeKey: KeyObject
  readonly agents: ReadonlyMap<string, Agent>
  knowsOperation(pattern: string): boolean
  readonly limits: SeatLimits
  readonly clock: Clock
  /** Digest of the policies in force now. */
  policySet(): string
  /** Whether they look at earlier calls: then those of the emergency are counted from its first one on. */
  countsPast(): boolean
  /** What was ordered to end or closed, as far as this gateway knows (`orders.ts`). */
  readonly orders: {
    endOf(grant: Grant): GatewayError | undefined
    closureOf(service: Pick<Service, 'name' | 'credential'>): GatewayError | undefined
  }
}

export interface BreakGlassGrants extends Facts, Budgets {
  /**
   * The grant that would be opened; nothing has happened yet.
   * @throws {GatewayError} `break_glass_refused`, `invalid_scope`, `agent_unknown`, `clock_set_back`, `store_unavailable`
   */
  propose(sealed: Sealed): Grant
  /** Open it, which must be recorded by now. @returns the handle. @throws {GatewayError} `break_glass_refused` when it is already. */
  open(grant: Grant): string
  /** What was opened before this process began and lives. @throws {GatewayError} `store_unavailable` */
  living(): readonly Grant[]
  /** It ends here at once, and then in the store. @throws {GatewayError} `store_unavailable`: it is over all the same. */
  end(grant: Grant, reason: string): void
  /** An order ends it. */
  isRevoked(grant: Grant): boolean
  /** @throws {GatewayError} as `Authenticator.authenticate` */
  authenticate(inbound: Caller): Eventual<Grant>
  watch: Watch['watch']
  seat(grant: Grant, waiter: Waiter): Eventual<Disposable>
}

export function createBreakGlassGrants(o: BreakGlassOptions): BreakGlassGrants {
  const { store, clock, tenant, agents } = o
  // Keys of their own: what the shared store holds can be put into this one by nobody.
  const key = createSecretKey(createHmac('sha256', o.storeKey).update('break glass').digest())
  const records = createRecords(key)
  const clockWatch = watchClock(clock)
  const steady = { nowMs: () => clockWatch.nowMs(), elapsedMs: () => clock.elapsedMs() }
  const liveness = new Liveness(steady)
  const authenticator = new Authenticator({
    ...{ store, records, agents, clock: steady, liveness },
    seal: { verify: () => Promise.reject(invalid('Emergency access is presented as a handle.')) },
    firstSight: () => Promise.reject(invalid('Emergency access is never delegated.')),
  })
  liveness.obey((grant) => o.orders.endOf(grant))
  const watch = new Watch({ store, liveness, clock: steady, closureOf: (service) => o.orders.closureOf(service) })
  const seats = new Seats(o.limits)
  return {
    ...createFacts(store),
    ...createBudgets(store),
    propose(sealed) {
      clockWatch.check()
      const grant = proposed(sealed, o, steady.nowMs())
      if (at(store.byId(tenant, grant.id)) !== undefined) throw openedBefore()
      return grant
    },
    open(grant) {
      const { request } = grant.breakGlass ?? { request: '' }
      const handle = breakGlassHandle(createHmac('sha256', key).update(`handle\n${tenant}\n${request}`).digest())
      at(store.saveTask(records.closeTask(firstRecord(grant, false)), undefined))
      // The grant last, in one step: of two at once one opens it, and a crash before it leaves a task that nobody can use.
      const stored = records.close(grant, { handleDigest: digestOf(handle), marks: marksOf(grant) })
      if (!at(store.create(stored))) throw openedBefore()
      return handle
    },
    living: () =>
      at(store.tasks(tenant))
        .map((task) => records.openTask(task).root)
        .filter(({ id }) => at(store.byId(tenant, id)) !== undefined),
    end(grant, reason) {
      const terms = { reason, untilS: grant.expiresAt }
      authenticator.end(tenant, grant.task.id, terms)
      at(store.end(tenant, grant.task.id, terms))
    },
    isRevoked: (grant) => o.orders.endOf(grant) !== undefined,
    authenticate(inbound) {
      authenticator.forgetOrdered()
      return authenticator.authenticate(inbound)
    },
    watch: (grant, cut, service) => watch.watch(grant, cut, service),
    seat: (grant, waiter) => seats.take(grant, waiter),
  }
}

/** Who signed is looked at first: what nobody vouches for learns nothing of the settings. */
function proposed({ sealed, request }: Sealed, o: BreakGlassOptions, nowMs: number): Grant {
  const custodians = sealersOf(sealed, o.custodians)
  if (custodians.length < o.threshold)
    throw refused(
      `${o.threshold} different custodians have to sign the request, and ${custodians.length} did (${custodians.join(', ') || 'nobody'})`,
    )
  checkPlaceAndTime(request, o, nowMs)
  const { scope, ttl_s: ttlS, who, why } = request
  const agent = registered(request.agent, o.agents)
  const ttl = { defaultS: o.maxTtlS, maxS: o.maxTtlS }
  if (ttlS > o.maxTtlS)
    throw refused(`it asks for ${ttlS} s, and \`break_glass.max_ttl_s\` in the settings allows ${o.maxTtlS} s`)
  const limits = { knowsOperation: o.knowsOperation, ttl, maxDepth: 0 }
  const terms = termsAsked({ scope, ttlS, delegable: false }, limits, nowMs)
  const excess = excessOf(o.authority, terms.authority)
  if (excess.length > 0) throw tooWide('`break_glass.scope` in the settings', excess)
  const human = { iss: 'break-glass', sub: who }
  const id = grantIdOf(request, o.node)
  const task = { id: `task_${id}`, purpose: why, ...(o.countsPast() && { counted: true as const }) }
  // What is ordered from now on ends it, and what was ordered before does not: whoever signed knew of that.
  const issuance = [{ after: versionAt(nowMs), policySet: o.policySet() }]
  const lineage = rootLineage(human, agent.id, id)
  return {
    ...draftRoot({ tenant: o.tenant, human, agent, task }, terms, nowMs),
    ...{ id, lineage, lineageHash: lineageHash(lineage), issuance },
    breakGlass: { request: request.id, digest: `sha256:${hash('sha256', sealed.payload, 'base64url')}`, custodians },
  }
}

function checkPlaceAndTime({ tenant, at: hosts, ...request }: BreakGlassRequest, o: BreakGlassOptions, nowMs: number) {
  if (tenant !== o.tenant) throw refused(`it is of the tenant ${tenant}, and this gateway is of ${o.tenant}`)
  if (hosts !== undefined && !hosts.includes(o.node))
    throw refused(`it may be opened at ${hosts.join(', ')}, and this gateway is ${o.node}`)
  const nowS = nowMs / 1000
  const time = (s: number) => new Date(s * 1000).toISOString()
  if (nowS < request.not_before) throw refused(`it may be opened from ${time(request.not_before)} on`)
  if (nowS >= request.not_after) throw refused(`it could be opened until ${time(request.not_after)}. Ask anew`)
}

/** One grant for one request at one gateway: the store takes an id once. Made as UUIDv7 of the time of the request. */
function grantIdOf({ id, tenant }: BreakGlassRequest, node: string): string {
  const mac = createHmac('sha256', 'break glass').update(`${tenant}\n${id}\n${node}`).digest('hex')
  return `${id.slice(0, 15)}${mac.slice(0, 3)}-a${mac.slice(3, 6)}-${mac.slice(6, 18)}`
}

function openedBefore(): GatewayError {
  return refused('this request was opened here already. A request is good for one opening; ask anew')
}

/** The store of this gateway answers at once. */
function at<T>(answer: Eventual<T>): T {
  if (answer instanceof Promise) throw new TypeError('the store of emergency access must not be a shared one')
  return answer
}
