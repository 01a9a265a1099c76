/**
 * `keyless start`: run the gateway in the foreground. With settings it serves them; without any it brings up the demo, makes
 * a first governed call and shows what happened.
 */
import { existsSync } from 'node:fs'
import { Command } from 'commander'
import type { Settings } from '../settings.ts'

/** What `main.ts` gives back once the doors are open. */
export interface Running {
  readonly proxy: string
  readonly control: string
  stop(): Promise<void>
}

export type OpenGateway = (settings: Settings) => Promise<Running>

interface StartOptions {
  readonly config?: string
  readonly demo?: boolean
}

export function startCommand(openGateway: OpenGateway): Command {
  return new Command('start')
    .description('run the gateway until Ctrl-C; without a keyless.yaml, with a demo upstream and a first call')
    .option('-c, --config <file>', 'settings (default: ./keyless.yaml if there is one)')
    .option('--demo', 'run the demo even if there is a keyless.yaml')
    .action(async (options: StartOptions) => {
      const wantsDemo = options.demo ?? (options.config === undefined && !existsSync('keyless.yaml'))
      await (wantsDemo ? demo(openGateway) : serve(openGateway, options.config))
    })
}

async function serve(openGateway: OpenGateway, config: string | undefined): Promise<void> {
  const { loadSettings } = await import('../settings.ts')
  const settings = await loadSettings(config)
  const stopped = stopSignal()
  const gateway = await openGateway(settings)
  for (const warning of settings.warnings) process.stderr.write(`keyless: ${warning}\n`)
  process.stdout.write(`Keyless is up.\n${doors(gateway, settings)}\nCtrl-C stops it.\n`)
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
      process.stdout.write(await firstCall(upstream, settings))
      await stopped
    } finally {
      await gateway.stop()
    }
  } finally {
    await upstream.stop()
  }
}

function doors(gateway: Running, settings: Settings): string {
  return [
    `  proxy    ${gateway.proxy}   agents point HTTP_PROXY and HTTPS_PROXY here`,
    `  control  ${gateway.control}   and ${settings.listen.controlSocket}`,
    `  data     ${settings.dataDir}   keys, log and state, readable by you alone`,
    '',
  ].join('\n')
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
  return promise
}
