/** `keyless policy status | reload`: the policies in force at a running gateway. */
import { Command } from 'commander'
import type { PolicyView, ShadowView, SourceView } from '../../protocol/control-policy.ts'
import { atGateway, onGateway, timeOf } from '../at-gateway.ts'
import type { WhichGateway } from '../log/find-socket.ts'
import { printable, printableJson } from '../log/words.ts'

interface LiveOptions extends WhichGateway {
  readonly json?: boolean
}

export function policyStatusCommand(): Command {
  return onGateway(new Command('status').description('which policies decide at the gateway, and since when'))
    .option('--json', 'as JSON')
    .action(({ json, ...which }: LiveOptions) =>
      atGateway(which, async (control) => inWords(await control.policy(), json)),
    )
}

export function policyReloadCommand(): Command {
  return onGateway(
    new Command('reload').description(
      'have the gateway read its agents and policies again; all of it is taken up, or nothing',
    ),
  )
    .option('--json', 'as JSON')
    .action(({ json, ...which }: LiveOptions) =>
      atGateway(which, async (control) => {
        const view = await control.reloadPolicy()
        if (view.trouble !== undefined) process.exitCode = 1
        return inWords(view, json)
      }),
    )
}

function inWords(view: PolicyView, isJson: boolean | undefined): string {
  if (isJson) return printableJson(view, 2)
  const { policies, policy_set, loaded_at, trouble, needs_restart = [], source, shadow } = view
  const lines = [
    `${policies} ${policies === 1 ? 'policy decides' : 'policies decide'} since ${timeOf(loaded_at)}`,
    policy_set,
  ]
  if (source !== undefined) lines.push(...sourceLines(source))
  if (shadow !== undefined) lines.push(shadowLine(shadow))
  if (needs_restart.length > 0)
    lines.push(`changed in the settings, and taken up by a restart alone: ${needs_restart.join(', ')}`)
  if (trouble !== undefined) lines.push(`NOT TAKEN UP: ${trouble}`)
  return lines
    .flatMap((line) => line.split('\n'))
    .map(printable)
    .join('\n')
}

function sourceLines({ kind, place, looked_at, bundle }: SourceView): string[] {
  const looked = looked_at === null ? 'never looked at' : `looked at ${timeOf(looked_at)}`
  const from = `from ${kind} ${place} (${looked})`
  if (bundle === undefined) return [`${from}: nothing of it is in force, so everything is denied`]
  const { name, version, revision, signed_by, issued_at, not_after } = bundle
  const end = not_after === undefined ? 'without end' : `until ${timeOf(not_after)}`
  const at = revision === undefined ? '' : ` at ${revision}`
  return [from, `${name} version ${version}${at}, signed ${timeOf(issued_at)} by ${signed_by.join(', ')}, ${end}`]
}

function shadowLine({ policy_set, policies, trouble, same, differed, skipped, unknown }: ShadowView): string {
  if (trouble !== undefined) return `the candidate in shadow could not be loaded: ${trouble}`
  const compared = `${same + differed} compared, ${differed} different, ${skipped} skipped, ${unknown} not comparable`
  return `in shadow: ${policies} policies, ${policy_set} (${compared})`
}
