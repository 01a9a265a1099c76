/** `keyless warm`: have credentials lie ready before the first call asks for them. */
import { Command } from 'commander'
import type { WarmedView } from '../protocol/control-leases.ts'
import { atGateway, onGateway } from './at-gateway.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable, printableJson } from './log/words.ts'

interface WarmOptions extends WhichGateway {
  readonly task?: string
  readonly grant?: string
  readonly json?: boolean
}

export function warmCommand(): Command {
  return onGateway(
    new Command('warm')
      .description('fetch credentials ahead of the calls of a task or grant, as policy allows them')
      .argument('<service...>', 'github, github:issues.read, or "GET https://api.github.com/repos/acme/site/issues"')
      .option('--task <id>', 'for the root grant of this task')
      .option('--grant <id>', 'for this grant')
      .option('--json', 'as JSON'),
  ).action((targets: string[], { task, grant, json, ...which }: WarmOptions, command: Command) => {
    if ((task === undefined) === (grant === undefined))
      command.error('error: say --task ID or --grant ID, one of the two')
    return atGateway(which, async (control) => {
      const warmed = await control.warm({
        ...(task !== undefined && { task }),
        ...(grant !== undefined && { grant }),
        targets,
      })
      if (warmed.every(({ ready }) => ready === 0)) process.exitCode = 1
      return json ? printableJson(warmed, 2) : warmed.map(lineOf).join('\n')
    })
  })
}

function lineOf({ target, ready, fetched, code, detail }: WarmedView): string {
  const lies = ready === 0 ? 'nothing lies ready' : `ready (${fetched === 0 ? 'it was already' : 'fetched now'})`
  return printable(`${target}: ${lies}${code === undefined ? '' : `. ${detail} (${code})`}`)
}
