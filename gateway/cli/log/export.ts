/** `keyless log export`: the log in the format of another system, on standard output. Reads the files; needs no running gateway. */
import { once } from 'node:events'
import { setTimeout as wait } from 'node:timers/promises'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { Place } from '../../audit/files/follow.ts'
import { FORMATS, type FormatName, MASKS, type Mask } from '../../protocol/exporting.ts'
import type { Item } from '../../records/export/item.ts'
import type { WhichLog } from './find-audit.ts'
import { overTime, type SpanOptions, spanOf } from './with-index.ts'

/** How often `--follow` looks for more, ms. */
const LOOK_MS = 500

interface ExportOptions extends WhichLog, SpanOptions {
  readonly format: FormatName
  readonly kind?: readonly string[]
  readonly mask?: readonly Mask[]
  readonly follow?: boolean
}

export function exportCommand(): Command {
  const command = new Command('export')
    .description('the log for another system, on standard output: OCSF, OpenTelemetry, CEF or JSON lines')
    .addOption(new Option('--format <format>', 'what it becomes').choices(FORMATS).makeOptionMandatory())
    .option('--kind <kind>', 'only entries of this kind, such as call.* or lease.issued; may be repeated', collect)
    .option('--mask <part>', `put a keyed hash in place of ${MASKS.join(', ')}; may be repeated`, collectMask)
    .option('-f, --follow', 'go on with what is written, until Ctrl-C')
  return overTime(command).action(exportLog)
}

function collect(kind: string, before: readonly string[] = []): readonly string[] {
  return [...before, kind]
}

function collectMask(text: string, before: readonly Mask[] = []): readonly Mask[] {
  const masks = text.split(',').map((part) => {
    const mask = MASKS.find((one) => one === part)
    if (!mask) throw new InvalidArgumentError(`Got ${part}, allowed are ${MASKS.join(', ')}.`)
    return mask
  })
  return [...before, ...masks]
}

async function exportLog(options: ExportOptions): Promise<void> {
  const [{ findAuditDir }, { originOf }, { systemClock }, { firstKept, readEntries }] = await Promise.all([
    import('./find-audit.ts'),
    import('../../records/opening.ts'),
    import('../../protocol/clock.ts'),
    import('../../audit/files/follow.ts'),
  ])
  const dir = await findAuditDir(options)
  const log = await originOf(dir)
  if (log === undefined)
    throw new Error(
      `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`,
    )
  const write = await writer(options, log, systemClock.nowMs())
  // Whoever reads our output has seen enough: `keyless log export | head`.
  process.stdout.on('error', (cause: NodeJS.ErrnoException) => process.exit(cause.code === 'EPIPE' ? 0 : 1))
  const stop = new AbortController()
  if (options.follow) process.once('SIGINT', () => stop.abort())
  const kept = await firstKept(dir)
  let place: Place = { seq: kept, segment: kept, offset: 0 }
  do {
    for await (const { entries, next } of readEntries(dir, place)) {
      await write(entries)
      place = next
      if (stop.signal.aborted) return
    }
    if (options.follow) await wait(LOOK_MS, undefined, { signal: stop.signal }).catch(() => undefined)
  } while (options.follow && !stop.signal.aborted)
}

/** @returns what puts a stretch of the log on standard output. */
async function writer(options: ExportOptions, log: string, nowMs: number) {
  const [{ formats }, { createItems, kindFilter }, { createMask }] = await Promise.all([
    import('../../records/export/format.ts'),
    import('../../records/export/item.ts'),
    import('../../records/export/mask.ts'),
  ])
  const format = formats[options.format]
  const masks = options.mask ?? []
  const items = createItems(createMask(masks, await maskKey(options, masks)), masks.length > 0)
  const hasKind = kindFilter(options.kind)
  const { since = 0, until = Number.POSITIVE_INFINITY } = await spanOf(options, nowMs)
  const isWanted = ({ entry }: Item) => {
    const ms = Date.parse(entry.ts)
    return hasKind(entry.kind) && ms >= since && ms < until
  }
  return async (entries: readonly Buffer[]): Promise<void> => {
    const read = entries.map((bytes) => items.read(bytes, log)).filter((item) => item !== undefined)
    const wanted = read.filter(isWanted)
    if (wanted.length === 0) return
    for (const { text } of format.bodies(wanted)) if (!process.stdout.write(text)) await once(process.stdout, 'drain')
  }
}

/** The key with which the gateway masks, so that its exports and this one can be compared. */
async function maskKey(options: ExportOptions, masks: readonly Mask[]) {
  const [{ createSecretKey, randomBytes }, { maskKeyIn }, { findKeysDir }] = await Promise.all([
    import('node:crypto'),
    import('../../settings/keys.ts'),
    import('./find-audit.ts'),
  ])
  if (masks.length === 0) return createSecretKey(randomBytes(32)) // nothing is masked
  const dir = await findKeysDir(options)
  const key = await maskKeyIn(dir)
  if (key) return key
  throw new Error(
    `--mask needs the key of the gateway, and there is none in ${dir}. Name its data directory with --data, or its settings with --config.`,
  )
}
