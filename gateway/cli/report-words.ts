/** Reports for people, and the two that machines other than ours read: CSV and Cedar. */

import type { Checklist } from '../records/report-checklist.ts'
import type { EvidenceReport } from '../records/report-evidence.ts'
import { COMPARED_S, type Exposure } from '../records/report-exposure.ts'
import type { Identity, Inventory } from '../records/report-inventory.ts'
import type { LeastPrivilege, LeastPrivilegeReport } from '../records/report-least-privilege.ts'
import { type Slo, TARGETS } from '../records/report-slo.ts'
import { printable } from './log/words.ts'
import { columns, counted, inMs, inSeconds, when } from './table.ts'

export function inventoryInWords({ identities, humans, flags }: Inventory): string {
  if (identities.length === 0) return 'No grant and no credential was issued in this time.'
  const rows = identities.map((one) => [
    one.id,
    one.kind,
    `privilege ${one.privilege}`,
    inSeconds(one.lifetime_s),
    one.ephemeral ? '' : 'ephemeral: false',
    one.kind === 'agent' ? one.owner || 'NO OWNER' : '',
    `${one.issued} issued, ${counted(one.calls, 'call')}, last ${when(one.last_use)}`,
    [
      ...(one.unused_grants > 0 ? [counted(one.unused_grants, 'unused grant')] : []),
      ...(one.shared_grants.length > 0 ? [counted(one.shared_grants.length, 'shared grant')] : []),
    ].join(', '),
  ])
  const agents = identities.filter(({ kind }) => kind === 'agent').length
  const humanPart = humans === 0 ? '' : ` for ${counted(humans, 'human')}`
  return [
    `${counted(agents, 'agent')}${humanPart} and ${counted(identities.length - agents, 'upstream credential')}; worst first: privilege × longest life`,
    ...columns(rows),
    '',
    `What auditors flag: ${flags.static_credentials} static credentials, ${flags.unowned_agents} agents without owner, ${flags.agents_with_shared_grants} agents with shared grants, ${flags.agents_with_unused_grants} agents with unused grants.`,
  ].join('\n')
}

const CSV_COLUMNS = [
  ...['kind', 'id', 'owner', 'risk_tier', 'privilege', 'lifetime_s', 'risk', 'ephemeral', 'issued', 'calls'],
  ...['last_use', 'unused_grants', 'shared_grants'],
] as const satisfies readonly (keyof Identity)[]

/** RFC 4180. */
export function inventoryAsCsv({ identities }: Inventory): string {
  const rows = identities.map((one) =>
    CSV_COLUMNS.map((name) => {
      const value = one[name]
      if (name === 'last_use') return typeof value === 'number' ? new Date(value).toISOString() : ''
      return cell(Array.isArray(value) ? value.join(' ') : String(value ?? ''))
    }).join(','),
  )
  return [CSV_COLUMNS.join(','), ...rows].join('\r\n')
}

/** A cell that a spreadsheet would take for a formula is made a text: names come from tokens that others wrote. */
function cell(text: string): string {
  const safe = /^[=+\-@\t\r]/.test(text) ? `'${text}` : text
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}

export function exposureInWords(report: Exposure): string {
  const { issued, median_s, p95_s, factor, valid_s, used_s, static_credentials, leaks, weeks } = report
  const lives =
    median_s === null
      ? ['No credential that ends by itself was issued in this time.']
      : [
          `${counted(issued, 'credential')} that end by themselves: median life ${inSeconds(median_s)}, 95% at most ${inSeconds(p95_s)}`,
          `${factor} times shorter than keys that are changed every ${COMPARED_S / 86_400} days`,
          `exposure: ${inSeconds(valid_s)} of credential life, of which ${inSeconds(used_s)} between first and last call${valid_s > 0 ? ` (${Math.round((100 * used_s) / valid_s)}%)` : ''}`,
        ]
  const standing =
    static_credentials.length === 0
      ? 'no static credential was used'
      : `static credentials, which do not end and are not in these numbers: ${static_credentials.join(', ')}`
  const rows = weeks.map((one) => [
    new Date(one.week).toISOString().slice(0, 10),
    `${one.issued} issued`,
    one.median_s === null ? '' : `median ${inSeconds(one.median_s)}`,
    counted(one.leaks, 'leak'),
  ])
  return [
    ...lives,
    printable(standing),
    `leaks: ${leaks.detected} credentials came back in answers, ${leaks.foreign} requests carried credentials of others`,
    ...(weeks.length === 0 ? [] : ['', 'Week from', ...columns(rows)]),
  ].join('\n')
}

const met = (isMet: boolean | null) => (isMet === null ? 'NOTHING MEASURED' : isMet ? 'MET' : 'MISSED')

