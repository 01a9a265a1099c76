/**
 * Whether a grant may be made: `mint` for a root grant, `delegate` for one below another. Asked once for every service in its
 * scope, and every one must say yes. What an obligation bounds is refused when it asks for more, never cut.
 */
import type { Decision } from '../protocol/decision.ts'
import type { Authority } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import { listed } from '../protocol/reach.ts'
import type { GrantAsk } from './attributes.ts'
import { isOnBehalf } from './attributes-chain.ts'
import type { Bundle } from './bundle.ts'
import type { Engine, Verdict } from './engine.ts'
import { combine, NO_OBLIGATIONS } from './obligation.ts'
import { allowance, refusal } from './ruling.ts'

export type Issuing = Extract<Proposal, { readonly ttlS: number }>

export function decideIssuing(
  { digest, changing }: Pick<Bundle, 'digest' | 'changing'>,
  engine: Engine,
  proposal: Issuing,
): Decision {
  const verdicts: Verdict[] = []
  for (const [service, operations] of patternsByService(proposal.authority)) {
    const verdict = engine.decideGrant(askOf(proposal, service, operations))
    const no = refused(digest, proposal, operations, verdict)
    if (no !== undefined) return no
    const changes = verdict.obligations.readOnly === true ? changing(operations) : []
    if (changes.length > 0) return tooActive(digest, proposal, changes, verdict)
    verdicts.push(verdict)
  }
  if (verdicts.length === 0)
    return refusal(digest, 'policy_denied', 'The grant names no operation. Give it a scope such as github:issues.read.')
  return allowance(digest, `Policy allows ${doing(proposal)}.`, {
    policyIds: [...new Set(verdicts.flatMap((verdict) => verdict.policyIds))].sort(),
    obligations: combine(verdicts.map((verdict) => verdict.obligations)),
  })
}

/** Less authority needs no policy: who may ask for it is settled by whose task or grant it is. */
export function allowLess(digest: string): Decision {
  return allowance(digest, 'Taking authority away is always allowed.', { policyIds: [], obligations: NO_OBLIGATIONS })
}

function refused(
  digest: string,
  proposal: Issuing,
  operations: readonly string[],
  verdict: Verdict,
): Decision | undefined {
  const asking = `${sentence(doing(proposal))} with ${listed(operations)} for ${proposal.ttlS} s`
  const deny = (reason: string) => refusal(digest, 'policy_denied', `${asking} ${reason}`, verdict)
  if (verdict.errors.length > 0)
    return deny('is refused: a policy could not be evaluated. The operator finds the error in the log.')
  if (verdict.effect === 'deny') {
    return deny(
      'is not allowed by policy for this agent and human. Ask for less, for a shorter time, or ask whoever keeps the policies.',
    )
  }
  const { ttlS, maxDepth } = verdict.obligations
  if (ttlS !== undefined && proposal.ttlS > ttlS)
    return {
      ...deny(`is longer than the ${ttlS} s that policy allows. Ask for ${ttlS} s or less.`),
      instead: [{ ttl_s: ttlS }],
    }
  return maxDepth === undefined ? undefined : tooDeep(digest, proposal, maxDepth, verdict)
}

function tooActive(digest: string, proposal: Issuing, changes: readonly string[], verdict: Verdict): Decision {
  return refusal(
    digest,
    'policy_denied',
    `${sentence(doing(proposal))} with ${listed(changes)} is not allowed: policy allows only what reads here. Name the operations that read, one by one.`,
    verdict,
  )
}

function tooDeep(digest: string, { kind, grant }: Issuing, most: number, verdict: Verdict): Decision | undefined {
  if (kind === 'grant.delegate') {
    if (grant.depth <= most) return undefined
    return refusal(
      digest,
      'delegation_refused',
      `This would be delegation ${grant.depth} from the human's agent; policy allows ${most} here. Let an agent further up do it.`,
      verdict,
    )
  }
  if (!grant.delegable || grant.maxDepth <= most) return undefined
  return refusal(
    digest,
    'delegation_refused',
    `The grant could be delegated ${grant.maxDepth} levels down; policy allows ${most} here. Ask for a max_depth of ${most} or less.`,
    verdict,
  )
}

function doing({ kind }: Issuing): string {
  switch (kind) {
    case 'task.open':
      return 'opening a task'
    case 'grant.replace':
      return 'going on with a task'
    case 'grant.delegate':
      return 'delegating'
    default:
      return kind satisfies never
  }
}

function sentence(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1)
}

function patternsByService(authority: readonly Authority[]): Map<string, string[]> {
  const services = new Map<string, string[]>()
  for (const pattern of new Set(authority.flatMap((entry) => entry.operations))) {
    const service = pattern.slice(0, Math.max(0, pattern.indexOf(':')))
    services.set(service, [...(services.get(service) ?? []), pattern])
  }
  return services
}

function askOf(proposal: Issuing, service: string, operations: readonly string[]): GrantAsk {
  const { grant, agent, ttlS, workload } = proposal
  const isBelow = proposal.kind === 'grant.delegate'
  return {
    action: isBelow ? 'delegate' : 'mint',
    service,
    operations,
    grant,
    agent,
    ttlS,
    delegator: isBelow ? proposal.parent.agent.id : '',
    isOnBehalf: isOnBehalf(grant) || (isBelow && proposal.attestation === undefined),
    workload,
    nowMs: grant.issuedAt * 1000,
  }
}
