/**
 * The policy decision point: what the grant and every grant above it cover, then what policy says. All must say yes. Texts name
 * what was asked and what to do; which policies decided is for the record only.
 */

import { ROOT_HUMAN } from '../protocol/approval.ts'
import {
  type Ask,
  type Decision,
  type Facts,
  type Needs,
  NO_NEEDS,
  type Obligations,
  type Past,
} from '../protocol/decision.ts'
import type { Approval } from '../protocol/grant.ts'
import type { Proposal } from '../protocol/instruction.ts'
import { countOf } from '../protocol/past.ts'
import { asked, type Reach, reach } from '../protocol/reach.ts'
import type { Endpoint, Operation } from '../protocol/service.ts'
import { readParameters } from './catalogue/parameters.ts'
import { createEngine, type Engine, type Verdict } from './engine.ts'
import { allowLess, decideIssuing } from './issuing.ts'
import { combine, NO_OBLIGATIONS } from './obligation.ts'
import type { Bundle } from './source/bundle.ts'
import { allowance, refusal } from './tools/ruling.ts'
import { unfulfilled, unknownPast } from './tools/unfulfilled.ts'
import { mustBeNamed } from './vocabulary.ts'

export interface Policy {
  /** `sha256:…` of the bundle that decides. */
  readonly digest: string
  /** Some policy looks at earlier calls of a task. */
  readonly countsPast: boolean
  /** What has to be known of a call of the operation before it can be decided. */
  needs(operation: Operation): Needs
  /** The same with what policies on the operation want to know besides; as it is where that is nothing. */
  informed(ask: Ask, from: Facts): Ask | Promise<Ask>
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

type Reached = Extract<Reach, { readonly isWithin: true }>

export function createPolicy(parts: PolicyParts): Policy {
  const { bundle, tenant, regionsOf, engine = createEngine(bundle) } = parts
  const { digest } = bundle
  /** allowing verdict → its decision under grants without budgets; both live as long as the verdict is remembered */
  const allowed = new WeakMap<Verdict, Decision>()
  const allow = (ask: Ask, verdict: Verdict, reached: Reached): Decision => {
    let decision = allowed.get(verdict)
    if (decision === undefined) {
      decision = allowance(digest, `Policy allows ${ask.endpoint.operation.name}.`, verdict)
      allowed.set(verdict, decision)
    }
    const { levels, approval } = reached
    const { needs, past } = bundle.sliceFor(ask.endpoint.operation)
    if (levels.length === 0 && approval === undefined && needs === NO_NEEDS) return decision
    return {
      ...decision,
      levels,
      ...(approval && { obligations: combine([decision.obligations, CONSENT[approval]]) }),
      ...(needs.past && { seen: seenOf(past, ask) }),
      ...(ask.params && decision.obligations.log === 'full' && { params: ask.params }),
    }
  }
  const decide = (ask: Ask, reached: Reached): Decision => {
    const { needs } = bundle.sliceFor(ask.endpoint.operation)
    if (needs.past && ask.past === undefined) return refusal(digest, 'policy_denied', unknownPast(ask))
    const known = needs.params ? withParameters(ask) : ask
    if (typeof known === 'string') return refusal(digest, 'request_malformed', `${asked(ask)}. ${known}`)
    const verdict = engine.decide(known)
    if (verdict.effect === 'deny') return policyRefusal(digest, ask, verdict)
    const { approval } = reached
    const obligations = approval ? combine([verdict.obligations, CONSENT[approval]]) : verdict.obligations
    const no = unfulfilled(ask, obligations, needs)
    return no === undefined ? allow(known, verdict, reached) : refusal(digest, no.code, no.detail, verdict)
  }
  const placed = (ask: Ask): Ask => (regionsOf === undefined ? ask : { ...ask, regionsOf })
  return {
    digest,
    countsPast: bundle.countsPast,
    needs: (operation) => bundle.sliceFor(operation).needs,
    informed(ask, from) {
      const { needs } = bundle.sliceFor(ask.endpoint.operation)
      return needs.left || needs.past ? inform(placed(ask), needs, from) : ask
    },
    evaluate(asking) {
      const ask = placed(asking)
      const { grant, endpoint } = ask
      if (grant.tenant !== tenant)
        return refusal(digest, 'grant_invalid', 'This grant belongs to another tenant. Use a grant of this gateway.')
      const reached = reach(grant, ask)
      if (!reached.isWithin) {
        // Nobody can grant access to a place that has no service yet: wider scope is not what is missing.
        const isNowhere = reached.code === 'scope_exceeded' && isUnmanaged(endpoint)
        if (isNowhere) return refusal(digest, 'host_unmanaged', nobodysHost(endpoint))
        return refusal(digest, reached.code, reached.detail)
      }
      return decide(ask, reached)
    },
    evaluateInstruction: (proposal) =>
      'ttlS' in proposal ? decideIssuing(bundle, engine, proposal) : allowLess(digest),
  }
}

async function inform(ask: Ask, needs: Needs, from: Facts): Promise<Ask> {
  const { grant } = ask
  const reached = needs.left ? reach(grant, ask) : undefined
  const [past, left] = await Promise.all([
    needs.past ? from.past(grant) : undefined,
    reached?.isWithin === true ? from.left(grant, reached.levels) : undefined,
  ])
  return { ...ask, past, left }
}

/** Whom the constraint `approval` of a grant asks: the human behind it, and with `quorum` somebody of that group besides. */
const CONSENT: Readonly<Record<Exclude<Approval, 'none'>, Obligations>> = {
  notify: { ...NO_OBLIGATIONS, notify: [ROOT_HUMAN] },
  single: { ...NO_OBLIGATIONS, approval: { from: [ROOT_HUMAN], count: 1, reuseS: undefined, fields: [] } },
  quorum: { ...NO_OBLIGATIONS, approval: { from: [ROOT_HUMAN, 'quorum'], count: 2, reuseS: undefined, fields: [] } },
}

function seenOf(fields: readonly string[], { past = {} }: Ask): Past {
  return Object.fromEntries(fields.map((field) => [field, countOf(past, field)]))
}

/** @returns what is wrong with them, where the request does not say them in one way. */
function withParameters(ask: Ask): Ask | string {
  const read = readParameters(ask.endpoint.operation.parameters ?? [], ask)
  if ('params' in read) return { ...ask, params: read.params }
  return `A policy depends on ${read.fault}. Send it once, as plain JSON or in the query.`
}

/** Cedar names policies with a denial only where they forbid; nobody's permit is none. */
function reasonOf({ policyIds }: Verdict): string {
  return policyIds.length === 0
    ? 'No policy allows it for this agent, human and task.'
    : 'A policy forbids it for this agent, human and task, whatever others allow.'
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
    : reasonOf(verdict)
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
