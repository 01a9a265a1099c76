/** `keyless policy`: one table of its subcommands, each in its own file. */
import { Command } from 'commander'
import { policyCheckCommand } from './policy-check.ts'
import { policyTestCommand } from './policy-test.ts'

export function policyCommand(): Command {
  const command = new Command('policy').description('work with policy as code')
  for (const sub of [policyCheckCommand(), policyTestCommand()]) command.addCommand(sub)
  return command
}
