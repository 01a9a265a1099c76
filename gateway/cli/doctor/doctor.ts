/** `keyless doctor`: every thing that has to be right on this machine, checked for real, each with what to do if it is not. */
import { dirname } from 'node:path'
import { Command } from 'commander'
import type { StatusView } from '../../protocol/control-status.ts'
import type { ControlClient } from '../control-client.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import { type Check, failed, ok, skipped } from './check.ts'

export interface DoctorOptions extends WhichGateway {
  readonly json?: boolean
}

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('check the gateway and this machine: doors, certificates, clients, clock, log, credentials')
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .option('--json', 'as JSON')
    .addHelpText(
      'after',
      '\nOpens a short task of its own and sends requests that are never forwarded. Exit code 0: all is well; 1: something is not.',
    )
    .action(async (options: DoctorOptions) => {
      const checks = await examine(options)
      const isWell = checks.every((check) => check.state !== 'failed')
      process.stdout.write(options.json ? `${JSON.stringify({ ok: isWell, checks }, null, 2)}\n` : report(checks))
      process.exitCode = isWell ? 0 : 1
    })
}

export async function examine(options: WhichGateway): Promise<Check[]> {
  const [{ controlClient }, { findSocket }] = await Promise.all([
    import('../control-client.ts'),
    import('../log/find-socket.ts'),
  ])
  const socketPath = await findSocket(options)
  const control = controlClient(socketPath)
  try {
    const status = await control.status()
    return [
      ok('control', `${socketPath} answers, version ${status.version}`),
      ...(await examineRunning(control, status)),
    ]
  } catch (cause) {
    const absent = failed(
      'control',
      cause instanceof Error ? cause.message : String(cause),
      'start the gateway: keyless start',
    )
    return [absent, ...(await examineStopped(options, dirname(socketPath)))]
  }
}

async function examineRunning(control: ControlClient, status: StatusView): Promise<Check[]> {
  const [machine, clients] = await Promise.all([import('./machine.ts'), import('./clients.ts')])
  const clock = await machine.checkClock(status.now, status.data_dir) // first: trying the clients takes seconds
  return [
    ...(await machine.checkDataDirectory(status.data_dir)),
    await clients.checkProxy(status.proxy),
    machine.checkAuthority(status.ca_pem, Date.now()),
    ...(await clients.checkTrust(control, status)),
    ...clock,
    machine.checkLog(status),
    ...machine.checkWitnesses(status),
    ...machine.checkExports(status),
    machine.checkRedis(status),
    ...machine.checkBlocks(await control.blocks()),
    ...machine.checkCredentials(status),
    await machine.checkIsolation(),
  ]
}

async function examineStopped(options: WhichGateway, dataDir: string): Promise<Check[]> {
  const machine = await import('./machine.ts')
  return [
    ...(await machine.checkSettings(options.config)),
    ...(await machine.checkDataDirectory(dataDir)),
    skipped('proxy, certificates, log, credentials', 'cannot be checked while the gateway is not running'),
  ]
}

const MARKS = { ok: '✓', failed: '✗', skipped: '–' } as const

export function report(checks: readonly Check[]): string {
  const width = Math.max(...checks.map((check) => check.name.length))
  const lines = checks.flatMap(({ name, state, detail, remedy }) => [
    `${MARKS[state]} ${name.padEnd(width)}  ${detail.replaceAll('\n', `\n${' '.repeat(width + 4)}`)}`,
    ...(remedy === undefined ? [] : [`${' '.repeat(width + 4)}→ ${remedy}`]),
  ])
  const wrong = checks.filter((check) => check.state === 'failed').length
  return `${lines.join('\n')}\n\n${wrong === 0 ? 'All is well.' : `${wrong} of ${checks.length} checks failed.`}\n`
}
