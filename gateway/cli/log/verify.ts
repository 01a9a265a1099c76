/** `keyless log verify`: is the log what was signed, and is what it tells possible. Offline, of one directory or of all replicas. */
import { readFile } from 'node:fs/promises'
import { Command, type CommanderError, InvalidArgumentError } from 'commander'
import type { Verdict, VerifyOptions } from '../../audit/verify/verify.ts'
import type { WhichLog } from './find-audit.ts'
import { print } from './print.ts'

interface Options extends WhichLog {
  readonly publicKey?: readonly string[]
  readonly witnessKey?: readonly string[]
  readonly witnesses?: number
  readonly remember?: string
  readonly maxAge?: number
  readonly bound?: number
  readonly open?: number
  readonly integrity?: boolean
  readonly strict?: boolean
  readonly json?: boolean
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description(
      'prove offline that no entry was changed, removed or added, and that what the log tells is possible; exit code 0 sound, 1 tampered, 2 unreadable',
    )
    .argument('[directories...]', 'directories of logs, those of all replicas together (default: the one of --data)')
    .option('--public-key <file>', 'a log.pub that was copied away earlier; for several logs, one each', collect)
    .option('--witness-key <file>', 'verifier key of a witness, as its witness.pub; may be repeated', collect)
    .option('--witnesses <count>', 'how many of them must have cosigned (default: all)', count)
    .option('--remember <file>', 'hold the log to what was verified before, and note what is now')
    .option('--max-age <seconds>', 'refuse a log whose newest cosignature, or entry, is older', count)
    .option('--bound <seconds>', 'time that the end of a grant may take to reach every replica', count, 2)
    .option('--open <seconds>', 'list allowed calls that have no outcome for longer', count, 3600)
    .option('--integrity', 'only that nothing was changed, removed or added')
    .option('--strict', 'count warnings as faults')
    .option('--json', 'the verdict as JSON')
    .exitOverride(unreadable)
    .action((dirs: string[], options: Options) => verify(dirs, options))
}

/** A mistyped option is no verdict: 1 would say tampered. */
export function unreadable({ exitCode }: CommanderError): void {
  process.exit(exitCode === 0 ? 0 : 2)
}

function collect(file: string, before: readonly string[] = []): readonly string[] {
  return [...before, file]
}

function count(text: string): number {
  if (!/^\d{1,9}$/.test(text)) throw new InvalidArgumentError('Write a whole number, such as 60.')
  return Number(text)
}

async function verify(named: readonly string[], options: Options): Promise<void> {
  const [{ findAuditDir }, { exitCode, verifyLogs }, { excessOf }, words] = await Promise.all([
    import('./find-audit.ts'),
    import('../../audit/verify/verify.ts'),
    import('../../grant/attenuate/attenuate.ts'),
    import('./words.ts'),
  ])
  let verdicts: readonly Verdict[]
  try {
    const dirs = named.length > 0 ? named : [await findAuditDir(options)]
    const excess: VerifyOptions['excess'] = (parent, child) =>
      excessOf(parent, child).map(({ at, got, allowed }) => `${at}: ${got} is more than ${allowed}`)
    verdicts = await verifyLogs(dirs, { ...(await asked(options)), excess })
  } catch (cause) {
    process.stderr.write(`keyless: ${(cause as Error).message}\n`)
    process.exitCode = 2
    return
  }
  const isSound = verdicts.every(({ ok, warning_count: warnings }) => ok && !(options.strict && warnings > 0))
  const [only] = verdicts
  // Whoever changed the log also wrote the words that a fault quotes: they must not repaint the verdict.
  if (options.json) await print(words.printableJson(verdicts.length === 1 ? only : { ok: isSound, logs: verdicts }, 2))
  else await print(verdicts.flatMap((verdict) => inWords(verdict, options).map(words.printable)).join('\n'))
  process.exitCode = exitCode(...verdicts) || (isSound ? 0 : 1)
}

async function asked(options: Options): Promise<VerifyOptions> {
  askForKeys(options)
  const read = (files: readonly string[] = []) => Promise.all(files.map(readKey))
  const { remember, witnesses, maxAge, bound, open, integrity } = options
  return {
    publicKeys: await read(options.publicKey),
    witnessKeys: await read(options.witnessKey),
    ...(remember !== undefined && { remember }),
    ...(witnesses !== undefined && { minWitnesses: witnesses }),
    ...(maxAge !== undefined && { maxAgeS: maxAge }),
    ...(bound !== undefined && { boundS: bound }),
    ...(open !== undefined && { openS: open }),
    checks: integrity ? 'integrity' : 'all',
  }
}

/** @throws {Error} rather than let a count that nothing is held to pass for one that is met. */
export function askForKeys({ witnesses = 0, witnessKey = [] }: Pick<Options, 'witnesses' | 'witnessKey'>): void {
  if (witnesses > witnessKey.length)
    throw new Error(
      `--witnesses ${witnesses} asks for more witnesses than keys are given (${witnessKey.length}). Name the key of each with --witness-key.`,
    )
}

export async function readKey(file: string): Promise<string> {
  try {
    return (await readFile(file, 'utf8')).trim()
  } catch (cause) {
    throw new Error(`the public key ${file} cannot be read: ${(cause as Error).message}`, { cause })
  }
}

function inWords(verdict: Verdict, options: Options): string[] {
  const { dir, unreadable, origin, entries, covered, root, remembered, witnessed, pruned } = verdict
  if (unreadable !== null) return [`UNREADABLE  ${dir}: ${unreadable}`]
  const lines = [
    `${verdict.ok ? 'SOUND' : 'TAMPERED'}  ${origin}, ${entries} entries, ${covered} covered by the signed checkpoint`,
  ]
  if (verdict.ok) lines.push(`root ${root}`)
  if (verdict.key_changes > 0) lines.push(`the log has a new key since: ${verdict.key}`)
  if (remembered) lines.push(`goes on from the ${remembered.size} entries that were verified on ${remembered.at}`)
  if (witnessed) lines.push(`${witnessed.size} entries cosigned by ${witnessed.by.join(', ')}, last on ${witnessed.at}`)
  if (pruned > 0) lines.push(`${pruned} entries were removed by retention; their hashes are checked`)
  lines.push(...tail(verdict), ...found('', verdict.faults, verdict.fault_count))
  lines.push(...found('warning: ', verdict.warnings, verdict.warning_count))
  if (options.publicKey === undefined && remembered === null)
    lines.push(
      `Checked with the public key beside the log; whoever can write there can replace it. ${
        options.remember === undefined
          ? 'Use --public-key with a copy, or --remember.'
          : `From now on ${options.remember} holds the log to this key, so compare it with a copy once.`
      }`,
    )
  return lines
}

function tail({ uncovered, torn_bytes: torn, open_calls: open }: Verdict): string[] {
  const lines: string[] = []
  if (uncovered > 0) lines.push(`${uncovered} entries after the checkpoint are well formed, but not signed yet`)
  if (torn > 0) lines.push(`${torn} bytes at the end are no whole entry: a write under way, or one that a crash tore`)
  if (open > 0) lines.push(`${open} allowed calls have no outcome: still under way, or cut short by a crash`)
  return lines
}

function found(lead: string, list: Verdict['faults'], total: number): string[] {
  const lines = list.map(({ index, what }) => `${lead}${index === null ? 'log' : `entry ${index}`}: ${what}`)
  return total > list.length ? [...lines, `${lead}and ${total - list.length} more`] : lines
}
