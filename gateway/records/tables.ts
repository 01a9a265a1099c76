/**
 * The tables of the index: a projection of the log that can be made again at any time, and is never trusted. A call is one row,
 * its outcome filled in when it comes; every other entry is a row of its own, with its members as JSON in `detail`.
 */

import type { Database } from './database.ts'

/** Raised when a table changes: an index of another version is dropped and made again from the log. */
export const INDEX_VERSION = 4

/**
 * Times are milliseconds since the epoch, booleans 0 or 1, lists and `detail` JSON; what an entry does not say is NULL. `id` sorts
 * by time: 2^20 times `ts`, plus the lowest 20 bits of `seq`. It is beyond 2^53, so it is made and
 * compared in SQL only, and never selected.
 */
const RECORDS = `
  CREATE TABLE IF NOT EXISTS records (
    id INTEGER PRIMARY KEY, log TEXT NOT NULL, seq BIGINT NOT NULL, end_seq BIGINT,
    ts BIGINT NOT NULL, kind TEXT NOT NULL, req TEXT, tenant TEXT, gw TEXT,
    human TEXT, human_iss TEXT, agent TEXT, task TEXT, purpose TEXT, grant_id TEXT, chain TEXT, depth INTEGER,
    service TEXT, operation TEXT, method TEXT, scheme TEXT, host TEXT, port INTEGER, path TEXT,
    effect TEXT, code TEXT, policy_ids TEXT, policy_set TEXT,
    status INTEGER, error TEXT, dur_ms REAL, bytes_in BIGINT, bytes_out BIGINT, scrubbed INTEGER,
    credential TEXT, cred_id TEXT, provider TEXT, ephemeral INTEGER, cred_expires BIGINT, cache TEXT,
    trace TEXT, prompt_hash TEXT, ip TEXT, ua TEXT, detail TEXT,
    UNIQUE (log, seq))`

/** `chain` of a record (its lineage_hash) → everyone in it: ids of humans and agents, and of grants. `kind`: human, ai_agent, grant. */
const CHAINS = `
  CREATE TABLE IF NOT EXISTS chains (
    actor TEXT NOT NULL, chain TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (actor, chain, n, kind))`

/**
 * One row a grant, from grant.issued, grant.delegated, grant.replaced, breakglass.opened; ended by grant.revoked of it, of one above it,
 * or of its task, by the grant.replaced of another that took its place, by breakglass.closed, or by an order (revocation.ordered); or with
 * the grant beside which it was given. `ended_by` is that entry, as log:seq.
 */
const GRANTS = `
  CREATE TABLE IF NOT EXISTS grants (
    id TEXT NOT NULL PRIMARY KEY, log TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, tenant TEXT,
    parent TEXT, root TEXT, replaces TEXT, beside TEXT, depth INTEGER, max_depth INTEGER, delegable INTEGER,
    human TEXT, human_iss TEXT, agent TEXT, owner TEXT, agent_purpose TEXT, risk_tier TEXT, attested INTEGER, workload TEXT,
    task TEXT, purpose TEXT, chain TEXT, authority TEXT NOT NULL, cnf TEXT, policy_ids TEXT, policy_set TEXT,
    issued BIGINT NOT NULL, expires BIGINT NOT NULL, ended BIGINT, ended_by TEXT)`

/** One row a credential in time: lease.issued, lease.renewed, lease.captured; ended by a lease.revoked that its issuer confirmed. */
const LEASES = `
  CREATE TABLE IF NOT EXISTS leases (
    log TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, tenant TEXT,
    cred_id TEXT NOT NULL, credential TEXT, provider TEXT, service TEXT, grant_id TEXT, human TEXT, agent TEXT, task TEXT,
    ephemeral INTEGER, cause TEXT, issue_ms REAL, issued BIGINT NOT NULL, expires BIGINT, ended BIGINT, ended_by TEXT,
    PRIMARY KEY (log, seq))`

