/**
 * The policy decision point: what the grant covers, then what policy says. Both must say yes. Texts name what was asked and
 * what to do; which policies decided is for the record only.
 */

import { covers, patternCovers } from '../protocol/authority.ts'
import type { Ask, Decision } from '../protocol/decision.ts'
import type { Authority } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import type { ProblemCode } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'
import type { Bundle } from './bundle.ts'
import { createEngine, type Engine, type Verdict } from './engine.ts'
import { combine, NO_OBLIGATIONS } from './obligation.ts'
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
}

export function createPolicy({ bundle, tenant }: PolicyParts): Policy {
  const engine = createEngine(bundle)
  const { digest } = bundle
  /** allowing verdict → its decision; both live as long as the verdict is remembered */
  const allowed = new WeakMap<Verdict, Decision>()
  return {
    digest,
    evaluate(ask) {
      if (ask.grant.tenant !== tenant)
        return refusal(digest, 'grant_invalid', 'This grant belongs to another tenant. Use a grant of this gateway.')
      if (!covers(ask.grant.authority, ask.endpoint)) {
        // Nobody can grant access to a place that has no service yet: wider scope is not what is missing.
        if (isUnmanaged(ask.endpoint)) return refusal(digest, 'host_unmanaged', nobodysHost(ask.endpoint))
        return refusal(digest, 'scope_exceeded', beyondGrant(ask))
      }
      const verdict = engine.decide(ask)
      if (verdict.effect === 'deny') return policyRefusal(digest, ask, verdict)
      const known = allowed.get(verdict)
      if (known !== undefined) return known
      const decision = allowance(digest, `Policy allows ${ask.endpoint.operation.name}.`, verdict)
      allowed.set(verdict, decision)
      return decision
    },
    evaluateInstruction: (proposal) => ('ttlS' in proposal ? opening(digest, engine, proposal) : completion(digest)),
  }
}

function allowance(policySet: string, detail: string, verdict: Pick<Verdict, 'policyIds' | 'obligations'>): Decision {
  return {
    effect: 'allow',
    code: undefined,
    detail,
    policyIds: verdict.policyIds,
    policySet,
    errors: [],
    obligations: verdict.obligations,
  }
}

function refusal(policySet: string, code: ProblemCode, detail: string, verdict?: Verdict): Decision {
  return {
    effect: 'deny',
    code,
    detail,
    policyIds: verdict?.policyIds ?? [],
    policySet,
    errors: verdict?.errors ?? [],
    obligations: NO_OBLIGATIONS,
  }
}

function asked({ method, endpoint }: Ask): string {
  const path = endpoint.path.length > 200 ? `${endpoint.path.slice(0, 200)}…` : endpoint.path
  return `\`${method} ${path}\` on ${endpoint.host} is the operation ${endpoint.operation.name}`
}

function beyondGrant(ask: Ask): string {
  const { name } = ask.endpoint.operation
  const elsewhere = ask.grant.authority.filter((entry) =>
    entry.operations.some((pattern) => patternCovers(pattern, name)),
  )
  if (elsewhere.length > 0) {
    const places = elsewhere.flatMap((entry) => [...(entry.locations ?? []), ...(entry.paths ?? [])])
    return `${asked(ask)}. This grant covers it only at: ${listed(places)}. Ask the grantor for a grant that covers this path.`
  }
  const held = ask.grant.authority.flatMap((entry) => entry.operations)
  return `${asked(ask)}. This grant covers: ${listed(held)}. Ask the grantor for a grant with ${name} in its scope.`
}

function listed(all: readonly string[]): string {
  if (all.length === 0) return 'nothing'
  return all.length > 8 ? `${all.slice(0, 8).join(', ')} and ${all.length - 8} more` : all.join(', ')
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

/** Who may end a task is settled by whose task it is; less authority needs no policy. */
function completion(digest: string): Decision {
  return allowance(digest, 'Ending a task is always allowed.', { policyIds: [], obligations: NO_OBLIGATIONS })
}

type Opening = Extract<Proposal, { readonly ttlS: number }>

/** Asked once for every service in the scope; every one of them must say yes. */
function opening(digest: string, engine: Engine, proposal: Opening): Decision {
  const verdicts: Verdict[] = []
  for (const [service, operations] of patternsByService(proposal.authority)) {
    const verdict = engine.decideMint(mintAsk(proposal, service, operations))
    const asking = `Opening a task with ${listed(operations)} for ${proposal.ttlS} s`
    if (verdict.effect === 'deny') {
      const reason =
        verdict.errors.length > 0
          ? 'is refused: a policy could not be evaluated. The operator finds the error in the log.'
          : 'is not allowed by policy for this agent and human. Ask for less, for a shorter time, or ask whoever keeps the policies.'
      return refusal(digest, 'policy_denied', `${asking} ${reason}`, verdict)
    }
    const { ttlS } = verdict.obligations
    if (ttlS !== undefined && proposal.ttlS > ttlS) {
      return refusal(
        digest,
        'policy_denied',
        `${asking} is longer than the ${ttlS} s that policy allows. Ask for ${ttlS} s or less.`,
        verdict,
      )
    }
    verdicts.push(verdict)
  }
  if (verdicts.length === 0)
    return refusal(digest, 'policy_denied', 'The task names no operation. Give it a scope such as github:issues.read.')
  const policyIds = [...new Set(verdicts.flatMap((verdict) => verdict.policyIds))].sort()
  return allowance(digest, 'Policy allows opening this task.', {
    policyIds,
    obligations: combine(verdicts.map((verdict) => verdict.obligations)),
  })
}

function patternsByService(authority: readonly Authority[]): Map<string, string[]> {
  const services = new Map<string, string[]>()
  for (const pattern of new Set(authority.flatMap((entry) => entry.operations))) {
    const service = pattern.slice(0, Math.max(0, pattern.indexOf(':')))
    services.set(service, [...(services.get(service) ?? []), pattern])
  }
  return services
}

function mintAsk({ grant, agent, ttlS }: Opening, service: string, operations: readonly string[]) {
  const { task, human, issuedAt } = grant
  return {
    agent,
    service,
    taskId: task.id,
    purpose: task.purpose,
    human: human.sub,
    humanIss: human.iss,
    operations,
    ttlS,
    nowMs: issuedAt * 1000,
  }
}
