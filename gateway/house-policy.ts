/**
 * The part of the composition root that keeps policies and agents up to date while the gateway runs: reads them again when told
 * to or when their source has others, writes down what will decide, and only then lets it. What cannot be taken changes nothing,
 * and says why.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Audit } from './audit/audit.ts'
import { Registry } from './house-agents.ts'
import { recordPolicy } from './house-audit.ts'
import { openSupply, type Ways } from './house-policy-source.ts'
import { type Bundle, loadBundle } from './policy/bundle.ts'
import type { Catalogue } from './policy/catalogue.ts'
import { createPolicy } from './policy/evaluation.ts'
import { createLivePolicy, type LivePolicy } from './policy/live.ts'
import { createRegions } from './policy/regions.ts'
import type { Offer, Supply } from './policy/supply.ts'
import type { PolicyView } from './protocol/control-policy.ts'
import type { Agent, Human } from './protocol/grant.ts'
import { asGatewayError, GatewayError } from './protocol/problem.ts'
import { loadSettings, type Settings } from './settings.ts'
import { loadSecretRules, type SecretRules } from './upstream/secret-rules.ts'

export interface HousePolicy {
  readonly live: LivePolicy
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
/** Characters of a reason in the log. */
const MAX_REASON = 2_000

/** @throws {PolicyFaults} for the files that settings name. */
export async function openHousePolicy(settings: Settings, parts: Parts): Promise<HousePolicy> {
  const { catalogue } = parts
  const supply = openSupply(settings, parts)
  const recalled = await supply?.recall()
  const paths = supply === undefined ? settings.policies : (recalled?.offer?.files ?? [])
  const first = await loadBundle({ paths, catalogue }).catch(async (cause: Error) => {
    if (supply === undefined) throw cause
    supply.drop() // it was taken by a gateway with other services
    return loadBundle({ paths: [], catalogue })
  })
  return new Policies(settings, parts, { first, supply, trouble: recalled?.trouble, rules: await rulesFor(first) })
}

interface Beginning {
  readonly first: Bundle
  readonly supply: Supply | undefined
  readonly trouble: string | undefined
  readonly rules: SecretRules | undefined
}

class Policies implements HousePolicy {
  readonly live: LivePolicy
  readonly #registry: Registry
  readonly #parts: Parts
  readonly #supply: Supply | undefined
  readonly #closing = new AbortController()
  #current: Settings
  #rules: SecretRules | undefined
  #loadedAtS: number
  #trouble: string | undefined
  /** As it stands in the log. */
  #recordedTrouble: string | undefined
  #stale: readonly string[] = []
  #refused = 0
  #audit: Audit | undefined
  /** One after the other: what was asked for last is what decides. */
  #last: Promise<unknown> = Promise.resolve()
  #timer: NodeJS.Timeout | undefined

  constructor(settings: Settings, parts: Parts, { first, supply, trouble, rules }: Beginning) {
    const { tenant, regions } = settings
    const regionsOf = createRegions(regions)
    this.live = createLivePolicy(first, (bundle) => createPolicy({ bundle, tenant, regionsOf }))
    this.#registry = new Registry(settings.agents)
    this.#parts = parts
    this.#supply = supply
    this.#current = settings
    this.#rules = rules
    this.#trouble = trouble
    this.#loadedAtS = this.#nowS
  }

  get agents(): ReadonlyMap<string, Agent> {
    return this.#registry.agents
  }

  get secretRules(): SecretRules | undefined {
    return this.#rules
  }

  get refused(): number {
    return this.#refused
  }

