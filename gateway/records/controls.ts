/** Controls that the log can speak for, and which entries do. Entries are chosen by SQL over `records`. */
import type { REFERENCES } from './frameworks.ts'

export interface Evidence {
  /** What the entries show. */
  readonly shows: string
  readonly where: string
}

export interface Control {
  readonly name: string
  /** Of `REFERENCES`. */
  readonly id: keyof typeof REFERENCES
  readonly evidence: readonly Evidence[]
  /** What the control also asks for and no log can show. */
  readonly elsewhere?: string
}

const call = (condition: string) => `kind = 'call' AND ${condition}`
const MAKING = `kind IN ('grant.issued', 'grant.delegated', 'grant.replaced')`

export const CONTROLS: readonly Control[] = [
  {
    id: 'identity',
    name: 'Unique identity of every agent and instance, not shared',
    evidence: [
      { shows: 'grants made for one registered agent each', where: MAKING },
      { shows: 'grants whose agent proved its identity', where: `${MAKING} AND detail LIKE '%"attested":true%'` },
    ],
    elsewhere: 'Grants that were used from several addresses are in `keyless report inventory`.',
  },
  {
    id: 'workloads',
    name: 'Workloads authenticate themselves; credentials of applications are not used interactively',
    evidence: [
      { shows: 'grants given on a workload identity', where: `${MAKING} AND detail LIKE '%"workload":{%'` },
      {
        shows: 'identities that were refused',
        where: `kind = 'grant.denied' AND code IN ('client_invalid', 'actor_invalid', 'subject_invalid', 'dpop_invalid')`,
      },
      {
        shows: 'calls without a valid grant that were refused',
        where: call(`code IN ('grant_missing', 'grant_invalid')`),
      },
    ],
  },
  {
    id: 'least_privilege',
    name: 'Least privilege: scope of the task, attenuation',
    evidence: [
      { shows: 'grants with the operations that they cover', where: MAKING },
      { shows: 'delegations, none wider than its parent', where: `kind = 'grant.delegated'` },
      {
        shows: 'calls beyond a grant that were refused',
        where: call(`code IN ('scope_exceeded', 'constraint_unmet', 'limit_exceeded', 'use_spent')`),
      },
      {
        shows: 'wider grants that were refused',
        where: `kind = 'grant.denied' AND code IN ('invalid_scope', 'delegation_refused')`,
      },
    ],
  },
  {
    id: 'policy',
    name: 'Default deny, policy as code, tested and reviewed',
    evidence: [
      { shows: 'policy sets that were loaded, with their digests', where: `kind = 'policy.loaded'` },
      { shows: 'settings that were loaded, with their digests', where: `kind = 'settings.loaded'` },
      { shows: 'calls that no policy allowed', where: call(`code IN ('policy_denied', 'host_unmanaged')`) },
    ],
    elsewhere: 'Tests and reviews of policies are in your version control, under the digests that the entries name.',
  },
  {
    id: 'short_life',
    name: 'Short life, automatic expiry, revocation',
    evidence: [
      {
        shows: 'credentials that end by themselves',
        where: `kind IN ('lease.issued', 'lease.renewed') AND ephemeral = 1`,
      },
      { shows: 'grants that were ended', where: `kind = 'grant.revoked'` },
      { shows: 'orders that ended access', where: `kind = 'revocation.ordered'` },
      { shows: 'credentials that were ended', where: `kind = 'lease.revoked'` },
      { shows: 'uses after the end that were refused', where: call(`code IN ('grant_revoked', 'grant_expired')`) },
    ],
  },
  {
    id: 'secrets',
    name: 'Secrets encrypted and never exposed; key management',
    evidence: [
      { shows: 'calls made with a credential that the agent did not see', where: call(`cred_id IS NOT NULL`) },
      { shows: 'credentials held back from answers', where: `kind IN ('leak.detected', 'lease.captured')` },
      {
        shows: 'keys that were rotated',
        where: `kind IN ('log.key_rotated', 'admin.ca_rotated', 'admin.key_rotated')`,
      },
    ],
    elsewhere: 'Encryption at rest is a property of the program (docs/leases.md), not of an entry.',
  },
  {
    id: 'egress',
    name: 'TLS, control of what goes out, no requests to forbidden places',
    evidence: [
      { shows: 'calls over TLS', where: call(`effect = 'allow' AND scheme = 'https'`) },
      {
        shows: 'calls to forbidden or unknown places that were refused',
        where: call(
          `(code IN ('address_forbidden', 'host_unmanaged', 'target_mismatch') OR error = 'address_forbidden')`,
        ),
      },
      {
        shows: 'servers that did not prove their identity',
        where: call(`(code = 'upstream_tls' OR error = 'upstream_tls')`),
      },
    ],
  },
  {
    id: 'audit',
    name: 'Complete audit: who, what, when, outcome, origin',
    evidence: [
      {
        shows: 'calls with human, agent, task, origin and outcome',
        where: call(`human IS NOT NULL AND end_seq IS NOT NULL`),
      },
      { shows: 'calls that were refused', where: call(`effect = 'deny'`) },
      { shows: 'grants made, delegated, ended and refused', where: `kind LIKE 'grant.%'` },
      { shows: 'that the gateway was alive, and so that a gap would show', where: `kind = 'log.heartbeat'` },
      { shows: 'what operators and readers of the log did', where: `kind LIKE 'admin.%'` },
    ],
  },
  {
    id: 'tamper_evidence',
    name: 'Tamper evidence, protection and retention of the log (12 months, 3 at hand)',
    evidence: [
      {
        shows: 'log opened and sealed, each naming the tree it goes on from',
        where: `kind IN ('log.opened', 'log.sealed')`,
      },
      { shows: 'entries older than three months', where: `ts < :now - 7889400000` },
      { shows: 'entries older than twelve months', where: `ts < :now - 31557600000` },
    ],
    elsewhere: '`keyless log verify` proves the whole log; with --witness-key, that others saw it.',
  },
  {
    id: 'alerting',
    name: 'Alerting, detection of leaks, automatic revocation',
    evidence: [
      { shows: 'leaks that were found', where: `kind LIKE 'leak.%'` },
      {
        shows: 'credentials that were ended because they leaked',
        where: `kind = 'lease.revoked' AND detail LIKE '%"reason":"leaked"%'`,
      },
      {
        shows: 'access that rules and signals of others ended, without a human',
        where: `kind = 'revocation.ordered' AND (detail LIKE '%"by":"automatic"%' OR detail LIKE '%"by":"signal"%')`,
      },
      { shows: 'odd habits of agents that were noticed', where: `kind = 'revocation.anomaly'` },
    ],
    elsewhere: 'That somebody is alerted is for whatever the log is exported to.',
  },
  {
    id: 'time',
    name: 'Synchronised time',
    evidence: [{ shows: 'clocks that were set back, noticed and recorded', where: `kind = 'log.clock_set_back'` }],
    elsewhere: 'That the clock is synchronised is for the machine to show (chronyc tracking, timedatectl).',
  },
  {
    id: 'approval',
    name: 'Approval by humans, segregation of duties',
    evidence: [
      { shows: 'approvals asked for and decided', where: `kind LIKE 'approval.%'` },
      { shows: 'calls that waited for an approval and were refused', where: call(`code = 'approval_required'`) },
    ],
  },
  {
    id: 'emergency',
    name: 'Emergency access',
    evidence: [{ shows: 'emergency access that was used', where: `kind LIKE 'breakglass.%'` }],
  },
  {
    id: 'inventory',
    name: 'Inventory of identities that are no humans, with owners, reviewed',
    evidence: [
      { shows: 'grants that name the owner of their agent', where: `${MAKING} AND detail LIKE '%"owner":"_%'` },
    ],
    elsewhere: 'The inventory itself is `keyless report inventory`; that somebody reviewed it is for you to keep.',
  },
]
