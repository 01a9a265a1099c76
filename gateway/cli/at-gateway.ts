/** What all commands that instruct a running gateway have in common: which gateway, what its refusals become, how times look. */
import { type Command, InvalidArgumentError } from 'commander'
import { GatewayError, problems } from '../protocol/problem.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printableLines } from './log/words.ts'

/** sysexits(3), and what shells use; everything else is a command's own exit code. */
export const EXIT = {
  usage: 64,
  unavailable: 69,
  system: 71,
  refused: 77,
  configuration: 78,
  cannotExecute: 126,
  notFound: 127,
} as const

export function onGateway(command: Command): Command {
  return command
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
}

/** @param socket path of the control socket, for what is told to people. */
type Work<T> = (control: ControlClient, socket: string) => Promise<T>

/**
 * Do `work` at the gateway. A refusal and a gateway that does not answer are said on standard error.
 * @returns what `work` returned, or the exit code of `EXIT` in its place.
 */
export async function instruct<T>(which: WhichGateway, work: Work<T>): Promise<T | number> {
  const [{ controlClient, ControlUnreachable }, { findSocket }] = await Promise.all([
    import('./control-client.ts'),
    import('./log/find-socket.ts'),
  ])
  try {
    const socket = await findSocket(which)
    return await work(controlClient(socket), socket)
  } catch (cause) {
    if (cause instanceof ControlUnreachable) {
      process.stderr.write(`keyless: ${cause.message}\n`)
      return EXIT.unavailable
    }
    if (!(cause instanceof GatewayError)) throw cause
    return refused(cause)
  }
}

/** Say a refusal, which may repeat what an agent wrote. @returns the exit code that goes with it. */
export function refused({ code, detail }: GatewayError): number {
  process.stderr.write(`keyless: ${printableLines(detail)} (${code})\n`)
  return problems[code].status === 400 ? EXIT.usage : EXIT.refused
}

/** The same for a command whose result is a text. */
export async function atGateway(which: WhichGateway, work: Work<string>): Promise<void> {
  const done = await instruct(which, work)
  if (typeof done === 'number') process.exitCode = done
  else process.stdout.write(`${done}\n`)
}

/** "30s", "15m", "1h" → seconds. @throws {InvalidArgumentError} */
export function parseTtl(text: string): number {
  const match = /^([1-9]\d{0,4})(s|m|h)$/.exec(text)
  if (!match) throw new InvalidArgumentError('Write a number and a unit: 30s, 15m or 1h.')
  return Number(match[1]) * ({ s: 1, m: 60, h: 3600 }[match[2] ?? 's'] ?? 1)
}

/** @param epochS seconds */
export function timeOf(epochS: number): string {
  return new Date(epochS * 1000).toISOString().replace('.000Z', 'Z')
}
