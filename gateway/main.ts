/** Runs one gateway: builds the house, opens the doors, ends tasks whose heartbeat stopped, drains when told to stop. */
import { join } from 'node:path'
import { forget } from './audit/personal/forgetting.ts'
import { createDesk } from './control/approve/desk.ts'
import { type ControlDoor, openControlDoor } from './control/door.ts'
import { operator } from './house/audit.ts'
import { openAuthzen } from './house/authzen.ts'
import { closuresOf } from './house/closures.ts'
import { leaseDoorOf } from './house/leases.ts'
import { redisWarnings } from './house/redis.ts'
import { createSecretWork } from './house/secrets.ts'
import { buildHouse, type House } from './house.ts'
import { openProxyDoor, type ProxyDoor } from './ingress/listener.ts'
import { serveInstruction } from './instruction.ts'
import { unanswered } from './policy/answering.ts'
import { type Clock, systemClock } from './protocol/clock.ts'
import type { PolicyView } from './protocol/control-policy.ts'
import type { ReadyView, ServiceView, StatusView } from './protocol/control-status.ts'
import type { Grant } from './protocol/grant.ts'
import { uuidv7 } from './protocol/id.ts'
import type { Service } from './protocol/service.ts'
import { formatAuthority } from './protocol/target.ts'
import type { RecordsState } from './records/records-thread.ts'
import { credentialProblem, unusedCredentials } from './settings/credentials.ts'
import { notifiedOf } from './settings/signals.ts'
import type { Settings } from './settings.ts'
import { VERSION } from './version.ts'

/** Requests in flight get this long after a stop before they are cut. */
const DRAIN_MS = 10_000

export interface Gateway {
  /** `http://127.0.0.1:8080`, with the port that is really listened on. */
  readonly proxy: string
  readonly control: string
  readonly house: House
  /** What the settings allow and is worth a word at start, one sentence each. */
  readonly warnings: readonly string[]
  /** As `GET /status` answers. */
  status(): Promise<StatusView>
  /** Read agents and policies again. @throws {GatewayError} `policy_rejected`: then nothing has changed. */
  reload(): Promise<PolicyView>
  /** Stop accepting, finish what is in flight, seal the log. Idempotent. */
  stop(): Promise<void>
}

/** Open a gateway. Every failure names what to change; nothing stays half open. */
export async function openGateway(settings: Settings, clock: Clock = systemClock): Promise<Gateway> {
  let control: ControlDoor | undefined
  let proxy: ProxyDoor | undefined
  const isControlAddress = (address: string, port: number) => control?.isControlAddress(address, port) ?? false
  const house = await buildHouse(settings, clock, { isControlAddress })
  try {
    const views = { proxyPort: () => proxy?.port ?? 0, controlPort: () => control?.port ?? 0 }
    const status = () => statusOf(settings, house, views, clock)
    control = await openControlDoor({
      ...settings.listen.control,
      ...(settings.listen.controlTls && { tls: settings.listen.controlTls }),
      socketPath: settings.listen.controlSocket,
      tenant: settings.tenant,
      human: operator(),
      rooms: house,
      grants: house.grants,
      identities: house.identities,
      status,
      approvals: house.approval,
      policies: house.policies,
      authzen: openAuthzen({ ...house, policy: house.policies.live, tenant: settings.tenant, clock }),
      breakGlass: house.breakGlass,
      leases: leaseDoorOf(house, settings),
      revocations: house.revocations,
      publicLog: house.witnesses.publicLog,
      witness: house.witnesses.witness,
      assertions: house.assertions,
      approvers: house.approvers,
      ready: async () => readyOf(house),
      metrics: () => house.metrics.text(),
      ...house.reading,
      origin: settings.audit.origin,
      forget: (named, by) => forget({ ...house, tenant: settings.tenant, by }, named),
      secrets: createSecretWork(settings, { ...house.secrets, audit: house.audit }),
      ...house.connect,
      signals: house.signals.signals,
      webhooks: house.signals.webhooks,
      leaks: house.leaks,
      publicUrl: settings.publicUrl,
      takesChains: settings.trust.chains.length > 0,
      clock,
    })
    proxy = await openProxy(settings, house, clock)
    const reaper = startReaper(settings, house)
    return {
      proxy: `http://${formatAuthority({ host: settings.listen.proxy.host, port: proxy.port })}`,
      control: controlUrl(settings, control.port),
      house,
      warnings: await warningsOf(settings, house),
      status,
      reload: () => house.policies.reload(undefined),
      stop: once(() => close({ house, control, proxy, reaper })),
    }
  } catch (cause) {
    await close({ house, control, proxy, reaper: undefined })
    throw cause
  }
}

function openProxy(settings: Settings, house: House, clock: Clock): Promise<ProxyDoor> {
  return openProxyDoor({
    ...settings.listen.proxy,
    tenant: settings.tenant,
    rooms: house.breakGlass?.around(house) ?? house,
    desk: createDesk({ ...house, ...house.approvers, approvals: house.approval, tenant: settings.tenant, clock }),
    route: (name) => house.catalogue.service(name),
    authority: house.authority,
    ...(settings.listen.proxyUrl !== undefined && { url: settings.listen.proxyUrl }),
    ...(settings.listen.proxyTls && { tls: settings.listen.proxyTls }),
    ...(settings.listen.announcedBy && { announcedBy: settings.listen.announcedBy }),
    maxConnections: settings.limits.connections,
    verifyClient: (evidence) => house.identities.client(evidence),
    proofs: house.identities,
    closures: closuresOf(house),
    onTlsError: ({ text }) => process.stderr.write(`keyless: warning: ${text}\n`),
    clock,
  })
}

