/** `keyless log prove` and `check-proof`: one entry, provable to somebody who has nothing but the log's public key. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Command, InvalidArgumentError } from 'commander'
import type { Proven } from '../../audit/verify/prove.ts'
import { findAuditDir, type WhichLog } from './find-audit.ts'
import { complain, print } from './print.ts'
import { askForKeys, readKey, unreadable } from './verify.ts'

interface ProveOptions extends WhichLog {
  readonly outcome?: boolean
  readonly out?: string
}

interface CheckOptions extends WhichLog {
  readonly publicKey?: string
  readonly witnessKey?: readonly string[]
  readonly witnesses?: number
  readonly entry?: string
  readonly json?: boolean
}

export function proveCommand(): Command {
  return new Command('prove')
    .description('write a proof that an entry is in the log (C2SP tlog-proof), which can be checked offline')
    .argument('<id>', 'entry number, or id of a call: then its decision')
    .option('--outcome', 'of the call with that id, its outcome')
    .option('--out <file>', 'where to, by custom ending in .tlog-proof (default: standard output)')
    .action((id: string, options: ProveOptions) => proveEntry(id, options))
}

export function checkProofCommand(): Command {
  return new Command('check-proof')
    .description('check a proof offline; exit code 0 proven, 1 not proven, 2 unreadable')
    .argument('<file>', 'the proof; - for standard input')
    .option('--public-key <file>', 'the log.pub that was copied away earlier (default: the one beside the log)')
    .option(
      '--witness-key <file>',
      'verifier key of a witness; may be repeated',
      (file, before: readonly string[] = []) => [...before, file],
    )
    .option('--witnesses <count>', 'how many of them must have cosigned (default: all)', count)
    .option('--entry <file>', 'the entry, where it is not in the proof or to be held against it')
    .option('--json', 'what is proven as JSON')
    .exitOverride(unreadable)
    .action((file: string, options: CheckOptions) => check(file, options))
}

function count(text: string): number {
  if (!/^\d{1,4}$/.test(text)) throw new InvalidArgumentError('Write a number of witnesses, such as 2.')
  return Number(text)
}

async function proveEntry(id: string, options: ProveOptions): Promise<void> {
  const { prove } = await import('../../audit/verify/prove.ts')
  const dir = await findAuditDir(options)
  try {
    const isNumber = /^#?\d{1,15}$/.test(id)
    if (isNumber && options.outcome)
      throw new Error(
        `--outcome goes with the id of a call, and ${id} is the number of one entry: leave one of them out.`,
      )
    const seq = isNumber ? Number(id.replace('#', '')) : await numberOf(dir, id, options.outcome === true)
    const text = await prove(dir, seq)
    if (options.out === undefined) process.stdout.write(text)
    else await writeFile(options.out, text)
  } catch (cause) {
    complain((cause as Error).message)
  }
}

async function numberOf(dir: string, req: string, isOutcome: boolean): Promise<number> {
  const { openReader } = await import('../../audit/files/reader.ts')
  const reader = await openReader(dir)
  try {
    const entries = await reader.byReq(req)
    const entry = isOutcome ? entries.find(({ kind }) => kind === 'call.outcome') : entries[0]
    if (entry) return entry.seq
    throw new Error(
      `the log has no ${isOutcome ? 'outcome of a call' : 'entry'} "${req}". "keyless log tail" lists the last ones with their numbers and ids.`,
    )
  } finally {
    await reader.close()
  }
}

async function check(file: string, options: CheckOptions): Promise<void> {
  const [{ checkProof, ProofRefused }, { parseVerifier }, { parseWitnessKey }] = await Promise.all([
    import('../../audit/verify/prove.ts'),
    import('../../audit/tree/note.ts'),
    import('../../audit/witness/cosignature.ts'),
  ])
  try {
    askForKeys(options)
    const text = (await read('proof', file === '-' ? '/dev/stdin' : file)).toString('utf8')
    const key = await readKey(options.publicKey ?? join(await findAuditDir(options), 'log.pub'))
    const witnesses = (await Promise.all((options.witnessKey ?? []).map(readKey))).map(parseWitnessKey)
    const entry = options.entry === undefined ? undefined : withoutEnd(await read('entry', options.entry))
    const proven = checkProof(text, {
      verifier: parseVerifier(key),
      witnesses,
      ...(options.witnesses !== undefined && { least: options.witnesses }),
      ...(entry && { entry }),
    })
    await tell(proven, options)
  } catch (cause) {
    const isRefused = cause instanceof ProofRefused
    complain(isRefused ? `NOT PROVEN: ${cause.message}` : (cause as Error).message)
    process.exitCode = isRefused ? 1 : 2
  }
}

async function read(what: string, file: string): Promise<Buffer> {
  return readFile(file).catch((cause: Error) => {
    throw new Error(`the ${what} ${file} cannot be read: ${cause.message}`, { cause })
  })
}

/** An entry that was saved as a line. */
function withoutEnd(bytes: Buffer): Buffer {
  return bytes.at(-1) === 0x0a ? bytes.subarray(0, -1) : bytes
}

async function tell({ index, entry, checkpoint, witnesses }: Proven, options: CheckOptions): Promise<void> {
  const { oneLine, printable, printableJson } = await import('./words.ts')
  const { parseEntry } = await import('../../audit/entries/entry.ts')
  const { origin, size, root } = checkpoint
  const parsed = parseEntry(entry)
  if (options.json)
    return print(
      printableJson(
        { proven: true, origin, index, size, root: root.toString('base64'), witnesses, entry: parsed ?? null },
        2,
      ),
    )
  await print(printable(`PROVEN  entry ${index} of ${origin}, in its signed checkpoint of ${size} entries`))
  for (const { name, atS } of witnesses)
    await print(printable(`cosigned by ${name} on ${new Date(atS * 1000).toISOString()}`))
  if (parsed) await print(oneLine(parsed))
  if (options.publicKey === undefined)
    await print('Checked with the public key beside the log; give an auditor a copy, for --public-key.')
}