export function sloInWords({ issuance, revocation, decisions }: Slo): string {
  const { slowest, unconfirmed, late_calls, orders } = revocation
  const availability = decisions.availability === null ? 'no call' : `${(100 * decisions.availability).toFixed(3)}%`
  return [
    `Issuance: 99% within ${TARGETS.issuance_p99_ms} ms  ${met(issuance.isMet)}`,
    `  ${counted(issuance.issued, 'credential')}: median ${inMs(issuance.p50_ms)}, 99% within ${inMs(issuance.p99_ms)}`,
    `Revocation: mean within ${TARGETS.revoke_mean_ms / 60_000} min  ${met(revocation.isMet)}`,
    `  ${counted(revocation.revocations, 'end', 'ends')} of grants and tasks: mean ${inMs(revocation.mean_ms)}, 99% within ${inMs(revocation.p99_ms)}; ${counted(late_calls, 'call')} allowed after the end`,
    ...(slowest === null ? [] : [`  slowest: ${inMs(slowest.ms)} (${slowest.entry})`]),
    ...(orders.given === 0
      ? []
      : [
          `  ${counted(orders.given, 'order')} to revoke: carried out within ${inMs(orders.p99_ms)} (99%), ${orders.failed} not wholly at first`,
        ]),
    ...(unconfirmed.credentials === 0
      ? []
      : [
          `  ${counted(unconfirmed.credentials, 'credential')} of ended grants: no issuer confirmed the end; used no more, valid for up to ${inSeconds(unconfirmed.longest_s)} after it`,
        ]),
    `Decisions: ${availability} of ${counted(decisions.calls + decisions.unrecorded, 'call')} were answered by policy; ${decisions.failed} failed in the gateway, ${decisions.unrecorded} were refused while the log could not be written`,
  ].join('\n')
}

export function evidenceInWords({ framework, note, records, controls }: EvidenceReport): string {
  const lines = controls.flatMap(({ control, references, shown, missing, isGap, elsewhere }) => [
    '',
    `${isGap ? 'GAP  ' : ''}${control}  [${references.join(', ')}]`,
    ...(isGap ? ['  No entry shows this.'] : []),
    ...shown.map(
      ({ shows, entries, samples }) =>
        `  ${entries} × ${shows}: ${samples.map(({ entry }) => entry).join(', ')}${entries > samples.length ? ', …' : ''}`,
    ),
    ...missing.map((shows) => `  none: ${shows}`),
    ...(elsewhere === null ? [] : [`  ${elsewhere}`]),
  ])
  const gaps = controls.filter(({ isGap }) => isGap).length
  return [
    `${framework}, from ${records} records. ${note}`,
    `${controls.length - gaps} of ${controls.length} controls have entries that speak for them.`,
    ...lines.map(printable),
    '',
    'Prove an entry with: keyless log prove NUMBER (or --json here, which has the proofs)',
  ].join('\n')
}

export function leastPrivilegeInWords({ source, agents }: LeastPrivilegeReport): string {
  if (agents.length === 0) return 'No grant was made in this time.'
  const known =
    source === 'catalogue'
      ? ''
      : '\nWithout settings (--config) it is not known what patterns such as github:* cover beyond what was ever asked for.\n'
  return [known, ...agents.map(agentInWords)].filter((part) => part !== '').join('\n\n')
}

function agentInWords(one: LeastPrivilege): string {
  const { agent, owner, grants, granted, used, passed_on, unused, excess, scope, policy } = one
  const lines = [
    `${agent}  (${owner || 'no owner'}): ${counted(grants, 'grant')}, ${counted(granted.length, 'operation')} granted, ${used.length} used by itself; ${Math.round(100 * excess)}% of the privilege was never used`,
    ...used.map(
      ({ operation, hosts, calls, entry }) =>
        `  used    ${operation} at ${hosts.join(', ')}: ${counted(calls, 'call')} (${entry})`,
    ),
    ...(passed_on.length === 0 ? [] : [`  passed on and used below it  ${passed_on.join(', ')}`]),
    ...(unused.length === 0 ? [] : [`  unused  ${unused.join(', ')}`]),
    ...(scope === ''
      ? ['  Nothing was used, so nothing is known of what it needs.']
      : [`  ask for --scope "${scope}"`]),
    ...(policy === null ? [] : ['  or add this policy:', '']),
  ]
  return [...lines.map(printable), ...(policy === null ? [] : [policy.trimEnd()])].join('\n')
}

export function policiesOnly({ agents }: LeastPrivilegeReport): string {
  const policies = agents.flatMap(({ policy }) => policy ?? [])
  return policies.length === 0
    ? '// No agent used anything: there is nothing to narrow to.'
    : policies.join('\n').trimEnd()
}

const STATES: Readonly<Record<Checklist['points'][number]['state'], string>> = {
  yes: 'yes  ',
  no: 'NO   ',
  unknown: '?    ',
}

export function checklistInWords({ points }: Checklist): string {
  const lines = points.flatMap(({ point, state, why, entries }) => [
    `${STATES[state]} ${point}`,
    `      ${why}${entries.length === 0 ? '' : `  [${entries.join(', ')}]`}`,
  ])
  const count = (state: keyof typeof STATES) => points.filter((one) => one.state === state).length
  return [
    ...lines.map(printable),
    '',
    `${count('yes')} of ${points.length} hold, ${count('no')} do not, ${count('unknown')} cannot be verified from here.`,
  ].join('\n')
}
