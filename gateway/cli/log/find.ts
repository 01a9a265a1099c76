/** `keyless log find` and `keyless log reindex`: questions to the index of the log, which is made from it when it is not there. */
import { once } from 'node:events'
import { Command, InvalidArgumentError } from 'commander'
import type { Asked } from '../../records/asking.ts'
import type { Index } from '../../records/opening.ts'
import type { Records } from '../../records/records.ts'
import type { WhichIndex } from './find-index.ts'

const DEFAULT_LIMIT = 50
/** Records that are asked for at once. */
const PAGE = 500
/** Entries that take a moment to read: more are announced. */
const LONG = 20_000

interface FindOptions extends WhichIndex, Asked {
  readonly deny?: boolean
  readonly allow?: boolean
  readonly oldest?: boolean
  readonly json?: boolean
  readonly count?: boolean
  readonly prove?: boolean
}

/** Filters → what is said of them. */
const FILTERS: Readonly<Record<string, string>> = {
  '--human <sub>': 'who authorised it: name, or "issuer name"',
  '--agent <id>': 'agent that acted',
  '--task <id>': 'task',
  '--ancestor <id>': 'human, agent or grant anywhere in the lineage',
  '--grant <id>': 'grant that was used, or that it is about',
  '--service <name>': 'service, such as github',
  '--operation <name>': 'operation, such as github:issues.read or github:*',
  '--host <name>': 'host, such as api.github.com or *.github.com',
  '--status <code>': 'status of the answer, such as 404 or 4xx',
  '--kind <kind>': 'kind of entry: call, lease.issued, grant.*',
  '--credential <name>': 'credential by its name in settings, or by cred_id',
  '--trace <id>': 'W3C trace id',
  '--prompt <hash>': 'hash of the prompt that the caller sent along: sha256:…',
  '--text <words>': 'words that all occur in path, purpose, names, codes, policies or user agent',
  '--tenant <name>': 'tenant',
  '--log <origin>': 'log, where several are in one index',
  '--since <time>': 'not before: 2026-11-22T10:00Z, or how long ago: 30m, 2h, 7d',
  '--until <time>': 'before that time',
}

export function findCommand(): Command {
  const find = new Command('find').description('what happened, by who, what, where, when')
  for (const [option, said] of Object.entries(FILTERS)) find.option(option, said)
  return onIndex(find)
    .option('--allow', 'only what was allowed')
    .option('--deny', 'only what was refused')
    .option('-n, --limit <count>', 'how many at most (default: 50)', atLeastOne)
    .option('--after <place>', 'go on where a list ended, as it says at its end')
    .option('--oldest', 'oldest first')
    .option('--count', 'only how many there are')
    .option('--json', 'as JSON, one record a line')
    .option('--prove', 'with entries and their inclusion proofs (C2SP tlog-proof), one JSON record a line')
    .action((options: FindOptions) => withRecords(options, (records) => answer(records, options)))
}

export function reindexCommand(): Command {
  return onIndex(new Command('reindex').description('make the index again from the log')).action(
    (options: WhichIndex) =>
      withRecords(options, async (_, index) => {
        await index.clear()
        await fill(index)
        say('the index is made again: keyless log find asks it.')
      }),
  )
}

function onIndex(command: Command): Command {
  return command.option('--index <file|url>', 'the index (default: that of the gateway, made from the log if absent)')
}

function atLeastOne(text: string): string {
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('Write a number of records, such as 50.')
  return text
}

