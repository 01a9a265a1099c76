/** An investigation for people: section by section, every statement with the entries that show it. */
import type { Hop } from '../../records/grantors.ts'
import type { Investigation } from '../../records/investigate.ts'
import type { Verdict } from '../../records/verdict.ts'
import { columns, counted, inBytes, when } from '../table.ts'
import { factsInWords } from './found-words.ts'
import { printable } from './words.ts'

/** Rows of a section; the rest is counted, and in --json. */
const ROWS = 30

export function investigationInWords(found: Investigation): string {
  const { subject, span, grants } = found
  const from = span.since === undefined ? '' : ` since ${when(span.since)}`
  const to = span.until === undefined ? '' : ` until ${when(span.until)}`
  const unread = grants.all > grants.read ? `, the newest ${grants.read} looked at one by one` : ''
  const sections = [
    [printable(`${subject.kind} ${subject.id}${from}${to}: ${counted(grants.all, 'grant')}${unread}`)],
    ['VERDICT', ...found.verdicts.flatMap(verdictInWords)],
    reachInWords(found),
    deedsInWords(found),
    ['WHO GRANTED IT', ...found.grantors.slice(0, ROWS).flatMap(hopInWords)],
    policiesInWords(found),
    ...(found.noted.length === 0 ? [] : [notedInWords(found)]),
    blastInWords(found),
    ['Each entry (log:number) can be proved to be in the log: keyless log prove NUMBER'],
  ]
  return sections.map((lines) => lines.join('\n')).join('\n\n')
}

const QUESTIONS: Readonly<Record<Verdict['question'], string>> = {
  stolen_parent: 'Was it stolen, or a grant above it?',
  misconfiguration: 'Was it a mistake in policy or settings?',
  too_broad: 'Was more granted than needed?',
}
const ANSWERS: Readonly<Record<Verdict['answer'], string>> = {
  likely: 'LIKELY',
  possible: 'POSSIBLE',
  no_sign: 'NO SIGN OF IT',
  unknown: 'CANNOT BE TOLD: no call to judge by',
}

function verdictInWords({ question, answer, signs, looked_at }: Verdict): string[] {
  return [
    `  ${QUESTIONS[question]}  ${ANSWERS[answer]}`,
    ...signs
      .slice(0, ROWS)
      .map(({ what, weight, entries }) =>
        printable(`    ${weight === 'strong' ? '!' : '-'} ${what}  [${entries.join(', ')}]`),
      ),
    ...left(signs.length),
    `    looked at: ${looked_at.join('; ')}`,
  ]
}

function reachInWords({ reach: { source, privilege, operations } }: Investigation): string[] {
  const known =
    source === 'catalogue' ? 'as the service files say' : 'as far as the log knows; name the settings with --config'
  const rows = operations.slice(0, ROWS).map(({ operation, access, sensitivity, hosts, calls }) => {
    const kind = [access, sensitivity].filter((word) => word !== undefined).join(', ')
    return [
      operation,
      kind || 'not described',
      hosts.join(' ') || 'no known host',
      calls === 0 ? 'not used' : counted(calls, 'call'),
    ]
  })
  return [
    `WHAT IT COULD REACH  ${counted(operations.length, 'operation')}, privilege ${privilege}; ${known}`,
    ...columns(rows),
    ...left(operations.length),
  ]
}

function deedsInWords({ deeds }: Investigation): string[] {
  const { calls, allowed, refused, bytes_in, bytes_out, scrubbed } = deeds
  if (calls === 0) return ['WHAT IT DID', '  nothing']
  const done = deeds.operations
    .slice(0, ROWS)
    .map((deed) => [
      deed.operation ?? '?',
      deed.host ?? '?',
      counted(deed.calls, 'call'),
      `${when(deed.first)} to ${when(deed.last)}`,
      deed.last_entry,
    ])
  const denied = deeds.refusals
    .slice(0, ROWS)
    .map((one) => ['refused', one.code ?? '?', one.operation ?? '-', counted(one.calls, 'call'), one.last_entry])
  const news = deeds.unusual
    .slice(0, ROWS)
    .map(({ what, value, calls: n, first_entry }) => ['new', what, value, counted(n, 'call'), first_entry])
  const leaks = deeds.leaks.slice(0, ROWS).map(({ kind, ts, entry }) => [kind, when(ts), entry])
  return [
    `WHAT IT DID  ${counted(calls, 'call')}: ${allowed} allowed, ${refused} refused; ${when(deeds.first)} to ${when(deeds.last)}; ${inBytes(bytes_in)} in, ${inBytes(bytes_out)} out`,
    ...columns(done),
    ...left(deeds.operations.length),
    ...columns(denied),
    ...columns(leaks),
    ...(scrubbed > 0 ? [`  ${counted(scrubbed, 'credential')} in answers, overwritten`] : []),
    ...(deeds.baseline === 0
      ? ['  nothing earlier to compare with']
      : [
          `  compared with ${counted(deeds.baseline, 'earlier call')} of the same agents: ${deeds.unusual.length === 0 ? 'nothing new' : 'new is'}`,
        ]),
    ...columns(news, 4),
  ]
}

