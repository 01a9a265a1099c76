/**
 * The file behind `store-sqlite.ts`: its tables, its age and its access rights. Grants, ends and charges are fsynced on every
 * change, since a lost one could bring an ended grant or a spent use back to life.
 */
import type { DatabaseSync } from 'node:sqlite'
import { openSqliteFile } from '../../sqlite-file.ts'

/** `about` is empty in the row of the version alone. */
const ORDERS = `
  CREATE TABLE orders (
    tenant TEXT NOT NULL, about TEXT NOT NULL, body TEXT NOT NULL, version INTEGER NOT NULL,
    PRIMARY KEY (tenant, about)
  ) STRICT, WITHOUT ROWID;`

const SCHEMA = `
  CREATE TABLE grants (
    tenant TEXT NOT NULL, id TEXT NOT NULL, task TEXT NOT NULL,
    handle_digest TEXT, -- null: it has no handle
    body TEXT NOT NULL, expires_at INTEGER NOT NULL,
    marks TEXT NOT NULL, -- JSON array
    parent TEXT,
    PRIMARY KEY (tenant, id), UNIQUE (tenant, handle_digest)
  ) STRICT;
  CREATE INDEX grants_by_task ON grants (tenant, task);
  CREATE INDEX grants_by_expiry ON grants (expires_at);
  CREATE TABLE ended (
    tenant TEXT NOT NULL, mark TEXT NOT NULL, reason TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (tenant, mark)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX ended_by_until ON ended (until);
  CREATE TABLE tasks (
    tenant TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, version INTEGER NOT NULL, expires_at INTEGER NOT NULL,
    beat_at_ms REAL, -- null: no heartbeats were promised
    is_suspended INTEGER NOT NULL,
    PRIMARY KEY (tenant, id)
  ) STRICT;
  CREATE INDEX tasks_by_expiry ON tasks (expires_at);
  CREATE INDEX tasks_by_beat ON tasks (beat_at_ms) WHERE beat_at_ms IS NOT NULL;
  CREATE TABLE counts (
    tenant TEXT NOT NULL, name TEXT NOT NULL, used INTEGER NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (tenant, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX counts_by_until ON counts (until);
  CREATE TABLE calls ( -- of a rate: a ring of its last n calls; \`counts\` has how many there were
    tenant TEXT NOT NULL, name TEXT NOT NULL, slot INTEGER NOT NULL, at_ms REAL NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (tenant, name, slot)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX calls_by_until ON calls (until);
  CREATE TABLE seen (
    tenant TEXT NOT NULL, name TEXT NOT NULL, until_ms REAL NOT NULL,
    PRIMARY KEY (tenant, name)
  ) STRICT, WITHOUT ROWID;
  CREATE INDEX seen_by_until ON seen (until_ms);
  ${ORDERS}`

/** Version 1 knew one grant a task: each becomes a root, and stands in for the record of its task (`record-version-1.ts`). */
const FROM_1 = `
  ALTER TABLE grants RENAME TO grants_1;
  DROP INDEX grants_by_expiry;
  ${SCHEMA}
  INSERT INTO grants SELECT tenant, id, task, handle_digest, body, expires_at, json_array(id, task), NULL FROM grants_1;
  INSERT INTO tasks
    SELECT tenant, task, handle_digest || char(10) || body, 0, expires_at, iif(ended IS NULL, beat_at_ms, NULL), 0
    FROM grants_1;
  INSERT INTO ended SELECT tenant, task, ended, expires_at FROM grants_1 WHERE ended IS NOT NULL;
  INSERT INTO counts SELECT tenant, id || '/once/' || operation, 1, expires_at FROM uses;
  DROP TABLE grants_1;
  DROP TABLE uses;`

/** Version 2 knew no orders. */
const FROM_2 = ORDERS

/** Opens the file, made 0600 if absent. */
export function openDatabase(path: string): DatabaseSync {
  return openSqliteFile(path, 'store of grants', [SCHEMA, FROM_1, FROM_2])
}