async function warningsOf(
  settings: Settings,
  { authority, breakGlass, catalogue, connect, policies, redis }: House,
): Promise<string[]> {
  return [
    ...settings.warnings,
    ...(authority.trouble === undefined ? [] : [authority.trouble]),
    ...(await connect.warnings()),
    ...(breakGlass?.warnings ?? []),
    ...(redis ? await redisWarnings(redis, settings.postgres === undefined) : []),
    ...unusedCredentials(settings.credentials, catalogue.services),
    ...unanswered(policies.live.bundle.policies, {
      groups: settings.approvals.groups,
      notified: notifiedOf(settings.signals),
    }).map(({ where, says, fix }) => `${where}: ${says}; ${fix}.`),
  ]
}

interface Open {
  readonly house: House
  readonly control: ControlDoor | undefined
  readonly proxy: ProxyDoor | undefined
  readonly reaper: NodeJS.Timeout | undefined
}

/** Data first, so that nothing new is decided; the log last, so that it has every outcome. */
async function close({ house, control, proxy, reaper }: Open): Promise<void> {
  clearInterval(reaper)
  const drained = proxy?.drain(DRAIN_MS) // from here on nothing is let in
  house.upstream.goAway()
  await drained
  await control?.drain(DRAIN_MS)
  await house.close()
}

/** A launcher that died stops its heartbeat; its task ends like any other, through the flow and into the log. */
function startReaper(settings: Settings, house: House): NodeJS.Timeout {
  const timer = setInterval(
    () => {
      house.grants.overdue().then(
        (grants) => Promise.allSettled(grants.map((grant) => endOverdue(grant, house))),
        () => undefined, // the store is away: grants fail closed meanwhile, and the next round sees what is due
      )
    },
    (settings.grants.heartbeatS * 1000) / 2,
  )
  timer.unref()
  return timer
}

function endOverdue(grant: Grant, house: House): Promise<unknown> {
  const { tenant, human, task } = grant
  return serveInstruction(
    { kind: 'task.complete', id: uuidv7(), tenant, by: { human }, task: task.id, reason: 'heartbeat_missed' },
    house,
  )
}

interface Ports {
  proxyPort(): number
  controlPort(): number
}

async function statusOf(settings: Settings, house: House, ports: Ports, clock: Clock): Promise<StatusView> {
  return {
    version: VERSION,
    proxy: `http://${formatAuthority({ host: settings.listen.proxy.host, port: ports.proxyPort() })}`,
    control: controlUrl(settings, ports.controlPort()),
    data_dir: settings.dataDir,
    audit_dir: join(settings.dataDir, 'audit'),
    ca_pem: house.authority.caPem,
    now: Math.floor(clock.nowMs() / 1000),
    services: await Promise.all(house.catalogue.services.map((service) => viewOf(service, settings, house))),
    secret_env: settings.secretEnv,
    agents: [...house.policies.agents.keys()],
    default_agent: house.grants.defaults.agent ?? null,
    redis: { configured: house.redis !== undefined, ok: isRedisReady(house) },
    unstored_revocations: house.grants.unstored(),
    audit: auditOf(settings, house),
  }
}

function auditOf(settings: Settings, { audit, witnesses, exports, reading }: House): StatusView['audit'] {
  const { views, witness } = witnesses
  const index = reading.records?.state
  return {
    ok: audit.failure === undefined,
    size: audit.size,
    origin: settings.audit.origin,
    witnesses: views,
    exports: Object.entries(exports.lag()).map(([name, { entries, seconds, refused, failure }]) => ({
      ...{ name, lag_entries: entries, lag_seconds: seconds, refused },
      ...(failure !== undefined && { trouble: failure }),
    })),
    ...(index && { index: indexView(index) }),
    ...(witness && { witness_key: witness.key }),
  }
}

function indexView({ lag, trouble }: RecordsState): NonNullable<StatusView['audit']['index']> {
  return { lag_entries: lag.entries, lag_seconds: lag.seconds, ...(trouble !== undefined && { trouble }) }
}

function controlUrl({ listen }: Settings, port: number): string {
  return `${listen.controlTls ? 'https' : 'http'}://${formatAuthority({ host: listen.control.host, port })}`
}

async function viewOf(service: Service, { credentials }: Settings, { secrets }: House): Promise<ServiceView> {
  const config =
    service.credential !== undefined && Object.hasOwn(credentials, service.credential)
      ? credentials[service.credential]
      : undefined
  const problem = config && (await credentialProblem(config, secrets.readSecret))
  return {
    name: service.name,
    hosts: service.hosts,
    ports: service.ports,
    placeholders: service.placeholders,
    base_urls: service.baseUrls,
    tools: service.tools,
    credential_configured: config !== undefined,
    ...(problem === undefined ? {} : { credential_problem: problem }),
  }
}

function readyOf(house: House): ReadyView {
  const { policies } = house.policies.view
  const isShared = house.redis !== undefined // nothing is said of what there is none of
  const checks = {
    ...{ audit: house.audit.failure === undefined, policy: policies > 0 },
    ...(isShared && { redis: isRedisReady(house) }),
  }
  // Emergency access that is open here is to be reached, also through what asks who is ready.
  const isEmergency = house.breakGlass?.isOpen === true
  return { ready: isEmergency || Object.values(checks).every(Boolean), checks }
}

function isRedisReady(house: House): boolean {
  return house.redis === undefined || house.redis.status === 'ready'
}

function once(work: () => Promise<void>): () => Promise<void> {
  let done: Promise<void> | undefined
  return () => {
    done ??= work()
    return done
  }
}
