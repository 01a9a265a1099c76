/**
 * The tables of the index: a projection of the log that can be made again at any time, and is never trusted. A call is one row,
 * its outcome filled in when it comes; every other entry is a row of its own, with its members as JSON in `detail`.
 */

/** Raised when a table changes: an index of another version is dropped and made again from the log. */
export const INDEX_VERSION = 1

/** Times are milliseconds since the epoch, booleans 0 or 1; what an entry does not say is NULL. */
export const RECORDS = `
  CREATE TABLE IF NOT EXISTS records (
    log TEXT NOT NULL, seq BIGINT NOT NULL, end_seq BIGINT,
    ts BIGINT NOT NULL, kind TEXT NOT NULL, req TEXT, tenant TEXT, gw TEXT,
    human TEXT, human_iss TEXT, agent TEXT, task TEXT, purpose TEXT, grant_id TEXT, chain TEXT, depth INTEGER,
    service TEXT, operation TEXT, method TEXT, scheme TEXT, host TEXT, port INTEGER, path TEXT,
    effect TEXT, code TEXT, policy_ids TEXT, policy_set TEXT,
    status INTEGER, error TEXT, dur_ms REAL, bytes_in BIGINT, bytes_out BIGINT, scrubbed INTEGER,
    credential TEXT, cred_id TEXT, provider TEXT, ephemeral INTEGER, cred_expires BIGINT, cache TEXT,
    trace TEXT, prompt_hash TEXT, ip TEXT, ua TEXT, detail TEXT,
    PRIMARY KEY (log, seq))`

/** `chain` of a record (its lineage_hash) → everyone in it: ids of humans and agents, and of grants. */
export const CHAINS = `
  CREATE TABLE IF NOT EXISTS chains (
    actor TEXT NOT NULL, chain TEXT NOT NULL, n INTEGER NOT NULL, kind TEXT NOT NULL,
    PRIMARY KEY (actor, chain, n, kind))`

/** One row a grant, from grant.issued, grant.delegated, grant.replaced; ended by grant.revoked of it, of one above it, or of its task. */
export const GRANTS = `
  CREATE TABLE IF NOT EXISTS grants (
    id TEXT NOT NULL PRIMARY KEY, log TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, tenant TEXT,
    parent TEXT, root TEXT, replaces TEXT, depth INTEGER, max_depth INTEGER, delegable INTEGER,
    human TEXT, human_iss TEXT, agent TEXT, owner TEXT, agent_purpose TEXT, risk_tier TEXT, attested INTEGER, workload TEXT,
    task TEXT, purpose TEXT, chain TEXT, authority TEXT NOT NULL, cnf TEXT, policy_ids TEXT, policy_set TEXT,
    issued BIGINT NOT NULL, expires BIGINT NOT NULL, ended BIGINT, ended_by TEXT)`

/** One row a credential in time: lease.issued, lease.renewed, lease.captured; ended by lease.revoked. */
export const LEASES = `
  CREATE TABLE IF NOT EXISTS leases (
    log TEXT NOT NULL, seq BIGINT NOT NULL, kind TEXT NOT NULL, tenant TEXT,
    cred_id TEXT NOT NULL, credential TEXT, provider TEXT, service TEXT, grant_id TEXT, human TEXT, agent TEXT, task TEXT,
    ephemeral INTEGER, cause TEXT, issue_ms REAL, issued BIGINT NOT NULL, expires BIGINT, ended BIGINT, ended_by TEXT,
    PRIMARY KEY (log, seq))`

/** How far each log is read. `next` is the number of the first entry that is not in the index. */
export const PROGRESS = `
  CREATE TABLE IF NOT EXISTS progress (
    log TEXT NOT NULL PRIMARY KEY, next BIGINT NOT NULL, segment BIGINT NOT NULL, "offset" BIGINT NOT NULL, ts BIGINT NOT NULL,
    version INTEGER NOT NULL)`