  get view(): PolicyView {
    const { digest, policies } = this.live.bundle
    return {
      ...{ policy_set: digest, policies: policies.length, loaded_at: this.#loadedAtS },
      ...(this.#trouble !== undefined && { trouble: this.#trouble }),
      ...(this.#stale.length > 0 && { needs_restart: this.#stale }),
      ...(this.#supply && { source: this.#supply.view }),
    }
  }

  async begin(audit: Audit): Promise<void> {
    await recordPolicy(audit, this.#current.tenant, this.#loaded(this.live.bundle, this.#supply?.view.bundle))
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
        await this.#refuse(audit, refusal.detail)
        throw refusal
      }
    })
  }

  async close(): Promise<void> {
    this.#closing.abort(new Error('The gateway is shutting down.'))
    clearTimeout(this.#timer)
    await this.#last
    await this.#supply?.close()
  }

  get #nowS(): number {
    return Math.floor(this.#parts.clock.nowMs() / 1000)
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
    const bundle = isFromFiles
      ? await loadBundle({ paths: next.policies, catalogue: this.#parts.catalogue })
      : undefined
    try {
      const removed = await this.#registry.take(next.agents, tenant, audit, by)
      if (removed.length > 0) this.#parts.removed(removed)
      this.#current = { ...this.#current, agents: next.agents, policies: next.policies }
      if (bundle !== undefined && bundle.digest !== this.live.digest) await this.#take(audit, bundle)
    } finally {
      if (bundle !== undefined && this.live.bundle !== bundle) bundle[Symbol.dispose]()
    }
    this.#stale = staleNames(next, this.#current)
    if (isFromFiles) this.#settled()
    else await this.#renewTerms(audit, next)
  }

  /** Keys may have gone: then what only they stand for ends, unless the source has what others stand for. */
  async #renewTerms(audit: Audit, { policy }: Settings): Promise<void> {
    const isKept = policy.source === undefined || this.#supply?.retain(policy.source)
    await this.#look(audit, LOOK_MS)
    if (policy.source === undefined || isKept || this.#supply?.retain(policy.source)) return
    await this.#end(audit, 'no key that the settings trust stands for it any more')
  }

  /** Never rejects but for the log. */
  async #look(audit: Audit, patienceMs: number): Promise<void> {
    const supply = this.#supply
    if (supply === undefined) return
    try {
      const signal = AbortSignal.any([this.#closing.signal, AbortSignal.timeout(patienceMs)])
      await supply.look((offer) => this.#takeOffer(audit, offer), signal)
      this.#settled()
    } catch (cause) {
      if (this.#closing.signal.aborted) return
      const refusal = rejection(cause)
      if (refusal.code === 'audit_unavailable') this.#trouble = refusal.detail
      else await this.#refuse(audit, refusal.detail)
    }
    if (supply.hasEnded) await this.#end(audit, 'the time that its signers gave it is over')
  }

  async #takeOffer(audit: Audit, { files, view, keep }: Offer): Promise<void> {
    const bundle = await loadBundle({ paths: files, catalogue: this.#parts.catalogue })
    try {
      await keep()
      await this.#take(audit, bundle, view)
    } finally {
      if (this.live.bundle !== bundle) bundle[Symbol.dispose]()
    }
  }

  async #take(audit: Audit, bundle: Bundle, from?: Offer['view']): Promise<void> {
    const rules = await rulesFor(bundle)
    await recordPolicy(audit, this.#current.tenant, this.#loaded(bundle, from))
    this.#rules = rules ?? this.#rules // calls under way may still need those before
    this.live.swap(bundle)
    this.#loadedAtS = this.#nowS
  }

  /** Nothing decides: everything is denied until there is another bundle. */
  async #end(audit: Audit, reason: string): Promise<void> {
    const { tenant } = this.#current
    const nothing = await loadBundle({ paths: [], catalogue: this.#parts.catalogue })
    await audit.record('policy.ended', tenant, { policy_set: this.live.digest, reason })
    this.#supply?.drop()
    await this.#take(audit, nothing)
    this.#trouble ??= `Everything is denied: ${reason}.`
  }

  #loaded(bundle: Bundle, from: Offer['view'] | undefined) {
    const view = this.#supply?.view
    return { bundle, catalogue: this.#parts.catalogue, ...(from && view && { source: { ...view, bundle: from } }) }
  }

  #settled(): void {
    this.#trouble = undefined
    this.#recordedTrouble = undefined
  }

  /** In the log once for as long as it is the same. */
  async #refuse(audit: Audit, reason: string): Promise<void> {
    this.#refused++
    this.#trouble = reason
    if (this.#recordedTrouble === reason) return
    const facts = { policy_set: this.live.digest, reason: reason.slice(0, MAX_REASON), place: this.#supply?.view.place }
    await audit.record('policy.refused', this.#current.tenant, facts).then(
      () => {
        this.#recordedTrouble = reason
      },
      () => undefined, // nothing changes by it, and the next look says it again
    )
  }

  /** Until the next look, or until what is in force ends. */
  #schedule(audit: Audit): void {
    if (this.#closing.signal.aborted) return
    const pollS = this.#current.policy.source?.pollS ?? 30
    const left = (this.#supply?.endsAtS ?? Number.POSITIVE_INFINITY) - this.#parts.clock.nowMs() / 1000
    this.#timer = setTimeout(
      () => {
        this.#inTurn(() => this.#look(audit, LOOK_MS)).then(
          () => this.#schedule(audit),
          () => this.#schedule(audit), // the log is away: then no call is made either, and the next look tries again
        )
      },
      Math.max(1, Math.min(pollS, left)) * 1000,
    ).unref()
  }
}

function rejection(cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  if (cause instanceof Error && ABOUT_FILES.has(cause.name))
    return new GatewayError('policy_rejected', `Nothing has changed. ${cause.message}`, { cause })
  return asGatewayError(cause)
}

/** These say what is wrong with what was offered; anything else is a defect. */
const ABOUT_FILES: ReadonlySet<string> = new Set(['PolicyFaults', 'SettingsError', 'BundleRefused'])

/** What is taken up while the gateway runs, or says nothing about it. */
const LIVE_NAMES: ReadonlySet<string> = new Set(['agents', 'policies', 'policy', 'written', 'file'])

function staleNames(next: Settings, current: Settings): string[] {
  const names = (Object.keys(next) as (keyof Settings)[]).filter(
    (name) => !LIVE_NAMES.has(name) && !isDeepStrictEqual(next[name], current[name]),
  )
  const isMoved = !isDeepStrictEqual(next.policy.source?.from, current.policy.source?.from)
  return [...names, ...(isMoved ? ['policy.source'] : [])].toSorted()
}

/** They cost time to load, so only where a policy asks what credentials a request carries. */
async function rulesFor({ policies }: Bundle): Promise<SecretRules | undefined> {
  const isAsked = policies.some(({ obligations }) => obligations.foreignCredentials !== undefined)
  return isAsked ? loadSecretRules() : undefined
}
