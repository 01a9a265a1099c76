/**
 * The two entries of a call. This runs twice for every request, so canonical order (RFC 8785 sorts members) comes from the order
 * of the literals below, not from sorting; what is the same under one grant is written once. `test/audit/record.test.ts` holds
 * the result equal to the `canonicalize` package for all inputs. No secret, header value or body comes in here, and of the
 * query only a keyed hash.
 */
import type { KeyObject } from 'node:crypto'
import type { Decision } from '../protocol/decision.ts'
import type { Grant, Human, LineageStep } from '../protocol/grant.ts'
import { createKeyedHash, type KeyedHash } from '../protocol/keyed-hash.ts'
import type { Inbound, Outcome } from '../protocol/message.ts'
import { type GatewayError, problems } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'
import { cut, cutList, type Draft, fits, type Limits, roomy, tenths, tight } from './canonical.ts'
import { traceCause } from './cause.ts'

/** What is the same in every entry of one gateway process. */
export interface Letterhead {
  readonly gw: { readonly boot: string; readonly node: string; readonly ver: string }
  /** Name of the log. */
  readonly origin: string
  /** Of query strings: equal ones can be found, none can be guessed. */
  readonly keyed: KeyedHash
  /** Per grant. A grant is immutable, so its text is too; it is forgotten with the grant. */
  readonly chains: WeakMap<Grant, Chain>
}

export function letterhead(o: {
  node: string
  version: string
  boot: string
  origin: string
  hmacKey: KeyObject
}): Letterhead {
  const gw = { boot: o.boot, node: cut(o.node, roomy.name), ver: cut(o.version, roomy.name) }
  return { gw, origin: o.origin, keyed: createKeyedHash(o.hmacKey), chains: new WeakMap() }
}

/** Canonical text between the members that differ from call to call. */
interface Chain {
  readonly tenant: string
  /** From the comma before `gw` to the opening quote of the value of `req`. */
  readonly decided: string
  /** From the comma before `gw` to `outcome`. */
  readonly ended: string
  /** From the comma before `task` to the opening quote of the value of `ts`. */
  readonly rest: string
}

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
  const opening = JSON.stringify({ client: client(facts, limits), decision: verdict(facts, limits) })
  return {
    head: [opening.slice(0, -1), chain.decided, inbound.id, '","seq":'],
    middle: [',"target":', JSON.stringify(target(paper, facts, limits)), chain.rest],
  }
}

function writeOutcome(paper: Letterhead, result: CallResult, limits: Limits): Draft {
  const { inbound, grant, lease } = result
  const chain = chainOf(paper, inbound, grant, limits)
  const end = [chain.ended, JSON.stringify(ending(result, limits)), ',"req":"', inbound.id, '","seq":']
  return {
    head: lease
      ? ['{"cred":', JSON.stringify(credential(lease, limits)), ...end]
      : ['{', chain.ended.slice(1), ...end.slice(1)],
    middle: [chain.rest],
  }
}

/** `grant`: what was presented and refused; what was accepted is in the lineage. */
function client({ inbound: { client, mode, presented }, refusal, grant }: CallFacts, limits: Limits) {
  const ua = client.userAgent === undefined ? undefined : cut(client.userAgent, limits.prose)
  const refused = grant === undefined ? refusal?.grant : undefined
  return { auth: presented?.scheme, grant: refused, ip: cut(client.address, limits.name), mode, ua }
}

function verdict({ decision, refusal }: CallFacts, limits: Limits) {
  const ttl = decision?.obligations.ttlS
  return {
    cause: traced(refusal, limits),
    code: refusal?.code,
    detail: refusal && cut(refusal.detail, limits.prose),
    effect: refusal ? 'deny' : 'allow',
    errors: decision && cutList(decision.errors, limits),
    obligations: decision && {
      foreign_credentials: decision.obligations.foreignCredentials,
      max_depth: decision.obligations.maxDepth,
      single_use: decision.obligations.singleUse,
      ttl_s: ttl === undefined ? null : ttl,
    },
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
  const human = grant ? `"human":${JSON.stringify(humanOf(grant.human, limits))},` : ''
  const lineage = grant
    ? `"lineage":${JSON.stringify(steps(grant.lineage, limits))},"lineage_hash":${JSON.stringify(cut(grant.lineageHash, limits.name))},`
    : ''
  const task = grant
    ? `"task":${JSON.stringify({ id: cut(grant.task.id, limits.name), purpose: cut(grant.task.purpose, limits.prose) })},`
    : ''
  const log = `"log":${JSON.stringify(paper.origin)},`
  return {
    tenant,
    decided: `${gw}${human}"kind":"call.decision",${lineage}${log}"req":"`,
    ended: `${gw}${human}"kind":"call.outcome",${lineage}${log}"outcome":`,
    rest: `,${task}"tenant":${JSON.stringify(cut(tenant, limits.name))},"ts":"`,
  }
}

function humanOf({ acr, amr, authTime, iss, sub }: Human, limits: Limits) {
  return {
    acr: acr === undefined ? undefined : cut(acr, limits.name),
    amr: amr && cutList(amr, limits),
    auth_time: authTime,
    iss: cut(iss, limits.name),
    sub: cut(sub, limits.name),
  }
}

/** Both ends of a chain that is too long are kept; `lineage_hash` covers all of it. */
function steps(lineage: readonly LineageStep[], limits: Limits) {
  const write = ({ grant, id, n, on_behalf, type }: LineageStep) => ({
    grant: grant === undefined ? undefined : cut(grant, limits.name),
    id: cut(id, limits.name),
    n,
    on_behalf,
    type,
  })
  if (lineage.length <= limits.items) return lineage.map(write)
  const half = limits.items / 2
  return [
    ...lineage.slice(0, half).map(write),
    { cut: lineage.length - limits.items },
    ...lineage.slice(-half).map(write),
  ]
}
