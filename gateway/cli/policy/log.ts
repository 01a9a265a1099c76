/** Reads the log of a gateway, running or not, for commands that put its decisions to policies. */
import type { Command } from 'commander'
import type { Entry } from '../../audit/entries/entry.ts'
import type { Recorded } from '../../policy/tools/recorded.ts'
import type { WhichLog } from '../log/find-audit.ts'
import type { SourceOptions } from './sources.ts'

export interface LogOptions extends SourceOptions, WhichLog {
  readonly config?: string
}

/** Which log. */
export function onLog(command: Command): Command {
  return command
    .option('--audit-dir <directory>', 'directory of the log (default: audit in the data directory)')
    .option('--data <directory>', 'data directory of the gateway (default: $KEYLESS_HOME or ~/.keyless)')
}

/** Every decision that is written, oldest first, with what was known of it by then. @throws {Error} where there is no log. */
export async function* recordedIn(which: WhichLog): AsyncGenerator<Recorded> {
  const [
    { findAuditDir },
    { firstKept, readWritten },
    { openReader },
    { parseEntry },
    { Recording },
    { openUnsealing },
  ] = await Promise.all([
    import('../log/find-audit.ts'),
    import('../../audit/files/follow.ts'),
    import('../../audit/files/reader.ts'),
    import('../../audit/entries/entry.ts'),
    import('./recording.ts'),
    import('../unseal.ts'),
  ])
  const dir = await findAuditDir(which)
  await (await openReader(dir).catch((cause: Error) => refuse(dir, cause))).close()
  const names = await openUnsealing(which)
  await names.refresh()
  const recording = new Recording()
  for await (const { entries } of readWritten(dir, await firstKept(dir))) {
    for (const bytes of entries) {
      if (!DECIDES.test(bytes.toString('latin1', 0, bytes.length))) continue
      const entry = parseEntry(bytes)
      const recorded = entry && recording.read(names.unseal<Entry>(entry))
      if (recorded !== undefined) yield recorded
    }
  }
}

/** Others need not be parsed. */
const DECIDES = /"kind":"(?:call\.decision|grant\.(?:issued|replaced|delegated|denied))"/

function refuse(dir: string, cause: Error): never {
  throw new Error(
    `there is no log in ${dir}. Name its directory with --audit-dir, or the data directory with --data.`,
    {
      cause,
    },
  )
}
