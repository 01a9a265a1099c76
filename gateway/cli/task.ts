/** `keyless task`: the life of a task by hand, for agents that are not started with `keyless run`. */
import { Command } from 'commander'
import type { IssuedView, OpenedTask, OpenTaskBody, TaskView } from '../protocol/control.ts'
import type { ServiceView, StatusView } from '../protocol/control-status.ts'
import { plainHost } from '../protocol/service.ts'
import { atGateway, onGateway, parseTtl, timeOf } from './at-gateway.ts'
import type { ControlClient } from './control-client.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable } from './log/words.ts'

interface OpenOptions extends WhichGateway {
  readonly task: string
  readonly scope: string
  readonly plan?: string
  readonly as?: string
  /** Seconds. */
  readonly ttl?: number
  readonly warm?: boolean
  readonly json?: boolean
}

interface IntentOptions extends WhichGateway {
  readonly task: string
  readonly scope?: string
  /** Seconds. */
  readonly ttl?: number
}

interface ListOptions extends WhichGateway {
  readonly json?: boolean
}

export function taskCommand(): Command {
  return new Command('task')
    .description('open, list, change, suspend, resume and end tasks by hand')
    .addCommand(openTaskCommand())
    .addCommand(
      onGateway(
        new Command('list').description('tasks that are alive, newest first').option('--json', 'as JSON'),
      ).action((options: ListOptions) => atGateway(options, (control) => list(control, options))),
    )
    .addCommand(
      onGateway(
        new Command('intent')
          .description(
            'declare another intent: the grants die, policy decides afresh, a new handle is printed, this once',
          )
          .argument('<task>', 'task id')
          .requiredOption('-t, --task <purpose>', 'what it is for from now on')
          .option('--scope <operations>', 'what it may do from now on (default: as before)')
          .option('--ttl <duration>', 'how long at most: 30s, 15m, 1h', parseTtl),
      ).action((task: string, options: IntentOptions) =>
        atGateway(options, async (control) => renewed(await control.changeIntent(task, intentOf(options)))),
      ),
    )
    .addCommand(
      onGateway(
        new Command('step-done')
          .description('end a step of a task: the grants that belong to it die')
          .argument('<task>', 'task id')
          .argument('<step>', 'name of the step'),
      ).action((task: string, step: string, options: WhichGateway) =>
        atGateway(options, async (control) => {
          await control.completeStep(task, step)
          return `Step ${step} has ended. Its grants are dead.`
        }),
      ),
    )
    .addCommand(
      onGateway(
        new Command('suspend')
          .description('park a task: none of its grants is good for anything until it is resumed')
          .argument('<task>', 'task id'),
      ).action((task: string, options: WhichGateway) =>
        atGateway(options, async (control) => {
          await control.suspendTask(task)
          return `Task ${task} is suspended. \`keyless task resume\` takes it up again.`
        }),
      ),
    )
    .addCommand(
      onGateway(
        new Command('resume')
          .description('take up a suspended task: policy decides again, and a new handle is printed, this once')
          .argument('<task>', 'task id')
          .option('--ttl <duration>', 'how long at most: 30s, 15m, 1h', parseTtl),
      ).action((task: string, options: WhichGateway & { readonly ttl?: number }) =>
        atGateway(options, async (control) => renewed(await control.resumeTask(task, options.ttl))),
      ),
    )
    .addCommand(
      onGateway(
        new Command('end').description('end a task; its grant dies at once').argument('<task>', 'task id'),
      ).action((task: string, options: WhichGateway) => atGateway(options, (control) => end(control, task))),
    )
}

function openTaskCommand(): Command {
  const command = new Command('open')
    .description('open a task and print the handle that stands for it, this once')
    .requiredOption('-t, --task <purpose>', 'what it is for, in plain words; policies and records carry it')
    .requiredOption('--scope <operations>', 'what it may do, as in "github:issues.read openai:*" (required)')
    .option('--plan <operations>', 'what it foresees to do, as in "github:issues.*"; policies look at it')
    .option('--as <agent>', 'registered agent that acts (default: the first one of the settings)')
    .option('--ttl <duration>', 'how long at most: 30s, 15m, 1h (default: the setting grants.ttl_s)', parseTtl)
    .option('--warm', 'fetch the credentials of its services at once, so that the first calls need not wait')
    .option('--json', 'as JSON')
  return onGateway(command).action((options: OpenOptions) => atGateway(options, (...at) => open(...at, options)))
}

