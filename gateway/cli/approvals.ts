/** `keyless approvals`: what waits for somebody to approve it, and saying yes or no as the human of this machine. */
import { setTimeout as pause } from 'node:timers/promises'
import { Command } from 'commander'
import type { ApprovalJson } from '../protocol/control-approvals.ts'
import { atGateway, instruct, onGateway, timeOf } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable, printableJson } from './log/words.ts'
import { listCommand, showCommand } from './run/waiting.ts'
import { columns, counted, inBytes } from './table.ts'

const WATCH_MS = 2_000

type Options = WhichGateway & { readonly json?: boolean }

const APPROVALS = {
  noun: 'approval',
  none: 'Nothing waits for approval.',
  all: (control: ControlClient) => control.approvals(),
  one: (control: ControlClient, id: string) => control.approval(id),
  rowOf,
  pageOf,
}

export function approvalsCommand(): Command {
  return new Command('approvals')
    .description('calls that wait for a human: see them, approve or deny them')
    .addCommand(listCommand(APPROVALS))
    .addCommand(showCommand(APPROVALS))
    .addCommand(decideCommand('approve', 'say yes to exactly this request; it passes once everybody who is needed has'))
    .addCommand(decideCommand('deny', 'say no: the agent is told so'))
    .addCommand(watchCommand())
}

function decideCommand(verdict: 'approve' | 'deny', says: string): Command {
  return onGateway(new Command(verdict).description(says).argument('<id>')).action((id: string, which: WhichGateway) =>
    atGateway(which, async (control) => {
      const { state, needed, missing } = await control.decideApproval(id, verdict)
      if (state !== 'pending') return `It is ${state} now.`
      return `Your consent counts; ${counted(needed, 'more person', 'more people')} must agree${missing.length > 0 ? `, of: ${missing.join(', ')}` : ''}.`
    }),
  )
}

function watchCommand(): Command {
  return onGateway(
    new Command('watch')
      .description('print each approval as it is asked for, until interrupted')
      .option('--json', 'one JSON object a line'),
  ).action(async ({ json, ...which }: Options) => {
    const done = await instruct(which, (control) => watch(control, json === true))
    process.exitCode = done
  })
}

async function watch(control: ControlClient, isJson: boolean): Promise<number> {
  let known = new Set<string>()
  for (;;) {
    const approvals = await control.approvals()
    for (const approval of approvals.filter(({ id }) => !known.has(id)))
      process.stdout.write(`${isJson ? printableJson(approval) : columns([rowOf(approval)], 0).join('')}\n`)
    known = new Set(approvals.map(({ id }) => id))
    await pause(WATCH_MS)
  }
}

function rowOf({ id, verified, asked, needed, expires_at: expiresAt, hindrance }: ApprovalJson): string[] {
  const { request, operation, agent, ttl_s: ttlS } = verified
  return [
    id,
    operation,
    request ? `${request.method} ${request.url}` : `a grant for ${counted(ttlS ?? 0, 'second')}`,
    agent,
    `${counted(needed, 'person', 'people')} of ${asked.from.join(', ') || 'anybody'}`,
    `until ${timeOf(expiresAt)}`,
    hindrance === undefined ? '' : 'not yours to decide',
  ]
}

function pageOf(approval: ApprovalJson): string[] {
  const { verified, agent_says: says, asked, consents, hindrance, denied_by: deniedBy } = approval
  const { request, human, authority, ttl_s: ttlS } = verified
  const about = request
    ? [
        ['request', `${request.method} ${request.url}`],
        ...(request.url.startsWith('ws')
          ? [['websocket', 'what is said in it is not seen before: all of it is approved']]
          : []),
        [
          'operation',
          `${verified.operation} (${verified.access}, ${verified.sensitivity}${verified.irreversible ? ', cannot be undone' : ''})`,
        ],
        ...(request.body ? [['body', `${inBytes(request.body.bytes)}, sha256 ${request.body.sha256}`]] : []),
        ...request.fields.map(([name, value]) => ['field', `${name}: ${value}`]),
      ]
    : [
        ['grant', `${verified.operation}, for ${counted(ttlS ?? 0, 'second')}`],
        ...(authority ?? []).map((entry) => ['authority', printableJson(entry)]),
      ]
  return [
    `${approval.id}: ${approval.state}${approval.why ? ` (${approval.why.replace('_', ' ')})` : ''}`,
    'Verified by the gateway:',
    ...columns([
      ...about,
      [
        'agent',
        `${verified.agent} of ${verified.owner}, risk ${verified.risk_tier}${verified.attested ? ', attested' : ''}`,
      ],
      ['for', `${human.sub} (${human.iss})`],
      ['chain', verified.lineage.join(' → ')],
      ['task', verified.task || 'a new one'],
      ['asked', `${counted(asked.count, 'person', 'people')} of ${asked.from.join(', ') || 'anybody'}`],
      ['counts', asked.reuse_s === undefined ? 'once' : `for ${counted(asked.reuse_s, 'second')}`],
      ['until', timeOf(approval.expires_at)],
      ...consents.map(({ name, groups, at, via }) => [
        'yes',
        `${name} for ${groups.join(', ')}, ${timeOf(at)}, ${via}`,
      ]),
      ...(deniedBy ? [['no', `${deniedBy.name}, ${timeOf(deniedBy.at)}, ${deniedBy.via}`]] : []),
    ]),
    'Said by the agent, verified by nobody:',
    ...columns([['intent', says.intent], ...(says.user_agent === undefined ? [] : [['program', says.user_agent]])]),
    ...(says.content === undefined
      ? []
      : ['  content', ...says.content.split('\n').map((line) => `  | ${printable(line)}`)]),
    ...(hindrance === undefined ? [] : [printable(`You cannot decide: ${hindrance}`)]),
  ]
}