/**
 * What ends grants and leases, by what it names: a grant, a task, a credential with its grant, or what an order is about. Replicas read their logs at
 * their own pace: the end of a grant may be in the index before the grant is.
 */
const ENDS = `
  CREATE TABLE IF NOT EXISTS ends (
    mark TEXT NOT NULL, log TEXT NOT NULL, seq BIGINT NOT NULL, ts BIGINT NOT NULL,
    PRIMARY KEY (mark, log, seq))`

/**
 * How far each log is read. `next` is the number of the first entry that is not in the index, `segment` and "offset" where it
 * begins, `ts` and `leaf` the time and the leaf hash of the entry before it: a log that has another one there is another log.
 */
const PROGRESS = `
  CREATE TABLE IF NOT EXISTS progress (
    log TEXT NOT NULL PRIMARY KEY, next BIGINT NOT NULL, segment BIGINT NOT NULL, "offset" BIGINT NOT NULL, ts BIGINT NOT NULL,
    leaf TEXT NOT NULL)`

/** One posting list a term (`terms.ts`), in the order of `id`: all filters of a query are one intersection. The terms are not kept. */
const TERMS_SQLITE = `
  CREATE VIRTUAL TABLE IF NOT EXISTS records_terms USING fts5(
    terms, content='', contentless_delete=1, detail=none, tokenize='ascii')`

/**
 * What a transaction adds is one sorted piece, not one for every megabyte; pieces are merged by eights: half the writing, and
 * a query looks into a few more.
 */
const TERMS_TERMS = [
  "INSERT INTO records_terms (records_terms, rank) VALUES ('hashsize', 33554432)",
  "INSERT INTO records_terms (records_terms, rank) VALUES ('automerge', 8)",
]

const INDEXES = [
  'CREATE INDEX IF NOT EXISTS records_by_req ON records (req)',
  'CREATE INDEX IF NOT EXISTS records_by_grant ON records (grant_id)',
  'CREATE INDEX IF NOT EXISTS records_by_task ON records (task)',
  'CREATE INDEX IF NOT EXISTS records_by_cred ON records (cred_id) WHERE cred_id IS NOT NULL',
  'CREATE INDEX IF NOT EXISTS records_by_end ON records (end_seq) WHERE end_seq IS NOT NULL',
  'CREATE INDEX IF NOT EXISTS chains_by_chain ON chains (chain)',
  'CREATE INDEX IF NOT EXISTS grants_by_task ON grants (task)',
  'CREATE INDEX IF NOT EXISTS grants_by_chain ON grants (chain)',
  'CREATE INDEX IF NOT EXISTS grants_by_beside ON grants (beside) WHERE beside IS NOT NULL',
  'CREATE INDEX IF NOT EXISTS leases_by_cred ON leases (cred_id)',
]

/** Statements that make what is not there yet. */
export function schemaOf(dialect: Database['dialect']): readonly string[] {
  const shared = [CHAINS, GRANTS, LEASES, ENDS, PROGRESS]
  if (dialect === 'sqlite') {
    // A file has one log: its name need not be in an index beside every number.
    const records = RECORDS.replace(/,\s*UNIQUE \(log, seq\)/, '')
    const bySeq = 'CREATE INDEX IF NOT EXISTS records_by_seq ON records (seq)'
    return [records, ...shared, TERMS_SQLITE, ...TERMS_TERMS, ...INDEXES, bySeq]
  }
  const records = RECORDS.replace('id INTEGER PRIMARY KEY', 'id BIGINT NOT NULL, terms TEXT[] NOT NULL')
  return [
    records,
    ...shared,
    ...INDEXES,
    'CREATE INDEX IF NOT EXISTS records_by_id ON records (id, log)',
    // Kilobytes of what is pending, which a query has to read whole.
    'CREATE INDEX IF NOT EXISTS records_by_term ON records USING gin (terms) WITH (gin_pending_list_limit = 1024)',
  ]
}
