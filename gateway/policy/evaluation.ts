/**
 * The policy decision point: what the grant and every grant above it cover, then what policy says. All must say yes. Texts name
 * what was asked and what to do; which policies decided is for the record only.
 */

import type { Ask, Decision } from '../protocol/decision.ts'
import type { Level } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import { asked, reach } from '../protocol/reach.ts'
import type { Endpoint } from '../protocol/service.ts'
import type { Bundle } from './bundle.ts'
import { createEngine, type Engine, type Verdict } from './engine.ts'
import { allowLess, decideIssuing } from './issuing.ts'
import { allowance, refusal } from './ruling.ts'
import { mustBeNamed } from './vocabulary.ts'

export interface Policy {
  /** `sha256:…` of the bundle that decides. */
  readonly digest: string
  evaluate(ask: Ask): Decision
  evaluateInstruction(proposal: Proposal): Decision
}

export interface PolicyParts {
  readonly bundle: Bundle
  readonly tenant: string
  /** Regions that an address is in, as the settings draw them. Default: none, so that `geo` is never met. */
  regionsOf?(address: string): readonly string[]
  /** What asks Cedar. Default: one that remembers its answers. */
  readonly engine?: Engine
}

export function createPolicy(parts: PolicyParts): Policy {
  const { bundle, tenant, regionsOf = () => [], engine = createEngine(bundle) } = parts
  const { digest } = bundle
  /** allowing verdict → its decision under grants without budgets; both live as long as the verdict is remembered */
  const allowed = new WeakMap<Verdict, Decision>()
  const allow = (ask: Ask, verdict: Verdict, levels: readonly Level[]): Decision => {
    let decision = allowed.get(verdict)
    if (decision === undefined) {
      decision = allowance(digest, `Policy allows ${ask.endpoint.operation.name}.`, verdict)
      allowed.set(verdict, decision)
    }
    return levels.length === 0 ? decision : { ...decision, levels }
  }
  return {
    digest,
    evaluate(ask) {
      const { grant, endpoint } = ask
      if (grant.tenant !== tenant)
        return refusal(digest, 'grant_invalid', 'This grant belongs to another tenant. Use a grant of this gateway.')
      const reached = reach(grant, { ...ask, regionsOf })
      if (!reached.isWithin) {
        // Nobody can grant access to a place that has no service yet: wider scope is not what is missing.
        const isNowhere = reached.code === 'scope_exceeded' && isUnmanaged(endpoint)
        if (isNowhere) return refusal(digest, 'host_unmanaged', nobodysHost(endpoint))
        return refusal(digest, reached.code, reached.detail)
      }
      const verdict = engine.decide(ask)
      if (verdict.effect === 'deny') return policyRefusal(digest, ask, verdict)
      const { maxDepth } = verdict.obligations
      if (maxDepth !== undefined && grant.depth > maxDepth)
        return refusal(digest, 'policy_denied', tooFarDown(ask, maxDepth), verdict)
      if (ask.isUpgrade === true && !endpoint.operation.websocket)
        return refusal(digest, 'upgrade_refused', noWebSocket(ask), verdict)
      return allow(ask, verdict, reached.levels)
    },
    evaluateInstruction: (proposal) =>
      'ttlS' in proposal ? decideIssuing(digest, engine, proposal) : allowLess(digest),
  }
}

function tooFarDown(ask: Ask, most: number): string {
  return `${asked(ask)}. Policy allows it down to depth ${most} below the human's agent; this grant is at depth ${ask.grant.depth}. Let an agent further up call it.`
}

function noWebSocket(ask: Ask): string {
  return `${asked(ask)}, which its service file does not offer as a WebSocket. Use its HTTP form, such as server-sent events.`
}

function policyRefusal(digest: string, ask: Ask, verdict: Verdict): Decision {
  const { endpoint } = ask
  if (verdict.errors.length > 0) {
    return refusal(
      digest,
      'policy_denied',
      `${asked(ask)}. A policy could not be evaluated, so the call is refused. The operator finds the error in the log.`,
      verdict,
    )
  }
  if (isUnmanaged(endpoint)) return refusal(digest, 'host_unmanaged', nobodysHost(endpoint), verdict)
  const reason = mustBeNamed(endpoint.operation)
    ? `${unnamedReason(endpoint)} Only a policy that names ${endpoint.operation.name} can allow it.`
    : 'No policy allows it for this agent, human and task.'
  return refusal(
    digest,
    'policy_denied',
    `${asked(ask)}. ${reason} Ask whoever keeps the policies of this gateway.`,
    verdict,
  )
}

function isUnmanaged({ service }: Endpoint): boolean {
  return service.name === 'unmanaged'
}

function nobodysHost({ host, operation }: Endpoint): string {
  return `${host} belongs to no service of this gateway. Add a service file for it, or a policy and a grant that name ${operation.name}.`
}

function unnamedReason({ operation, service }: Endpoint): string {
  if (operation.returnsSecret) return 'Its answer is itself a credential.'
  if (operation.irreversible) return 'It cannot be undone.'
  return `The service file of ${service.name} does not list this call.`
}
