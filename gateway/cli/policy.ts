/** `keyless policy`: one table of its subcommands, each in its own file. */
import { Command } from 'commander'
import { policyCheckCommand } from './policy-check.ts'
import { policyDiffCommand } from './policy-diff.ts'
import { policyExplainCommand } from './policy-explain.ts'
import { policyReloadCommand, policyStatusCommand } from './policy-live.ts'
import { policyPacksCommand } from './policy-packs.ts'
import { policyReplayCommand } from './policy-replay.ts'
import { policyKeygenCommand, policySignCommand } from './policy-sign.ts'
import { policySuggestCommand } from './policy-suggest.ts'
import { policyTestCommand } from './policy-test.ts'

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
