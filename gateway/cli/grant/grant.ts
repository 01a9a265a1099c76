/** `keyless grant`: issue, delegate, sign, look at, export, verify and revoke grants by hand. */
import { Command } from 'commander'
import type { GrantView, IssuedView } from '../../protocol/control.ts'
import { atGateway, onGateway, timeOf } from '../at-gateway.ts'
import type { ControlClient } from '../control-client.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import { printable, printableJson } from '../log/words.ts'
import { asksForGrant, type GrantOptions, grantBodyOf } from './request.ts'
import { grantSignCommand } from './sign.ts'
import { grantVerifyCommand } from './verify.ts'

interface Printed extends WhichGateway {
  readonly json?: boolean
}

interface IssueOptions extends GrantOptions, Printed {
  readonly task: string
  readonly as?: string
}

interface DelegateOptions extends GrantOptions, Printed {
  readonly from: string
  readonly to: string
  readonly narrow?: boolean
}

interface ShowOptions extends Printed {
  readonly bundle?: boolean
}

export function grantCommand(): Command {
  return new Command('grant')
    .description('issue, delegate, sign, show, verify and revoke grants')
    .addCommand(issueCommand())
    .addCommand(delegateCommand())
    .addCommand(grantSignCommand())
    .addCommand(showCommand())
    .addCommand(grantVerifyCommand())
    .addCommand(revokeCommand())
}

function issueCommand(): Command {
  const command = new Command('issue')
    .description('open a task and print its grant, this once')
    .requiredOption('-t, --task <purpose>', 'what it is for, in plain words; policies and records carry it')
    .option('--as <agent>', 'registered agent that acts (default: the first one of the settings)')
  return printed(asksForGrant(command)).action((options: IssueOptions) =>
    atGateway(options, async (control) => describe(await issue(control, options), options)),
  )
}

function issue(control: ControlClient, options: IssueOptions): Promise<IssuedView> {
  const { dpop_jkt, ...body } = {
    ...grantBodyOf(options),
    purpose: options.task,
    ...(options.as !== undefined && { agent: options.as }),
  }
  return dpop_jkt === undefined ? control.openTask(body) : control.openBoundTask({ ...body, dpop_jkt })
}

function delegateCommand(): Command {
  const command = new Command('delegate')
    .description('derive a grant with less in it for another agent, and print it, this once')
    .requiredOption('--from <grant>', 'handle, signed grant, or id of the grant to derive from')
    .requiredOption('--to <agent>', 'registered agent that gets it')
    .option('--narrow', 'cut what is wider than the parent instead of refusing it')
  return printed(asksForGrant(command)).action((options: DelegateOptions) =>
    atGateway(options, async (control) => {
      const { from: parent, to: agent, narrow } = options
      const body = { ...grantBodyOf(options), parent, agent, ...(narrow && { allow_narrowing: true }) }
      return describe(await control.delegate(body), options)
    }),
  )
}

function showCommand(): Command {
  const command = new Command('show')
    .description('a living grant: whose it is, what it covers, how it came to be')
    .argument('<id>', 'id of the grant')
    .option('--bundle', 'the signed grant with all above it and their attestations, for `keyless grant verify`')
  return printed(command).action((id: string, options: ShowOptions) =>
    atGateway(options, async (control) => {
      if (options.bundle) return JSON.stringify(await control.bundle(id), null, 2)
      const grant = await control.grant(id)
      return options.json ? printableJson(grant, 2) : view(grant)
    }),
  )
}

function revokeCommand(): Command {
  const command = new Command('revoke')
    .description('end a grant and everything derived from it, at once')
    .argument('<grant>', 'handle, signed grant, or id')
  return onGateway(command).action((grant: string, options: WhichGateway) =>
    atGateway(options, async (control) => {
      await control.revoke(grant)
      return 'The grant has ended, and everything derived from it.'
    }),
  )
}

function printed(command: Command): Command {
  return onGateway(command.option('--json', 'as JSON'))
}

function describe(issued: IssuedView, { json }: Printed): string {
  if (json) return printableJson(issued, 2)
  const { lineage, scope, grant, task, handle, token, expires_at, narrowed = [] } = issued
  return [
    `${printable(lineage)}.`,
    `It may use ${scope} until ${timeOf(expires_at)}.`,
    ...narrowed.map((cut) => `Cut away: ${printable(cut)}.`),
    '',
    `  grant   ${grant}`,
    `  task    ${task}`,
    handle === undefined ? `  token   ${token}   (bound to its key)` : `  handle  ${handle}   (shown this once)`,
  ].join('\n')
}

function view(grant: GrantView): string {
  const { attested, depth, max_depth: maxDepth, delegable } = grant
  return [
    `${printable(grant.lineage)}.`,
    '',
    `  grant      ${grant.grant}`,
    `  task       ${grant.task}  “${printable(grant.purpose)}”`,
    `  human      ${printable(grant.human)}`,
    `  agent      ${grant.agent}${attested ? ', proved by a workload identity' : ''}`,
    `  until      ${timeOf(grant.expires_at)}`,
    `  depth      ${depth}, ${delegable ? `delegable down to ${maxDepth}` : 'not delegable'}`,
    ...(grant.parent === undefined ? [] : [`  parent     ${grant.parent}`]),
    ...(grant.cnf === undefined ? [] : [`  bound to   ${JSON.stringify(grant.cnf)}`]),
    `  may        ${printableJson(grant.authorization_details, 2).replaceAll('\n', `\n${' '.repeat(13)}`)}`,
  ].join('\n')
}
