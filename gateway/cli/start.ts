/**
 * `keyless start`: run the gateway in the foreground. With settings it serves them; without any it brings up the demo, makes
 * a first governed call and shows what happened.
 */
import { existsSync } from 'node:fs'
import { setFlagsFromString } from 'node:v8'
import { Command } from 'commander'
import type { PolicyView } from '../protocol/control-policy.ts'
import type { ServiceView, StatusView } from '../protocol/control-status.ts'
import type { Settings } from '../settings.ts'
import { hideMemory, requireHidden } from './exposure.ts'

/** What `main.ts` gives back once the doors are open. */
export interface Running {
  readonly proxy: string
  readonly control: string
  readonly warnings: readonly string[]
  status(): Promise<StatusView>
  /** @throws {GatewayError} `policy_rejected` */
  reload(): Promise<PolicyView>
  stop(): Promise<void>
}

export type OpenGateway = (settings: Settings) => Promise<Running>

interface StartOptions {
  readonly config?: string
  readonly demo?: boolean
  readonly unsafeInspector?: boolean
}

/**
 * V8 looks through all old objects whenever they have grown by a few megabytes, every two seconds under load: a twentieth of all CPU.
 * Now it waits until there are twice as many as it left, which takes about 50 MB more. Of a flag that it does not know it only complains.
 */
const COLLECT_AT_TWICE = '--heap-growing-percent=100'

export function startCommand(openGateway: OpenGateway): Command {
  return new Command('start')
    .description('run the gateway until Ctrl-C; without a keyless.yaml, with a demo upstream and a first call')
    .option('-c, --config <file>', 'settings (default: ./keyless.yaml if there is one)')
    .option('--demo', 'run the demo even if there is a keyless.yaml')
    .option('--unsafe-inspector', 'start although a debugger, or what the runtime prints, shows every credential')
    .action(async (options: StartOptions) => {
      requireHidden(options.unsafeInspector ?? false)
      setFlagsFromString(COLLECT_AT_TWICE)
      const wantsDemo = options.demo ?? (options.config === undefined && !existsSync('keyless.yaml'))
      await (wantsDemo ? demo(openGateway) : serve(openGateway, options.config))
    })
}

async function serve(openGateway: OpenGateway, config: string | undefined): Promise<void> {
  const { loadSettings } = await import('../settings.ts')
  const settings = await loadSettings(config)
  const stopped = stopSignal()
  const exposed = await hideMemory()
  const gateway = await openGateway(settings)
  onHangUp(gateway)
  const { services } = await gateway.status()
  process.stdout.write(
    `Keyless is up.\n${doors(gateway, settings)}${served(services, settings.file)}\nCtrl-C stops it.\n`,
  )
  for (const warning of [...exposed, ...gateway.warnings, ...services.flatMap(missing)])
    process.stderr.write(`keyless: warning: ${warning}\n`)
  await stopped
  await gateway.stop()
}

async function demo(openGateway: OpenGateway): Promise<void> {
  const [{ firstCall, startDemo }, { loadSettings }] = await Promise.all([
    import('./demo.ts'),
    import('../settings.ts'),
  ])
  const stopped = stopSignal()
  const upstream = await startDemo()
  try {
    const settings = await loadSettings(upstream.settingsFile)
    const gateway = await openGateway(settings)
    try {
      process.stdout.write(
        `Keyless is up.\n${doors(gateway, settings)}  demo     ${upstream.api}, an API behind a real OAuth server at ${upstream.issuer}\n\n`,
      )
      const stopping = new AbortController()
      stopped.then(() => stopping.abort())
      const told = firstCall(upstream, settings, stopping.signal).then((text) => process.stdout.write(text))
      await Promise.race([told, stopped]) // a call cut short by Ctrl-C has nothing to tell
      await stopped
    } finally {
      await gateway.stop()
    }
  } finally {
    await upstream.stop()
  }
}

function doors(gateway: Running, settings: Settings): string {
  const agents = 'agents point HTTP_PROXY and HTTPS_PROXY here'
  const proxy = settings.listen.proxyTls
    ? `${gateway.proxy.replace('http:', 'https:')}   ${agents}, by a name of its certificate; http: from this machine alone`
    : `${gateway.proxy}   ${agents}`
  return [
    `  proxy    ${proxy}`,
    `  control  ${gateway.control}   and ${settings.listen.controlSocket}`,
    `  data     ${settings.dataDir}   keys, log and state, readable by you alone`,
    '',
  ].join('\n')
}

/** What is served, so that a file that was not meant, or a service that was forgotten, shows at once. */
function served(services: readonly ServiceView[], file: string | undefined): string {
  const names = services.map(({ name }) => name).join(', ') || 'none'
  return `  settings ${file ?? 'none: defaults only'}\n  services ${names}\n`
}

/** A service that cannot work as it is configured: its first call would be refused. */
function missing({ name, placeholders, credential_configured, credential_problem }: ServiceView): string[] {
  if (credential_problem !== undefined)
    return [`calls to ${name} are refused: ${lowered(credential_problem)} It is read where the gateway runs.`]
  if (credential_configured || Object.keys(placeholders).length === 0) return []
  return [`calls to ${name} are refused: there is no entry for it under credentials.`]
}

function lowered(sentence: string): string {
  return sentence.charAt(0).toLowerCase() + sentence.slice(1)
}

/** SIGHUP, where nobody's terminal has gone: agents and policies are read again. */
function onHangUp(gateway: Running): void {
  if (hasTerminal()) return
  process.on('SIGHUP', () => {
    gateway.reload().then(
      ({ policies, policy_set }) => process.stderr.write(`keyless: ${policies} policies decide, ${policy_set}\n`),
      (cause: Error) => process.stderr.write(`keyless: warning: ${cause.message}\n`),
    )
  })
}

/** Resolves at the first SIGINT or SIGTERM; a second one ends the process at once, for whoever cannot wait for the drain. */
function stopSignal(): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  let told = false
  const stop = () => {
    if (told) process.exit(130)
    told = true
    process.stderr.write('\nkeyless: stopping; calls in flight are finished first\n')
    resolve()
  }
  process.on('SIGINT', stop)
  process.on('SIGTERM', stop)
  if (hasTerminal()) process.on('SIGHUP', stop) // it is gone
  return promise
}

function hasTerminal(): boolean {
  return process.stdin.isTTY || process.stdout.isTTY || process.stderr.isTTY
}
