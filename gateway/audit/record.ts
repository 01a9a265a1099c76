/**
 * The two entries of a call, assembled by hand in canonical order (RFC 8785 sorts members): this runs twice for every request.
 * `test/audit/record.test.ts` holds it equal to the `canonicalize` package for all inputs. Nothing that is a secret, a header
 * value or a body comes in here; of the query only a keyed hash is kept.
 */
import { createHmac, type KeyObject } from 'node:crypto'
import type { Decision } from '../protocol/decision.ts'
import type { Grant, LineageStep } from '../protocol/grant.ts'
import type { Inbound, Outcome } from '../protocol/message.ts'
import { type GatewayError, problems } from '../protocol/problem.ts'
import type { Endpoint } from '../protocol/service.ts'
import { type Draft, draftOf, fits, type Limits, number, quote, quoteCut, quoteList, roomy, tight } from './canonical.ts'
import { traceCause } from './cause.ts'
import type { LeaseFacts } from './event.ts'

/** What is the same in every entry of one gateway process. */
export interface Letterhead {
  /** Canonical text: `"gw":{…}`. */
  readonly gw: string
  /** Canonical text: `"log":"…"`. */
  readonly log: string
  /** The same two as values, for entries that are not assembled by hand. */
  readonly node: { readonly boot: string; readonly node: string; readonly ver: string }
  readonly origin: string
  /** Keys the hash of query strings: equal ones can be found, none can be guessed. */
  readonly hmacKey: KeyObject
  /** The members that say for whom, per grant. A grant is immutable, so its text is too; it is forgotten with the grant. */
  readonly chains: WeakMap<Grant, Chain>
}

/** Canonical text that is the same in every entry under one grant, ready to stand between other members. */
interface Chain {
  readonly human: string
  readonly lineage: string
  readonly task: string
}

export function letterhead(o: { node: string; version: string; boot: string; log: string; hmacKey: KeyObject }): Letterhead {
  const gw = `"gw":{"boot":${quote(o.boot)},"node":${quoteCut(o.node, roomy.name)},"ver":${quoteCut(o.version, roomy.name)}}`
  const node = { boot: o.boot, node: o.node, ver: o.version }
  return { gw, log: `"log":${quote(o.log)}`, node, origin: o.log, hmacKey: o.hmacKey, chains: new WeakMap() }
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
  const { inbound } = facts
  const who = facts.grant ? authority(paper, facts.grant, limits) : nobody
  return draftOf(
    `"client":${client(inbound, limits)},"decision":${decision(facts, limits)},${paper.gw},${who.human}"kind":"call.decision",` +
      `${who.lineage}${paper.log},"req":${quote(inbound.id)}`,
    `"target":${target(paper, facts, limits)},${who.task}"tenant":${quoteCut(inbound.tenant, limits.name)}`,
  )
}

function writeOutcome(paper: Letterhead, result: CallResult, limits: Limits): Draft {
  const { inbound, lease } = result
  const who = result.grant ? authority(paper, result.grant, limits) : nobody
  return draftOf(
    `${lease ? `"cred":${credential(lease, limits)},` : ''}${paper.gw},${who.human}"kind":"call.outcome",` +
      `${who.lineage}${paper.log},"outcome":${outcome(result, limits)},"req":${quote(inbound.id)}`,
    `${who.task}"tenant":${quoteCut(inbound.tenant, limits.name)}`,
  )
}

function client({ client, mode, presented }: Inbound, limits: Limits): string {
  const auth = presented ? `"auth":"${presented.scheme}",` : ''
  const ua = client.userAgent === undefined ? '' : `,"ua":${quoteCut(client.userAgent, limits.prose)}`
  return `{${auth}"ip":${quoteCut(client.address, limits.name)},"mode":"${mode}"${ua}}`
}

function decision({ decision, refusal }: CallFacts, limits: Limits): string {
  const verdict = refusal ? denial(refusal, limits) : { before: '"effect":"allow"', status: '' }
  if (!decision) return `{${verdict.before}${verdict.status}}`
  const { obligations } = decision
  return (
    `{${verdict.before},"errors":${quoteList(decision.errors, limits)},` +
    `"obligations":{"single_use":${obligations.singleUse},"ttl_s":${obligations.ttlS === undefined ? 'null' : number(obligations.ttlS)}},` +
    `"policy_ids":${quoteList(decision.policyIds, limits)},"policy_set":${quoteCut(decision.policySet, limits.name)}${verdict.status}}`
  )
}

