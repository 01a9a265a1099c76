/**
 * `keyless run`: a command under a task of its own. Opens the task, stands between the command and the gateway, and ends the
 * task when the command ends, whichever way. The command sees an ordinary proxy, and neither a grant nor a key.
 */
import { Command } from 'commander'
import type { CompletionReason, IssuedView, OpenedTask } from '../../protocol/control.ts'
import type { StatusView } from '../../protocol/control-status.ts'
import { EXIT, instruct } from '../at-gateway.ts'
import type { ControlClient } from '../control-client.ts'
import { type GrantOptions, grantBodyOf, saysPreset, saysWhat } from '../grant/request.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import type { Ending } from './child.ts'

export interface RunOptions extends WhichGateway, Omit<GrantOptions, 'bind' | 'dpopJkt'> {
  readonly task: string
  readonly plan?: string
  readonly as?: string
  readonly verbose?: boolean
  /** Undefined: where there is a Java, and its port can be kept to this user. */
  readonly java?: boolean
  /** In namespaces of its own. Default false. */
  readonly isolate?: boolean
  /** Default true. */
  readonly preload?: boolean
  /** Default true. */
  readonly shims?: boolean
}

export function runCommand(): Command {
  const command = new Command('run')
    .description('run a command whose API calls go through the gateway, under a task of its own')
    .usage('--task "…" [options] -- COMMAND [ARGS…]')
    .requiredOption('-t, --task <purpose>', 'what the command is to do, in plain words; policies and records carry it')
    .option('--plan <operations>', 'what it foresees to do, as in "github:issues.*"; policies look at it')
    .option('--as <agent>', 'registered agent that acts (default: the first one of the settings)')
  return saysPreset(saysWhat(command))
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .option('--isolate', 'give the command no network but the way to the gateway (Linux)')
    .option('-v, --verbose', 'say on stderr which task this is and how it ended')
    .option('--java', 'serve Java also where its port cannot be kept from other users of this machine')
    .option('--no-preload', 'leave NODE_OPTIONS and PYTHONPATH alone')
    .option('--no-shims', 'put nothing first in PATH')
    .option('--no-java', 'open no port for Java, and leave JAVA_TOOL_OPTIONS alone')
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
  if (options.isolate) {
    const { isolationProblem } = await import('./isolate-check.ts')
    const problem = await isolationProblem()
    if (problem !== undefined) {
      say(`--isolate is not possible here, so nothing was run: ${problem}`)
      return EXIT.system
    }
    if (process.getuid?.() === 0) say(AS_ROOT)
  }
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
      ...(options.plan !== undefined && { plan: options.plan.split(' ') }),
      heartbeat: true,
      ...(options.as !== undefined && { agent: options.as }),
    })
    const note = options.verbose ? say : () => undefined
    note(`task ${task.task}: ${task.lineage}`)
    return underTask({ command, options, control, status, task, note, say })
  })
}

const AS_ROOT =
  'isolating a command of root keeps it from going around the gateway by mistake, not by intent: its files are those of the system. Use another user.'

/** Everything that can be done with the credentials there are; policies still decide each call. */
function defaultScope(status: StatusView): string {
  return status.services
    .filter((service) => service.credential_configured)
    .map((service) => `${service.name}:*`)
    .join(' ')
}

interface Running {
  readonly command: readonly string[]
  readonly options: RunOptions
  readonly control: ControlClient
  readonly status: StatusView
  readonly task: OpenedTask
  readonly note: (text: string) => void
  readonly say: (text: string) => void
}

async function underTask(running: Running): Promise<number> {
  const { control, task, note } = running
  let reason: CompletionReason = 'crashed'
  try {
    const { code, signal } = await withForwarder(running)
    if (signal === null) reason = 'completed'
    note(`task ${task.task} ended: ${signal ?? `exit code ${code}`}`)
    return code
  } finally {
    // If the gateway is away, missing heartbeats end the task as soon as it is back.
    await control
      .completeTask(task.task, reason)
      .catch((cause: Error) => note(`the task could not be ended at the gateway: ${cause.message}`))
  }
}

async function withForwarder({ command, options, control, status, task, note, say }: Running): Promise<Ending> {
  const [{ openForwarder }, { openSurroundings }, { superviseChild }, { keepAlive }, { tellWaiting }, { printable }] =
    await Promise.all([
      import('./forwarder.ts'),
      import('./surroundings.ts'),
      import('./child.ts'),
      import('./task-life.ts'),
      import('./asked.ts'),
      import('../log/words.ts'),
    ])
  const door = new URL(status.proxy)
  const gateway = { host: door.hostname.replace(/^\[|\]$/g, ''), port: Number(door.port || 80) }
  const isRenewable = options.ttl === undefined && (options.preset ?? 'per-task') === 'per-task'
  const tell = refusalTeller((text) => say(printable(text)), isRenewable)
  const isolation = options.isolate ? await (await import('./isolate.ts')).openIsolation(status) : undefined
  const forwarder = await openForwarder({
    gateway,
    ...(isolation && { inside: isolation.inside }),
    authorization: authorizationOf(task),
    onRefused(target, body) {
      tell(target, body)
      life.check() // it may be the grant that has ended
    },
  })
  const life = keepAlive({
    control,
    task,
    isRenewable,
    note,
    say: (text) => say(printable(text)),
    onRenewed: (issued, graceMs) => forwarder.present(authorizationOf(issued), graceMs),
  })
  const asked = tellWaiting({ control, task: task.task, which: options, say: (text) => say(printable(text)) })
  try {
    const around = await openSurroundings({ ...options, status, forwarder, inherited: process.env })
    try {
      return await (isolation ? isolation.run(command, around, say) : superviseChild(command, around.env, say))
    } finally {
      await around.remove()
    }
  } finally {
    life.stop()
    asked.stop()
    await forwarder.close()
    await isolation?.remove()
  }
}

function authorizationOf({ task, handle }: IssuedView): string {
  return `Basic ${Buffer.from(`${task}:${handle}`).toString('base64')}`
}

/** Says why a tunnel was refused, each reason once: curl and others show no more than a status. */
function refusalTeller(say: (text: string) => void, isRenewable: boolean): (target: string, body: string) => void {
  const said = new Set<string>()
  return (target, body) => {
    const { code, detail } = problemIn(body)
    if (detail === undefined || code === undefined || said.has(code)) return
    said.add(code)
    const advice = code === 'grant_expired' && !isRenewable ? ' Run the command again with a longer --ttl.' : ''
    say(`${target} was refused: ${detail}${advice} (${code})`)
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
