/** `keyless lease`: revoke upstream credentials of living grants, and see which could not be revoked yet. */
import { Command } from 'commander'
import type { PendingRevocationView, RevokeLeasesBody } from '../protocol/control-leases.ts'
import { atGateway, onGateway, timeOf } from './at-gateway.ts'
import type { WhichGateway } from './log/find-socket.ts'
import { printableJson } from './log/words.ts'
import { columns, counted } from './table.ts'

interface RevokeOptions extends WhichGateway, RevokeLeasesBody {
  readonly all?: boolean
}

export function leaseCommand(): Command {
  return new Command('lease')
    .description('upstream credentials of living grants: revoke them, see which are not revoked yet')
    .addCommand(revokeCommand())
    .addCommand(pendingCommand())
}

function revokeCommand(): Command {
  return onGateway(
    new Command('revoke')
      .description('drop credentials everywhere and revoke them at their issuer; the grants live on and may get others')
      .option('--task <id>', 'those of the living grants of this task')
      .option('--grant <id>', 'those of this grant')
      .option('--credential <name>', 'only those of this entry of `credentials` in the settings')
      .option('--service <name>', 'only those for this service'),
  ).action(({ task, grant, credential, service, ...which }: RevokeOptions, command: Command) => {
    const said = { task, grant, credential, service }
    const body = Object.fromEntries(Object.entries(said).filter(([, value]) => value !== undefined))
    if (Object.keys(body).length === 0)
      command.error('error: say which: --task, --grant, --credential or --service, or several of them')
    return atGateway(which, async (control) => {
      const revoked = await control.revokeLeases(body)
      const pending = await control.pendingRevocations()
      const left =
        pending.length === 0 ? '' : ` ${counted(pending.length, 'revocation')} not confirmed: keyless lease pending`
      return `${counted(revoked, 'credential')} dropped.${left}`
    })
  })
}

function pendingCommand(): Command {
  return onGateway(
    new Command('pending')
      .description('credentials whose issuer has not confirmed their end: used no more, and alive until they expire')
      .option('--json', 'as JSON'),
  ).action(({ json, ...which }: WhichGateway & { readonly json?: boolean }) =>
    atGateway(which, async (control) => {
      const pending = await control.pendingRevocations()
      if (json) return printableJson(pending, 2)
      if (pending.length === 0) return 'Every credential that was to be revoked is revoked, or has expired.'
      return [
        `${counted(pending.length, 'credential')} not revoked yet:`,
        ...columns(pending.toSorted((a, b) => b.expires_at - a.expires_at).map(rowOf)),
      ].join('\n')
    }),
  )
}

function rowOf(one: PendingRevocationView): string[] {
  return [
    `lives until ${timeOf(one.expires_at)}`,
    one.credential,
    one.service,
    one.reason,
    `${counted(one.attempts, 'attempt')}, next ${timeOf(one.next_attempt_at)}`,
    `task ${one.task}`,
    one.cred_id,
  ]
}
