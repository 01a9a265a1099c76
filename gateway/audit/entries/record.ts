/**
 * The two entries of a call. This runs twice for every request, so canonical order (RFC 8785 sorts members) comes from the order
 * of the literals below, not from sorting; what is the same under one grant is written once. `test/audit/record.test.ts` holds
 * the result equal to the `canonicalize` package for all inputs. No secret, header value or body comes in here, and of the
 * query only a keyed hash.
 */
import type { Approved } from '../../protocol/approval.ts'
import type { Decision } from '../../protocol/decision.ts'
import type { Grant } from '../../protocol/grant.ts'
import type { Inbound, Outcome } from '../../protocol/message.ts'
import { type GatewayError, problems } from '../../protocol/problem.ts'
import type { Endpoint } from '../../protocol/service.ts'
import { cut, cutList, type Draft, fits, type Limits, roomy, tenths, tight } from '../canonical.ts'
import { clientFields, standing } from './authority.ts'
import { traceCause } from './cause.ts'
import { type Chain, type Letterhead, sealed } from './letterhead.ts'
import { askedFor, obliged } from './obliged.ts'

/** What the record says of the credential that was used. Never its value. */
export interface LeaseFacts {
  readonly provider: string
  readonly credential: string
  /** HMAC of the credential under the gateway's own key: equal values can be found, none can be guessed. */
  readonly credentialId: string
  readonly ephemeral: boolean
  /** Epoch seconds. */
  readonly expiresAt: number
  readonly cache: 'hit' | 'miss'
}

/** Everything known of a call when its decision is written. Before authentication there is no grant. */
export interface CallFacts {
  readonly inbound: Inbound
  readonly endpoint: Endpoint | undefined
  readonly grant: Grant | undefined
  readonly decision: Decision | undefined
  /** Absent: it took none. */
  readonly approved?: Approved | undefined
  /** Present: the call is refused, whatever policy said. */
  readonly refusal: GatewayError | undefined
}

/** What became of a call after its decision was written. */
export interface CallResult {
  readonly inbound: Inbound
  readonly grant: Grant | undefined
  readonly lease: LeaseFacts | undefined
  readonly outcome: Outcome | undefined
  readonly refusal: GatewayError | undefined
  /** Milliseconds from the first byte of the request to the last of the answer. */
  readonly durationMs: number
}

type Client = ReturnType<typeof clientFields>

export function decisionDraft(paper: Letterhead, facts: CallFacts): Draft {
  const draft = writeDecision(paper, facts, roomy)
  return fits(draft) ? draft : writeDecision(paper, facts, tight)
}

export function outcomeDraft(paper: Letterhead, result: CallResult): Draft {
  const draft = writeOutcome(paper, result, roomy)
  return fits(draft) ? draft : writeOutcome(paper, result, tight)
}

function writeDecision(paper: Letterhead, facts: CallFacts, limits: Limits): Draft {
  const { inbound, grant } = facts
  const chain = chainOf(paper, inbound, grant, limits)
  // What was presented and refused; what was accepted is in the lineage.
  const refused = grant === undefined ? facts.refusal?.grant : undefined
  const client = clientFields(inbound, refused, limits)
  const place = JSON.stringify(target(paper, facts, limits))
  const { trace } = inbound
  const rest = trace === undefined ? chain.rest : `${chain.traced}${JSON.stringify(cut(trace, limits.name))},"ts":"`
  return {
    head: `${opening(paper, client, facts, limits)}${chain.decided}${inbound.id}","seq":`,
    middle: `,"target":${place}${rest}`,
  }
}

/** Client and decision, without the closing brace. */
function opening(paper: Letterhead, client: Client, facts: CallFacts, limits: Limits): string {
  const { decision, approved, refusal, grant } = facts
  const isShared = paper.seal === undefined && limits === roomy && refusal === undefined && approved === undefined
  if (!isShared || decision === undefined || decision.obligations.log === 'full') {
    const members = { client, decision: verdict(facts, limits) }
    return JSON.stringify(sealed(paper, members, grant?.human)).slice(0, -1)
  }
  const said = written(paper, decision, () => verdict(facts, limits))
  return `{"client":${JSON.stringify(client)},"decision":${said}`
}

/** What is the same object in many calls is written once. */
function written(paper: Letterhead, of: object, members: () => object): string {
  const known = paper.shared.get(of)
  if (known !== undefined) return known
  const text = JSON.stringify(members())
  paper.shared.set(of, text)
  return text
}

function writeOutcome(paper: Letterhead, result: CallResult, limits: Limits): Draft {
  const { inbound, grant, lease } = result
  const chain = chainOf(paper, inbound, grant, limits)
  const used = lease && usedText(paper, lease, limits)
  const chained = used === undefined ? chain.ended.slice(1) : `"cred":${used}${chain.ended}`
  const { trace } = inbound
  return {
    head: `{${chained}${JSON.stringify(ending(result, limits))},"req":"${inbound.id}","seq":`,
    middle: trace === undefined ? chain.rest : `${chain.traced}${JSON.stringify(cut(trace, limits.name))},"ts":"`,
  }
}

