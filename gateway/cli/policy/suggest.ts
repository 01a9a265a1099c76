/** `keyless policy suggest`: narrow policies from what agents were seen doing, tried on the log before anybody reads them. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Recorded } from '../../policy/tools/recorded.ts'
import type { Summary } from '../../policy/tools/replay.ts'
import type { Subject } from '../../policy/tools/scene.ts'
import type { Observed } from '../../policy/tools/suggest.ts'
import { overTime, type SpanOptions, say, spanOf } from '../log/with-index.ts'
import { type LogOptions, onLog, recordedIn } from './log.ts'
import { counted, load, onSources, type Sources, sourcesOf } from './sources.ts'

interface SuggestOptions extends LogOptions, SpanOptions {
  readonly agent?: string
  readonly most: number
  readonly reviewDays: number
}

const DAY_MS = 86_400_000

export function policySuggestCommand(): Command {
  const command = new Command('suggest')
    .description('a policy for each agent that leaves it what it was seen doing; add it to the policies in force')
    .option('--agent <id>', 'only for this agent')
    .option('--most <count>', 'combinations of what paths hold, by operation, before one is left open', atLeastOne, 10)
    .option('--review-days <count>', 'days until the owner shall look at it again', atLeastOne, 90)
  return overTime(onLog(onSources(command))).action(async (options: SuggestOptions) => {
    process.exitCode = await run(options)
  })
}

function atLeastOne(text: string): number {
  if (!/^[1-9]\d{0,3}$/.test(text)) throw new InvalidArgumentError('Write a number from 1 to 9999.')
  return Number(text)
}

async function run(options: SuggestOptions): Promise<number> {
  const nowMs = Date.now()
  const sources = await sourcesOf(options)
  const subject = await load(sources)
  const recorded: Recorded[] = []
  const { since = 0, until = Number.POSITIVE_INFINITY } = await spanOf(options, nowMs)
  for await (const one of recordedIn(options)) {
    const ms = Date.parse(one.ts)
    const isMeant = options.agent === undefined || one.agent === options.agent
    if (isMeant && one.kind === 'call' && ms >= since && ms < until) recorded.push(one)
  }
  const { suggest } = await import('../../policy/tools/suggest.ts')
  const review = new Date(nowMs + options.reviewDays * DAY_MS).toISOString().slice(0, 10)
  const suggestions = suggest(await observed(recorded, subject), { most: options.most, review })
  if (suggestions.length === 0)
    throw new Error(
      'the log holds no call that was allowed, in this time and for this agent: there is nothing to go by.',
    )
  for (const { agent, policy } of suggestions)
    if (policy === undefined) say(`for ${JSON.stringify(agent)} none: Cedar takes no such id`)
  const text = suggestions
    .map(({ scope, policy = '' }) => policy && `// Scope to ask for: ${scope}\n${policy}`)
    .join('\n')
  process.stdout.write(text)
  return report(await tried(text, recorded, sources))
}

async function observed(recorded: readonly Recorded[], subject: Subject): Promise<Observed[]> {
  const { factsOfRecorded } = await import('../../policy/tools/replay.ts')
  const allowed = recorded.filter(({ effect }) => effect === 'allow')
  return allowed.map((one) => {
    const [operation = ''] = one.asked
    return { agent: one.agent, operation, facts: factsOfRecorded(subject.catalogue, one) }
  })
}

/** What is printed is loaded with the policies in force, and every call is put to it. */
async function tried(text: string, recorded: readonly Recorded[], sources: Sources): Promise<Summary> {
  const [{ Gathering, replay }, { obliged }] = await Promise.all([
    import('../../policy/tools/replay.ts'),
    import('../../audit/entries/obliged.ts'),
  ])
  const dir = await mkdtemp(join(tmpdir(), 'keyless-suggest-'))
  try {
    const file = join(dir, 'suggested.cedar')
    await writeFile(file, text)
    const subject = await load({ ...sources, policies: [...sources.policies, file] })
    const gathering = new Gathering()
    for (const one of recorded) gathering.add(await replay(subject, one, (obligations) => obliged(obligations)))
    return gathering.summary()
  } finally {
    await rm(dir, { recursive: true })
  }
}

function report({ decisions, same, changed, unknown }: Summary): number {
  const count = (groups: Summary['changed']) => groups.reduce((sum, one) => sum + one.count, 0)
  say(
    `with the policies in force, of ${counted(decisions, 'recorded call')} ${same} are decided as they were, ${count(changed)} otherwise, ${count(unknown)} cannot be told`,
  )
  return changed.length === 0 ? 0 : 1
}
