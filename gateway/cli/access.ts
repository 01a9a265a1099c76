/** `keyless access`: what agents ask for that their grants do not give; change it, grant it in one's own name, or deny it. */
import { Command } from 'commander'
import type { Wanted } from '../protocol/access.ts'
import type { AccessRequestView } from '../protocol/control-access.ts'
import { atGateway, onGateway, parseTtl, timeOf } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import { parseDetails } from './grant/request.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable, printableJson } from './log/words.ts'
import { listCommand, showCommand } from './run/waiting.ts'
import { columns, counted } from './table.ts'

interface EditOptions extends WhichGateway {
  readonly scope?: string
  readonly details?: object[]
  readonly ttl?: number
}

const REQUESTS = {
  noun: 'request',
  none: 'No agent asks for access.',
  all: (control: ControlClient) => control.accessRequests(),
  one: (control: ControlClient, id: string) => control.accessRequest(id),
  rowOf,
  pageOf,
}

export function accessCommand(): Command {
  return new Command('access')
    .description('requests of agents for more access: see, change, grant or deny them')
    .addCommand(listCommand(REQUESTS))
    .addCommand(showCommand(REQUESTS))
    .addCommand(editCommand())
    .addCommand(decideCommand('grant', 'give it, in your name; policy decides whether you can'))
    .addCommand(decideCommand('deny', 'say no: the agent is told so'))
}

function editCommand(): Command {
  return onGateway(
    new Command('edit')
      .description('put something else in place of what is asked for')
      .argument('<id>')
      .option('--scope <operations>', 'what it may do, as in "github:issues.read openai:*"')
      .option('--details <json>', 'authorization_details: a JSON array, or @FILE with one', parseDetails)
      .option('--ttl <time>', 'how long: 30s, 15m or 1h', parseTtl),
  ).action((id: string, { scope, details, ttl, ...which }: EditOptions) =>
    atGateway(which, async (control) => {
      const wanted: Wanted = {
        ...(scope !== undefined && { scope }),
        ...(details !== undefined && { authorization_details: details }),
        ...(ttl !== undefined && { ttl_s: ttl }),
      }
      return [...pageOf(await control.editAccess(id, wanted)), `To give it: keyless access grant ${id}`].join('\n')
    }),
  )
}

function decideCommand(verdict: 'grant' | 'deny', says: string): Command {
  return onGateway(new Command(verdict).description(says).argument('<id>')).action((id: string, which: WhichGateway) =>
    atGateway(which, async (control) => {
      const { state } = await control.decideAccess(id, verdict)
      return state === 'granted'
        ? 'Granted. The agent fetches its grant within 15 minutes; it ends with the task, if not sooner.'
        : `It is ${state} now.`
    }),
  )
}

function rowOf(request: AccessRequestView): string[] {
  const { id, agent, human, expires_at: expiresAt } = request
  return [id, wordsOf(request), agent, `for ${printable(human.sub)}`, `until ${timeOf(expiresAt)}`]
}

function pageOf(request: AccessRequestView): string[] {
  const { agent_says: says, asked, decided_by: decidedBy } = request
  return [
    `${request.id}: ${request.state}`,
    'Verified by the gateway:',
    ...columns([
      ['would give', wordsOf(request)],
      ...(asked ? [['was asked', wordsOf(asked)]] : []),
      [
        'agent',
        `${request.agent} of ${request.agent_owner}, risk ${request.risk_tier}${request.attested ? ', attested' : ''}`,
      ],
      ['works for', printable(`${request.human.sub} (${request.human.iss})`)],
      ['lineage', printable(request.lineage.join(' → '))],
      ['task', request.task],
      ['until', timeOf(request.expires_at)],
      ...(decidedBy ? [['decided by', printable(`${decidedBy.sub} (${decidedBy.iss}), ${timeOf(decidedBy.at)}`)]] : []),
    ]),
    'What the agent says, which nobody has verified:',
    ...columns([
      ['why', printable(says.reason)],
      ['intent', printable(says.intent)],
      ...(says.event === undefined ? [] : [['refused', says.event]]),
    ]),
  ]
}

function wordsOf({ scope, authorization_details: details, ttl_s: ttlS }: Wanted): string {
  const parts = [
    scope,
    details && printableJson(details),
    ttlS === undefined ? undefined : `for ${counted(ttlS, 'second')}`,
  ]
  return printable(parts.filter((part) => part !== undefined).join('; '))
}
