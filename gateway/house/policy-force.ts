/**
 * The part of the composition root that puts policies into force: in the log first, then for the next decision. Also what became of
 * those that were refused.
 */
import type { Audit } from '../audit/audit.ts'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import { createRegions } from '../policy/catalogue/regions.ts'
import { createPolicy } from '../policy/evaluation.ts'
import type { Outside } from '../policy/outside/outside.ts'
import { type Bundle, loadBundle } from '../policy/source/bundle.ts'
import { createLivePolicy, type LivePolicy } from '../policy/source/live.ts'
import type { Clock } from '../protocol/clock.ts'
import type { SourceView } from '../protocol/control-policy.ts'
import type { Agent } from '../protocol/grant.ts'
import type { Settings } from '../settings.ts'
import { loadSecretRules, type SecretRules } from '../upstream/secret-rules.ts'
import { recordPolicy } from './audit.ts'
import { Candidate, observed } from './policy-shadow.ts'

/** Characters of a reason in the log. */
const MAX_REASON = 2_000

interface Parts {
  readonly catalogue: Catalogue
  readonly clock: Clock
  /** Registered agents by id. */
  readonly agents: ReadonlyMap<string, Agent>
  /** Engines that have to agree. */
  readonly outside: Outside | undefined
  /** Which they are, for the log. */
  readonly engines: readonly string[] | undefined
}

export class InForce {
  readonly live: LivePolicy
  /** What the flows ask: the same, and every answer goes past the candidate. */
  readonly observed: LivePolicy
  readonly candidate: Candidate
  readonly #parts: Parts
  readonly #tenant: string
  #rules: SecretRules | undefined
  #sinceS: number
  #trouble: string | undefined
  /** As it stands in the log. */
  #recorded: string | undefined
  #refused = 0

  static async begin(settings: Settings, parts: Parts, first: Bundle): Promise<InForce> {
    return new InForce(settings, parts, first, await rulesFor(first))
  }

  private constructor({ tenant, regions }: Settings, parts: Parts, first: Bundle, rules: SecretRules | undefined) {
    const { agents, clock, outside } = parts
    const drawn = Object.keys(regions).length > 0 && { regionsOf: createRegions(regions) }
    const make = (bundle: Bundle) => createPolicy({ bundle, tenant, ...drawn })
    this.live = createLivePolicy(first, { make, agents, nowMs: () => clock.nowMs(), outside })
    this.candidate = new Candidate({ ...parts, tenant, make })
    this.observed = observed(this.live, this.candidate)
    this.#parts = parts
    this.#tenant = tenant
    this.#rules = rules
    this.#sinceS = this.#nowS
  }

  /** What finds credentials that are not ours, as far as policies have asked for it. */
  get secretRules(): SecretRules | undefined {
    return this.#rules
  }

  /** Epoch seconds. */
  get sinceS(): number {
    return this.#sinceS
  }

  /** Why what was offered last is not in force. */
  get trouble(): string | undefined {
    return this.#trouble
  }

  /** How often something was refused since the start. */
  get refused(): number {
    return this.#refused
  }

  /** In the log: what decides from the start on. */
  async record(audit: Audit, from: SourceView | undefined, bundle = this.live.bundle): Promise<void> {
    const { catalogue, engines } = this.#parts
    await recordPolicy(audit, this.#tenant, { bundle, catalogue, engines, ...(from && { source: from }) })
  }

  /** @throws {GatewayError} `audit_unavailable`: then the ones before go on. */
  async take(audit: Audit, bundle: Bundle, from?: SourceView): Promise<void> {
    const rules = await rulesFor(bundle)
    await this.record(audit, from, bundle)
    this.#rules = rules ?? this.#rules // calls under way may still need those before
    this.live.swap(bundle)
    this.#sinceS = this.#nowS
  }

  /** Nothing decides: everything is denied until there is another bundle. */
  async end(audit: Audit, reason: string): Promise<void> {
    const nothing = await loadBundle({ paths: [], catalogue: this.#parts.catalogue })
    await audit.record('policy.ended', this.#tenant, { policy_set: this.live.digest, reason })
    await this.take(audit, nothing)
    this.#trouble ??= `Everything is denied: ${reason}.`
  }

  /** What was offered is in force, or is what already was. */
  settled(): void {
    this.#trouble = undefined
    this.#recorded = undefined
  }

  /** Something is wrong that is not in the log. */
  troubled(reason: string): void {
    this.#trouble = reason
  }

  /** In the log once for as long as it is the same. Never rejects: nothing changes by it. */
  async refuse(audit: Audit, reason: string, place: string | undefined): Promise<void> {
    this.#refused++
    this.#trouble = reason
    if (this.#recorded === reason) return
    const facts = { policy_set: this.live.digest, reason: reason.slice(0, MAX_REASON), place }
    await audit.record('policy.refused', this.#tenant, facts).then(
      () => {
        this.#recorded = reason
      },
      () => undefined, // the next look says it again
    )
  }

  get #nowS(): number {
    return Math.floor(this.#parts.clock.nowMs() / 1000)
  }
}

/** They cost time to load, so only where a policy asks what credentials a request carries. */
async function rulesFor({ policies }: Bundle): Promise<SecretRules | undefined> {
  const isAsked = policies.some(({ obligations }) => obligations.foreignCredentials !== undefined)
  return isAsked ? loadSecretRules() : undefined
}
