/**
 * The part of the composition root that keeps policies and agents up to date while the gateway runs: reads them again when told
 * to or when their source has others, writes down what will decide, and only then lets it. What cannot be taken changes nothing,
 * and says why.
 */
import type { Audit } from '../audit/audit.ts'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import { loadBundle } from '../policy/source/bundle.ts'
import type { LivePolicy } from '../policy/source/live.ts'
import type { Offer, Supply } from '../policy/supply.ts'
import { ReviewThread } from '../policy/tools/review-thread.ts'
import type { PolicyView } from '../protocol/control-policy.ts'
import type { Agent, Human } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { loadSettings, type Settings } from '../settings.ts'
import type { SecretRules } from '../upstream/secret-rules.ts'
import { Registry } from './agents.ts'
import { type HouseEngines, openEngines } from './policy-engines.ts'
import { InForce } from './policy-force.ts'
import { rejection, staleNames } from './policy-reload.ts'
import { openSupply, type Ways } from './policy-source.ts'

export interface HousePolicy {
  readonly live: LivePolicy
  /** What the flows ask: the same, and every answer goes past the candidate of `policy.shadow`. */
  readonly observed: LivePolicy
  /** Registered agents by id, the default one first. One object for the life of the gateway; its contents change. */
  readonly agents: ReadonlyMap<string, Agent>
  /** Of the policies in force. */
  readonly secretRules: SecretRules | undefined
  readonly view: PolicyView
  /** Bundles and settings that were refused since the start. */
  readonly refused: number
  /** The log and all rooms are there: writes down what decides, looks at the source, and again from time to time. */
  begin(audit: Audit): Promise<void>
  /**
   * Read the settings and the policies again, and take them up.
   * @param by whoever asked; undefined: a signal.
   * @returns with `trouble` where a source has nothing that can be taken.
   * @throws {GatewayError} `policy_rejected` naming every fault of files: then everything is as before. `audit_unavailable`
   */
  reload(by: Human | undefined): Promise<PolicyView>
  close(): Promise<void>
}

interface Parts extends Ways {
  readonly catalogue: Catalogue
  /** These agents are registered no more. */
  removed(agents: readonly string[]): void
}

/** Patience with a source at the start, when the doors wait for it, and later. */
const FIRST_LOOK_MS = 15_000
const LOOK_MS = 120_000
/** And when the time of what is in force is about to be over: it decides no longer than that, however slow the source is. */
const LAST_LOOK_MS = 3_000

/** @throws {PolicyFaults} for the files that settings name. */
export async function openHousePolicy(settings: Settings, parts: Parts): Promise<HousePolicy> {
  const { catalogue, clock } = parts
  const supply = openSupply(settings, parts)
  const recalled = await supply?.recall()
  const paths = supply === undefined ? settings.policies : (recalled?.offer?.files ?? [])
  const first = await loadBundle({ paths, catalogue }).catch((cause: Error) => {
    if (supply === undefined) throw cause
    supply.drop() // it was taken by a gateway with other services
    return loadBundle({ paths: [], catalogue })
  })
  const registry = new Registry(settings.agents)
  const engines = await openEngines(settings, parts)
  const agreeing = { agents: registry.agents, outside: engines?.outside, engines: engines?.described }
  const force = await InForce.begin(settings, { catalogue, clock, ...agreeing }, first)
  if (recalled?.trouble !== undefined) force.troubled(recalled.trouble)
  const { services, shippedServicesDir: shippedDir, baseDir } = settings
  const reviews = new ReviewThread(catalogue, { services, shippedDir, baseDir })
  return new Policies(settings, parts, { registry, force, supply, reviews, engines })
}

interface Rooms {
  readonly registry: Registry
  readonly force: InForce
  readonly supply: Supply | undefined
  readonly reviews: ReviewThread
  readonly engines: HouseEngines | undefined
}

class Policies implements HousePolicy {
  readonly #parts: Parts
  readonly #registry: Registry
  readonly #force: InForce
  readonly #supply: Supply | undefined
  readonly #reviews: ReviewThread
  readonly #engines: HouseEngines | undefined
  readonly #closing = new AbortController()
  #current: Settings
  #stale: readonly string[] = []
  #audit: Audit | undefined
  /** One after the other: what was asked for last is what decides. */
  #last: Promise<unknown> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined

  constructor(settings: Settings, parts: Parts, { registry, force, supply, reviews, engines }: Rooms) {
    this.#parts = parts
    this.#registry = registry
    this.#force = force
    this.#supply = supply
    this.#reviews = reviews
    this.#engines = engines
    this.#current = settings
  }

  get live(): LivePolicy {
    return this.#force.live
  }

  get observed(): LivePolicy {
    return this.#force.observed
  }

  get agents(): ReadonlyMap<string, Agent> {
    return this.#registry.agents
  }

  get secretRules(): SecretRules | undefined {
    return this.#force.secretRules
  }

  get refused(): number {
    return this.#force.refused
  }

