/**
 * The composition root: builds each room once and hands each the few methods it needs. Nothing else in the house knows more
 * than its neighbours' shapes.
 */
import { join } from 'node:path'
import type { Redis } from 'ioredis'
import type { Audit } from './audit/audit.ts'
import type { Personal } from './audit/personal.ts'
import { createMetrics, type Metrics } from './control/metrics.ts'
import { createGrants, type Grants } from './grant/grants.ts'
import type { GrantStore } from './grant/store.ts'
import { openRedisStore } from './grant/store-redis.ts'
import { openSqliteStore } from './grant/store-sqlite.ts'
import { openOrderKeep } from './grant/store-sqlite-orders.ts'
import { type HouseApprovals, openHouseApprovals } from './house-approvals.ts'
import { type HouseApprovers, openHouseApprovers } from './house-approvers.ts'
import { auditDir, bodyHashesOf, openAudit, openHumans, recordSettings } from './house-audit.ts'
import { keepFresh } from './house-authority.ts'
import { type HouseBreakGlass, openHouseBreakGlass } from './house-break-glass.ts'
import type { HouseConnect } from './house-connect.ts'
import { openHouseCredentials } from './house-credentials.ts'
import { openTelling } from './house-export.ts'
import { gaugesOf } from './house-metrics.ts'
import { type HousePolicy, openHousePolicy } from './house-policy.ts'
import { gaugesOfPolicy } from './house-policy-metrics.ts'
import { type HouseRecords, openHouseRecords } from './house-records.ts'
import { connectRedis } from './house-redis.ts'
import { openRefusals } from './house-refusals.ts'
import { createHouseRevocation, type HouseRevocation } from './house-revocation.ts'
import { type HouseSealed, openHouseSealed } from './house-sealed.ts'
import { type HouseSignals, openHouseSignals } from './house-signals.ts'
import { openWitnesses, type Witnesses } from './house-witness.ts'
import { createIdentities } from './identity/identities.ts'
import { authorityTerms, type CertificateAuthority, loadAuthority } from './ingress/certificate.ts'
import { type InstructionRooms, serveInstruction } from './instruction.ts'
import { type Keys, loadKeys } from './keys.ts'
import type { Leases } from './lease/leases.ts'
import { type Catalogue, loadCatalogue } from './policy/catalogue.ts'
import type { LivePolicy } from './policy/live.ts'
import { makePrivate, requireWritable } from './private-file.ts'
import type { Clock } from './protocol/clock.ts'
import { uuidv7 } from './protocol/id.ts'
import type { Identities } from './protocol/identity.ts'
import type { PublishedAssertions } from './provider/assertions.ts'
import type { Exports } from './records/export/exports.ts'
import type { RequestRooms } from './request.ts'
import type { Settings } from './settings.ts'
import { createUpstream, type Upstream } from './upstream/forward.ts'
import type { WatchCall } from './upstream/lasting.ts'

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
  /** Close in reverse order of opening. */
  close(): Promise<void>
}

/** What the house cannot know when it is built, because the doors open later. */
export interface Outlook {
  /** Whether dialling this address would reach the control door. */
  isControlAddress(address: string, port: number): boolean
}

