/**
 * An order taking effect, after it is in the log: in force here first, then everywhere; then what lived under it is ended by name, so
 * that it stays ended when the order is forgotten, and what was leased under it goes.
 */
import type { Grant } from '../../protocol/grant.ts'
import { asGatewayError, type GatewayError } from '../../protocol/problem.ts'
import type { Block, RevocationTarget, SignalWord } from '../../protocol/revocation.ts'
import type { Service } from '../../protocol/service.ts'
import { endableGrant, isGrantId } from '../life/living.ts'
import { endMark } from '../life/perform.ts'
import { livingTask } from '../life/task.ts'
import type { Room } from '../room.ts'
import type { OrderKeep } from '../store/sqlite-orders.ts'
import type { StoredGrant, StoredTask } from '../store/store.ts'
import type { OrderTarget } from './order.ts'
import type { Orders } from './orders.ts'
import { Sweeps } from './sweeps.ts'
import { type EndTarget, UnstoredEnds } from './unstored.ts'

/** Where one process has the store to itself: then it is looked once more only because that could not be written. */
const SWEEP_MS = 2_000
/** How many tasks are looked at together. */
const AT_ONCE = 32

/** Why a grant or task is over, as the store has it. */
interface Revoking {
  /** UUIDv7 */
  readonly id: string
  /** For the list of what is blocked. */
  readonly reason: string
  /** As `RevocationOrder.untilS`, decided. */
  readonly untilS?: number | null | undefined
  /** Undefined: it is not a signal that says so. */
  readonly signal?: SignalWord | undefined
}

interface Ended {
  readonly tasks: number
  readonly grants: number
  /** Credentials that were leased under them. */
  readonly leases: number
}

export interface Revocation {
  /**
   * Whether anything is in force, as far as this process knows, that a call would have to be refused for; its grant was looked at when it
   * came. @throws {GatewayError} `access_blocked`, `grant_revoked`
   */
  requireOpen(grant: Grant, service: Pick<Service, 'name' | 'credential'>): void
  /** @see Orders.endOf */
  endOf(grant: Grant): GatewayError | undefined
  /** @see Orders.closureOf */
  closureOf(service: Pick<Service, 'name' | 'credential'>): GatewayError | undefined
  /** @param name of a credential in the settings. @throws {GatewayError} `access_blocked` */
  requireOpenCredential(name: string): void
  /**
   * End what lives under the target, and refuse what comes anew where it says so. In force here at once, whatever is thrown.
   * @throws {GatewayError} `store_unavailable`: others may not know of it yet, and are told when that is possible; `grant_invalid`,
   *   `grant_revoked`, `task_unknown`
   */
  revoke(target: RevocationTarget, o: Revoking): Promise<Ended & { readonly untilS?: number | null }>
  /**
   * Id of the grant that an order names by its id, handle or token: the only name that may be recorded.
   * @throws {GatewayError} `grant_invalid`, `grant_revoked`, `store_unavailable`
   */
  idOf(name: string): Promise<string>
  /** @see Orders.blocked. Another replica may just have blocked it. */
  blocked(target: OrderTarget, signal?: SignalWord): Promise<{ readonly id: string }>
  /** @see Orders.lift */
  lift(target: OrderTarget, id: string): Promise<void>
  blocks(): readonly Block[]
  /** Ends and orders that are in force here and not in the store yet: other replicas may not know of them. */
  unstored(): number
  /** Before the store is closed. */
  close(): void
}

type Ordering = Room & { readonly orders: Orders; readonly endsKeep?: OrderKeep | undefined }

/** @param tenant whose orders they are. */
export function createRevocation(room: Ordering, tenant: string): Revocation {
  const { orders } = room
  const unstored = new UnstoredEnds({
    ...{ tenant, keep: room.endsKeep, clock: room.clock },
    hold: (id, untilS) => room.authenticator.end(tenant, id, { reason: 'revoked', untilS }),
    end: (target) => endNamed(tenant, target, room),
  })
  const again = new Sweeps({
    afterMs: isShared(room) ? 2 * room.store.trustMs : SWEEP_MS,
    isWaiting: () => orders.unstored > 0,
    sweep: () => sweep(tenant, room),
  })
  return {
    requireOpen(grant, service) {
      const why = orders.closureOf(service) ?? orders.endOf(grant)
      if (why !== undefined) throw why
    },
    endOf: (grant) => orders.endOf(grant),
    closureOf: (service) => orders.closureOf(service),
    requireOpenCredential(credential) {
      const why = orders.closureOf({ name: '', credential })
      if (why !== undefined) throw why
    },
    async revoke(target, how) {
      if (!('grant' in target) && !('task' in target)) return orderEnd(tenant, { ...how, target }, { room, again })
      try {
        return await endNamed(tenant, target, room)
      } catch (cause) {
        const isNamed = 'task' in target || isGrantId(target.grant) // whose handle it is only the store knows
        if (isNamed && asGatewayError(cause).code === 'store_unavailable') unstored.add(target)
        throw cause
      }
    },
    idOf: async (name) => (isGrantId(name) ? name : (await endableGrant(room, tenant, name)).id),
    async blocked(target, signal) {
      await orders.current()
      return orders.blocked(target, signal)
    },
    lift: (target, id) => orders.lift(target, id),
    blocks: () => orders.blocks(),
    unstored: () => unstored.size + orders.unstored,
    close() {
      again.close()
      unstored.close()
      orders.close()
    },
  }
}

