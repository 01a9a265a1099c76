/** The part of the composition root that holds the log to what it once said: its witnesses, and this gateway as a witness of others. */
import { join } from 'node:path'
import type { Audit } from '../audit/audit.ts'
import { takeLock } from '../audit/files/lock.ts'
import { files } from '../audit/lines.ts'
import { loadLogKey } from '../audit/log.ts'
import { type NoteVerifier, parseVerifier } from '../audit/tree/note.ts'
import { publicLog } from '../audit/tree/public-log.ts'
import { formatWitnessKey } from '../audit/witness/cosignature.ts'
import { loadWitnessKey, openWitnessFiles } from '../audit/witness/files.ts'
import { createWitness, type Witness } from '../audit/witness/witness.ts'
import { openWitnessing } from '../audit/witness/witnesses.ts'
import type { WitnessNews } from '../audit/witness/witnessing.ts'
import type { Clock } from '../protocol/clock.ts'
import type { WitnessView } from '../protocol/control-status.ts'
import { witnessDirOf } from '../settings/data-directory.ts'
import type { Settings } from '../settings.ts'
import { createUpstream, type UpstreamOptions } from '../upstream/forward.ts'

export interface Witnesses {
  readonly views: readonly WitnessView[]
  /** This gateway as a witness; undefined when it is none. */
  readonly witness: (Witness & { readonly key: string }) | undefined
  readonly publicLog: ReturnType<typeof publicLog>
  /** The log is open. @throws {Error} when a witness knows another history of it. */
  begin(audit: Audit): Promise<void>
  /** When the log is sealed: shows its last checkpoint. */
  close(): Promise<void>
}

/**
 * Before the log is opened, ask the witnesses whether it is still the log that they know.
 * @throws {Error} when it is not, saying what to do; when settings for witnesses contradict each other.
 */
export async function openWitnesses(
  settings: Settings,
  clock: Clock,
  isClosed: NonNullable<UpstreamOptions['isClosed']>,
): Promise<Witnesses> {
  const dir = join(settings.dataDir, 'audit')
  const { origin, witnesses, witnessEveryS } = settings.audit
  const key = await loadLogKey(dir, origin)
  takeLock(join(dir, files.lock)).release() // or somebody who writes the log would look like somebody who has cut it
  await using opening = new AsyncDisposableStack()
  const witness = await openWitness(settings, clock, opening)
  // Of its own: it is needed after the last call, when the others are closed.
  const outlet = opening.adopt(createUpstream({ ...settings.upstream, clock, isClosed }), (room) => room.close())
  let audit: Audit | undefined
  const witnessing = await openWitnessing({
    ...{ dir, origin, key, witnesses, clock },
    everyMs: witnessEveryS * 1000,
    fetchFor: (addresses) => outlet.fetchFor(addresses),
    tell: (news) => tell(news, audit, settings.tenant),
  })
  opening.defer(() => witnessing.close())
  const isSure = await witnessing.ask()
  const opened = opening.move()
  return {
    get views() {
      return witnessing.views
    },
    witness,
    publicLog: publicLog(dir, Object.keys(witnesses).length > 0),
    async begin(room) {
      if (!isSure) await witnessing.ask()
      audit = room
      witnessing.begin()
    },
    close: () => opened.disposeAsync(),
  }
}

async function openWitness(
  { dataDir, audit }: Settings,
  clock: Clock,
  opening: AsyncDisposableStack,
): Promise<Witnesses['witness']> {
  if (audit.witnessFor.length === 0) return undefined
  const logs = audit.witnessFor.map(keyOfLog)
  if (logs.some(({ name }) => name === audit.origin))
    throw new Error(
      `audit.witness_for names a log called ${audit.origin}, as this gateway's own log is. Give every replica an audit.origin of its own.`,
    )
  const dir = witnessDirOf(dataDir)
  const cosigner = await loadWitnessKey(dir, { fallback: `${audit.origin}/witness` })
  const store = opening.adopt(await openWitnessFiles(dir), (files) => files.close())
  const report = ({ origin, divergence, text }: { origin: string; divergence: string; text: string }) =>
    warn(`as a witness: ${divergence.toUpperCase()}: the log ${origin} ${text}`)
  return { ...createWitness({ store, cosigner, logs, clock, report }), key: formatWitnessKey(cosigner.verifier) }
}

function keyOfLog(text: string): NoteVerifier {
  try {
    return parseVerifier(text)
  } catch (cause) {
    throw new Error(
      `audit.witness_for: ${text}: ${(cause as Error).message}. Copy the whole line of that log's log.pub.`,
      {
        cause,
      },
    )
  }
}

/** A conflict that is found before the log is open stops the start, and is told there. */
function tell(news: WitnessNews, audit: Audit | undefined, tenant: string): void {
  if (news.is === 'conflict' && !audit) return
  warn(news.text)
  // The log may be failing; what standard error has said must do then.
  if (news.is === 'conflict') audit?.record('log.witness_conflict', tenant, { ...news.conflict }).catch(() => undefined)
}

function warn(text: string): void {
  process.stderr.write(`keyless: warning: ${text}\n`)
}