/** Build every room, or fail with an error that says which setting to change. Nothing listens yet. */
export async function buildHouse(settings: Settings, clock: Clock, outlook: Outlook): Promise<House> {
  await makePrivate(settings.dataDir)
  await requireWritable(settings.dataDir)
  const { services, shippedServicesDir: shippedDir, baseDir } = settings
  const catalogue = await loadCatalogue({ services, shippedDir, baseDir })
  const removed: HouseRevocation['removed'] = (agents) => revocations.removed(agents) // built below
  const fetchFor: Upstream['fetchFor'] = (...args) => upstream.fetchFor(...args) // built below, as what reads secrets
  const policies = await openHousePolicy(settings, {
    ...{ catalogue, clock, removed, fetchFor },
    readSecret: (...args) => readSecret(...args),
  })
  const { live: policy } = policies
  const keys = await loadKeys(settings.keysDir, clock)
  const authority = await loadAuthority(settings.keysDir, clock, authorityTerms(settings.ca, catalogue.services))
  // Closed in reverse order, also when a later room cannot be built: the log last, so that it records what the others still say.
  await using opening = new AsyncDisposableStack()
  const record = await openRecord(settings, { opening, keys, clock, outlook })
  const { audit } = record
  opening.defer(keepFresh(authority, audit, settings.tenant))
  const redis = settings.redis ? await connectRedis(settings.redis.url, settings.breakGlass === undefined) : undefined
  opening.defer(() => redis?.disconnect())
  const secrets = opening.adopt(openHouseSealed(settings, { redis, clock }), (room) => room.close())
  const { readSecret } = secrets
  const store = opening.adopt(openStore(settings, redis, clock), async (room) => room.close())
  // Built below: identities need the upstream first.
  const watch: Grants['watch'] = (grant, cut, service) =>
    (grant.breakGlass && breakGlass ? breakGlass : grants).watch(grant, cut, service)
  const hashes = bodyHashesOf(settings, keys)
  const isClosed = outlook.isControlAddress
  const secretRules = () => policies.secretRules
  const watchCall: WatchCall = ({ grant, service, standing = {} }, cut) => {
    const stops = [watch(grant, cut, service), policy.watch(standing, cut)]
    return () => stops.forEach((stop) => stop())
  }
  const made = createUpstream({ ...settings.upstream, clock, secretRules, hashes, isClosed, watch: watchCall })
  const upstream = opening.adopt(made, (room) => room.close())
  const reading = opening.adopt(await openHouseRecords(settings, { keys, audit, readSecret }), (room) => room.close())
  const telling = await openTelling(settings, {
    ...{ opening, keys, upstream, audit, clock, readSecret },
    signEvent: (claims) => credentials.assertions.signEvent(claims), // built below
  })
  const { sealed } = secrets
  const credentials = openHouseCredentials(settings, {
    ...{ upstream, redis, audit, keys, clock, readSecret, sealed },
    onLeak: (grant) => revocations.leaked(grant), // built below, as what says what is closed
    requireOpen: (credential) => grants.requireOpenCredential(credential),
  })
  opening.adopt(credentials.connect, (room) => room.close())
  const leases = opening.adopt(credentials.leases, (room) => room.close())
  const identities = buildIdentities(settings, { upstream, store, keys, clock })
  const grants: Grants = buildGrants(settings, {
    ...{ store, keep: redis && openKeep(settings, opening), identities, keys, catalogue, policies, clock },
    serveOffline: (token, tenant) =>
      serveInstruction(
        { kind: 'grant.present', id: uuidv7(clock.nowMs()), tenant, token },
        { audit, grants, policy, approvals: approvals.flow },
      ),
    onEnded: (grant) => leases.purge(grant),
  })
  opening.defer(() => grants.close())
  const revocations = createHouseRevocation(settings, {
    ...{ audit, clock, store, catalogue, agents: policies.agents },
    rooms: () => ({ audit, grants, policy, leases, approvals: approvals.flow }),
  })
  const approvals = openHouseApprovals(settings, { audit, grants, watch, store, keys, redis, clock })
  opening.adopt(approvals.room, (room) => room.close())
  const rooms = { audit, grants, policy, approvals: approvals.flow }
  const asking = { ...secrets, ...{ audit, grants, rooms, keys, clock }, approvals: approvals.room }
  const approvers = await openHouseApprovers(settings, { ...asking, fetchFor: (ranges) => upstream.fetchFor(ranges) })
  opening.adopt(policies, (room) => room.close())
  policy.onChange(() => approvals.room.reconsider())
  await begin(settings, { ...telling, ...record, reading, policies, leases })
  const signals = await openHouseSignals(settings, { ...telling, opening, store, revocations })
  const { agents } = policies
  const { leasesApart } = credentials
  const emergency = { audit, keys, clock, policy, catalogue, agents, leasesApart, orders: grants }
  const breakGlass = opening.adopt(await openHouseBreakGlass(settings, emergency), (room) => room?.dispose())
  record.metrics.add(...(breakGlass?.gauges ?? []))
  const opened = opening.move()
  return {
    ...credentials,
    authority,
    breakGlass,
    catalogue,
    exports: telling.exports,
    grants,
    identities,
    keys,
    policies,
    policy: policies.observed,
    revocations,
    reading,
    redis,
    secrets,
    signals,
    upstream,
    ...record,
    refusals: openRefusals({
      catalogue,
      policy,
      nowMs: () => clock.nowMs(),
      askAt: `${settings.publicUrl}/access-requests`,
    }),
    approvals: approvals.flow,
    approval: approvals.room,
    approvers,
    nowMs: () => clock.nowMs(),
    close: () => opened.disposeAsync(),
  }
}

