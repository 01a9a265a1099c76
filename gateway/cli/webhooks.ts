/** `keyless webhooks`: who is told what happens, what could not be delivered; send it again, send a test. Streams of signals are among them. */
import { Command } from 'commander'
import type { WebhookView } from '../protocol/control-webhooks.ts'
import { atGateway, instruct, onGateway } from './at-gateway.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printable, printableJson } from './log/words.ts'
import { columns, counted } from './table.ts'

export function webhooksCommand(): Command {
  return new Command('webhooks')
    .description('webhooks and streams of signals: what could not be delivered, send it again, send a test')
    .addCommand(listCommand())
    .addCommand(retryCommand())
    .addCommand(testCommand())
}

function listCommand(): Command {
  return onGateway(
    new Command('list')
      .description('all of them, how many messages wait, and those that were given up')
      .option('--json', 'as JSON'),
  ).action(({ json, ...which }: WhichGateway & { readonly json?: boolean }) =>
    atGateway(which, async (control) => {
      const all = await control.webhooks()
      if (json) return printableJson(all, 2)
      if (all.length === 0) return 'There are none. Write `webhooks` or `signals` into the settings: docs/webhooks.md.'
      return [...columns(all.map(rowOf)), ...all.flatMap(deadOf)].join('\n')
    }),
  )
}

function rowOf({ name, format, to, waiting, dead_count: dead, failure }: WebhookView): string[] {
  return [name, format, to, `${counted(waiting, 'message')} waiting`, `${dead} given up`, failure ?? '']
}

function deadOf({ name, dead, dead_count: count }: WebhookView): string[] {
  if (dead.length === 0) return []
  const rows = dead.map(({ id, at, kind, attempts, reason }) => [
    `  ${id}`,
    at,
    kind,
    counted(attempts, 'attempt'),
    reason ?? '',
  ])
  const rest = count > dead.length ? [`  and ${count - dead.length} more`] : []
  return ['', `${name} gave up on:`, ...columns(rows), ...rest]
}

function retryCommand(): Command {
  return onGateway(
    new Command('retry')
      .description('send again what was given up, and try at once what waits')
      .argument('<name>', 'webhook or stream, as `keyless webhooks list` shows it')
      .argument('[message]', 'one message: msg_…; default all'),
  ).action((name: string, message: string | undefined, which: WhichGateway) =>
    atGateway(which, async (control) => {
      const retried = await control.retryWebhook(name, message)
      if (retried === 0 && message !== undefined) return `No message ${message} was given up.`
      return `${counted(retried, 'message')} put back; what waits is tried now.`
    }),
  )
}

function testCommand(): Command {
  return onGateway(
    new Command('test')
      .description('send a test message now and say what the receiver answers; exit code 1 when it does not take it')
      .argument('<name>', 'webhook or stream, as `keyless webhooks list` shows it'),
  ).action(async (name: string, which: WhichGateway) => {
    const tested = await instruct(which, (control) => control.testWebhook(name))
    if (typeof tested === 'number') process.exitCode = tested
    else if (tested.taken) process.stdout.write('Taken.\n')
    else {
      process.stderr.write(`keyless: not taken: ${printable(tested.reason ?? 'no reason was given')}\n`)
      process.exitCode = EXIT_NOT_TAKEN
    }
  })
}

const EXIT_NOT_TAKEN = 1
