/** `keyless log`: read the log, follow a call back to the human who authorised it, prove the log offline. Needs no running gateway. */
import { Command, InvalidArgumentError } from 'commander'
import type { Entry } from '../../audit/entries/entry.ts'
import type { LogReader } from '../../audit/files/reader.ts'
import type { Unsealing } from '../../audit/personal/personal.ts'
import { exportCommand } from './export.ts'
import { findCommand, reindexCommand } from './find.ts'
import type { WhichLog } from './find-audit.ts'
import { type ForgetAlone, logForgetCommand } from './forget.ts'
import { investigateCommand } from './investigate.ts'
import type { LineageOptions } from './lineage.ts'
import { complain, print } from './print.ts'
import { checkProofCommand, proveCommand } from './prove.ts'
import { rotateKeyCommand } from './rotate-key.ts'
import { verifyCommand } from './verify.ts'

/** Entries that are searched for the last call. */
const LOOK_BACK = 1000

interface TailOptions extends WhichLog {
  readonly lines: number
  readonly follow?: boolean
  readonly json?: boolean
}

/** @param forget for `keyless log forget` while no gateway runs. */
export function logCommand(forget: ForgetAlone): Command {
  const tail = new Command('tail')
    .description('the last entries')
    .option('-n, --lines <count>', 'how many', parseCount, 20)
    .option('-f, --follow', 'go on with what is written, until Ctrl-C')
    .option('--json', 'the entries as they are, one a line')
    .action((options: TailOptions) => withReader(options, (reader) => tailLog(reader, options)))
  const show = new Command('show')
    .description('everything the log has on one call: decision and outcome')
    .argument('<id>', 'id of the call, as in the "instance" of a refusal, or an entry number')
    .option('--json', 'the entries as they are, one a line')
    .action((id: string, options: TailOptions) => withReader(options, (reader) => showCall(reader, id, options)))
  const lineage = new Command('lineage')
    .description('who authorised a call, through whom, for which task, and everything that descends from that task')
    .argument(
      '[id]',
      'id of a call, grant, task or agent, or an entry number (default: the last call whose caller is known)',
    )
    .option('--index <file|url>', 'the index (default: that of the gateway, made from the log if absent)')
    .option('--json', 'as JSON')
    .action((id: string | undefined, options: LineageOptions) =>
      withReader(options, (reader) => showLineage(reader, id, options)),
    )
  const command = new Command('log').description('read and prove the record of what happened')
  const proofs = [verifyCommand(), proveCommand(), checkProofCommand(), rotateKeyCommand()]
  const questions = [findCommand(), show, lineage, investigateCommand()]
  for (const sub of [tail, ...questions, ...proofs, exportCommand(), reindexCommand()]) command.addCommand(onLog(sub))
  command.addCommand(logForgetCommand(forget))
  return command
}

function onLog(command: Command): Command {
  return command
    .option('--audit-dir <directory>', 'directory of the log (default: audit in the data directory)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
    .option('-c, --config <file>', 'settings of the gateway (default: ./keyless.yaml if there is one)')
}

function parseCount(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Write a number of entries, such as 20.')
  return Number(text)
}

async function withReader(which: WhichLog, work: (reader: LogReader) => Promise<void>): Promise<void> {
  const [{ findAuditDir }, { openReader }] = await Promise.all([
    import('./find-audit.ts'),
    import('../../audit/files/reader.ts'),
  ])
  const dir = await findAuditDir(which)
  let reader: LogReader
  try {
    reader = await openReader(dir)
  } catch (cause) {
    return complain(unreadable(dir, cause as NodeJS.ErrnoException))
  }
  const { openUnsealing } = await import('../unseal.ts')
  const names = await openUnsealing(which)
  // Whoever reads our output has seen enough: `keyless log tail | head`.
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => process.exit(cause.code === 'EPIPE' ? 0 : 1))
  try {
    await work(unsealed(reader, names))
  } finally {
    await reader.close()
  }
}

/** What is shown is plain, as far as there are keys. */
function unsealed(reader: LogReader, names: Unsealing): LogReader {
  return {
    async *tail(count, signal) {
      let lookedAt = performance.now()
      for await (const entry of reader.tail(count, signal)) {
        if (performance.now() - lookedAt > 500) await names.refresh()
        lookedAt = performance.now()
        yield names.unseal(entry)
      }
    },
    bySeq: async (seq) => names.unseal(await reader.bySeq(seq)),
    byReq: async (req) => names.unseal(await reader.byReq(req)),
    makers: async (entry) =>
      new Map([...(await reader.makers(entry))].map(([grant, made]) => [grant, names.unseal(made)])),
    close: () => reader.close(),
  }
}

function unreadable(dir: string, cause: NodeJS.ErrnoException): string {
  if (cause.code === 'ENOENT')
    return `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`
  if (cause.code === 'EACCES')
    return `the log in ${dir} belongs to another user. Read it as the user who runs the gateway.`
  return `the log in ${dir} cannot be read: ${cause.message}`
}

async function tailLog(reader: LogReader, options: TailOptions): Promise<void> {
  const { oneLine, printableJson } = await import('./words.ts')
  const write = (entry: Entry) => print(options.json ? printableJson(entry) : oneLine(entry))
  const stop = new AbortController()
  if (options.follow) process.once('SIGINT', () => stop.abort())
  const entries = reader.tail(options.lines, options.follow ? stop.signal : undefined)
  for await (const entry of entries) await write(entry)
}

async function showCall(reader: LogReader, id: string, options: TailOptions): Promise<void> {
  const { printableJson, whole } = await import('./words.ts')
  const entries = await find(reader, id)
  if (options.json) for (const entry of entries) await print(printableJson(entry))
  else if (entries.length > 0) await print(whole(entries))
}

/** The sentence from the log itself, and the tree of its task from the index. */
async function showLineage(reader: LogReader, id: string | undefined, options: LineageOptions): Promise<void> {
  const [{ chain }, { printLineage }] = await Promise.all([import('./words.ts'), import('./lineage.ts')])
  const call = id ?? (await lastCall(reader))
  if (call === undefined)
    return complain(
      `no call is among the last ${LOOK_BACK} entries. Name one by its id; "keyless log tail" lists them.`,
    )
  const entries = options.json ? [] : await entriesOf(reader, call)
  const lead = entries.length > 0 ? chain(entries, await reader.makers(entries[0])) : undefined
  await printLineage(call, options, lead)
}

async function lastCall(reader: LogReader): Promise<string | undefined> {
  let call: string | undefined
  for await (const { kind, lineage, req } of reader.tail(LOOK_BACK))
    if (kind === 'call.decision' && lineage !== undefined) call = req
  return call
}

/** By number or by call; an entry of a call brings the others. */
async function entriesOf(reader: LogReader, id: string): Promise<Entry[]> {
  const numbered = /^#?\d{1,15}$/.test(id) ? await reader.bySeq(Number(id.replace('#', ''))) : undefined
  const req = numbered ? numbered.req : id
  const entries = req === undefined ? [] : await reader.byReq(req)
  return entries.length > 0 ? entries : numbered ? [numbered] : []
}

async function find(reader: LogReader, id: string): Promise<Entry[]> {
  const found = await entriesOf(reader, id)
  if (found.length === 0)
    complain(`the log has no entry "${id}". "keyless log tail" lists the last ones with their numbers and ids.`)
  return found
}
