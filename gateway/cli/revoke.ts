/** `keyless revoke`: end access at once on every replica, keep it ended, and let it in again. */
import { Command, InvalidArgumentError } from 'commander'
import type { BlockView, RevokedView, TargetBody } from '../protocol/control-revocation.ts'
import { atGateway, onGateway, parseTtl, timeOf } from './at-gateway.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printableJson } from './log/words.ts'
import { columns, counted } from './table.ts'

interface Named {
  readonly grant?: string
  readonly task?: string
  readonly agent?: string
  readonly human?: { readonly iss: string; readonly sub: string }
  readonly service?: string
  readonly credential?: string
  readonly policySet?: string
  readonly everything?: true
}

interface RevokeOptions extends WhichGateway, Named {
  readonly reason?: string
  readonly block?: true
  /** Seconds. */
  readonly for?: number
  readonly lift?: true
  readonly list?: true
  readonly json?: true
}

const DAY_S = 86_400

export function revokeCommand(): Command {
  return onGateway(
    new Command('revoke')
      .description('end access at once, on every replica and in calls that are open; keep it ended, or lift that')
      .option('--grant <id>', 'the grant and all below it')
      .option('--task <id>', 'the task')
      .option('--agent <id>', 'every grant with this agent in its lineage')
      .option(
        '--human <name>',
        'every grant that this human is behind: ISSUER SUBJECT, separated by a space',
        parseHuman,
      )
      .option('--service <name>', 'every call to the service; blocked until lifted')
      .option('--credential <name>', 'every call that uses this entry of `credentials`; blocked until lifted')
      .option('--policy-set <digest>', 'every grant that was issued under these policies')
      .option('--everything', 'every grant and every call; blocked until lifted')
      .option('--reason <text>', 'why, for the log (at most 200 characters)')
      .option('--block', 'refuse what comes anew as well, until it is lifted')
      .option('--for <time>', 'the same for so long: 30m, 12h, 7d', parseFor)
      .option('--lift', 'take the block back; what was ended stays ended')
      .option('--list', 'show what is blocked')
      .option('--json', 'as JSON'),
  ).action((o: RevokeOptions, command: Command) => {
    if (o.list) return atGateway(o, async (control) => listed(await control.blocks(), o.json))
    const target = targetOf(o, command)
    if (o.lift)
      return atGateway(o, async (control) => {
        await control.lift({ target })
        return 'Lifted. What was ended stays ended.'
      })
    if (o.block && o.for !== undefined) command.error('error: --block is until it is lifted; say that or --for')
    const until = o.block ? null : o.for === undefined ? undefined : Math.ceil(Date.now() / 1000) + o.for
    const reason = o.reason ?? 'ordered on the command line'
    return atGateway(o, async (control) => {
      const done = await control.endAccess({ target, reason, ...(until !== undefined && { until }) })
      return o.json ? printableJson(done, 2) : told(done)
    })
  })
}

function targetOf(
  { grant, task, agent, human, service, credential, policySet, everything }: Named,
  command: Command,
): TargetBody {
  const all: TargetBody = {
    ...(grant !== undefined && { grant }),
    ...(task !== undefined && { task }),
    ...(agent !== undefined && { agent }),
    ...(human !== undefined && { human }),
    ...(service !== undefined && { service }),
    ...(credential !== undefined && { credential }),
    ...(policySet !== undefined && { policy_set: policySet }),
    ...(everything && { everything }),
  }
  if (Object.keys(all).length === 1) return all
  return command.error(
    'error: say exactly one of --grant, --task, --agent, --human, --service, --credential, --policy-set, --everything (or --list)',
  )
}

function told({ tasks, grants, leases, until }: RevokedView): string {
  const ended = `${counted(tasks, 'task')} and ${counted(grants, 'grant')} ended, ${counted(leases, 'credential')} dropped.`
  if (until === undefined) return ended
  return `${ended} Blocked ${until === null ? 'until it is lifted' : `until ${timeOf(until)}`}.`
}

function listed(blocks: readonly BlockView[], json: boolean | undefined): string {
  if (json) return printableJson(blocks, 2)
  if (blocks.length === 0) return 'Nothing is blocked.'
  return columns(
    blocks.map(({ target, until, since, reason }) => [
      wordsOf(target),
      until === null ? 'until lifted' : `until ${timeOf(until)}`,
      `since ${timeOf(since)}`,
      reason,
    ]),
  ).join('\n')
}

/** `service github`: as the options of the command name it. */
export function wordsOf(target: TargetBody): string {
  if (target.everything) return 'everything'
  if (target.human) return `human ${target.human.iss} ${target.human.sub}`
  const [[kind, name] = ['', '']] = Object.entries(target)
  return `${kind} ${name}`
}

function parseHuman(text: string): { readonly iss: string; readonly sub: string } {
  const at = text.indexOf(' ')
  if (at > 0 && at < text.length - 1) return { iss: text.slice(0, at), sub: text.slice(at + 1) }
  throw new InvalidArgumentError('Write issuer and subject with a space between: "https://id.acme.test ana".')
}

function parseFor(text: string): number {
  const days = /^([1-9]\d{0,3})d$/.exec(text)?.[1]
  if (days !== undefined) return Number(days) * DAY_S
  try {
    return parseTtl(text)
  } catch {
    throw new InvalidArgumentError('Write a number and a unit: 30m, 12h or 7d.')
  }
}
