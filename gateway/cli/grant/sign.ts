/**
 * `keyless grant sign`: the holder of a grant that is bound to a key passes on less of it by its own signature, without asking
 * the gateway. The signing itself is loaded when it is asked for.
 */
import { Command } from 'commander'
import { GatewayError } from '../../protocol/problem.ts'
import { refused } from '../at-gateway.ts'
import { saysHowFar, saysWhat } from './request.ts'
import type { SignOptions } from './signing.ts'

/** @param nowMs milliseconds since the Unix epoch. */
export function grantSignCommand(nowMs: () => number = Date.now): Command {
  const command = new Command('sign')
    .description('pass on less of a grant that is bound to your key, by your signature alone; prints the child')
    .requiredOption('--parent <file>', 'your grant: the token, or the JSON answer that has it; - is standard input')
    .requiredOption('--key <file>', 'private key that it is bound to (PEM, Ed25519 or P-256)')
    .requiredOption('--to <agent>', 'registered agent that gets it')
    .option('--reason <text>', 'why, for the record; at most 500 characters')
  return saysHowFar(saysWhat(command))
    .addHelpText(
      'after',
      '\nWithout --scope and --details the child may do what its parent may; without --ttl, as long.',
    )
    .action(async (options: SignOptions) => {
      try {
        const { sign } = await import('./signing.ts')
        await sign(options, Math.floor(nowMs() / 1000))
      } catch (cause) {
        if (!(cause instanceof GatewayError)) throw cause
        process.exitCode = refused(cause)
      }
    })
}
