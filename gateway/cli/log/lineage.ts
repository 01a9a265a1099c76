/** The tree of a task for `keyless log lineage`: everything that descends from its root, what each grant called, and why it ended. */
import type { Granted } from '../../records/granted.ts'
import type { Lineage, TaskTree, TreeCall, TreeGrant } from '../../records/lineage-tree.ts'
import { counted, when } from '../table.ts'
import type { WhichIndex } from './find-index.ts'
import { print, say, withIndex } from './with-index.ts'

export interface LineageOptions extends WhichIndex {
  readonly json?: boolean
}

/** @param lead what the log itself says of the call, if it is there: it needs no index, and is printed in place of its sentence. */
export async function printLineage(id: string, options: LineageOptions, lead?: string): Promise<void> {
  if (lead === undefined) return printTree(id, options, true)
  await print(`${lead}\n`)
  try {
    await printTree(id, options, false)
  } catch (cause) {
    say(`what else came of the task is not told: ${(cause as Error).message}`)
    process.exitCode = 1
  }
}

async function printTree(id: string, options: LineageOptions, withSentence: boolean): Promise<void> {
  const [{ lineageOf }, { printableJson }] = await Promise.all([
    import('../../records/lineage-tree.ts'),
    import('./words.ts'),
  ])
  await withIndex(options, async ({ database, names, nowMs }) => {
    const found = names.unseal(await lineageOf(database, id, nowMs))
    if (found === undefined)
      throw new Error(
        `the log knows nothing under "${id}". Give the id of a call, a grant, a task or an agent, or an entry number; "keyless log find" lists them.`,
      )
    await print(options.json ? printableJson(found, 2) : await inWords(found, withSentence))
  })
}

async function inWords({ sentence, tasks }: Lineage, withSentence: boolean): Promise<string> {
  const { printable } = await import('./words.ts')
  const trees = tasks.map((task) => treeInWords(task).map(printable).join('\n'))
  return [...(withSentence && sentence !== null ? [printable(sentence)] : []), ...trees].join('\n\n')
}

function treeInWords({ task, purpose, human, human_iss, roots, left_out }: TaskTree): string[] {
  const rest = left_out > 0 ? [`(${left_out} older grants of this task are left out)`] : []
  return [
    `task ${task} “${purpose ?? ''}”`,
    `human ${human ?? 'unknown'}${human_iss === null ? '' : ` (${human_iss})`}`,
    ...roots.flatMap((root) => grantInWords(root, 0)),
    ...rest,
  ]
}

function grantInWords({ grant, end, isSought, calls, children }: TreeGrant, depth: number): string[] {
  const pad = '   '.repeat(depth)
  const under = grant.policy_ids.length === 0 ? '' : `, under ${grant.policy_ids.join(', ')}`
  const state = end === null ? `lives until ${when(grant.expires)}` : `${end} ${when(grant.ended ?? grant.expires)}`
  return [
    `${pad}└─ ${grant.agent ?? 'unknown'}${isSought ? '  ◀' : ''}`,
    `${pad}     ${madeHow(grant)} ${grant.id} (${grant.entry}) ${when(grant.issued)}${under}`,
    `${pad}     ${scopeOf(grant)}; ${state}`,
    ...(calls.length === 0 ? [`${pad}     called nothing`] : calls.map((call) => `${pad}     ${callInWords(call)}`)),
    ...children.flatMap((child) => grantInWords(child, depth + 1)),
  ]
}

function madeHow({ kind, replaces }: Granted): string {
  if (kind === 'grant.replaced') return `grant in place of ${replaces ?? 'another'}:`
  return kind === 'grant.delegated' ? 'delegated grant' : 'grant'
}

function scopeOf({ authority }: Granted): string {
  const operations = [...new Set(authority.flatMap((entry) => entry.operations))]
  const shown = operations.length > 8 ? [...operations.slice(0, 8), `${operations.length - 8} more`] : operations
  const isBound = authority.some((entry) => Object.keys(entry).length > 1)
  return `may ${shown.join(', ')}${isBound ? ' with conditions' : ''}`
}

function callInWords({ operation, host, effect, code, calls, last, last_entry }: TreeCall): string {
  const what = `${operation ?? 'no known operation'} at ${host ?? 'nowhere'}`
  const verdict = effect === 'allow' ? 'allowed' : `refused (${code ?? 'no code'})`
  return `${what}: ${counted(calls, 'call')} ${verdict}, last ${when(last)} (${last_entry})`
}
