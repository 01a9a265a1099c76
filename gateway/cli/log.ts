/** `keyless log`: read the log, follow a call back to the human who authorised it, prove the log offline. Needs no running gateway. */
import { once } from 'node:events'
import { Command, InvalidArgumentError } from 'commander'
import type { Entry } from '../audit/entry.ts'
import type { Unsealing } from '../audit/personal.ts'
import type { LogReader } from '../audit/reader.ts'
import type { Verdict } from '../audit/verify.ts'
import type { WhichLog } from './find-audit.ts'
import { findCommand, reindexCommand } from './log-find.ts'
import { type ForgetAlone, logForgetCommand } from './log-forget.ts'

/** Entries that are searched for the last call. */
const LOOK_BACK = 1000

interface TailOptions extends WhichLog {
  readonly lines: number
  readonly follow?: boolean
  readonly json?: boolean
}

interface VerifyCommandOptions extends WhichLog {
  readonly json?: boolean
  readonly publicKey?: string
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
    .description('who authorised a call, through whom, for which task')
    .argument('[id]', 'id of the call, or an entry number (default: the last call whose caller is known)')
    .action((id: string | undefined, options: WhichLog) => withReader(options, (reader) => showLineage(reader, id)))
  const verify = new Command('verify')
    .description(
      'prove offline that no entry was changed, removed or added; exit code 0 sound, 1 tampered, 2 unreadable',
    )
    .option('--public-key <file>', 'the log.pub that was copied away earlier (default: the one beside the log)')
    .option('--json', 'the verdict as JSON')
    .action((options: VerifyCommandOptions) => verifyCommand(options))
  const command = new Command('log').description('read and prove the record of what happened')
  for (const sub of [tail, findCommand(), show, lineage, verify, reindexCommand()]) command.addCommand(onLog(sub))
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
    import('../audit/reader.ts'),
  ])
  const dir = await findAuditDir(which)
  let reader: LogReader
  try {
    reader = await openReader(dir)
  } catch (cause) {
    return complain(unreadable(dir, cause as NodeJS.ErrnoException))
  }
  const { openUnsealing } = await import('./unseal.ts')
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
  const { oneLine, printableJson } = await import('./log-words.ts')
  const write = (entry: Entry) => print(options.json ? printableJson(entry) : oneLine(entry))
  const stop = new AbortController()
  if (options.follow) process.once('SIGINT', () => stop.abort())
  const entries = reader.tail(options.lines, options.follow ? stop.signal : undefined)
  for await (const entry of entries) await write(entry)
}

async function showCall(reader: LogReader, id: string, options: TailOptions): Promise<void> {
  const { printableJson, whole } = await import('./log-words.ts')
  const entries = await find(reader, id)
  if (options.json) for (const entry of entries) await print(printableJson(entry))
  else if (entries.length > 0) await print(whole(entries))
}

async function showLineage(reader: LogReader, id: string | undefined): Promise<void> {
  const { chain } = await import('./log-words.ts')
  const call = id ?? (await lastCall(reader))
  if (call === undefined)
    return complain(
      `no call is among the last ${LOOK_BACK} entries. Name one by its id; "keyless log tail" lists them.`,
    )
  const entries = await find(reader, call)
  if (entries.length > 0) await print(chain(entries, await reader.makers(entries[0])))
}

async function lastCall(reader: LogReader): Promise<string | undefined> {
  let call: string | undefined
  for await (const { kind, lineage, req } of reader.tail(LOOK_BACK))
    if (kind === 'call.decision' && lineage !== undefined) call = req
  return call
}

/** By number or by call; an entry of a call brings the others. */
async function find(reader: LogReader, id: string): Promise<Entry[]> {
  const numbered = /^#?\d{1,15}$/.test(id) ? await reader.bySeq(Number(id.replace('#', ''))) : undefined
  const req = numbered ? numbered.req : id
  const entries = req === undefined ? [] : await reader.byReq(req)
  const found = entries.length > 0 ? entries : numbered ? [numbered] : []
  if (found.length === 0)
    complain(`the log has no entry "${id}". "keyless log tail" lists the last ones with their numbers and ids.`)
  return found
}

async function verifyCommand(options: VerifyCommandOptions): Promise<void> {
  const [{ findAuditDir }, { exitCode, verifyLog }, { printable, printableJson }, { readFile }] = await Promise.all([
    import('./find-audit.ts'),
    import('../audit/verify.ts'),
    import('./log-words.ts'),
    import('node:fs/promises'),
  ])
  const dir = await findAuditDir(options)
  let publicKey: string | undefined
  try {
    publicKey = options.publicKey === undefined ? undefined : await readFile(options.publicKey, 'utf8')
  } catch (cause) {
    complain(`the public key cannot be read: ${(cause as Error).message}`)
    process.exitCode = 2
    return
  }
  const verdict = await verifyLog(dir, publicKey === undefined ? {} : { publicKey })
  // Whoever changed the log also wrote the words that a fault quotes: they must not repaint the verdict.
  const lines = inWords(dir, verdict, options).map(printable)
  await print(options.json ? printableJson(verdict, 2) : lines.join('\n'))
  process.exitCode = exitCode(verdict)
}

function inWords(dir: string, verdict: Verdict, { publicKey }: VerifyCommandOptions): string[] {
  if (verdict.unreadable !== null) return [`UNREADABLE  ${dir}: ${verdict.unreadable}`]
  const { entries, covered, uncovered } = verdict
  const lines = [
    `${verdict.ok ? 'SOUND' : 'TAMPERED'}  ${verdict.origin}, ${entries} entries, ${covered} covered by the signed checkpoint`,
  ]
  if (verdict.ok) lines.push(`root ${verdict.root}`)
  if (uncovered > 0) lines.push(`${uncovered} entries after the checkpoint are well formed, but not signed yet`)
  if (verdict.torn_bytes > 0)
    lines.push(`${verdict.torn_bytes} bytes at the end are no whole entry: a write under way, or one that a crash tore`)
  if (verdict.open_calls > 0)
    lines.push(`${verdict.open_calls} allowed calls have no outcome: still under way, or cut short by a crash`)
  for (const fault of verdict.faults)
    lines.push(`${fault.index === null ? 'log' : `entry ${fault.index}`}: ${fault.what}`)
  if (publicKey === undefined)
    lines.push(
      'Checked with the public key beside the log; whoever can write there can replace it. Use --public-key with a copy.',
    )
  return lines
}

async function print(text: string): Promise<void> {
  if (!process.stdout.write(`${text}\n`)) await once(process.stdout, 'drain')
}

function complain(text: string): void {
  process.stderr.write(`keyless: ${text}\n`)
  process.exitCode = 1
}
