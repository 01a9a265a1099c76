/** Was more granted than was needed? Granted against used operations of each grant, everything below it included. */
import type { Database } from './database.ts'
import { above, among, byId, family, type Granted, grantsWhere } from './granted.ts'
import { GRANTS_READ, type Inquiry } from './inquiry.ts'
import { reachOf, type Vocabulary } from './reach.ts'
import { type Sign, type Verdict, verdictOf } from './verdict.ts'

export interface Breadth {
  readonly grant: Granted
  readonly granted: readonly string[]
  readonly used: readonly string[]
  readonly unused: readonly string[]
  readonly isOver: boolean
}

/** Of so many grants each is held against its use; an agent may have had a million. */
const GRANTS_WEIGHED = 200
/** Fewer unused operations than this are no great find, however few were used. */
const UNUSED_STRONG = 3

export async function wasTooBroad(
  database: Database,
  inquiry: Inquiry,
  o: { readonly words: Vocabulary; readonly nowMs: number },
): Promise<Verdict> {
  const weighed = await breadthsOf(database, [...inquiry.parents, ...inquiry.grants].slice(0, GRANTS_WEIGHED), o)
  const signs = weighed.flatMap((one) => signsOf(one, o.words))
  const judged = weighed.filter(({ used, isOver }) => used.length > 0 || isOver)
  const lookedAt = [
    `operations granted and used, of ${weighed.length} grants with everything below them`,
    ...(o.words.source === 'log'
      ? [
          'without settings only operations that were ever called count as granted by a pattern (name them with --config)',
        ]
      : []),
  ]
  return verdictOf('too_broad', signs, { lookedAt, isBlind: judged.length === 0 })
}

async function breadthsOf(
  database: Database,
  grants: readonly Granted[],
  { words, nowMs }: { readonly words: Vocabulary; readonly nowMs: number },
): Promise<Breadth[]> {
  const tasks = JSON.stringify([...new Set(grants.flatMap(({ task }) => task ?? []))])
  const ofTasks = await grantsWhere(database, among(database, 'task'), [tasks], 10 * GRANTS_READ)
  const rows = await database.all<{ grant_id: string; operation: string }>(
    `SELECT DISTINCT grant_id, operation FROM records WHERE kind = 'call' AND effect = 'allow' AND operation IS NOT NULL
     AND ${among(database, 'task')}`,
    [tasks],
  )
  const usedBy = Map.groupBy(rows, ({ grant_id }) => grant_id)
  const known = byId(ofTasks)
  const byTask = Map.groupBy(ofTasks, ({ task }) => task)
  return grants.map((grant) => {
    const below = family(byTask.get(grant.task) ?? [], grant.id)
    const used = new Set(below.flatMap(({ id }) => usedBy.get(id) ?? []).map(({ operation }) => operation))
    const granted = reachOf([...above(known, grant.id), grant], words).map(({ operation }) => operation)
    return {
      grant,
      granted,
      used: [...used].sort(),
      unused: granted.filter((operation) => !used.has(operation)),
      isOver: grant.ended !== null || grant.expires <= nowMs,
    }
  })
}

function signsOf({ grant, granted, used, unused, isOver }: Breadth, words: Vocabulary): Sign[] {
  const name = `grant ${grant.id} of ${grant.agent ?? 'an unknown agent'}`
  if (used.length === 0) {
    return isOver ? [{ what: `${name} was never used`, weight: 'weak', entries: [grant.entry] }] : []
  }
  if (unused.length === 0) return []
  const share = (granted.length - unused.length) / granted.length
  const access = new Map(words.operations.map((one) => [one.operation, one.access]))
  const beyond = unused.filter((operation) => access.get(operation) !== 'read')
  if (share >= 0.5 && beyond.length === 0) return []
  const most = unused.length > 8 ? `${unused.slice(0, 8).join(', ')} and ${unused.length - 8} more` : unused.join(', ')
  return [
    {
      what: `${name} covered ${granted.length} operations and used ${granted.length - unused.length}; never used: ${most}`,
      weight: share < 0.5 && unused.length >= UNUSED_STRONG ? 'strong' : 'weak',
      entries: [grant.entry],
    },
  ]
}
