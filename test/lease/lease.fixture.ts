/** Builders for the lease room: a movable clock, permits made by the real policy room, and a provider that counts. */
import { createSecretKey, type KeyObject, randomBytes, randomUUID } from 'node:crypto'
import type { Receipt } from '../../gateway/audit/entries/event.ts'
import { createMemoryCache } from '../../gateway/lease/cache-memory.ts'
import { createLeases, type Leases } from '../../gateway/lease/leases.ts'
import type { LeaseRooms } from '../../gateway/lease/rooms.ts'
import { type Permit, requirePermit } from '../../gateway/policy/decision.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import type { Outbound } from '../../gateway/protocol/message.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import type { Endpoint, Service, Slot } from '../../gateway/protocol/service.ts'
import { createPlacement } from '../../gateway/provider/placement/placement.ts'
import type { Credential, IssueRequest, Provider } from '../../gateway/provider/provider.ts'
import { ALLOWED, permitted } from '../rig/permitted.ts'

export interface FakeClock extends Clock {
  advance(ms: number): void
  set(ms: number): void
}

export const T0 = Date.UTC(2026, 10, 1)

export function fakeClock(startMs = T0): FakeClock {
  let nowMs = startMs
  return {
    nowMs: () => nowMs,
    elapsedMs: () => nowMs - startMs,
    advance(ms) {
      nowMs += ms
    },
    set(ms) {
      nowMs = ms
    },
  }
}

export const bearer: Slot = { in: 'header', name: 'Authorization', prefix: 'Bearer ' }

export function service(o: Partial<Service> = {}): Service {
  return {
    name: 'billing',
    title: 'Billing',
    hosts: ['api.billing.test'],
    ports: [443],
    scheme: 'https',
    slots: [bearer],
    operations: [],
    addresses: [],
    dialect: 'problem',
    placeholders: {},
    baseUrls: [],
    tools: [],
    credential: 'billing',
    ...o,
  }
}

export function grant(o: Partial<Grant> = {}): Grant {
  return {
    id: randomUUID(),
    tenant: 'default',
    human: { iss: 'https://id.test', sub: 'ana' },
    agent: { id: 'spiffe://test/agent', owner: 'ana', purpose: 'test', riskTier: 'low' },
    task: { id: 'task-1', purpose: 'test' },
    authority: [{ operations: ['billing:*'] }],
    issuedAt: T0 / 1000,
    expiresAt: T0 / 1000 + 900,
    lineage: [],
    lineageHash: 'lineage',
    depth: 0,
    maxDepth: 3,
    delegable: true,
    ancestry: [],
    attestations: [],
    ...o,
  }
}

export function permit(o: { grant?: Grant; service?: Service; ttlS?: number; singleUse?: boolean } = {}): Permit {
  const to = o.service ?? service()
  const operation = {
    id: 'invoices.read',
    name: `${to.name}:invoices.read`,
    access: 'read',
    sensitivity: 'internal',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
  } as const
  const endpoint: Endpoint = {
    service: to,
    operation,
    scheme: to.scheme,
    host: to.hosts[0] ?? '',
    port: 443,
    path: '/v1',
    rawPath: '/v1',
    params: {},
  }
  const obligations = { ttlS: o.ttlS, singleUse: o.singleUse ?? false }
  return requirePermit(o.grant ?? grant(), endpoint, { ...ALLOWED, obligations })
}

export const receipt = { event: 'event', seq: 0 } as unknown as Receipt

export function plain(o: Partial<Outbound> = {}): Outbound {
  return {
    standing: permitted(permit()),
    method: 'GET',
    grant: grant(),
    service: service(),
    scheme: 'https',
    host: 'api.billing.test',
    port: 443,
    path: '/v1',
    headers: ['Accept', 'application/json'],
    body: null,
    isolation: 'default/grant',
    secrets: [],
    ...o,
  }
}

/** An upstream that does not take the credential. */
export const unauthorized = { status: 401, raw: [] } as const

export interface CountingProvider extends Provider {
  readonly requests: IssueRequest[]
  readonly revoked: string[]
  /** What the next issues do; default: a new token each time, valid for `lifeS`. */
  next: (request: IssueRequest, signal: AbortSignal) => Promise<Credential>
}

export function countingProvider(clock: Clock, o: { lifeS?: number; revocable?: boolean } = {}): CountingProvider {
  const placement = createPlacement()
  const run = randomBytes(6).toString('hex')
  const provider: CountingProvider = {
    name: 'counting',
    narrows: 'none',
    identity: 'counting',
    requests: [],
    revoked: [],
    next: async () => ({
      secret: new Secret(`token-${run}-${provider.requests.length}`),
      expiresAt: Math.floor(clock.nowMs() / 1000) + (o.lifeS ?? 3600),
      ephemeral: true,
    }),
    issue(request, signal) {
      provider.requests.push(request)
      return provider.next(request, signal)
    },
    attach: (credential, outbound) => placement.place(credential, outbound),
    derived: (credential, to) => placement.derived(credential, to),
    ...(o.revocable !== false && {
      revoke: async (credential: Credential) => void provider.revoked.push(credential.secret.reveal()),
    }),
  }
  return provider
}

export interface Entry {
  readonly kind: string
  readonly grant: Grant
  readonly fields: Record<string, unknown>
}

export interface LeaseRig {
  readonly leases: Leases
  readonly clock: FakeClock
  readonly provider: CountingProvider
  readonly entries: Entry[]
}

export const sealKey = (): KeyObject => createSecretKey(randomBytes(32))

/** One lease room over an in-process cache, unless told otherwise. */
export function leaseRig(o: Partial<LeaseRooms> & { provider?: CountingProvider; clock?: FakeClock } = {}): LeaseRig {
  const clock = o.clock ?? fakeClock()
  const provider = o.provider ?? countingProvider(clock)
  const entries: Entry[] = []
  const leases = createLeases({
    providers: new Map([['billing', provider]]),
    cache: createMemoryCache({ clock }),
    sealKey: sealKey(),
    record: async (kind, grant, fields) => void entries.push({ kind, grant, fields }),
    ...o,
    clock,
  })
  return { leases, clock, provider, entries }
}

/** Value of a field in a flat header list; undefined when it is not there exactly once. */
export function field(outbound: Outbound, name: string): string | undefined {
  const values = outbound.headers.filter((_, i) => i % 2 === 1 && outbound.headers[i - 1]?.toLowerCase() === name)
  return values.length === 1 ? values[0] : undefined
}
