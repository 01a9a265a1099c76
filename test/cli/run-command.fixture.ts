/** `keyless run` as a process of its own, without the other commands: what a test can kill, signal and wait for. */
import { Command } from 'commander'
import { runCommand } from '../../gateway/cli/run/run.ts'

await new Command('keyless').enablePositionalOptions().addCommand(runCommand()).parseAsync()

process.exit() // as gateway/keyless.ts ends
