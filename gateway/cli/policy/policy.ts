/** `keyless policy`: one table of its subcommands, each in its own file. */
import { Command } from 'commander'
import { policyCheckCommand } from './check.ts'
import { policyDiffCommand } from './diff.ts'
import { policyExplainCommand } from './explain.ts'
import { policyReloadCommand, policyStatusCommand } from './live.ts'
import { policyPacksCommand } from './packs.ts'
import { policyReplayCommand } from './replay.ts'
import { policyKeygenCommand, policySignCommand } from './sign.ts'
import { policySuggestCommand } from './suggest.ts'
import { policyTestCommand } from './test.ts'

export function policyCommand(): Command {
  const command = new Command('policy').description('work with policy as code')
  const asking = [
    policyCheckCommand(),
    policyTestCommand(),
    policyExplainCommand(),
    policyDiffCommand(),
    policyPacksCommand(),
  ]
  const logged = [policyReplayCommand(), policySuggestCommand()]
  const running = [policyStatusCommand(), policyReloadCommand()]
  const signing = [policySignCommand(), policyKeygenCommand()]
  for (const sub of [...asking, ...logged, ...signing, ...running]) command.addCommand(sub)
  return command
}
