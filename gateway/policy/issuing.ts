/**
 * Whether a grant may be made: `mint` for a root grant, `delegate` for one below another. Asked once for every service in its
 * scope, and every one must say yes. What an obligation bounds is refused when it asks for more, never cut.
 */
import type { Decision } from '../protocol/decision.ts'
import type { Authority } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import { listed } from '../protocol/reach.ts'
import type { GrantAsk } from './attributes/attributes.ts'
import { isOnBehalf } from './attributes/chain.ts'
import type { Engine, Verdict } from './engine.ts'
import { combine, NO_OBLIGATIONS } from './obligation.ts'
import type { Bundle } from './source/bundle.ts'
import { allowance, refusal } from './tools/ruling.ts'

export type Issuing = Extract<Proposal, { readonly ttlS: number }>

export function decideIssuing(
  { digest, changing }: Pick<Bundle, 'digest' | 'changing'>,
  engine: Engine,
  proposal: Issuing,
): Decision {
  const verdicts: Verdict[] = []
  for (const ask of grantAsks(proposal)) {
    const verdict = engine.decideGrant(ask)
    const no = refused(digest, { proposal, operations: ask.operations }, verdict)
    if (no !== undefined) return no
    const more = exceedingOn({ digest, changing }, { proposal, operations: ask.operations }, verdict)
    if (more !== undefined) return more
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

/** What policy is asked: one question for each service in the scope. */
export function grantAsks(proposal: Issuing): readonly GrantAsk[] {
  return [...patternsByService(proposal.authority)].map(([service, operations]) => askOf(proposal, service, operations))
}

/** That the grant asks for more than a yes obliges to, over everything in its scope; undefined: it does not. */
export function exceeding(
  bundle: Pick<Bundle, 'digest' | 'changing'>,
  proposal: Issuing,
  yes: Pick<Decision, 'policyIds' | 'obligations'>,
): Decision | undefined {
  const operations = [...new Set(proposal.authority.flatMap((entry) => entry.operations))]
  return exceedingOn(bundle, { proposal, operations }, { ...yes, effect: 'allow', errors: [] })
}

interface Requested {
  readonly proposal: Issuing
  readonly operations: readonly string[]
}

function asking({ proposal, operations }: Requested): string {
  return `${sentence(doing(proposal))} with ${listed(operations)} for ${proposal.ttlS} s`
}

function refused(digest: string, requested: Requested, verdict: Verdict): Decision | undefined {
  const deny = (reason: string) => refusal(digest, 'policy_denied', `${asking(requested)} ${reason}`, verdict)
  if (verdict.errors.length > 0)
    return deny('is refused: a policy could not be evaluated. The operator finds the error in the log.')
  if (verdict.effect === 'deny') {
    return deny(
      'is not allowed by policy for this agent and human. Ask for less, for a shorter time, or ask whoever keeps the policies.',
    )
  }
  return undefined
}

function exceedingOn(
  { digest, changing }: Pick<Bundle, 'digest' | 'changing'>,
  requested: Requested,
  verdict: Verdict,
): Decision | undefined {
  const { proposal, operations } = requested
  const { ttlS, maxDepth, readOnly } = verdict.obligations
  if (ttlS !== undefined && proposal.ttlS > ttlS) {
    const reason = `is longer than the ${ttlS} s that policy allows. Ask for ${ttlS} s or less.`
    const denied = refusal(digest, 'policy_denied', `${asking(requested)} ${reason}`, verdict)
    return { ...denied, instead: [{ ttl_s: ttlS }] }
  }
  const deep = maxDepth === undefined ? undefined : tooDeep(digest, proposal, maxDepth, verdict)
  if (deep !== undefined) return deep
  const changes = readOnly === true ? changing(operations) : []
  return changes.length > 0 ? tooActive(digest, proposal, changes, verdict) : undefined
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

export function doing({ kind }: Issuing): string {
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

export function sentence(text: string): string {
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