function hopInWords(hop: Hop): string[] {
  const { from, to, purpose, policies, attested_by, proof, workload } = hop
  const how = { human: 'directly', signed: 'signed with its own key', gateway: 'attested by the gateway' }[attested_by]
  const proved = proof === null ? [] : [`who ${from ?? 'the human'} is: ${membersOf(proof)}`]
  const agent = workload === null ? 'it was named, not proved' : membersOf(workload)
  return [
    `  ${from ?? '?'} → ${to ?? '?'}${purpose === null ? '' : ` for “${purpose}”`}, ${how}  [${hop.entry}]`,
    `    under ${policies.join(', ') || 'no policy'}; set ${hop.policy_set ?? 'unknown'}`,
    ...(hop.attestation === null ? [] : [`    attestation ${hop.attestation}`]),
    ...proved.map((line) => `    ${line}`),
    `    who ${to ?? 'the agent'} is: ${agent}`,
  ].map(printable)
}

function membersOf(value: Readonly<Record<string, unknown>>): string {
  return Object.entries(value)
    .map(([name, member]) => `${name} ${name === 'auth_time' ? when(Number(member) * 1000) : String(member)}`)
    .join(', ')
}

function policiesInWords({ policies }: Investigation): string[] {
  const rows = policies
    .slice(0, ROWS)
    .map((one) => [
      one.effect,
      counted(one.calls, 'call'),
      one.policies.join(', ') || 'no policy',
      one.policy_set ?? '',
      one.first_entry,
    ])
  return ['UNDER WHICH POLICY', ...columns(rows), ...left(policies.length)]
}

function notedInWords({ noted }: Investigation): string[] {
  const rows = noted
    .slice(0, ROWS)
    .map(({ kind, ts, human, detail, entry }) => [when(ts), kind, factsInWords(kind, detail.facts), human ?? '', entry])
  return ['WHAT WAS DONE ABOUT IT', ...columns(rows).map(printable), ...left(noted.length)]
}

function blastInWords({ blast }: Investigation): string[] {
  const credentials = blast.credentials
    .slice(0, ROWS)
    .flatMap(({ credential, cred_id, ephemeral, expires, used_by }) => {
      const life = ephemeral === false ? 'static, does not end' : `until ${when(expires)}`
      const others = used_by
        .slice(0, ROWS)
        .map(
          (one) =>
            `    also used by grant ${one.grant} of ${one.agent} (${counted(one.calls, 'call')}, ${one.first_entry})`,
        )
      return [`  credential ${credential ?? '?'} ${cred_id} (${life})`, ...others]
    })
  const relatives = (name: string, list: Investigation['blast']['siblings']) =>
    list
      .slice(0, ROWS)
      .map(
        ({ grant, agent, isLiving, entry }) =>
          `  ${name} ${grant} of ${agent ?? '?'}, ${isLiving ? 'living' : 'over'}  [${entry}]`,
      )
  const lines = [
    ...credentials,
    ...relatives('same parent:', blast.siblings),
    ...relatives('delegated from it:', blast.descendants),
  ]
  return ['WHAT ELSE IS TOUCHED', ...(lines.length === 0 ? ['  nothing that is known'] : lines.map(printable))]
}

function left(all: number): string[] {
  return all > ROWS ? [`  and ${all - ROWS} more (--json has all)`] : []
}