  get view(): PolicyView {
    const { digest, policies } = this.live.bundle
    const { sinceS, trouble, candidate } = this.#force
    return {
      ...{ policy_set: digest, policies: policies.length, loaded_at: sinceS },
      ...(trouble !== undefined && { trouble }),
      ...(this.#stale.length > 0 && { needs_restart: this.#stale }),
      ...(this.#supply && { source: this.#supply.view }),
      ...(candidate.view && { shadow: candidate.view }),
    }
  }

  async begin(audit: Audit): Promise<void> {
    await this.#force.record(audit, this.#supply?.view)
    await this.#force.candidate.take(this.#current.policy.shadow, audit)
    this.#audit = audit
    if (this.#supply === undefined) return
    await this.#inTurn(() => this.#look(audit, FIRST_LOOK_MS))
    this.#schedule(audit)
  }

  reload(by: Human | undefined): Promise<PolicyView> {
    const audit = this.#audit
    if (audit === undefined) throw new GatewayError('draining', 'The gateway is not open yet.')
    return this.#inTurn(async () => {
      try {
        await this.#reload(audit, by)
        return this.view
      } catch (cause) {
        const refusal = rejection(cause)
        await this.#force.refuse(audit, refusal.detail, this.#supply?.view.place)
        throw refusal
      }
    })
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('The gateway is shutting down.'))
    clearTimeout(this.#timer)
    await this.#last
    await this.#supply?.close()
    await this.#reviews.close()
    await this.#engines?.close()
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#last.then(work)
    this.#last = done.catch(() => undefined)
    return done
  }

  async #reload(audit: Audit, by: Human | undefined): Promise<void> {
    const { file, tenant } = this.#current
    const next = file === undefined ? this.#current : await loadSettings(file)
    const isFromFiles = this.#supply === undefined
    const bundle = isFromFiles ? await this.#reviews.load(next.policies) : undefined
    try {
      const { isChanged, removed } = await this.#registry.take(next.agents, tenant, audit, by)
      if (removed.length > 0) this.#parts.removed(removed)
      if (isChanged) this.live.recheck()
      this.#current = { ...this.#current, agents: next.agents, policies: next.policies }
      if (bundle !== undefined && bundle.digest !== this.live.digest) await this.#force.take(audit, bundle)
    } finally {
      if (bundle !== undefined && this.live.bundle !== bundle) bundle[Symbol.dispose]()
    }
    await this.#force.candidate.take(next.policy.shadow, audit)
    this.#stale = staleNames(next, this.#current)
    if (isFromFiles) this.#force.settled()
    else await this.#renewTerms(audit, next)
  }

  /** Keys may have gone: then what only they stand for ends, unless the source has what others stand for. */
  async #renewTerms(audit: Audit, { policy }: Settings): Promise<void> {
    const isKept = policy.source === undefined || this.#supply?.retain(policy.source)
    await this.#look(audit, LOOK_MS)
    if (policy.source === undefined || isKept || this.#supply?.retain(policy.source)) return
    await this.#end(audit, 'no key that the settings trust stands for it any more')
  }

  /** Rejects only when what has ended cannot be put into the log: then no call can either. */
  async #look(audit: Audit, patienceMs: number): Promise<void> {
    const supply = this.#supply
    if (supply === undefined) return
    try {
      const leftMs = Math.max(this.#leftMs, LAST_LOOK_MS)
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(Math.min(patienceMs, leftMs))])
      await supply.look((offer) => this.#takeOffer(audit, supply, offer), signal)
      this.#force.settled()
    } catch (cause) {
      if (this.#closing.signal.aborted) return
      const { code, detail } = rejection(cause)
      if (code === 'audit_unavailable') this.#force.troubled(detail)
      else await this.#force.refuse(audit, detail, supply.view.place)
    }
    if (supply.hasEnded) await this.#end(audit, 'the time that its signers gave it is over')
  }

  async #takeOffer(audit: Audit, supply: Supply, { files, view, keep }: Offer): Promise<void> {
    const bundle = await this.#reviews.load(files)
    try {
      await keep()
      await this.#force.take(audit, bundle, { ...supply.view, bundle: view })
    } finally {
      if (this.live.bundle !== bundle) bundle[Symbol.dispose]()
    }
  }

  async #end(audit: Audit, reason: string): Promise<void> {
    await this.#force.end(audit, reason)
    this.#supply?.drop()
  }

  /** Until the next look, or until what is in force ends. */
  #schedule(audit: Audit): void {
    if (this.#closing.signal.aborted) return
    const pollS = this.#current.policy.source?.pollS ?? 30
    const again = () => this.#schedule(audit)
    const look = () => this.#inTurn(() => this.#look(audit, LOOK_MS)).then(again, again)
    this.#timer = setTimeout(look, Math.max(1_000, Math.min(pollS * 1000, this.#leftMs))).unref()
  }

  /** Until what is in force ends. */
  get #leftMs(): number {
    return (this.#supply?.endsAtS ?? Number.POSITIVE_INFINITY) * 1000 - this.#parts.clock.nowMs()
  }
}