function usedText(paper: Letterhead, lease: LeaseFacts, limits: Limits): string {
  if (limits !== roomy) return JSON.stringify(credential(lease, limits))
  return written(paper, lease, () => credential(lease, limits))
}

function verdict({ inbound, decision, approved, refusal }: CallFacts, limits: Limits) {
  return {
    approval: approved?.id,
    asked: decision?.obligations.log === 'full' ? askedFor(inbound, decision, limits) : undefined,
    cause: traced(refusal, limits),
    code: refusal?.code,
    detail: refusal && cut(refusal.detail, limits.prose),
    effect: refusal ? 'deny' : 'allow',
    errors: decision && cutList(decision.errors, limits),
    obligations: decision && obliged(decision.obligations, limits),
    policy_ids: decision && cutList(decision.policyIds, limits),
    policy_set: decision && cut(decision.policySet, limits.name),
    status: refusal && problems[refusal.code].status,
  }
}

function target(paper: Letterhead, { inbound, endpoint }: CallFacts, limits: Limits) {
  const { rawPath, tenant } = inbound
  const mark = rawPath.indexOf('?')
  const path = endpoint ? endpoint.path : mark < 0 ? rawPath : rawPath.slice(0, mark)
  return {
    host: cut(inbound.host, limits.name),
    method: cut(inbound.method, limits.name),
    operation: endpoint && cut(endpoint.operation.name, limits.name),
    path: cut(path, limits.path),
    port: inbound.port,
    // The tenant is part of what is hashed, so that equal queries of two tenants cannot be matched.
    query_hash: mark < 0 ? undefined : `hmac:${paper.keyed(`${tenant}\0${rawPath.slice(mark + 1)}`)}`,
    scheme: inbound.scheme,
    service: endpoint && cut(endpoint.service.name, limits.name),
  }
}

function credential(lease: LeaseFacts, limits: Limits) {
  return {
    cache: lease.cache,
    cred_id: cut(lease.credentialId, limits.name),
    credential: cut(lease.credential, limits.name),
    ephemeral: lease.ephemeral,
    expires: lease.expiresAt,
    provider: cut(lease.provider, limits.name),
  }
}

/** A call that was refused after its decision was written has no exchange to report, only the refusal. */
function ending({ outcome, refusal, durationMs }: CallResult, limits: Limits) {
  const error = refusal ? refusal.code : outcome?.error
  return {
    address: outcome?.address === undefined ? undefined : cut(outcome.address, limits.name),
    bytes_in: outcome?.receivedBytes,
    bytes_out: outcome?.sentBytes,
    cause: traced(refusal, limits),
    dur_ms: tenths(durationMs),
    error: error === undefined ? null : cut(error, limits.name),
    req_body_hash: outcome?.sentHash,
    resp_body_hash: outcome?.receivedHash,
    scrubbed: outcome?.scrubbed,
    status: refusal ? problems[refusal.code].status : outcome?.status,
  }
}

function traced(refusal: GatewayError | undefined, limits: Limits): string | undefined {
  const cause = refusal && traceCause(refusal)
  return cause === undefined ? undefined : cut(cause, limits.prose)
}

function chainOf(paper: Letterhead, inbound: Inbound, grant: Grant | undefined, limits: Limits): Chain {
  if (!grant || limits !== roomy) return writeChain(paper, inbound.tenant, grant, limits)
  const known = paper.chains.get(grant)
  if (known?.tenant === inbound.tenant) return known
  const chain = writeChain(paper, inbound.tenant, grant, limits)
  paper.chains.set(grant, chain)
  return chain
}

function writeChain(paper: Letterhead, tenant: string, grant: Grant | undefined, limits: Limits): Chain {
  const gw = `,"gw":${JSON.stringify(paper.gw)},`
  const who = grant && sealed(paper, standing(grant, limits), grant.human)
  const human = who ? `"human":${JSON.stringify(who.human)},` : ''
  const lineage = who
    ? `"lineage":${JSON.stringify(who.lineage)},"lineage_hash":${JSON.stringify(who.lineage_hash)},`
    : ''
  const log = `"log":${JSON.stringify(paper.origin)},`
  const rest = `,${who ? `"task":${JSON.stringify(who.task)},` : ''}"tenant":${JSON.stringify(cut(tenant, limits.name))}`
  return {
    tenant,
    decided: `${gw}${human}"kind":"call.decision",${lineage}${log}"req":"`,
    ended: `${gw}${human}"kind":"call.outcome",${lineage}${log}"outcome":`,
    rest: `${rest},"ts":"`,
    traced: `${rest},"trace":`,
  }
}
