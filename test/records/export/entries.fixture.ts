/** Entries of every kind that formats know, as the gateway writes them: each with its canonical bytes. */
import { createSecretKey, randomBytes } from 'node:crypto'
import canonicalize from 'canonicalize'
import type { Mask } from '../../../gateway/protocol/exporting.ts'
import { createItems, type Item } from '../../../gateway/records/export/item.ts'
import { createMask } from '../../../gateway/records/export/mask.ts'

export const LOG = 'keyless.test/acme'
export const KEY = createSecretKey(randomBytes(32))
const GRANT = '01a20305-cd3b-7552-8974-f40f1c51c683'
const CHILD = '01a20305-cd3b-7552-8974-f40f1c51c684'
const CALL = '01a20305-cef6-753d-bea6-4637db15ec65'
const DENIED = '01a20305-cef6-753d-bea6-4637db15ec66'
export const TRACEPARENT = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01'

type Members = Record<string, unknown>

const who = {
  human: { iss: 'https://idp.acme.test', sub: 'ana@acme.test', amr: ['hwk'] },
  task: { id: 'task_42', purpose: 'triage issue 42', intent_hash: 'PAHroRngDXnIK29l1wvF8QRNVoYYv0E3fm0UMgI_wrg' },
  lineage: [
    { n: 0, type: 'human', id: 'https://idp.acme.test#ana@acme.test' },
    { n: 1, type: 'ai_agent', id: 'spiffe://acme.test/agents/lead', grant: GRANT },
    { n: 2, type: 'ai_agent', id: 'spiffe://acme.test/agents/triage', grant: CHILD },
  ],
  lineage_hash: 'dGhlIGhhc2ggb2YgdGhlIGxpbmVhZ2Ugc3RlcHMgaGVyZQ',
}
const target = {
  scheme: 'https',
  host: 'api.github.com',
  port: 443,
  method: 'GET',
  path: '/repos/acme/site/issues',
  query_hash: 'hmac:abc',
  service: 'github',
  operation: 'github:issues.read',
}
const client = { ip: '10.1.2.3', mode: 'intercept', auth: 'basic', ua: 'triage-bot/2.1' }
const allow = { effect: 'allow', policy_ids: ['policies/acme#read'], policy_set: 'sha256:abc', errors: [] }
const grant = {
  id: CHILD,
  parent: GRANT,
  agent: { id: 'spiffe://acme.test/agents/triage', owner: 'ana@acme.test', purpose: 'triage issues', risk_tier: 'low' },
  authority: [{ operations: ['github:issues.read', 'github:issues.comment'], paths: ['/repos/acme/**'] }],
  issued: 1_795_000_000,
  expires: 1_795_000_900,
}

/** Kind → an entry without its place. */
export const samples: readonly Members[] = [
  { kind: 'log.opened', facts: { previous_size: 0 } },
  { kind: 'policy.loaded', facts: { policy_set: 'sha256:abc', policies: 10, files: ['policies/acme.cedar'] } },
  { kind: 'settings.loaded', facts: { digest: 'sha256:def' } },
  {
    kind: 'grant.issued',
    req: GRANT,
    ...who,
    decision: allow,
    grant: { ...grant, id: GRANT, parent: undefined },
    facts: { ttl_s: 900 },
  },
  { kind: 'grant.delegated', req: CHILD, ...who, decision: allow, grant, facts: { delegator: 'lead' } },
  { kind: 'call.decision', req: CALL, ...who, client, target, decision: allow, trace: TRACEPARENT },
  {
    kind: 'lease.issued',
    ...who,
    facts: { cred_id: 'h1', credential: 'github', ephemeral: true, expires: 1_795_000_900 },
  },
  {
    kind: 'call.outcome',
    req: CALL,
    ...who,
    trace: TRACEPARENT,
    cred: {
      cache: 'miss',
      cred_id: 'h1',
      credential: 'github',
      ephemeral: true,
      provider: 'github_app',
      expires: 1_795_000_900,
    },
    outcome: {
      status: 200,
      bytes_in: 4123,
      bytes_out: 0,
      dur_ms: 12.4,
      error: null,
      scrubbed: 0,
      address: '140.82.112.5',
    },
  },
  {
    kind: 'call.decision',
    req: DENIED,
    ...who,
    client,
    target: { ...target, method: 'PURGE', operation: undefined, service: undefined, host: '::1', port: 8443 },
    decision: {
      effect: 'deny',
      code: 'policy_denied',
      detail: '`PURGE /repos/acme/site/issues` is denied to ana@acme.test',
      status: 403,
      policy_ids: [],
      errors: [],
    },
  },
  {
    kind: 'call.decision',
    req: DENIED,
    client: { ip: '10.1.2.3', mode: 'forward' },
    target,
    decision: { effect: 'deny', code: 'grant_missing', status: 407 },
  },
  {
    kind: 'call.outcome',
    req: '01a20305-cef6-753d-bea6-000000000000',
    outcome: { status: 502, dur_ms: 3, error: 'upstream_broken' },
  },
  {
    kind: 'lease.revoked',
    ...who,
    facts: { cred_id: 'h1', credential: 'github', outcome: 'failed', reason: 'grant_ended' },
  },
  {
    kind: 'leak.detected',
    req: CALL,
    ...who,
    facts: { service: 'github', cred_id: 'h1', count: 1, where: { body: 1 }, fate: 'standing' },
  },
  { kind: 'leak.foreign', req: CALL, ...who, facts: { sightings: [{ rule: 'aws', where: 'body' }] } },
  { kind: 'leak.canary_used', facts: { canary: 'old-key', where: 'report' } },
  {
    kind: 'revocation.anomaly',
    ...who,
    facts: { grant: 'g', agent: 'a', rule: 'new_operations', detail: 'never did that', action: 'log' },
  },
  {
    kind: 'grant.denied',
    req: DENIED,
    human: who.human,
    decision: { effect: 'deny', code: 'policy_denied', detail: 'no', status: 403 },
    facts: { purpose: 'triage issue 42' },
  },
  { kind: 'task.suspended', req: GRANT, ...who, grant, facts: { reason: 'asked' } },
  { kind: 'grant.revoked', req: GRANT, ...who, grant, facts: { reason: 'completed' } },
  { kind: 'log.heartbeat', facts: { allowed: 1 } },
  { kind: 'admin.personal_forgotten', req: GRANT, human: who.human, facts: { key: 'k1' } },
  { kind: 'log.sealed', facts: { size: 19 } },
]

/** Canonical bytes as they stand in a log, from number `from` on. */
export function entryBytes(entries: readonly Members[] = samples, from = 0): Buffer[] {
  return entries.map((entry, i) =>
    Buffer.from(
      canonicalize({
        v: 'ar/1',
        seq: from + i,
        ts: new Date(1_795_000_000_000 + (from + i) * 1000).toISOString(),
        log: LOG,
        tenant: 'acme',
        gw: { boot: 'b0a7', node: 'gw-1', ver: '0.1.0' },
        ...JSON.parse(JSON.stringify(entry)),
      }) as string,
    ),
  )
}

export function itemsOf(entries: readonly Members[] = samples, masks: readonly Mask[] = []): Item[] {
  const items = createItems(createMask(masks, KEY), masks.length > 0)
  return entryBytes(entries).map((bytes) => items.read(bytes, LOG) as Item)
}