/** @throws {GatewayError} `store_unavailable`, and when there is nothing to end: `grant_invalid`, `grant_revoked`, `task_unknown`, … */
async function endNamed(tenant: string, target: EndTarget, room: Room): Promise<Ended> {
  if ('grant' in target) return endGrant(await endableGrant(room, tenant, target.grant), room)
  return endGrant((await livingTask(tenant, target.task, room)).root, room)
}

/** One grant, or a task by its root grant: with everything below it, for good. @throws {GatewayError} `store_unavailable` */
async function endGrant(grant: Grant, room: Room): Promise<Ended> {
  const isTask = grant.depth === 0
  const o = { grant, reason: 'revoked' }
  const task = isTask
    ? await Promise.resolve(room.store.task(grant.tenant, grant.task.id)).catch(() => undefined)
    : undefined
  const untilS = Math.max(grant.expiresAt, task?.expiresAt ?? 0)
  const ended = await endMark(isTask ? grant.task.id : grant.id, o, room, untilS)
  return { tasks: isTask ? 1 : 0, grants: ended.length, leases: await letGo(ended, room) }
}

/**
 * Everything under a target. In force on this replica when this is called, whatever becomes of it.
 * @throws {GatewayError} `store_unavailable` when others may not know of it yet.
 */
async function orderEnd(
  tenant: string,
  order: Revoking & { readonly target: OrderTarget },
  { room, again }: { readonly room: Ordering; readonly again: Sweeps },
): Promise<Ended & { readonly untilS?: number | null }> {
  try {
    const { untilS } = await room.orders.give(order)
    const ended = await sweep(tenant, room)
    // What another replica made in the moment in which it did not know yet is dead; its credentials go then.
    if (isShared(room)) again.later()
    return { ...ended, ...(untilS !== undefined && { untilS }) }
  } catch (cause) {
    again.later() // what lives is refused everywhere once the order is stored; its credentials go then
    throw cause
  }
}

function isShared({ store }: Pick<Room, 'store'>): boolean {
  return store.trustMs !== Number.POSITIVE_INFINITY
}

/** End by name whatever an order ends. */
async function sweep(tenant: string, room: Ordering): Promise<Ended> {
  const tasks = await room.store.tasks(tenant)
  let sum = NOTHING
  for (let at = 0; at < tasks.length; at += AT_ONCE) {
    const some = await Promise.all(tasks.slice(at, at + AT_ONCE).map((task) => sweepTask(task, room)))
    sum = [sum, ...some].reduce(added)
  }
  return sum
}

async function sweepTask(stored: StoredTask, room: Ordering): Promise<Ended> {
  const root = attempt(() => room.records.openTask(stored).root)
  if (root === undefined) return NOTHING // nobody can use it
  if (room.orders.endOf(root) !== undefined) return endGrant(root, room)
  let sum = NOTHING
  const gone = new Set<string>()
  for (const one of await room.store.grantsOf(stored.tenant, stored.id)) {
    const grant = attempt(() => room.records.open(one))
    if (grant === undefined || one.marks.some((mark) => gone.has(mark))) continue
    if (room.orders.endOf(grant) === undefined) continue
    gone.add(grant.id)
    sum = added(sum, grant.depth === 0 ? await endOld(grant, room) : await endGrant(grant, room))
  }
  return sum
}

/** A root grant that was renewed lives on beside the one that took its place, whose task goes on. */
async function endOld(grant: Grant, room: Room): Promise<Ended> {
  const ended = await endMark(grant.id, { grant, reason: 'revoked' }, room)
  return { tasks: 0, grants: ended.length, leases: await letGo(ended, room) }
}

async function letGo(grants: readonly StoredGrant[], room: Room): Promise<number> {
  const counts = await Promise.all(
    grants.map(async (stored) => {
      const grant = attempt(() => room.records.open(stored))
      return grant === undefined ? 0 : ((await room.onEnded(grant)) ?? 0)
    }),
  )
  return counts.reduce((sum, count) => sum + count, 0)
}

const NOTHING: Ended = { tasks: 0, grants: 0, leases: 0 }

function added(a: Ended, b: Ended): Ended {
  return { tasks: a.tasks + b.tasks, grants: a.grants + b.grants, leases: a.leases + b.leases }
}

function attempt<T>(work: () => T): T | undefined {
  try {
    return work()
  } catch {
    return undefined
  }
}
