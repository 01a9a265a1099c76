/**
 * The composition root: builds each room once and hands each the few methods it needs. Nothing else in the house knows more
 * than its neighbours' shapes.
 */

import type { Redis } from 'ioredis'
import type { Audit } from './audit/audit.ts'
import type { Personal } from './audit/personal/personal.ts'
import type { Metrics } from './control/records/metrics.ts'
import type { Grants } from './grant/grants.ts'
import { type HouseApprovals, openHouseApprovals } from './house/approvals.ts'
import { type HouseApprovers, openHouseApprovers } from './house/approvers.ts'
import { auditDir, bodyHashesOf, recordSettings } from './house/audit.ts'
import { type HouseBreakGlass, openHouseBreakGlass } from './house/break-glass.ts'
import type { HouseConnect } from './house/connect.ts'
import { openHouseCredentials } from './house/credentials.ts'
import { openTelling } from './house/export.ts'
import { openHouseGrants } from './house/grants.ts'
import { type Ground, type Outlook, openGround } from './house/ground.ts'
import { baitsOf, type HouseLeaks, openHouseLeaks } from './house/leaks.ts'
import type { LetterParts } from './house/letters.ts'
import { gaugesOf, gaugesOfEnds, gaugesOfHeld } from './house/metrics.ts'
import type { HousePolicy } from './house/policy.ts'
import { gaugesOfPolicy } from './house/policy-metrics.ts'
import { type HouseRecords, openHouseRecords } from './house/records.ts'
import { openRefusals } from './house/refusals.ts'
import { createHouseRevocation, type HouseRevocation } from './house/revocation.ts'
import type { HouseSealed } from './house/sealed.ts'
import { type HouseSignals, openHouseSignals } from './house/signals.ts'
import type { Witnesses } from './house/witness.ts'
import type { CertificateAuthority } from './ingress/certificate.ts'
import { type InstructionRooms, serveInstruction } from './instruction.ts'
import type { Leases } from './lease/leases.ts'
import type { Catalogue } from './policy/catalogue/catalogue.ts'
import type { LivePolicy } from './policy/source/live.ts'
import type { Clock } from './protocol/clock.ts'
import { uuidv7 } from './protocol/id.ts'
import type { Identities } from './protocol/identity.ts'
import type { PublishedAssertions } from './provider/assertions.ts'
import type { Exports } from './records/export/exports.ts'
import type { RequestRooms } from './request-rooms.ts'
import type { Keys } from './settings/keys.ts'
import type { Settings } from './settings.ts'
import { createUpstream, type Upstream } from './upstream/forward.ts'

export interface House extends RequestRooms, InstructionRooms {
  readonly approvers: HouseApprovers
  readonly approvals: HouseApprovals['flow']
  readonly approval: HouseApprovals['room']
  readonly assertions: PublishedAssertions
  readonly audit: Audit
  readonly catalogue: Catalogue
  readonly exports: Exports
  readonly grants: Grants
  readonly identities: Identities
  readonly policy: LivePolicy
  readonly policies: HousePolicy
  readonly leases: Leases
  readonly upstream: Upstream
  readonly authority: CertificateAuthority
  readonly keys: Keys
  readonly metrics: Metrics
  readonly personal: Personal
  readonly witnesses: Witnesses
  readonly redis: Redis | undefined
  /** Undefined: no emergency access. */
  readonly breakGlass: HouseBreakGlass | undefined
  readonly reading: HouseRecords
  readonly secrets: HouseSealed
  readonly revocations: HouseRevocation
  readonly signals: HouseSignals
  readonly connect: HouseConnect
  readonly leaks: HouseLeaks['door']
  /** Close in reverse order of opening. */
  close(): Promise<void>
}

