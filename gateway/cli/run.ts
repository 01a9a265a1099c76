/**
 * `keyless run`: a command under a task of its own. Opens the task, stands between the command and the gateway, and ends the
 * task when the command ends, whichever way. The command sees an ordinary proxy, and neither a grant nor a key.
 */
import { Command } from 'commander'
import type { CompletionReason, OpenedTask, StatusView } from '../protocol/control.ts'
import { EXIT, instruct } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './find-socket.ts'
import { type GrantOptions, grantBodyOf, saysPreset, saysWhat } from './grant-request.ts'

export interface RunOptions extends WhichGateway, Omit<GrantOptions, 'bind' | 'dpopJkt'> {
  readonly task: string
  readonly as?: string
  readonly verbose?: boolean
}

export function runCommand(): Command {
  const command = new Command('run')
    .description('run a command whose API calls go through the gateway, under a task of its own')
    .usage('--task "…" [options] -- COMMAND [ARGS…]')
    .requiredOption('-t, --task <purpose>', 'what the command is to do, in plain words; policies and records carry it')
    .option('--as <agent>', 'registered agent that acts (default: the first one of the settings)')
  return saysPreset(saysWhat(command))
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .option('-v, --verbose', 'say on stderr which task this is and how it ended')
    .addHelpText(
      'after',
      '\nWithout --scope and --details it may do everything at every service that has a credential, as far as policy lets it.',
    )
    .argument('<command...>', 'the command and its arguments')
    .passThroughOptions()
    .action(async (command: string[], options: RunOptions) => {
      // At once: everything is closed and said, and whoever waits for the command must not wait for this runtime to unwind.
      process.exit(await run(command, options))
    })
}

/** @returns the exit code: the command's own, 128 + n when signal n ended it, or one of `EXIT`. */
export async function run(command: readonly string[], options: RunOptions): Promise<number> {
  const say = (text: string) => process.stderr.write(`keyless: ${text}\n`)
  return instruct(options, async (control) => {
    const status = await control.status()
    const { scope = options.details ? undefined : defaultScope(status) } = options
    if (scope === '') {
      say(
        'No service has a credential configured, so there is nothing to grant. Add one under `credentials` in keyless.yaml, or name operations with --scope.',
      )
      return EXIT.configuration
    }
    const task = await control.openTask({
      ...grantBodyOf({ ...options, ...(scope !== undefined && { scope }) }),
      purpose: options.task,
      heartbeat: true,
      ...(options.as !== undefined && { agent: options.as }),
    })
    const note = options.verbose ? say : () => undefined
    note(`task ${task.task}: ${task.lineage}`)
    return underTask({ command, control, status, task, note, say })
  })
}

/** Everything that can be done with the credentials there are; policies still decide each call. */
function defaultScope(status: StatusView): string {
  return status.services
    .filter((service) => service.credential_configured)
    .map((service) => `${service.name}:*`)
    .join(' ')
}

interface Running {
  readonly command: readonly string[]
  readonly control: ControlClient
  readonly status: StatusView
  readonly task: OpenedTask
  readonly note: (text: string) => void
  readonly say: (text: string) => void
}

async function underTask(running: Running): Promise<number> {
  const { control, task, note } = running
  let reason: CompletionReason = 'crashed'
  const stopHeartbeats = heartbeats(running)
  try {
    const { code, signal } = await withForwarder(running)
    if (signal === null) reason = 'completed'
    note(`task ${task.task} ended: ${signal ?? `exit code ${code}`}`)
    return code
  } finally {
    stopHeartbeats()
    // If the gateway is away, missing heartbeats end the task as soon as it is back.
    await control
      .completeTask(task.task, reason)
      .catch((cause: Error) => note(`the task could not be ended at the gateway: ${cause.message}`))
  }
}

/** Three in each period that the gateway allows for one. @returns a function that stops them. */
function heartbeats({ control, task, note }: Running): () => void {
  const timer = setInterval(
    () => control.heartbeat(task.task).catch((cause: Error) => note(`heartbeat: ${cause.message}`)),
    ((task.heartbeat_s ?? 15) * 1000) / 3,
  )
  return () => clearInterval(timer)
}

/** Says why a tunnel was refused, each reason once: curl and others show no more than a status. */
async function refusalTeller(say: (text: string) => void): Promise<(target: string, body: string) => void> {
  const { printable } = await import('./log-words.ts')
  const said = new Set<string>()
  return (target, body) => {
    const { code, detail } = problemIn(body)
    if (detail === undefined || code === undefined || said.has(code)) return
    said.add(code)
    const advice = code === 'grant_expired' ? ' Run the command again with a longer --ttl.' : ''
    say(printable(`${target} was refused: ${detail}${advice} (${code})`))
  }
}

function problemIn(body: string): { code?: string; detail?: string } {
  try {
    const { code, detail } = JSON.parse(body) as { code?: unknown; detail?: unknown }
    return typeof code === 'string' && typeof detail === 'string' ? { code, detail } : {}
  } catch {
    return {}
  }
}

async function withForwarder({
  command,
  status,
  task,
  say,
}: Running): Promise<{ code: number; signal: NodeJS.Signals | null }> {
  const [{ openForwarder }, { writeBundle }, { childEnvironment }, { superviseChild }] = await Promise.all([
    import('./forwarder.ts'),
    import('./bundle.ts'),
    import('./environment.ts'),
    import('./child.ts'),
  ])
  const door = new URL(status.proxy)
  const gateway = { host: door.hostname.replace(/^\[|\]$/g, ''), port: Number(door.port || 80) }
  const authorization = `Basic ${Buffer.from(`${task.task}:${task.handle}`).toString('base64')}`
  const bundle = await writeBundle(status.ca_pem, process.env)
  const forwarder = await openForwarder({ gateway, authorization, onRefused: await refusalTeller(say) })
  try {
    const env = childEnvironment({
      inherited: process.env,
      proxyUrl: forwarder.url,
      files: bundle.files,
      placeholders: Object.assign({}, ...status.services.map((service) => service.placeholders)) as Record<
        string,
        string
      >,
      secretEnv: status.secret_env,
    })
    return await superviseChild(command, env, say)
  } finally {
    await forwarder.close()
    await bundle.remove()
  }
}
