/** `keyless connect` and `keyless disconnect`: let a human sign in at a service, so that agents can work there for them. */
import { setTimeout as pause } from 'node:timers/promises'
import { Command } from 'commander'
import type { ConnectBody, ConnectionView, ProgressView } from '../protocol/control-connect.ts'
import { atGateway, EXIT, instruct, onGateway, timeOf } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { columns } from './table.ts'

interface ConnectOptions extends WhichGateway {
  readonly device?: boolean
  readonly for?: string
  readonly wait?: boolean
}

const FOR = 'whose account it is, when not yours: the name, or "ISSUER NAME" as entries of the log have them'

export function connectCommand(): Command {
  const list = onGateway(new Command('list'))
    .description('connections there are, and which have to be made again')
    .action((which: WhichGateway) => atGateway(which, async (control) => inWords(await control.connections())))
  return onGateway(new Command('connect'))
    .description('let a human connect a service with their own account')
    .argument('<credential>', 'name of the credential in settings, which is usually that of the service')
    .option('--device', 'by a code that is typed on another device')
    .option('--for <human>', FOR)
    .option('--no-wait', 'only say where to go')
    .action((credential: string, options: ConnectOptions) => connect(credential, options))
    .addCommand(list)
}

export function disconnectCommand(): Command {
  return onGateway(new Command('disconnect'))
    .description('forget a connection, and end it at its server')
    .argument('<credential>', 'name of the credential in settings')
    .option('--for <human>', FOR)
    .action((credential: string, { for: human, ...which }: ConnectOptions) =>
      atGateway(which, async (control) => {
        const { revoked } = await control.disconnect({ credential, ...named(human) })
        const forgotten = 'Disconnected: no new access tokens come from it; those in use end with their tasks.'
        if (revoked === true) return `${forgotten} Its server has ended it too.`
        const why = revoked === null ? 'offers no revocation' : 'did not answer'
        return `${forgotten} Its server ${why}: remove the access there as well.`
      }),
    )
}

async function connect(credential: string, { device, for: human, wait, ...which }: ConnectOptions): Promise<void> {
  const done = await instruct(which, async (control) => {
    const body: ConnectBody = { credential, ...named(human), ...(device === true && { device }) }
    const { ticket, url, user_code: code, interval_s: everyS } = await control.beginConnection(body)
    process.stdout.write(
      code === undefined
        ? `Open this in a browser, within 10 minutes. Whoever opens it first connects:\n\n  ${url}\n\n`
        : `Open ${url}\nand type the code  ${code}\n\n`,
    )
    if (wait === false && code === undefined) return 0
    return settle(await progressed(control, ticket, everyS))
  })
  if (done !== 0) process.exitCode = done
}

async function progressed(control: ControlClient, ticket: string, everyS = 2): Promise<ProgressView> {
  for (let waitS = everyS; ; ) {
    await pause(waitS * 1000)
    const progress = await control.connectProgress(ticket)
    if (progress.state !== 'pending') return progress
    waitS = progress.interval_s ?? waitS
  }
}

function settle({ state, why }: ProgressView): number {
  if (state === 'done') {
    process.stdout.write('Connected.\n')
    return 0
  }
  process.stderr.write(`keyless: not connected: ${why}\n`)
  return EXIT.refused
}

function named(human: string | undefined): Pick<ConnectBody, 'iss' | 'sub'> {
  if (human === undefined) return {}
  const space = human.indexOf(' ')
  return space < 0 ? { sub: human } : { iss: human.slice(0, space), sub: human.slice(space + 1) }
}

const STATES: Readonly<Record<ConnectionView['state'], string>> = {
  connected: 'connected',
  reauthorize: 'HAS TO BE CONNECTED AGAIN',
  unused: 'settings do not have it',
}

function inWords(connections: readonly ConnectionView[]): string {
  if (connections.length === 0) return 'Nobody has connected anything: keyless connect CREDENTIAL'
  const rows = connections.map(({ credential, human, state, refreshed_at: used, connected_at: since, scope }) => [
    credential,
    human === null ? 'everybody' : `${human.iss} ${human.sub}`,
    STATES[state],
    `since ${timeOf(since)}`,
    used === null ? 'never used' : `used ${timeOf(used)}`,
    scope ?? '',
  ])
  return columns(rows, 0).join('\n')
}
