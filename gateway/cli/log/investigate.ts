/** `keyless log investigate`: what became of a credential, a grant, an agent or a task, in the order in which it is asked after an incident. */
import { Command } from 'commander'
import type { Subject, SubjectKind } from '../../records/inquiry.ts'
import type { WhichIndex } from './find-index.ts'
import { onIndex, overTime, print, type SpanOptions, spanOf, vocabularyHere, withIndex } from './with-index.ts'

interface InvestigateOptions extends WhichIndex, SpanOptions, Partial<Record<SubjectKind, string>> {
  readonly json?: boolean
}

const SUBJECTS: readonly SubjectKind[] = ['credential', 'grant', 'agent', 'task']

export function investigateCommand(): Command {
  const command = new Command('investigate')
    .description('what a credential, grant, agent or task could do, did, who gave it, and what went wrong')
    .option('--credential <name>', 'its name in settings, or a cred_id')
    .option('--grant <id>', 'id of a grant')
    .option('--agent <id>', 'id of an agent')
    .option('--task <id>', 'id of a task')
    .option('--json', 'as JSON')
    .action(investigateAction)
  return onIndex(overTime(command))
}

async function investigateAction(options: InvestigateOptions): Promise<void> {
  const subject = subjectIn(options)
  const [{ investigate }, { investigationInWords }, { printableJson }] = await Promise.all([
    import('../../records/investigate.ts'),
    import('./investigate-words.ts'),
    import('./words.ts'),
  ])
  const vocabulary = await vocabularyHere(options)
  await withIndex(options, async ({ database, names, nowMs }) => {
    const span = await spanOf(options, nowMs)
    const about = { nowMs, ...(vocabulary !== undefined && { vocabulary }) }
    const found = names.unseal(await investigate(database, { subject, span }, about))
    if (found === undefined)
      throw new Error(
        `the log knows no ${subject.kind} "${subject.id}". "keyless log find" and "keyless report inventory" list them.`,
      )
    await print(options.json ? printableJson(found, 2) : investigationInWords(found))
  })
}

function subjectIn(options: InvestigateOptions): Subject {
  const given = SUBJECTS.flatMap((kind) => (options[kind] === undefined ? [] : [{ kind, id: options[kind] }]))
  const [subject, second] = given
  if (subject !== undefined && second === undefined) return subject
  throw new Error(
    `${second === undefined ? 'nothing is named to investigate' : 'several things are named'}. Name one of --credential, --grant, --agent, --task.`,
  )
}
