/**
 * What agents usually do, so that it is noticed when one does far more than ever, or many things that it never did: a stolen grant and
 * an agent that was talked into something look like that. Counted by each replica for what passes through it; which operations an
 * agent knows is remembered where grants are.
 */
import type { Clock } from '../../protocol/clock.ts'
import type { Grant } from '../../protocol/grant.ts'
import { type GrantStore, REMEMBER_S } from '../store/store.ts'

export interface HabitLimits {
  /** Absent: not looked at. */
  readonly callsPerMinute?: {
    /** So many times the mean of its own minutes, those in which it called at all. */
    readonly times: number
    /** And at least so many. */
    readonly atLeast: number
  }
  /** Absent: not looked at. */
  readonly newOperations?: {
    /** So many that it never used, … */
    readonly count: number
    /** … within so many seconds. */
    readonly withinS: number
    /** Seconds for which everything may be new to an agent that nobody saw before. */
    readonly learningS: number
  }
}

export interface Anomaly {
  readonly rule: 'calls_per_minute' | 'new_operations'
  /** What was seen, and what it was held against. */
  readonly detail: string
}

/** Minutes with calls that have to be known before more can be too many. */
const KNOWN_MINUTES = 10
/** Older ones fade. */
const MEAN_MINUTES = 240
/** How long it is known that an agent used an operation, and that it is known at all, ms. */
const YEAR_MS = 365 * 24 * 3600 * 1000
const KNOWN_MS = 100 * YEAR_MS
/** One that has been reported is not reported again for so long, ms. */
const QUIET_MS = 600_000
/** Names in memory; hosts without a service are named by whoever calls. */
const MAX_KNOWN = 20_000
/** Agents in memory; the one seen first is forgotten first. */
const MAX_AGENTS = 10_000
/** Names of one agent that the store is asked about, and remembers, in an hour; more where more of them are too many. */
const ASKED_AN_HOUR = 200
const HOUR_MS = 3_600_000

interface Pace {
  minute: number
  calls: number
  mean: number
  minutes: number
}

/** An agent as it is known at this replica. Times are monotonic. */
interface Known {
  readonly pace: Pace
  /** When it did something new, ms. */
  news: readonly number[]
  /** Rule → ms until which nothing more is said. */
  readonly quiet: Map<Anomaly['rule'], number>
  /** In the hour that began then. */
  asked: { readonly sinceMs: number; count: number }
}

export class Habits {
  readonly #limits: HabitLimits
  readonly #store: Pick<GrantStore, 'once' | 'add' | 'left'>
  readonly #clock: Clock
  readonly #tell: (grant: Grant, anomaly: Anomaly) => void
  /** tenant and agent → what is known of it */
  readonly #agents = new Map<string, Known>()
  /** tenant, agent and operation → nothing to ask the store about */
  readonly #known = new Set<string>()

  constructor(o: {
    readonly limits: HabitLimits
    readonly store: Pick<GrantStore, 'once' | 'add' | 'left'>
    readonly clock: Clock
    /** Must not throw. */
    tell(grant: Grant, anomaly: Anomaly): void
  }) {
    this.#limits = o.limits
    this.#store = o.store
    this.#clock = o.clock
    this.#tell = o.tell
  }

  /** A call that is allowed. Never throws, and nothing waits for what the store says. @param operation as policy knows it */
  called(grant: Grant, operation: string): void {
    const { callsPerMinute, newOperations } = this.#limits
    const key = `${grant.tenant} ${grant.agent.id}`
    const agent = this.#agent(key)
    if (callsPerMinute !== undefined) this.#count(grant, agent, callsPerMinute)
    const name = `${key} ${operation}`
    if (newOperations === undefined || this.#known.has(name) || !this.#mayAsk(agent, newOperations.count)) return
    if (this.#known.size >= MAX_KNOWN) this.#known.clear()
    this.#known.add(name)
    this.#look(grant, agent, operation).catch(() => this.#known.delete(name))
  }

  #agent(key: string): Known {
    const known = this.#agents.get(key)
    if (known !== undefined) return known
    if (this.#agents.size >= MAX_AGENTS) this.#agents.delete(this.#agents.keys().next().value as string)
    const nowMs = this.#clock.elapsedMs()
    const pace = { minute: Math.floor(nowMs / 60_000), calls: 0, mean: 0, minutes: 0 }
    const fresh: Known = { pace, news: [], quiet: new Map(), asked: { sinceMs: nowMs, count: 0 } }
    this.#agents.set(key, fresh)
    return fresh
  }

  /** Whoever makes up hosts has long been told of by then, and does not fill the store. */
  #mayAsk(agent: Known, tooMany: number): boolean {
    const nowMs = this.#clock.elapsedMs()
    if (nowMs - agent.asked.sinceMs >= HOUR_MS) agent.asked = { sinceMs: nowMs, count: 0 }
    agent.asked.count += 1
    return agent.asked.count <= Math.max(ASKED_AN_HOUR, 2 * tooMany)
  }

  #count(grant: Grant, agent: Known, { times, atLeast }: NonNullable<HabitLimits['callsPerMinute']>): void {
    const minute = Math.floor(this.#clock.elapsedMs() / 60_000)
    const { pace } = agent
    if (pace.minute !== minute) {
      pace.minutes = Math.min(pace.minutes + 1, MEAN_MINUTES)
      pace.mean += (pace.calls - pace.mean) / pace.minutes
      pace.minute = minute
      pace.calls = 0
    }
    pace.calls += 1
    const most = Math.max(atLeast, times * pace.mean)
    if (pace.minutes < KNOWN_MINUTES || pace.calls <= most) return
    this.#say(grant, agent, {
      rule: 'calls_per_minute',
      detail: `${pace.calls} calls within a minute; over ${pace.minutes} minutes with calls its mean is ${pace.mean.toFixed(1)}, and more than ${Math.floor(most)} are too many.`,
    })
  }

  async #look(grant: Grant, agent: Known, operation: string): Promise<void> {
    const limit = this.#limits.newOperations
    if (limit === undefined || !(await this.#isNew(grant, operation, limit.learningS))) return
    const nowMs = this.#clock.elapsedMs()
    agent.news = [...agent.news.filter((ms) => ms > nowMs - limit.withinS * 1000), nowMs]
    if (agent.news.length < limit.count) return
    this.#say(grant, agent, {
      rule: 'new_operations',
      detail: `${agent.news.length} operations within ${limit.withinS} s that it never used, ${operation} the last of them.`,
    })
  }

  async #isNew({ tenant, agent: { id } }: Grant, operation: string, learningS: number): Promise<boolean> {
    const nowMs = this.#clock.nowMs()
    const untilS = Math.floor(nowMs / 1000) + learningS - REMEMBER_S // the store keeps a count that much longer
    const learning = { name: `learning/${id}`, kind: 'count', limit: 1, by: 1, untilS } as const
    const isFirst = await this.#store.once(tenant, `habit/${id}`, nowMs + KNOWN_MS)
    if (isFirst && learningS > 0) await this.#store.add(tenant, [learning])
    if (!(await this.#store.once(tenant, `habit/${id}/${operation}`, nowMs + YEAR_MS))) return false
    return (await this.#store.left(tenant, learning)) > 0
  }

  #say(grant: Grant, { quiet }: Known, anomaly: Anomaly): void {
    const nowMs = this.#clock.elapsedMs()
    if ((quiet.get(anomaly.rule) ?? 0) > nowMs) return
    quiet.set(anomaly.rule, nowMs + QUIET_MS)
    this.#tell(grant, anomaly)
  }
}
