/**
 * Which controls of SOC 2 (TSC), PCI DSS 4.0.1 and ISO 27001:2022 Annex A the log can speak for, and which entries do. A map to
 * begin with: an auditor has the last word. Entries are chosen by SQL over `records`.
 */

export const FRAMEWORKS = { soc2: 'SOC 2 (TSC)', pci: 'PCI DSS 4.0.1', iso27001: 'ISO 27001:2022 Annex A' } as const
export type Framework = keyof typeof FRAMEWORKS

export interface Evidence {
  /** What the entries show. */
  readonly shows: string
  readonly where: string
}

export interface Control {
  readonly name: string
  readonly references: Readonly<Record<Framework, readonly string[]>>
  readonly evidence: readonly Evidence[]
  /** What the control also asks for and no log can show. */
  readonly elsewhere?: string
}

const call = (condition: string) => `kind = 'call' AND ${condition}`
const MAKING = `kind IN ('grant.issued', 'grant.delegated', 'grant.replaced')`

export const CONTROLS: readonly Control[] = [
  {
    name: 'Unique identity of every agent and instance, not shared',
    references: { soc2: ['CC6.1', 'CC6.2'], pci: ['8.2.1', '8.2.2', '8.6.1'], iso27001: ['5.16'] },
    evidence: [
      { shows: 'grants made for one registered agent each', where: MAKING },
      { shows: 'grants whose agent proved its identity', where: `${MAKING} AND detail LIKE '%"attested":true%'` },
    ],
    elsewhere: 'Grants that were used from several addresses are in `keyless report inventory`.',
  },
  {
    name: 'Workloads authenticate themselves; credentials of applications are not used interactively',
    references: { soc2: ['CC6.1'], pci: ['8.3.x', '8.6.1', '8.6.2', '8.6.3'], iso27001: ['5.17', '8.5'] },
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
    name: 'Least privilege: scope of the task, attenuation',
    references: { soc2: ['CC6.3'], pci: ['7.2.1', '7.2.2', '7.2.5'], iso27001: ['5.15', '5.18', '8.2', '8.3'] },
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
    name: 'Default deny, policy as code, tested and reviewed',
    references: { soc2: ['CC5.2', 'CC8.1'], pci: ['6.5.1', '7.3.1', '7.3.2', '7.3.3'], iso27001: ['8.32', '8.9'] },
    evidence: [
      { shows: 'policy sets that were loaded, with their digests', where: `kind = 'policy.loaded'` },
      { shows: 'settings that were loaded, with their digests', where: `kind = 'settings.loaded'` },
      { shows: 'calls that no policy allowed', where: call(`code IN ('policy_denied', 'host_unmanaged')`) },
    ],
    elsewhere: 'Tests and reviews of policies are in your version control, under the digests that the entries name.',
  },
  {
    name: 'Short life, automatic expiry, revocation',
    references: { soc2: ['CC6.2', 'CC6.3'], pci: ['8.2.4', '8.2.5', '8.2.6', '8.6.3'], iso27001: ['5.18', '5.11'] },
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
    name: 'Secrets encrypted and never exposed; key management',
    references: {
      soc2: ['CC6.1', 'CC6.7'],
      pci: ['3.5', '3.6', '3.7', '8.3.2', '8.6.2'],
      iso27001: ['8.24', '5.17', '8.12'],
    },
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
    name: 'TLS, control of what goes out, no requests to forbidden places',
    references: {
      soc2: ['CC6.6', 'CC6.7'],
      pci: ['1.3', '1.4', '4.2.1'],
      iso27001: ['8.20', '8.21', '8.22', '8.23', '5.14'],
    },
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
    name: 'Complete audit: who, what, when, outcome, origin',
    references: {
      soc2: ['CC7.2', 'CC4.1'],
      pci: ['10.2.1.1', '10.2.1.2', '10.2.1.3', '10.2.1.4', '10.2.1.5', '10.2.1.6', '10.2.1.7', '10.2.2'],
      iso27001: ['8.15'],
    },
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
    name: 'Tamper evidence, protection and retention of the log (12 months, 3 at hand)',
    references: {
      soc2: ['CC7.2'],
      pci: ['10.3.1', '10.3.2', '10.3.3', '10.3.4', '10.5.1'],
      iso27001: ['8.15', '5.28', '5.33'],
    },
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
    name: 'Alerting, detection of leaks, automatic revocation',
    references: {
      soc2: ['CC7.2', 'CC7.3', 'CC7.4'],
      pci: ['10.4.x', '10.7', '12.10'],
      iso27001: ['8.16', '5.24', '5.25', '5.26', '8.12'],
    },
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
    name: 'Synchronised time',
    references: { soc2: ['CC7.2'], pci: ['10.6.1', '10.6.2', '10.6.3'], iso27001: ['8.17'] },
    evidence: [{ shows: 'clocks that were set back, noticed and recorded', where: `kind = 'log.clock_set_back'` }],
    elsewhere: 'That the clock is synchronised is for the machine to show (chronyc tracking, timedatectl).',
  },
  {
    name: 'Approval by humans, segregation of duties',
    references: { soc2: ['CC5.1', 'CC6.3'], pci: ['6.5.x', '7.2.x'], iso27001: ['5.3'] },
    evidence: [
      { shows: 'approvals asked for and decided', where: `kind LIKE 'approval.%'` },
      { shows: 'calls that waited for an approval and were refused', where: call(`code = 'approval_required'`) },
    ],
  },
  {
    name: 'Emergency access',
    references: { soc2: ['CC6.1', 'CC7.5'], pci: ['7.2.x', '8.2.x'], iso27001: ['8.2', '5.29'] },
    evidence: [{ shows: 'emergency access that was used', where: `kind LIKE 'breakglass.%'` }],
  },
  {
    name: 'Inventory of identities that are no humans, with owners, reviewed',
    references: { soc2: ['CC6.1', 'CC3.2'], pci: ['7.2.5.1', '12.5'], iso27001: ['5.9', '5.18'] },
    evidence: [
      { shows: 'grants that name the owner of their agent', where: `${MAKING} AND detail LIKE '%"owner":"_%'` },
    ],
    elsewhere: 'The inventory itself is `keyless report inventory`; that somebody reviewed it is for you to keep.',
  },
]
