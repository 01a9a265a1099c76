/** Builders with one override each, for the tests of the room of grants. */
import { createSecretKey, generateKeyPairSync, type KeyObject, randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Spending } from '../../gateway/grant/budget.ts'
import { createGrants, type Grants, type GrantsOptions } from '../../gateway/grant/grants.ts'
import { openSqliteStore } from '../../gateway/grant/store/sqlite.ts'
import type { GrantStore } from '../../gateway/grant/store/store.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import type { Agent, Grant, Human } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { GrantRequest, Instruction, IssuedGrant } from '../../gateway/protocol/instruction.ts'
import type { Inbound, Presented } from '../../gateway/protocol/message.ts'
import { manualClock } from '../rig/clock.ts'

export const ISSUER = 'http://127.0.0.1:8081'
export const human: Human = { iss: 'local:test', sub: 'ana' }
export const triage: Agent = {
  id: 'spiffe://acme.test/agents/triage',
  owner: 'ana@acme.test',
  purpose: 'triage',
  riskTier: 'low',
}
export const billing: Agent = {
  id: 'spiffe://acme.test/agents/billing',
  owner: 'bo@acme.test',
  purpose: 'billing',
  riskTier: 'high',
}
export const newKey = (): KeyObject => generateKeyPairSync('ed25519').privateKey
export const signingKey = newKey()
export const storeKey = createSecretKey(randomBytes(32))

type Open = Extract<Instruction, { kind: 'task.open' }>

/** What a test wants different: of the instruction, or of the request in it. */
export type Changes = Partial<Omit<Open, 'request'>> & GrantRequest

export function opening(changes: Changes = {}): Open {
  const { kind, id, tenant, human: who, agent, purpose, heartbeat, ...request } = changes
  return {
    kind: kind ?? 'task.open',
    id: id ?? uuidv7(),
    tenant: tenant ?? 'acme',
    human: who ?? human,
    agent: agent ?? triage.id,
    purpose: purpose ?? 'triage issue 42',
    ...(heartbeat !== undefined && { heartbeat }),
    request: { scope: 'github:issues.read', ttlS: 900, ...request },
  }
}

export function completing(grant: Grant): Extract<Instruction, { kind: 'task.complete' }> {
  return {
    kind: 'task.complete',
    id: uuidv7(),
    tenant: grant.tenant,
    by: { human },
    task: grant.task.id,
    reason: 'completed',
  }
}

export function presenting(token: string | null, o: { tenant?: string; scheme?: Presented['scheme'] } = {}): Inbound {
  const presented = token === null ? null : { token, scheme: o.scheme ?? 'basic' }
  return { tenant: o.tenant ?? 'acme', presented } as Inbound
}

const dir = mkdtempSync(join(tmpdir(), 'keyless-grants-'))
process.on('exit', () => rmSync(dir, { recursive: true, force: true }))

/** A store of its own, on disk like the real one. */
export function freshStore(clock: Clock = manualClock()): GrantStore {
  return openSqliteStore({ path: join(dir, uuidv7()), clock })
}

const unknown = async (): Promise<never> => {
  throw new Error('no test of this file presents an identity')
}

/** Whoever asks for an identity is not expected. */
export const nobody = { human: unknown, workload: unknown, client: unknown }

export const POLICY_SET = `sha256:${'0'.repeat(64)}`

/** As settings register them. */
export function registry(...agents: readonly Agent[]): ReadonlyMap<string, Agent> {
  return new Map(agents.map((agent) => [agent.id, agent]))
}

export function grantsWith(changes: Partial<GrantsOptions> = {}): Grants {
  const clock = changes.clock ?? manualClock()
  return createGrants({
    tenant: 'acme',
    identities: nobody,
    maxDepth: 3,
    policySet: () => POLICY_SET,
    serveOffline: async () => {
      throw new Error('no test of this file presents an offline grant')
    },
    store: changes.store ?? freshStore(clock),
    issuer: ISSUER,
    signing: { current: signingKey, retired: [] },
    storeKey,
    agents: registry(triage, billing),
    knowsOperation: (pattern) => pattern.startsWith('github:') || pattern.startsWith('openai:'),
    ttl: { defaultS: 900, maxS: 3600 },
    limits: { concurrency: 1024, queue: 1024, queueTimeoutMs: 10_000 },
    heartbeatS: 15,
    clock,
    onEnded: () => {},
    ...changes,
  })
}

/** A grant that is bound to no key, with the handle that stands for it. */
export type Held = IssuedGrant & { readonly handle: string }

export async function openTask(grants: Grants, changes: Changes = {}): Promise<Held> {
  const issued = await grants.perform(await grants.propose(opening(changes)), {})
  if (issued?.handle === undefined) throw new Error('opening a task without a key issues a grant with a handle')
  return { ...issued, handle: issued.handle }
}

export async function endTask(grants: Grants, grant: Grant): Promise<void> {
  await grants.perform(await grants.propose(completing(grant)), {})
}

/** The owner of the socket about a task. */
export function about(grant: Grant, changes: { readonly task?: string; readonly tenant?: string } = {}) {
  return { tenant: grant.tenant, task: grant.task.id, by: { human }, ...changes }
}

export function use(grant: Grant, operation: string, singleUse = true): Spending {
  return {
    grant,
    endpoint: { operation: { name: operation } },
    decision: { obligations: { singleUse, ttlS: undefined }, levels: [] },
  } as unknown as Spending
}