async function withRecords(which: WhichIndex, work: (records: Records, index: Index) => Promise<void>): Promise<void> {
  const [
    { findAuditDir },
    { findIndex },
    { openIndex, originOf },
    { createRecords },
    { openUnsealing },
    { systemClock },
    { isUnsound, removeSqlite },
  ] = await Promise.all([
    import('./find-audit.ts'),
    import('./find-index.ts'),
    import('../../records/opening.ts'),
    import('../../records/records.ts'),
    import('../unseal.ts'),
    import('../../protocol/clock.ts'),
    import('../../records/database-sqlite.ts'),
  ])
  const dir = await findAuditDir(which)
  const origin = await originOf(dir)
  if (origin === undefined)
    throw new Error(
      `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`,
    )
  const at = await findIndex(which, dir)
  const names = await openUnsealing(which)
  // Whoever reads our output has seen enough: `keyless log find | head`.
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => process.exit(cause.code === 'EPIPE' ? 0 : 1))
  const index = await openIndex({ dir, origin, at, clock: systemClock, onProgress: progress() })
  try {
    if (index.rebuilt !== undefined) say(`${index.rebuilt}; it is made again from the log.`)
    await fill(index)
    await work(createRecords({ ...index, dir, origin, names }), index)
  } catch (cause) {
    // Damage inside a file shows only where it is read.
    if (!('path' in at) || !isUnsound(cause)) throw cause
    removeSqlite(at.path)
    throw new Error(
      `the index ${at.path} was damaged and has been removed. Run the command again: it is made from the log.`,
    )
  } finally {
    await index.database.close()
  }
}

async function fill({ indexer }: Index): Promise<void> {
  const { entries } = await indexer.lag()
  const isLong = entries > LONG
  if (isLong) say(`reading ${entries} entries into the index…`)
  const startedMs = performance.now()
  await indexer.catchUp()
  if (isLong) say(`the index is complete after ${((performance.now() - startedMs) / 1000).toFixed(1)} s.`)
}

/** Says once, when it can be told, how long it will take. */
function progress(): (next: number, covered: number) => void {
  const startedMs = performance.now()
  let first: number | undefined
  let isTold = false
  return (next, covered) => {
    first = Math.min(first ?? next, next) // whoever else fills the index at once may have it begin again
    const passedS = (performance.now() - startedMs) / 1000
    if (isTold || passedS < 2 || next === first) return
    isTold = true
    say(`about ${Math.ceil(((covered - next) / (next - first)) * passedS)} s to go.`)
  }
}

async function answer(records: Records, options: FindOptions): Promise<void> {
  const [{ systemClock }, { readQuery, TEXT_FILTERS }, { lineOf }] = await Promise.all([
    import('../../protocol/clock.ts'),
    import('../../records/asking.ts'),
    import('./found-words.ts'),
  ])
  const left = { count: Number(options.limit ?? DEFAULT_LIMIT) }
  const query = readQuery(
    { ...askedIn(options, TEXT_FILTERS), limit: String(Math.min(left.count, PAGE)) },
    systemClock.nowMs(),
  )
  if (options.count) return print(String(await records.count(query)))
  let after = query.after
  while (left.count > 0) {
    const limit = Math.min(left.count, PAGE)
    const { records: found, next } = await records.find({ ...query, limit, ...(after !== undefined && { after }) })
    for (const one of found) await print(await lineOf(records, one, options))
    if (found.length === 0) say('nothing in the log is like that.')
    after = next
    if (next === undefined) return
    left.count -= found.length
  }
  say(`there are more: go on with --after ${after}`)
}

function askedIn({ deny, allow, oldest, ...options }: FindOptions, texts: readonly (keyof Asked)[]): Asked {
  if (deny && allow) throw new Error('--allow and --deny together match nothing: leave one of them out.')
  const names = [...texts, 'since', 'until', 'after'] as const
  return {
    ...Object.fromEntries(names.flatMap((name) => (options[name] === undefined ? [] : [[name, options[name]]]))),
    ...(deny && { effect: 'deny' }),
    ...(allow && { effect: 'allow' }),
    ...(oldest && { order: 'oldest' }),
  }
}

async function print(text: string): Promise<void> {
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
}

function say(text: string): void {
  process.stderr.write(`keyless: ${text}\n`)
}
