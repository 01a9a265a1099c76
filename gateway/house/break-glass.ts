/**
 * The part of the composition root for emergencies: access that custodians open while Redis, the identity provider or the log is down.
 * It has a store, leases and a journal of its own and shares with the rest only what needs nobody: policies, services, credentials.
 * Without the setting none of it exists.
 */
import { createHmac, createSecretKey } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { Audit } from '../audit/audit.ts'
import type { Aside } from '../audit/entries/aside.ts'
import { Journal } from '../audit/files/journal.ts'
import { foundInLog } from '../audit/files/journal-found.ts'
import { type BreakGlassGrants, createBreakGlassGrants } from '../grant/break-glass.ts'
import { isBreakGlassHandle } from '../grant/handle.ts'
import { openSqliteStore } from '../grant/store/sqlite.ts'
import type { InstructionRooms } from '../instruction.ts'
import type { Leases } from '../lease/leases.ts'
import type { BreakGlassDoor } from '../protocol/break-glass.ts'
import type { Clock } from '../protocol/clock.ts'
import type { Agent, Grant, Human } from '../protocol/grant.ts'
import type { Inbound } from '../protocol/message.ts'
import { asGatewayError, type ProblemCode } from '../protocol/problem.ts'
import type { RequestRooms } from '../request-rooms.ts'
import type { Keys } from '../settings/keys.ts'
import type { Settings } from '../settings.ts'
import { auditDir } from './audit.ts'
import { Emergency, say } from './break-glass-open.ts'
import { approvedByCustodians } from './break-glass-terms.ts'

export interface HouseBreakGlass extends BreakGlassDoor {
  readonly isOpen: boolean
  /** One sentence for each thing that would take it down with what it is for. */
  readonly warnings: readonly string[]
  readonly gauges: readonly Gauge[]
  watch: BreakGlassGrants['watch']
  /** The handle is known to others: end what it opens here. @returns whether it was open. @throws {GatewayError} where nobody can say. */
  leaked(handle: string, by: Human): Promise<boolean>
  /** The rooms of a call, with those of an emergency in their place for the grants of one. */
  around(rooms: RequestRooms): RequestRooms
  dispose(): Promise<void>
}

/** As `metrics.add` takes them. */
interface Gauge {
  readonly name: string
  readonly help: string
  readonly isCounter?: boolean
  read(): number
}

export interface BreakGlassParts {
  readonly audit: Pick<Audit, 'beside' | 'record'>
  readonly keys: Pick<Keys, 'store' | 'record'>
  readonly clock: Clock
  readonly policy: InstructionRooms['policy'] & { readonly digest: string; readonly countsPast: boolean }
  readonly orders: Parameters<typeof createBreakGlassGrants>[0]['orders']
  readonly catalogue: { knows(pattern: string): boolean }
  readonly agents: ReadonlyMap<string, Agent>
  /** Leases that share nothing with other gateways. */
  leasesApart(o: { readonly custodyFile: string; record: Aside['recordUnder'] }): Leases
}

/** What is said of a handle that opens nothing here, or nothing any more. */
const NOT_OPEN: ReadonlySet<ProblemCode> = new Set([
  'break_glass_refused',
  'grant_expired',
  'grant_invalid',
  'grant_revoked',
])

/** @returns undefined without the setting. @throws {Error} when its directory cannot be used. */
export async function openHouseBreakGlass(
  settings: Settings,
  parts: BreakGlassParts,
): Promise<HouseBreakGlass | undefined> {
  const { breakGlass, tenant, limits } = settings
  if (breakGlass === undefined) return undefined
  const { keys, clock, audit, catalogue, agents } = parts
  const { journalDir } = breakGlass
  const key = createSecretKey(createHmac('sha256', keys.record).update('break-glass journal').digest())
  await using opening = new AsyncDisposableStack()
  const journal = opening.adopt(await Journal.open(journalDir, key), (room) => room.close())
  if (journal.began) journal.handOver(await foundInLog(auditDir(settings), journal.began))
  const aside = audit.beside(journal, ({ n, mac, kind }) =>
    say(`the log cannot be written; the journal has ${kind} as entry ${n}, ${mac}`),
  )
  const store = opening.adopt(openSqliteStore({ path: join(journalDir, 'state.sqlite'), clock }), (room) =>
    room.close(),
  )
  const grants = createBreakGlassGrants({
    ...{ tenant, node: hostname(), store, storeKey: keys.store, agents, limits, clock },
    ...breakGlass,
    knowsOperation: (pattern) => catalogue.knows(pattern),
    policySet: () => parts.policy.digest,
    countsPast: () => parts.policy.countsPast,
    orders: parts.orders,
  })
  const custodyFile = join(journalDir, 'credentials.sqlite')
  const leases = opening.adopt(parts.leasesApart({ custodyFile, record: aside.recordUnder.bind(aside) }), (room) =>
    room.close(),
  )
  const { threshold } = breakGlass
  const emergency = new Emergency({ ...parts, threshold, tenant, aside, journal, grants, leases })
  opening.defer(() => emergency.stop())
  await emergency.begin()
  const warnings = await warningsOf(settings, journalDir)
  const opened = opening.move()
  return {
    open: (sealed, by) => emergency.open(sealed, by),
    close: (id, by) => emergency.close(id, by),
    status: () => emergency.status(),
    async leaked(handle, by) {
      try {
        const { id } = await grants.authenticate({ tenant, presented: { token: handle, scheme: 'bearer' } })
        await emergency.close(id, by)
        return true
      } catch (cause) {
        if (NOT_OPEN.has(asGatewayError(cause).code)) return false
        throw cause
      }
    },
    get isOpen() {
      return emergency.isOpen
    },
    warnings,
    gauges: gaugesOf(emergency, journal),
    watch: (grant, cut, service) => grants.watch(grant, cut, service),
    around: (rooms) => around(rooms, { emergency, aside, grants, leases }),
    dispose: () => opened.disposeAsync(),
  }
}

