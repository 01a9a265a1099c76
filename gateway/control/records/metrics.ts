/**
 * What `GET /metrics` tells: how many calls and why refused, how long credentials live, how fast they are issued and revoked, and
 * how the log is doing. No human, no agent, no path: labels are names from settings, policies and tables of ours.
 */
import { AggregatorRegistry } from 'prom-client'
import type { JsonValue } from '../../audit/canonical.ts'
import type { Watcher } from '../../audit/entries/tally.ts'
import type { Clock } from '../../protocol/clock.ts'
import { Counter, Histogram, type Metric, type Sample } from './counts.ts'

export interface Metrics {
  readonly watcher: Watcher
  /** What is asked for only when somebody scrapes: sizes, ages, lags. One that fails is left out of the answer. */
  add(...gauges: readonly Gauge[]): void
  /** Prometheus text format 0.0.4. */
  text(): Promise<string>
}

export interface Gauge {
  /** `keyless_…`, with its unit. */
  readonly name: string
  readonly help: string
  /** A total that only grows until the process ends. Default false. */
  readonly isCounter?: boolean
  /** Undefined: nothing to say at present. Several with labels; the values of labels come from settings. */
  read(): Read | Promise<Read>
}

type Read = number | undefined | readonly Sample[]

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

const CALL_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 3600]
const GATEWAY_BOUNDS = [0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10]
const ISSUE_BOUNDS = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const REVOKE_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 30, 300]
/** From half a minute to the 90 days after which keys are usually changed by hand. */
const LIFETIME_BOUNDS = [30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 43_200, 86_400, 604_800, 2_592_000, 7_776_000]

/** What takes authority away. */
const ENDINGS: ReadonlySet<string> = new Set(['grant.revoke', 'task.complete', 'task.step_complete', 'task.suspend'])

const counter = (name: string, help: string, labels: readonly string[]) => new Counter({ name, help }, labels)
const seconds = (name: string, help: string, bounds: readonly number[], label?: string) =>
  new Histogram({ name, help }, bounds, label)

function table() {
  return { ...ofCalls(), ...ofGrants(), ...ofLeases() }
}

function ofCalls() {
  return {
    calls: counter(
      'keyless_calls_total',
      'Calls that ended, by service, effect of the decision, and code of the refusal, if any.',
      ['service', 'effect', 'code'],
    ),
    unauthenticated: counter(
      'keyless_unauthenticated_calls_total',
      'Refused calls of whom nobody knows who they are.',
      ['code'],
    ),
    duration: seconds(
      'keyless_call_duration_seconds',
      'From the head of an allowed call to the last byte of its answer.',
      CALL_BOUNDS,
      'service',
    ),
    decision: seconds(
      'keyless_call_decision_seconds',
      'From the head of an allowed call until its decision is durable in the log.',
      GATEWAY_BOUNDS,
    ),
    gateway: seconds(
      'keyless_call_gateway_seconds',
      'From the head of an allowed call until it has its credential: what the gateway adds before the upstream is asked. cache: whether the credential was there.',
      GATEWAY_BOUNDS,
      'cache',
    ),
  }
}

function ofGrants() {
  return {
    instructions: counter('keyless_grants_total', 'Instructions that took effect, by what they did.', ['event']),
    denied: counter('keyless_instructions_denied_total', 'Instructions that were refused or failed.', ['code']),
    revoke: seconds(
      'keyless_revoke_latency_seconds',
      'From an instruction or order that ends grants until no call can use them at this gateway.',
      REVOKE_BOUNDS,
    ),
    orders: counter('keyless_revocations_total', 'Orders to revoke, by what they are about and who gave them.', [
      'target',
      'by',
    ]),
    unfinished: counter(
      'keyless_revocations_failed_total',
      'Orders that could not be carried out wholly at first.',
      [],
    ),
    anomalies: counter('keyless_anomalies_total', 'Odd habits of agents that were noticed.', ['rule', 'action']),
    approvals: counter(
      'keyless_approvals_total',
      'Approvals: requested, approve, deny, expired, used; access_requested: an agent asked for more.',
      ['event'],
    ),
  }
}

