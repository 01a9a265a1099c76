/** `keyless policy diff`: what changes between two sets of policies, for whoever reviews the change. */
import { Command } from 'commander'
import type { Difference, EffectChange } from '../../policy/tools/difference.ts'
import { printable } from '../log/words.ts'
import { counted, load, onSources, type SourceOptions, sourcesOf } from './sources.ts'

interface DiffOptions extends SourceOptions {
  readonly narrower?: boolean
  readonly json?: boolean
}

export function policyDiffCommand(): Command {
  const command = new Command('diff')
    .description('what changes between two sets of policies: the policies, and what they decide')
    .argument('<old>', 'policy file or directory')
    .argument('<new>', 'policy file or directory')
  return onSources(command, false)
    .option('--narrower', 'exit code 1 if something was found that only the new ones allow')
    .option('--json', 'as JSON')
    .action(async (old: string, next: string, options: DiffOptions) => {
      process.exitCode = await run(old, next, options)
    })
}

async function run(old: string, next: string, options: DiffOptions): Promise<number> {
  const at = async (path: string) => load(await sourcesOf({ ...options, policies: [path] }))
  const [before, after] = [await at(old), await at(next)]
  const { differenceOf } = await import('../../policy/tools/difference.ts')
  const difference = await differenceOf({ ...after, before: before.bundle, after: after.bundle })
  process.stdout.write(options.json ? `${JSON.stringify(plain(difference))}\n` : differenceText(difference))
  return options.narrower && difference.effects.some(isWider) ? 1 : 0
}

const RANKS = ['deny', 'approval', 'allow']

function isWider({ from, to }: EffectChange): boolean {
  return RANKS.indexOf(to) > RANKS.indexOf(from)
}

function plain({ added, removed, changed, effects, tried }: Difference) {
  return {
    added: added.map(({ id }) => id),
    removed: removed.map(({ id }) => id),
    changed: changed.map(({ after, what }) => ({ id: after.id, what })),
    ...{ effects, tried },
  }
}

function differenceText({ added, removed, changed, effects, tried }: Difference): string {
  const policies = [
    ...removed.map(({ json, id }) => `- ${json.effect} ${id}`),
    ...added.map(({ json, id }) => `+ ${json.effect} ${id}`),
    ...changed.map(({ after, what }) => `~ ${after.json.effect} ${after.id}: ${what.join(', ')}`),
  ]
  const [wider, other] = [effects.filter(isWider), effects.filter((one) => !isWider(one))]
  const parts = [
    policies.length === 0 ? ['no policy was changed'] : policies,
    section('allows more:', wider),
    section('allows less:', other),
    [`${counted(tried, 'question')} put to both; what differs elsewhere was not found`],
  ]
  return `${parts
    .filter((lines) => lines.length > 0)
    .map((lines) => lines.join('\n'))
    .join('\n\n')}\n`
}

const SHOWN = 6

function section(title: string, effects: readonly EffectChange[]): string[] {
  return effects.length === 0 ? [] : [title, ...effects.map(effectText)]
}

function effectText({ asked, from, to, was, would, when }: EffectChange): string {
  const more = asked.length > SHOWN ? ` and ${asked.length - SHOWN} more` : ''
  const facts = Object.entries(when).map(([name, value]) => `${name} is ${printable(JSON.stringify(value))}`)
  const where = facts.length === 0 ? '' : `\n    when ${facts.join(', ')}`
  const by = `\n    was by ${was.join(', ') || 'no policy'}; would be by ${would.join(', ') || 'no policy'}`
  return `  ${from} → ${to}: ${asked.slice(0, SHOWN).join(', ')}${more}${where}${by}`
}
