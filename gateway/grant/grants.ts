/**
 * The room of grants: opens and ends tasks as the instruction flow asks, says who is calling, and keeps the count of single
 * uses and heartbeats. A grant always has a human, a registered agent and a declared intent; without one it is not made.
 */
import type { KeyObject } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Decision } from '../protocol/decision.ts'
import type { Agent, Grant } from '../protocol/grant.ts'
import type { Instruction, IssuedGrant, Proposal } from '../protocol/instruction.ts'
import type { Inbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'
import { Authenticator } from './authenticate.ts'
import { draftGrant } from './draft.ts'
import { digestOf, newHandle } from './handle.ts'
import { createRecords, type Records } from './record.ts'
import type { GrantStore, StoredTask } from './store.ts'
import { marksOf, type TaskRecord } from './task.ts'
import { createTokenSeal, type SigningKeys, TOKEN_LIMIT, type TokenSeal } from './token.ts'

export interface GrantsOptions {
  readonly store: GrantStore
  /** Exact `iss` and `aud` of signed grants: the settings' `public_url`. */
  readonly issuer: string
  readonly signing: SigningKeys
  /** 32 bytes, seals what is stored of grants and tasks. */
  readonly storeKey: KeyObject
  readonly agents: readonly Agent[]
  /** Does the catalogue have at least one operation under this pattern? */
  knowsOperation(pattern: string): boolean
  readonly ttl: { readonly defaultS: number; readonly maxS: number }
  /** Seconds between promised heartbeats; silence of twice that ends a task. */
  readonly heartbeatS: number
  readonly clock: Clock
  /** A grant has ended: what was leased under it can go. Not waited for; failures are the callee's to record. */
  onEnded(grant: Grant): void | Promise<void>
}

/** What `debit` needs of a permit. */
export interface Debit {
  readonly grant: Grant
  readonly endpoint: Endpoint
  readonly decision: Decision
}

export interface LiveTask {
  readonly grant: Grant
  /** Heartbeats were promised. */
  readonly heartbeat: boolean
}

export interface Grants {
  /** What an instruction that leaves them out gets. `agent` is the first one registered. */
  readonly defaults: { readonly agent: string | undefined; readonly ttlS: number; readonly heartbeatS: number }
  /** @see Authenticator.authenticate */
  authenticate(inbound: Inbound): Grant | Promise<Grant>
  /** Spend the use of a single-use operation. @throws {GatewayError} `use_spent`, `store_unavailable` */
  debit(permit: Debit): void | Promise<void>
  /** @throws {GatewayError} `agent_unknown`, `invalid_scope`, `instruction_invalid`, `task_unknown`, `store_unavailable` */
  propose(instruction: Instruction): Proposal | Promise<Proposal>
  /** @param receipt proof that the decision is in the log; only its presence counts here. */
  perform(proposal: Proposal, receipt: unknown): Promise<IssuedGrant | null>
  /** A sign of life. @returns the grant's expiry, epoch seconds. @throws {GatewayError} `task_unknown` */
  heartbeat(taskId: string, tenant: string): Promise<{ readonly expiresAt: number }>
  /** Living grants whose promised heartbeats have stayed away for twice `heartbeatS`. Each is returned to one replica. */
  overdue(): Promise<readonly Grant[]>
  /** Living tasks of a tenant, newest first. */
  list(tenant: string): Promise<readonly LiveTask[]>
  /** RFC 7517 key set that verifies signed grants. */
  jwks(): object
}

export function createGrants(o: GrantsOptions): Grants {
  const agents = new Map(o.agents.map((agent) => [agent.id, agent]))
  const records = createRecords(o.storeKey)
  const seal = createTokenSeal({ issuer: o.issuer, keys: o.signing })
  const authenticator = new Authenticator({ store: o.store, records, seal, agents, clock: o.clock })
  const rooms = { ...o, records, seal, authenticator }
  return {
    defaults: { agent: o.agents[0]?.id, ttlS: o.ttl.defaultS, heartbeatS: o.heartbeatS },
    authenticate: (inbound) => authenticator.authenticate(inbound),
    debit: (permit) => debit(o.store, permit),
    propose: (i) => {
      if (i.kind === 'task.open') return proposeOpen(i, agents, o)
      if (i.kind === 'task.complete') return proposeComplete(i, rooms)
      throw new TypeError(`no such instruction: ${i.kind}`)
    },
    perform: (p) => {
      if (p.kind === 'task.open') return open(p, rooms)
      if (p.kind === 'task.complete') return complete(p, rooms)
      throw new TypeError(`no such proposal: ${p.kind}`)
    },
    async heartbeat(taskId, tenant) {
      const { root } = await livingTask(tenant, taskId, rooms)
      await o.store.beat(tenant, taskId)
      return { expiresAt: root.expiresAt }
    },
    overdue: async () => readable(await o.store.overdue(2000 * o.heartbeatS), records).map(({ root }) => root),
    list: async (tenant) =>
      readable(await o.store.tasks(tenant), records).map(({ root, watched }) => ({ grant: root, heartbeat: watched })),
    jwks: () => seal.jwks(),
  }
}

interface Rooms extends GrantsOptions {
  readonly records: Records
  readonly seal: TokenSeal
  readonly authenticator: Authenticator
}

function debit(store: GrantStore, { grant, endpoint, decision }: Debit): void | Promise<void> {
  if (!decision.obligations.singleUse) return
  const operation = endpoint.operation.name
  const settle = (isMine: boolean) => {
    if (isMine) return
    throw new GatewayError(
      'use_spent',
      `${operation} may be used once under a grant, and grant ${grant.id} has used it. Ask for a new grant to use it again.`,
    )
  }
  const name = `${grant.id}/once/${operation}`
  const answer = store.spend(grant.tenant, [{ name, kind: 'count', limit: 1, by: 1, untilS: grant.expiresAt }])
  return answer instanceof Promise ? answer.then((i) => settle(i === -1)) : settle(answer === -1)
}

type Open = Extract<Instruction, { kind: 'task.open' }>
type Complete = Extract<Instruction, { kind: 'task.complete' }>

function proposeOpen(i: Open, agents: ReadonlyMap<string, Agent>, o: GrantsOptions): Proposal {
  const grant = draftGrant(i, {
    agents,
    knowsOperation: o.knowsOperation,
    defaultTtlS: o.ttl.defaultS,
    maxTtlS: o.ttl.maxS,
    nowMs: o.clock.nowMs(),
  })
  const { authority, agent } = grant
  return {
    kind: 'task.open',
    grant,
    authority,
    agent,
    ttlS: grant.expiresAt - grant.issuedAt,
    heartbeat: i.heartbeat === true,
  }
}

async function proposeComplete(i: Complete, rooms: Rooms): Promise<Proposal> {
  return { kind: 'task.complete', grant: (await livingTask(i.tenant, i.task, rooms)).root, reason: i.reason }
}

async function open(p: Extract<Proposal, { kind: 'task.open' }>, rooms: Rooms): Promise<IssuedGrant> {
  const { token, signedHash } = await rooms.seal.sign(p.grant)
  const grant = { ...p.grant, signedHash }
  if (token.length > TOKEN_LIMIT)
    throw new GatewayError(
      'invalid_scope',
      'The scope is too long for a signed grant. Name fewer operations, or patterns that cover them.',
    )
  const handle = newHandle()
  // The grant last: a crash before it leaves a task that nobody can use.
  await rooms.store.saveTask(rooms.records.closeTask(recordOf(grant, p.heartbeat === true)), undefined)
  await rooms.store.create(rooms.records.close(grant, { handleDigest: digestOf(handle), marks: marksOf(grant) }))
  return { grant, handle, token }
}

function recordOf(root: Grant, watched: boolean): TaskRecord {
  const { task, tenant, authority, issuedAt, expiresAt } = root
  return {
    id: task.id,
    tenant,
    root,
    ceiling: authority,
    state: 'active',
    watched,
    createdAt: issuedAt,
    expiresAt,
    version: 0,
  }
}

async function complete(p: Extract<Proposal, { kind: 'task.complete' }>, rooms: Rooms): Promise<null> {
  const { grant } = p
  const end = { reason: p.reason, untilS: grant.expiresAt }
  rooms.authenticator.end(grant.tenant, grant.task.id, end) // first: whatever becomes of the store, it is over here
  void Promise.resolve(rooms.onEnded(grant)).catch(() => {})
  await rooms.store.end(grant.tenant, grant.task.id, end)
  return null
}

/** @throws {GatewayError} `task_unknown` for a task that never was, has expired or has ended. */
async function livingTask(tenant: string, taskId: string, rooms: Rooms): Promise<TaskRecord> {
  const stored = await rooms.store.task(tenant, taskId)
  if (stored === undefined) throw unknown('There is no such task.')
  if (stored.ended !== undefined) throw unknown(`The task has ended (${stored.ended.replace('_', ' ')}).`)
  const task = rooms.records.openTask(stored)
  if (task.id !== taskId || task.tenant !== tenant) throw unknown('The store has another task in its place.')
  if (task.expiresAt * 1000 <= rooms.clock.nowMs()) throw unknown('The task has expired.')
  return task
}

function unknown(what: string): GatewayError {
  return new GatewayError('task_unknown', `${what} \`keyless task list\` shows the tasks that are alive.`)
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
