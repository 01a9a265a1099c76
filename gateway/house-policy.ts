/**
 * The part of the composition root that keeps policies and agents up to date while the gateway runs: reads them again when told
 * to, writes down what will decide, and only then lets it. What cannot be taken changes nothing, and says why.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Audit } from './audit/audit.ts'
import { recordPolicy } from './house-audit.ts'
import { type Bundle, loadBundle } from './policy/bundle.ts'
import type { Catalogue } from './policy/catalogue.ts'
import { createPolicy } from './policy/evaluation.ts'
import { createLivePolicy, type LivePolicy } from './policy/live.ts'
import { createRegions } from './policy/regions.ts'
import type { Clock } from './protocol/clock.ts'
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
  /** The log is there: from now on there may be a change. Writes down what decides first. */
  begin(audit: Audit): Promise<void>
  /**
   * Read the settings and the policies again, and take them up.
   * @param by whoever asked; undefined: a signal.
   * @throws {GatewayError} `policy_rejected` naming every fault: then everything is as before. `audit_unavailable`
   */
  reload(by: Human | undefined): Promise<PolicyView>
}

interface Parts {
  readonly catalogue: Catalogue
  readonly clock: Clock
  /** These agents are registered no more. */
  removed(agents: readonly string[]): void
}

/** @throws {PolicyFaults} */
export async function openHousePolicy(settings: Settings, { catalogue, clock, removed }: Parts): Promise<HousePolicy> {
  const { tenant } = settings
  const regionsOf = createRegions(settings.regions)
  const first = await loadBundle({ paths: settings.policies, catalogue })
  const live = createLivePolicy(first, (bundle) => createPolicy({ bundle, tenant, regionsOf }))
  const agents = new Map(settings.agents.map((agent) => [agent.id, agent]))
  let secretRules = await rulesFor(first)
  let view = viewOf(first, clock)
  let current = settings
  let audit: Audit | undefined
  let last: Promise<unknown> = Promise.resolve()

  const take = async (bundle: Bundle, record: Audit): Promise<void> => {
    const rules = await rulesFor(bundle)
    await recordPolicy(record, tenant, { bundle, catalogue })
    secretRules = rules ?? secretRules // calls under way may still need those before
    live.swap(bundle)
    view = viewOf(bundle, clock)
  }
  const replaceAgents = (next: Settings) => {
    const gone = [...agents.keys()].filter((id) => next.agents.every((agent) => agent.id !== id))
    agents.clear()
    for (const agent of next.agents) agents.set(agent.id, agent)
    current = { ...current, agents: next.agents, policies: next.policies }
    if (gone.length > 0) removed(gone)
  }
  const reload = async (by: Human | undefined, record: Audit): Promise<PolicyView> => {
    const next = settings.file === undefined ? current : await loadSettings(settings.file)
    const bundle = await loadBundle({ paths: next.policies, catalogue })
    try {
      if (!isDeepStrictEqual(next.agents, current.agents)) {
        await record.administer(
          'admin.agents_reloaded',
          { tenant, ...(by && { human: by }) },
          agentFacts(current, next),
        )
        replaceAgents(next)
      }
      if (bundle.digest !== live.digest) await take(bundle, record)
    } finally {
      if (live.bundle !== bundle) bundle[Symbol.dispose]()
    }
    const stale = staleNames(next, current)
    view = { ...viewOf(live.bundle, clock, view.loaded_at), ...(stale.length > 0 && { needs_restart: stale }) }
    return view
  }
  return {
    live,
    agents,
    get secretRules() {
      return secretRules
    },
    get view() {
      return view
    },
    async begin(record) {
      await recordPolicy(record, tenant, { bundle: live.bundle, catalogue })
      audit = record
    },
    reload(by) {
      const record = audit
      if (record === undefined) throw new GatewayError('draining', 'The gateway is not open yet.')
      // One after the other: the one that was asked for last is what decides.
      const done = last
        .then(() => reload(by, record))
        .catch((cause: unknown) => {
          const refusal = rejection(cause)
          view = { ...view, trouble: refusal.detail }
          throw refusal
        })
      last = done.catch(() => undefined)
      return done
    },
  }
}

function rejection(cause: unknown): GatewayError {
  if (cause instanceof GatewayError) return cause
  if (cause instanceof Error && isAboutFiles(cause))
    return new GatewayError('policy_rejected', `Nothing has changed. ${cause.message}`, { cause })
  return asGatewayError(cause)
}

/** Faults of settings and policies name themselves; anything else is a defect. */
function isAboutFiles({ name }: Error): boolean {
  return name === 'PolicyFaults' || name === 'SettingsError'
}

function viewOf({ digest, policies }: Bundle, clock: Clock, since?: number): PolicyView {
  return {
    policy_set: digest,
    policies: policies.length,
    loaded_at: since ?? Math.floor(clock.nowMs() / 1000),
  }
}

function agentFacts(before: Settings, after: Settings) {
  const old = new Map(before.agents.map((agent) => [agent.id, agent]))
  const ids = after.agents.map(({ id }) => id)
  return {
    added: ids.filter((id) => !old.has(id)),
    removed: [...old.keys()].filter((id) => !ids.includes(id)),
    changed: after.agents
      .filter((agent) => old.has(agent.id) && !isDeepStrictEqual(old.get(agent.id), agent))
      .map(({ id }) => id),
  }
}

/** What is taken up while the gateway runs, or says nothing about it. */
const LIVE_NAMES: ReadonlySet<string> = new Set(['agents', 'policies', 'written', 'file'])

function staleNames(next: Settings, current: Settings): string[] {
  return (Object.keys(next) as (keyof Settings)[])
    .filter((name) => !LIVE_NAMES.has(name) && !isDeepStrictEqual(next[name], current[name]))
    .toSorted()
}

/** They cost time to load, so only where a policy asks what credentials a request carries. */
async function rulesFor({ policies }: Bundle): Promise<SecretRules | undefined> {
  const isAsked = policies.some(({ obligations }) => obligations.foreignCredentials !== undefined)
  return isAsked ? loadSecretRules() : undefined
}
