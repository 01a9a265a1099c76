/** `list` and `show` of what waits for a human: approvals, and requests for access. */
import { Command } from 'commander'
import { atGateway, onGateway } from '../at-gateway.ts'
import type { ControlClient } from '../control-client.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import { printableJson } from '../log/words.ts'
import { columns, counted } from '../table.ts'

type Options = WhichGateway & { readonly json?: boolean }

interface Waiting<T> {
  /** One of them, as in "3 approvals pending". */
  readonly noun: string
  /** When there is none. */
  readonly none: string
  all(control: ControlClient): Promise<readonly T[]>
  one(control: ControlClient, id: string): Promise<T>
  rowOf(one: T): string[]
  pageOf(one: T): string[]
}

export function listCommand<T>({ noun, none, all, rowOf }: Waiting<T>): Command {
  return onGateway(new Command('list').description('what waits now, oldest first').option('--json', 'as JSON')).action(
    ({ json, ...which }: Options) =>
      atGateway(which, async (control) => {
        const waiting = await all(control)
        if (json) return printableJson(waiting, 2)
        if (waiting.length === 0) return none
        return [`${counted(waiting.length, noun)} pending:`, ...columns(waiting.map(rowOf))].join('\n')
      }),
  )
}

export function showCommand<T>({ one, pageOf }: Waiting<T>): Command {
  return onGateway(
    new Command('show')
      .description('all that is known of one, and apart from that what its agent says')
      .argument('<id>')
      .option('--json', 'as JSON'),
  ).action((id: string, { json, ...which }: Options) =>
    atGateway(which, async (control) => {
      const found = await one(control, id)
      return json ? printableJson(found, 2) : pageOf(found).join('\n')
    }),
  )
}