function ofLeases() {
  return {
    leases: counter(
      'keyless_leases_total',
      'Credentials: issued, renewed, failed, captured, revoked, and hit (a call used one that was there).',
      ['event', 'ephemeral'],
    ),
    lifetime: seconds(
      'keyless_credential_lifetime_seconds',
      'How long a credential can be used, from its issue. One that never ends (ephemeral=false) counts as +Inf and adds nothing to the sum.',
      LIFETIME_BOUNDS,
      'ephemeral',
    ),
    issue: seconds(
      'keyless_lease_issue_seconds',
      'From asking an issuer to holding the recorded credential.',
      ISSUE_BOUNDS,
    ),
    leaks: counter(
      'keyless_leaks_total',
      'Answers that held a credential, which was overwritten, by what became of the credential.',
      ['service', 'fate'],
    ),
  }
}

export function createMetrics(clock: Clock): Metrics {
  const all = table()
  const metrics: Metric[] = Object.values(all)
  return {
    watcher: {
      allowed: (_service, afterMs) => all.decision.observe(afterMs / 1000),
      leased(_service, { cache, ephemeral }, afterMs) {
        if (cache === 'hit') all.leases.add('hit', String(ephemeral))
        all.gateway.observe(afterMs / 1000, cache)
      },
      ended(service, code, afterMs) {
        all.calls.add(service, 'allow', code ?? '')
        all.duration.observe(afterMs / 1000, service)
      },
      refused(service, code, isKnown) {
        all.calls.add(service ?? '', 'deny', code)
        if (!isKnown) all.unauthenticated.add(code)
      },
      leaked: (service, fate) => all.leaks.add(service, fate),
      performed(kind, afterMs) {
        all.instructions.add(kind)
        if (ENDINGS.has(kind)) all.revoke.observe(afterMs / 1000)
      },
      denied: (code) => all.denied.add(code),
      noted(kind, facts) {
        const [room, event = ''] = kind.split('.', 2)
        if (room === 'lease') countLease(all, event, facts, clock.nowMs())
        else if (room === 'revocation') countOrder(all, event, facts)
        else if (room === 'approval') all.approvals.add(event === 'decided' ? String(facts.verdict) : event)
      },
    },
    add: (...gauges) => void metrics.push(...gauges.map(metricOf)),
    text: () => write(metrics),
  }
}

type Facts = Readonly<Record<string, JsonValue | undefined>>

function countLease(all: ReturnType<typeof table>, event: string, facts: Facts, nowMs: number): void {
  const ephemeral = facts.ephemeral === undefined ? '' : String(facts.ephemeral)
  all.leases.add(event, ephemeral)
  if (event !== 'issued' && event !== 'renewed') return
  if (typeof facts.ms === 'number') all.issue.observe(facts.ms / 1000)
  if (facts.ephemeral === false) all.lifetime.observe(Number.POSITIVE_INFINITY, ephemeral)
  else if (typeof facts.expires === 'number') all.lifetime.observe(Math.max(0, facts.expires - nowMs / 1000), ephemeral)
}

function countOrder(all: ReturnType<typeof table>, event: string, { target, by, rule, action, ms }: Facts): void {
  if (event === 'ordered') all.orders.add(String(target), String(by))
  else if (event === 'anomaly') all.anomalies.add(String(rule), String(action))
  else if (event === 'failed') all.unfinished.add()
  else if (event === 'completed' && typeof ms === 'number') all.revoke.observe(ms / 1000)
}

function metricOf({ name, help, isCounter, read }: Gauge): Metric {
  return {
    name,
    help,
    type: isCounter ? 'counter' : 'gauge',
    async samples() {
      const found = await read()
      if (found === undefined) return []
      return typeof found === 'number' ? [{ labels: {}, value: found }] : found
    },
  }
}

async function write(metrics: readonly Metric[]): Promise<string> {
  const told = await Promise.all(
    metrics.map(async (metric) => {
      const values = await samplesOf(metric)
      const { name, help, type } = metric
      return values.length === 0 ? [] : [{ name, help, type, values, aggregator: 'first' }]
    }),
  )
  return AggregatorRegistry.aggregate(told).metrics()
}

async function samplesOf(metric: Metric): Promise<readonly Sample[]> {
  try {
    return await metric.samples()
  } catch {
    return [] // a scrape tells what there is; that something is missing is seen
  }
}
