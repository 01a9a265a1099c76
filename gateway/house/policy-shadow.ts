/** The part of the composition root that has a candidate evaluated beside the policies in force, and writes down where they part. */
import type { Audit } from '../audit/audit.ts'
import type { Catalogue } from '../policy/catalogue/catalogue.ts'
import type { Policy } from '../policy/evaluation.ts'
import { type Bundle, loadBundle } from '../policy/source/bundle.ts'
import type { LivePolicy } from '../policy/source/live.ts'
import { type Difference, Shadow, type ShadowCounts } from '../policy/source/shadow.ts'
import type { Clock } from '../protocol/clock.ts'
import type { ShadowView } from '../protocol/control-policy.ts'
import type { PolicySettings } from '../settings/policy.ts'

interface Parts {
  readonly catalogue: Catalogue
  readonly clock: Clock
  readonly tenant: string
  /** The decision point of a bundle. */
  make(bundle: Bundle): Policy
}

const NONE: ShadowCounts = { same: 0, differed: 0, skipped: 0, unknown: 0 }

/** At most one candidate at a time. */
export class Candidate {
  readonly #parts: Parts
  #bundle: Bundle | undefined
  #shadow: Shadow | undefined
  #trouble: string | undefined

  constructor(parts: Parts) {
    this.#parts = parts
  }

  /** Since this candidate was taken. */
  get counts(): ShadowCounts {
    return this.#shadow?.counts ?? NONE
  }

  get shadow(): Shadow | undefined {
    return this.#shadow
  }

  /** Undefined: there is none. */
  get view(): ShadowView | undefined {
    if (this.#trouble !== undefined) return { trouble: this.#trouble, ...this.counts }
    if (this.#bundle === undefined) return undefined
    return { policy_set: this.#bundle.digest, policies: this.#bundle.policies.length, ...this.counts }
  }

  /** Take up the candidate of the settings, or none. Never throws for what is wrong with it: it decides nothing. */
  async take(wanted: PolicySettings['shadow'], audit: Audit): Promise<void> {
    this.#trouble = undefined
    const bundle = wanted && (await this.#load(wanted.policies))
    if (bundle?.digest === this.#bundle?.digest && bundle !== undefined) {
      bundle[Symbol.dispose]() // its counts go on
      return
    }
    const [old, shadow] = [this.#bundle, this.#shadow]
    this.#shadow = undefined
    await shadow?.settled() // what waits was seen beside the one before
    this.#bundle = bundle
    old?.[Symbol.dispose]()
    if (bundle === undefined || wanted === undefined) return
    const { tenant, clock, make } = this.#parts
    const files = [...new Set(bundle.policies.map(({ file }) => file))]
    await audit.record('policy.shadow_began', tenant, {
      candidate: bundle.digest,
      policies: bundle.policies.length,
      files,
    })
    this.#shadow = new Shadow({
      ...{ candidate: make(bundle), sample: wanted.sample, nowMs: () => clock.nowMs() },
      tell: (difference) =>
        void audit.recordUnder('policy.shadow_differed', difference.grant, factsOf(difference)).catch(() => undefined),
    })
  }

  async #load(paths: readonly string[]): Promise<Bundle | undefined> {
    try {
      return await loadBundle({ paths, catalogue: this.#parts.catalogue })
    } catch (cause) {
      this.#trouble = cause instanceof Error ? cause.message : String(cause)
      return undefined
    }
  }
}

function factsOf({ about, live, candidate, obligations, count }: Difference) {
  return {
    ...{ about, count, policy_set: live.policySet, candidate: candidate.policySet },
    ...{ effect: live.effect, candidate_effect: candidate.effect },
    ...{ policy_ids: [...live.policyIds], candidate_policy_ids: [...candidate.policyIds] },
    ...(candidate.code !== undefined && { candidate_code: candidate.code }),
    ...(candidate.errors.length > 0 && { candidate_errors: candidate.errors.map((error) => error.slice(0, 500)) }),
    ...(obligations.length > 0 && { obligations: [...obligations] }),
  }
}

/** What the flows ask: the policies in force, and every answer of theirs goes past the candidate. */
export function observed(live: LivePolicy, candidate: Pick<Candidate, 'shadow'>): LivePolicy {
  const evaluate: LivePolicy['evaluate'] = (ask) => {
    const alone = live.alone.evaluate(ask) // as the candidate: engines outside are asked once
    candidate.shadow?.call(ask, alone)
    return live.further.call(ask, alone)
  }
  const evaluateInstruction: LivePolicy['evaluateInstruction'] = (proposal) => {
    const alone = live.alone.evaluateInstruction(proposal)
    candidate.shadow?.instruction(proposal, alone)
    return live.further.issuing(proposal, alone)
  }
  // Delegates all else: a copy would freeze the digest.
  return Object.assign(Object.create(live) as LivePolicy, { evaluate, evaluateInstruction })
}