/** Build every room, or fail with an error that says which setting to change. Nothing listens yet. */
export async function buildHouse(settings: Settings, clock: Clock, outlook: Outlook): Promise<House> {
  // Closed in reverse order, also when a later room cannot be built: the log last, so that it records what the others still say.
  await using opening = new AsyncDisposableStack()
  const ground = await openGround(settings, {
    ...{ opening, clock, outlook },
    removed: (agents) => revocations.removed(agents), // built below, as all that is called by these small functions
    fetchFor: (...args) => upstream.fetchFor(...args),
  })
  const { audit, catalogue, keys, metrics, policies, redis, secrets, store } = ground
  const { live: policy, agents } = policies
  const watch: Grants['watch'] = (grant, cut, service) =>
    (grant.breakGlass && breakGlass ? breakGlass : grants).watch(grant, cut, service)
  const upstream = openUpstream(settings, {
    ...ground,
    opening,
    clock,
    outlook,
    watch,
    seen: (used) => leaks.used(used),
  })
  const outside = { opening, upstream, audit, keys, clock, redis, ...secrets }
  const reading = opening.adopt(await openHouseRecords(settings, outside), (room) => room.close())
  const signEvent: LetterParts['signEvent'] = (claims) => credentials.assertions.signEvent(claims)
  const telling = await openTelling(settings, { ...outside, signEvent })
  const credentials = openHouseCredentials(settings, {
    ...outside,
    onLeak: (grant) => revocations.leaked(grant),
    requireOpen: (credential) => grants.requireOpenCredential(credential),
  })
  const { leases, leasesApart } = credentials
  const { identities, grants } = openHouseGrants(settings, {
    ...{ ...ground, opening, upstream, clock },
    serveOffline: (token, tenant) =>
      serveInstruction({ kind: 'grant.present', id: uuidv7(clock.nowMs()), tenant, token }, rooms()),
    onEnded: (grant) => leases.purge(grant),
  })
  const rooms = () => ({ audit, grants, policy, leases, approvals: approvals.flow })
  const revocations = createHouseRevocation(settings, { audit, clock, store, catalogue, agents, rooms })
  const approvals = openHouseApprovals(settings, { audit, grants, watch, store, keys, redis, clock })
  opening.adopt(approvals.room, (room) => room.close())
  const approvers = await openHouseApprovers(settings, {
    ...{ ...secrets, audit, grants, keys, clock, rooms: rooms(), approvals: approvals.room },
    fetchFor: (ranges) => upstream.fetchFor(ranges),
  })
  opening.adopt(policies, (room) => room.close())
  policy.onChange(() => approvals.room.reconsider())
  await begin(settings, { ...telling, ...ground, reading, leases })
  const signals = await openHouseSignals(settings, { ...telling, opening, store, revocations })
  const emergency = { audit, keys, clock, policy, catalogue, agents, leasesApart, orders: grants }
  const breakGlass = opening.adopt(await openHouseBreakGlass(settings, emergency), (room) => room?.dispose())
  metrics.add(...gaugesOfHeld(approvals.room), ...gaugesOfEnds(grants), ...(breakGlass?.gauges ?? []))
  const nowMs = () => clock.nowMs()
  const refusals = openRefusals({ catalogue, policy: policy.alone, nowMs, publicUrl: settings.publicUrl })
  const found = { ...secrets, audit, clock, grants, leases, revocations, breakGlass, records: reading.records }
  const leaks = await openHouseLeaks(settings, { ...found, fetchFor: (ranges) => upstream.fetchFor(ranges) })
  const opened = opening.move()
  return {
    ...{ ...ground, ...credentials, approvers, breakGlass, grants, identities, reading, revocations, signals },
    refusals: leaks.around(refusals),
    ...{ upstream, exports: telling.exports, policy: policies.observed, nowMs },
    leaks: leaks.door,
    approvals: approvals.flow,
    approval: approvals.room,
    close: () => opened.disposeAsync(),
  }
}

interface WayOut extends Ground {
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
  readonly clock: Clock
  readonly outlook: Outlook
  readonly watch: Grants['watch']
  /** A canary is in a call. */
  readonly seen: HouseLeaks['used']
}

/** What lasts is cut when its grant ends, or when other policies come into force that would not let it through. */
function openUpstream(settings: Settings, { opening, keys, policies, clock, outlook, watch, seen }: WayOut): Upstream {
  const made = createUpstream({
    ...settings.upstream,
    clock,
    secretRules: () => policies.secretRules,
    baits: baitsOf(settings, seen),
    hashes: bodyHashesOf(settings, keys),
    isClosed: outlook.isControlAddress,
    watch({ grant, service, standing }, cut) {
      const stops = [watch(grant, cut, service), policies.live.watch(standing, cut)]
      return () => {
        for (const stop of stops) stop()
      }
    },
  })
  return opening.adopt(made, (room) => room.close())
}

type Begun = Pick<House, 'audit' | 'metrics' | 'witnesses' | 'exports' | 'reading' | 'policies' | 'leases'>

/** What was loaded is in the log, and who scrapes is told how that is doing. */
async function begin(settings: Settings, { policies, metrics, reading, ...parts }: Begun) {
  const index = () => reading.records?.state?.lag
  metrics.add(...gaugesOf({ dir: auditDir(settings), ...parts, index }), ...gaugesOfPolicy(policies))
  await recordSettings(parts.audit, settings)
  await policies.begin(parts.audit)
}
