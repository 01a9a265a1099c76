/** `keyless log forget`: destroy the key that a human is named under in the log, at the running gateway or without one. */
import { Command } from 'commander'
import { onGateway, refused } from '../at-gateway.ts'
import type { WhichGateway } from './find-socket.ts'

interface ForgetOptions extends WhichGateway {
  readonly human: string
  readonly iss?: string
}

interface Named {
  readonly sub: string
  readonly iss?: string
}

interface Forgotten {
  readonly seq: number
  readonly keys: readonly string[]
}

/** Opens the log itself, while no gateway has it. */
export type ForgetAlone = (which: WhichGateway, human: Named) => Promise<Forgotten>

export function logForgetCommand(alone: ForgetAlone): Command {
  return onGateway(new Command('forget'))
    .description('make a human unreadable in the log for good (needs audit.personal: sealed); proofs stay valid')
    .requiredOption('--human <sub>', 'the name that the issuer gives them, as in "human" of an entry')
    .option('--iss <issuer>', 'who calls them so; needed only when several issuers do')
    .action((options: ForgetOptions) => forgetCommand(options, alone))
}

async function forgetCommand({ human: sub, iss, ...which }: ForgetOptions, alone: ForgetAlone): Promise<void> {
  const [{ controlClient, ControlUnreachable }, { findSocket }, { GatewayError }] = await Promise.all([
    import('../control-client.ts'),
    import('./find-socket.ts'),
    import('../../protocol/problem.ts'),
  ])
  const human = iss === undefined ? { sub } : { sub, iss }
  try {
    const forgotten = await controlClient(await findSocket(which))
      .forgetHuman(human)
      .catch((cause) => {
        if (cause instanceof ControlUnreachable) return alone(which, human)
        throw cause
      })
    process.stdout.write(`${inWords(forgotten)}\n`)
  } catch (cause) {
    if (!(cause instanceof GatewayError)) throw cause
    process.exitCode = refused(cause)
  }
}

function inWords({ seq, keys }: Forgotten): string {
  const many = keys.length === 1 ? 'Key' : 'Keys'
  return `${many} ${keys.join(', ')} destroyed: entry ${seq} says so. What was sealed under ${keys.length === 1 ? 'it' : 'them'} opens no more; copies of keys_dir in backups still open it.`
}