interface OwnRooms {
  readonly emergency: Emergency
  readonly aside: Aside
  readonly grants: BreakGlassGrants
  readonly leases: Leases
}

/** What a call of an emergency meets in place of what others share. */
function around(rooms: RequestRooms, { emergency, aside, grants, leases }: OwnRooms): RequestRooms {
  const of = (grant: Grant) => (grant.breakGlass === undefined ? rooms.grants : grants)
  return {
    ...rooms,
    audit: {
      openCall: (inbound) => (isOurs(inbound) ? aside.openCall(inbound) : rooms.audit.openCall(inbound)),
      turnedAway: (why) => rooms.audit.turnedAway?.(why),
    },
    grants: {
      ...rooms.grants,
      authenticate: (inbound) => (isOurs(inbound) ? grants.authenticate(inbound) : rooms.grants.authenticate(inbound)),
      seat: (grant, reply) => of(grant).seat(grant, reply),
      debit: (permit) => of(permit.grant).debit(permit),
      // Nobody is asked here, and it is spent at once.
      afford: async (call) => (call.grant.breakGlass === undefined ? rooms.grants.afford(call) : undefined),
      settle: (permit, traffic) => of(permit.grant).settle(permit, traffic),
      past: (grant) => of(grant).past(grant),
      left: (grant, levels) => of(grant).left(grant, levels),
    },
    approvals: {
      // Who would be asked may be as far away as the rest.
      sought: (call, sinceMs) =>
        call.grant.breakGlass === undefined ? rooms.approvals.sought(call, sinceMs) : Promise.resolve(true),
      approved: (call) =>
        call.grant.breakGlass === undefined ? rooms.approvals.approved(call) : approvedByCustodians(call),
    },
    leases: {
      acquire: (permit, receipt, inbound) => {
        if (permit.grant.breakGlass === undefined) return rooms.leases.acquire(permit, receipt, inbound)
        emergency.used(permit.grant, `${permit.endpoint.operation.name} at ${permit.endpoint.host}`)
        return leases.acquire(permit, receipt, inbound)
      },
    },
  }
}

function isOurs({ presented }: Inbound): boolean {
  return presented !== null && isBreakGlassHandle(presented.token)
}

function gaugesOf(emergency: Emergency, journal: Journal): readonly Gauge[] {
  const gauge = (name: string, help: string, read: () => number) => ({ name, help, read })
  const counter = (name: string, help: string, read: () => number) => ({ name, help, read, isCounter: true })
  return [
    gauge('keyless_break_glass_open', '1 while emergency access is open here.', () => Number(emergency.isOpen)),
    gauge('keyless_break_glass_journal_entries', 'Entries that only the journal has.', () => journal.pending),
    counter('keyless_break_glass_opened_total', 'Openings of emergency access.', () => emergency.total.opened),
    counter('keyless_break_glass_calls_total', 'Calls under emergency access.', () => emergency.total.uses),
  ]
}

async function warningsOf({ dataDir }: Settings, journalDir: string): Promise<string[]> {
  const [journal, data] = await Promise.all([stat(journalDir), stat(dataDir)])
  if (journal.dev !== data.dev) return []
  return [
    `break_glass.journal (${journalDir}) is on the same file system as data_dir: a full disk takes emergency access along. Name a directory on another disk.`,
  ]
}