function denial(refusal: GatewayError, limits: Limits): { before: string; status: string } {
  const cause = traceCause(refusal)
  return {
    before:
      `${cause === undefined ? '' : `"cause":${quoteCut(cause, limits.prose)},`}"code":${quote(refusal.code)},` +
      `"detail":${quoteCut(refusal.detail, limits.prose)},"effect":"deny"`,
    status: `,"status":${problems[refusal.code].status}`,
  }
}

function target(paper: Letterhead, { inbound, endpoint }: CallFacts, limits: Limits): string {
  const mark = inbound.rawPath.indexOf('?')
  const path = endpoint ? endpoint.path : mark < 0 ? inbound.rawPath : inbound.rawPath.slice(0, mark)
  const query = mark < 0 ? '' : `"query_hash":"${keyed(paper.hmacKey, inbound.tenant, inbound.rawPath.slice(mark + 1))}",`
  return (
    `{"host":${quoteCut(inbound.host, limits.name)},"method":${quoteCut(inbound.method, limits.name)},` +
    `${endpoint ? `"operation":${quoteCut(endpoint.operation.name, limits.name)},` : ''}"path":${quoteCut(path, limits.path)},` +
    `"port":${number(inbound.port)},${query}"scheme":"${inbound.scheme}"` +
    `${endpoint ? `,"service":${quoteCut(endpoint.service.name, limits.name)}` : ''}}`
  )
}

/** The tenant is part of what is hashed, so that equal queries of two tenants cannot be matched. */
function keyed(key: KeyObject, tenant: string, query: string): string {
  return `hmac:${createHmac('sha256', key).update(`${tenant}\0${query}`).digest('base64url')}`
}

function credential(lease: LeaseFacts, limits: Limits): string {
  return (
    `{"cache":"${lease.cache}","cred_id":${quoteCut(lease.credentialId, limits.name)},` +
    `"credential":${quoteCut(lease.credential, limits.name)},"ephemeral":${lease.ephemeral},` +
    `"expires":${number(lease.expiresAt)},"provider":${quoteCut(lease.provider, limits.name)}}`
  )
}

function outcome({ outcome, refusal, durationMs }: CallResult, limits: Limits): string {
  const duration = `"dur_ms":${number(Math.round(durationMs * 10) / 10)}`
  if (!outcome) {
    const cause = refusal && traceCause(refusal)
    const why = cause === undefined ? '' : `"cause":${quoteCut(cause, limits.prose)},`
    return `{${why}${duration},"error":${refusal ? quote(refusal.code) : 'null'},"status":${refusal ? problems[refusal.code].status : 'null'}}`
  }
  const address = outcome.address === undefined ? '' : `"address":${quoteCut(outcome.address, limits.name)},`
  return (
    `{${address}"bytes_in":${number(outcome.receivedBytes)},"bytes_out":${number(outcome.sentBytes)},${duration},` +
    `"error":${outcome.error === undefined ? 'null' : quoteCut(outcome.error, limits.name)},` +
    `"scrubbed":${number(outcome.scrubbed)},"status":${number(outcome.status)}}`
  )
}

const nobody: Chain = { human: '', lineage: '', task: '' }

function authority(paper: Letterhead, grant: Grant, limits: Limits): Chain {
  if (limits !== roomy) return writeChain(grant, limits)
  let chain = paper.chains.get(grant)
  if (!chain) {
    chain = writeChain(grant, limits)
    paper.chains.set(grant, chain)
  }
  return chain
}

function writeChain({ human, lineage, lineageHash, task }: Grant, limits: Limits): Chain {
  return {
    human: `"human":{"iss":${quoteCut(human.iss, limits.name)},"sub":${quoteCut(human.sub, limits.name)}},`,
    lineage: `"lineage":[${steps(lineage, limits)}],"lineage_hash":${quoteCut(lineageHash, limits.name)},`,
    task: `"task":{"id":${quoteCut(task.id, limits.name)},"purpose":${quoteCut(task.purpose, limits.prose)}},`,
  }
}

/** Both ends of a chain that is too long are kept; the hash covers all of it. */
function steps(lineage: readonly LineageStep[], limits: Limits): string {
  if (lineage.length <= limits.items) return lineage.map((one) => step(one, limits)).join(',')
  const half = limits.items / 2
  const shown = [...lineage.slice(0, half), ...lineage.slice(-half)].map((one) => step(one, limits))
  shown.splice(half, 0, `{"cut":${lineage.length - limits.items}}`)
  return shown.join(',')
}

function step({ grant, id, n, type }: LineageStep, limits: Limits): string {
  return `{${grant === undefined ? '' : `"grant":${quoteCut(grant, limits.name)},`}"id":${quoteCut(id, limits.name)},"n":${number(n)},"type":"${type}"}`
}