interface RecordParts {
  /** Closes what is opened. */
  readonly opening: AsyncDisposableStack
  readonly keys: Keys
  readonly clock: Clock
  readonly outlook: Outlook
}

/** The log, and who counts, seals and witnesses it. */
async function openRecord(settings: Settings, { opening, keys, clock, outlook }: RecordParts) {
  const { personal } = opening.use(await openHumans(settings, keys))
  const metrics = createMetrics(clock)
  const made = await openWitnesses(settings, clock, outlook.isControlAddress)
  const witnesses = opening.adopt(made, (room) => room.close())
  const parts = { keys, clock, personal, watcher: metrics.watcher }
  const audit = opening.adopt(await openAudit(settings, parts), (room) => room.close())
  await witnesses.begin(audit)
  return { audit, metrics, personal, witnesses }
}

type Begun = Pick<House, 'audit' | 'metrics' | 'witnesses' | 'exports' | 'reading' | 'policies' | 'leases'>

/** What was loaded is in the log, and who scrapes is told how that is doing. */
async function begin(settings: Settings, { policies, metrics, reading, ...parts }: Begun) {
  const index = () => reading.records?.state?.lag
  metrics.add(...gaugesOf({ dir: auditDir(settings), ...parts, index }), ...gaugesOfPolicy(policies))
  await recordSettings(parts.audit, settings)
  await policies.begin(parts.audit)
}

/** Shared by the replicas through Redis; of one process, beside its log. */
function openStore(settings: Settings, redis: Redis | undefined, clock: Clock): GrantStore {
  if (redis !== undefined) return openRedisStore({ redis, clock })
  return openSqliteStore({ path: join(settings.dataDir, 'state.sqlite'), clock })
}

/** What this replica knows of orders, for when the store has lost them. */
function openKeep({ dataDir }: Settings, opening: AsyncDisposableStack) {
  return opening.adopt(openOrderKeep(join(dataDir, 'orders.sqlite')), async (keep) => keep.close())
}

interface IdentityParts {
  readonly upstream: Upstream
  readonly store: GrantStore
  readonly keys: Keys
  readonly clock: Clock
}

/** Keys of issuers are fetched through the guarded dial; what may be shown once is remembered where grants are. */
function buildIdentities({ trust, publicUrl, tenant }: Settings, { upstream, store, keys, clock }: IdentityParts) {
  return createIdentities({
    trust,
    issuer: publicUrl,
    fetchFor: (addresses) => upstream.fetchFor(addresses),
    once: (name, untilMs) => store.once(tenant, name, untilMs),
    clock,
    nonceKey: keys.record,
  })
}

type GrantsOptions = Parameters<typeof createGrants>[0]
type GrantParts = Pick<GrantsOptions, 'store' | 'keep' | 'clock' | 'serveOffline' | 'onEnded'> &
  Pick<House, 'identities' | 'keys' | 'catalogue' | 'policies'>

function buildGrants(settings: Settings, { identities, keys, catalogue, policies, ...parts }: GrantParts): Grants {
  return createGrants({
    tenant: settings.tenant,
    identities,
    chainKey: (root) => identities.chainKey(root),
    issuer: settings.publicUrl,
    signing: keys.grantKeys,
    storeKey: keys.store,
    agents: policies.agents,
    knowsOperation: (pattern) => catalogue.knows(pattern),
    ...settings.grants,
    limits: settings.limits,
    policySet: () => policies.live.digest,
    countsPast: () => policies.live.countsPast,
    ...parts,
  })
}