async function open(control: ControlClient, socket: string, options: OpenOptions): Promise<string> {
  const body: OpenTaskBody = {
    purpose: options.task,
    scope: options.scope,
    ...(options.plan !== undefined && { plan: options.plan.split(' ') }),
    ...(options.as !== undefined && { agent: options.as }),
    ...(options.ttl !== undefined && { ttl_s: options.ttl }),
    ...(options.warm === true && { warm: true }),
  }
  const status = await control.status()
  const opened = await control.openTask(body)
  const proxyUrl = proxyUrlOf(status, opened)
  if (options.json) return JSON.stringify({ ...opened, proxy_url: proxyUrl }, null, 2)
  return describe(opened, proxyUrl, status, caUrl(status, socket))
}

/** Basic proxy authentication, because every client that takes a proxy URL can send it. */
function proxyUrlOf(status: StatusView, { task, handle }: OpenedTask): string {
  const url = new URL(status.proxy)
  url.username = task
  url.password = handle
  return url.href.replace(/\/$/, '')
}

/** As arguments of curl. Behind TLS the address is not what the door's certificate names; the socket needs neither. */
function caUrl({ control }: StatusView, socket: string): string {
  return control.startsWith('https:') ? `--unix-socket ${socket} http://localhost/ca.pem` : `${control}/ca.pem`
}

function describe(opened: OpenedTask, proxyUrl: string, status: StatusView, ca: string): string {
  return [
    `${opened.lineage}.`,
    `It may use ${opened.scope} until ${timeOf(opened.expires_at)}.`,
    '',
    `  task    ${opened.task}`,
    `  handle  ${opened.handle}   (shown this once; whoever has it acts as the agent)`,
    '',
    'Point a client at the gateway, and let it trust the gateway’s CA:',
    '',
    `  curl -s ${ca} -o keyless-ca.pem`,
    `  curl --proxy ${proxyUrl} --cacert keyless-ca.pem https://…`,
    '',
    'or set HTTPS_PROXY and HTTP_PROXY to that URL. An SDK can do without proxy and CA: its base URL, and the handle as its key:',
    '',
    ...status.services
      .filter(({ name }) => covers(opened.scope, name))
      .flatMap((service) => baseUrlOf(service, status)),
    '',
    'End the task with:',
    '',
    `  keyless task end ${opened.task}`,
  ].join('\n')
}

/** `billing:invoices.read` and `billing:*` are about the service `billing`. */
function covers(scope: string, service: string): boolean {
  return scope.split(' ').some((pattern) => pattern.startsWith(`${service}:`))
}

/** Only the origin is replaced: a base URL that ends in `/v1` still does. A service whose hosts are all patterns has no route. */
function baseUrlOf(service: ServiceView, status: StatusView): string[] {
  const host = plainHost(service)
  return host === undefined ? [] : [`  ${status.proxy}/${service.name}   in place of https://${host}`]
}

function intentOf({ task, scope, ttl }: IntentOptions) {
  return { purpose: task, ...(scope !== undefined && { scope }), ...(ttl !== undefined && { ttl_s: ttl }) }
}

function renewed({ lineage, scope, expires_at, task, handle, token }: IssuedView): string {
  return [
    `${printable(lineage)}.`,
    `It may use ${scope} until ${timeOf(expires_at)}. What was issued before is dead.`,
    '',
    `  task    ${task}`,
    handle === undefined ? `  token   ${token}   (bound to its key)` : `  handle  ${handle}   (shown this once)`,
  ].join('\n')
}

async function list(control: ControlClient, options: ListOptions): Promise<string> {
  const tasks = await control.tasks()
  if (options.json) return JSON.stringify(tasks, null, 2)
  if (tasks.length === 0) return 'No task is alive.'
  return tasks.map(lineOf).join('\n')
}

function lineOf(task: TaskView): string {
  const state = task.state === 'suspended' ? '  suspended' : ''
  return `${task.task}  until ${timeOf(task.expires_at)}${state}  ${task.human} → ${task.agent}  ${task.scope}  “${task.purpose}”`
}

async function end(control: ControlClient, task: string): Promise<string> {
  await control.completeTask(task, 'completed')
  return `Task ${task} has ended. Its grant is dead.`
}
