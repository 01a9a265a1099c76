/** `keyless policy replay`: what other policies would have decided in everything that the log holds. */
import { Command } from 'commander'
import type { Group, Summary } from '../../policy/tools/replay.ts'
import { overTime, type SpanOptions, spanOf } from '../log/with-index.ts'
import { printable } from '../log/words.ts'
import { type LogOptions, onLog, recordedIn } from './log.ts'
import { counted, load, onSources, sourcesOf } from './sources.ts'

interface ReplayOptions extends LogOptions, SpanOptions {
  readonly json?: boolean
  readonly unchanged?: boolean
}

export function policyReplayCommand(): Command {
  const command = new Command('replay')
    .description('every recorded decision that other policies would change, grouped; a gateway need not run')
    .argument('<bundle...>', 'policy files, directories, shipped or pack:NAME to try')
  return overTime(onLog(onSources(command, false)))
    .option('--unchanged', 'exit code 1 if a decision would change or cannot be told')
    .option('--json', 'as JSON')
    .action(async (bundle: string[], options: ReplayOptions) => {
      process.exitCode = await run(bundle, options)
    })
}

async function run(bundle: readonly string[], options: ReplayOptions): Promise<number> {
  const subject = await load(await sourcesOf({ ...options, policies: bundle }))
  const [{ Gathering, replay }, { obliged }] = await Promise.all([
    import('../../policy/tools/replay.ts'),
    import('../../audit/entries/obliged.ts'),
  ])
  const { since = 0, until = Number.POSITIVE_INFINITY } = await spanOf(options, Date.now())
  const gathering = new Gathering()
  for await (const recorded of recordedIn(options)) {
    const ms = Date.parse(recorded.ts)
    if (ms >= since && ms < until) gathering.add(await replay(subject, recorded, (one) => obliged(one)))
  }
  const summary = gathering.summary()
  process.stdout.write(options.json ? `${JSON.stringify(summary)}\n` : summaryText(summary))
  return options.unchanged && summary.changed.length + summary.unknown.length > 0 ? 1 : 0
}

function summaryText({ decisions, same, before, changed, unknown }: Summary): string {
  const total = (groups: readonly Group[]) => groups.reduce((sum, { count }) => sum + count, 0)
  const head = `${counted(decisions, 'decision')}: ${same} as before, ${total(changed)} would change, ${total(unknown)} cannot be told\n`
  const early = before === 0 ? '' : `${counted(before, 'request')} refused before policy was asked\n`
  return head + early + changed.map(changedText).join('') + unknown.map(unknownText).join('')
}

function changedText(group: Group): string {
  const { from, to, obligations, was, would } = group
  const told = Object.entries(obligations).map(
    ([name, [a, b]]) => `${name} ${JSON.stringify(a)} → ${JSON.stringify(b)}`,
  )
  const what = from === to ? told.join(', ') : [`${from} → ${to}`, ...told].join(', ')
  return `\n${what}\n${groupText(group)}  was ${by(was)}; would be ${by(would)}\n`
}

function unknownText(group: Group): string {
  return `\ncannot be told: it depends on ${group.unknown.join(', ')}\n${groupText(group)}`
}

function groupText({ count, kind, asked, agent, last }: Group): string {
  return printable(
    `  ${counted(count, 'time')}: ${agent} ${kind === 'call' ? asked : `${kind} ${asked}`} (last: ${last})`,
  ).concat('\n')
}

function by(policies: readonly string[]): string {
  return policies.length === 0 ? 'by no policy' : policies.join(', ')
}
