/** `keyless secret`: the sealed store, at the running gateway or without one. A value comes from standard input or a prompt that shows nothing. */
import { Command } from 'commander'
import type { SecretsView } from '../protocol/control-connect.ts'
import { atGateway, onGateway, refused } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './log/find-socket.ts'

type SecretClient = Pick<ControlClient, 'secrets' | 'setSecret' | 'rotateSecret' | 'removeSecret' | 'reseal'>

/** The same work on the store itself, while no gateway has its log. */
export type SecretsAlone = <T>(which: WhichGateway, work: (secrets: SecretClient) => Promise<T>) => Promise<T>

export function secretCommand(alone: SecretsAlone): Command {
  const command = new Command('secret').description(
    'secrets that the gateway keeps sealed; settings refer to them as { sealed: NAME }',
  )
  const about = (verb: string, says: string) =>
    onGateway(new Command(verb).argument('<name>', 'name of the secret')).description(says)
  const takesValue = (verb: string, says: string) =>
    about(verb, says).allowExcessArguments().hook('preAction', onlyName)
  command.addCommand(
    takesValue('set', 'seal a secret under a new name; the value is read from standard input').action(
      async (name: string, which: WhichGateway) => {
        const value = await readValue(name)
        await atStore(which, alone, async (secrets) => {
          await secrets.setSecret(name, value)
          return `Sealed. Refer to it in settings as { sealed: ${name} }.`
        })
      },
    ),
  )
  command.addCommand(
    takesValue('rotate', 'put another value in the place of the one there is; it is read from standard input').action(
      async (name: string, which: WhichGateway) => {
        const value = await readValue(name)
        await atStore(which, alone, async (secrets) => {
          await secrets.rotateSecret(name, value)
          return 'Sealed. The value before is used until the leases that hold it end.'
        })
      },
    ),
  )
  command.addCommand(
    about('rm', 'remove a secret').action((name: string, which: WhichGateway) =>
      atStore(which, alone, async (secrets) => {
        await secrets.removeSecret(name)
        return 'Removed. Leases that hold the value go on until they end.'
      }),
    ),
  )
  command.addCommand(
    onGateway(new Command('list'))
      .description('names of the secrets, and those that settings miss')
      .action((which: WhichGateway) => atStore(which, alone, async (secrets) => inWords(await secrets.secrets()))),
  )
  command.addCommand(
    onGateway(new Command('reseal'))
      .description('seal everything anew under a new key; the one before is of no use after the next time')
      .action((which: WhichGateway) =>
        atStore(which, alone, async (secrets) => {
          const { values } = await secrets.reseal()
          return `${values} sealed anew, connections included.`
        }),
      ),
  )
  return command
}

/** A value that was given beside the name is not repeated: it is in the shell's history already. */
function onlyName(command: Command): void {
  if (command.args.length > 1)
    command.error(
      'error: a value is never given on the command line, where every process can read it. Give it on standard input: keyless secret set NAME < FILE. What stood there may be in the history of the shell.',
    )
}

async function atStore(
  which: WhichGateway,
  alone: SecretsAlone,
  work: (secrets: SecretClient) => Promise<string>,
): Promise<void> {
  const [{ controlClient, ControlUnreachable }, { findSocket }, { GatewayError }] = await Promise.all([
    import('./control-client.ts'),
    import('./log/find-socket.ts'),
    import('../protocol/problem.ts'),
  ])
  const socket = await findSocket(which)
  const isThere = await controlClient(socket)
    .secrets()
    .then(() => true)
    .catch((cause: unknown) => {
      if (cause instanceof ControlUnreachable) return false
      throw cause
    })
  if (isThere) return atGateway(which, work)
  try {
    process.stdout.write(`${await alone(which, work)}\n`)
  } catch (cause) {
    if (!(cause instanceof GatewayError)) throw cause
    process.exitCode = refused(cause)
  }
}

/** One trailing newline is cut, as where any reference is read. Nothing of it is shown, and nothing of it stands in a list of processes. */
async function readValue(name: string): Promise<string> {
  const { readHidden } = await import('./run/hidden.ts')
  return readHidden(`${name}: `)
}

function inWords({ secrets, missing }: SecretsView): string {
  const lines = [
    ...secrets.map(({ name, used }) => (used ? name : `${name}   (settings do not refer to it)`)),
    ...missing.map((name) => `${name}   MISSING: settings refer to it. keyless secret set ${name}`),
  ]
  return lines.length === 0 ? 'No secrets are sealed.' : lines.join('\n')
}
