/**
 * Has this log witnessed: shows its newest checkpoint to every witness while it grows, and keeps the newest cosigned one for
 * whoever asks. A witness that is slow, away or lying is said so and disturbs nobody; one that knows another history of this log
 * is said loudly, because then either the log or its key is in other hands.
 */
import type { Clock } from '../../protocol/clock.ts'
import type { WitnessView } from '../../protocol/control-status.ts'
import { type Head, type Shown, showTo, type WitnessTerms } from './call.ts'
import type { Divergence } from './witness.ts'
import type { Cosigned } from './witnessed.ts'

/** What is worth a word: once each time it changes. */
export type WitnessNews =
  | { readonly is: 'conflict'; readonly conflict: Conflict; readonly text: string }
  | { readonly is: 'useless' | 'well'; readonly text: string }

export interface Conflict {
  readonly witness: string
  readonly divergence: Divergence
  /** Entries of this log, and how many the witness cosigned of the other history. */
  readonly size: number
  readonly witness_size: number
}

export interface WitnessingParts {
  readonly witnesses: readonly WitnessTerms[]
  /** The newest signed checkpoint. */
  head(): Promise<Head>
  /** Keeps `<audit>/checkpoint.witnessed`. */
  readonly cosigned: Cosigned
  readonly everyMs: number
  readonly clock: Clock
  tell(news: WitnessNews): void
}

export interface Witnessing {
  /**
   * Before the log is written to: ask every witness that answers in time.
   * @returns false when the hashes on disk did not suffice: ask again when the log is open.
   * @throws {Error} when one knows another history, saying what to do.
   */
  ask(): Promise<boolean>
  /** From now on show what is new. */
  begin(): void
  readonly views: readonly WitnessView[]
  /** Show the last checkpoint and end, in two seconds at most. Call when the log is sealed. */
  close(): Promise<void>
}

const ASK_TIMEOUT_MS = 2_000
const SHOW_TIMEOUT_MS = 10_000
const LAST_TIMEOUT_MS = 2_000

/** What is known of one witness. Written only by `showAll` and what it calls. */
interface Standing {
  readonly terms: WitnessTerms
  state: WitnessView['state']
  size: number
  cosignedAt: number | null
  trouble: string | undefined
  /** What was said of it last. */
  told: string | undefined
  /** It has cosigned a checkpoint of this process. */
  wasWell: boolean
  /** It is being shown a checkpoint. */
  busy: Promise<unknown> | undefined
}

const UNASKED: Omit<Standing, 'terms' | 'size'> = {
  state: 'waiting',
  cosignedAt: null,
  trouble: undefined,
  told: undefined,
  wasWell: false,
  busy: undefined,
}

export function createWitnessing(parts: WitnessingParts): Witnessing {
  const standings = parts.witnesses.map((terms): Standing => {
    const size = parts.cosigned.sizeOf(terms.key)
    return { ...UNASKED, terms, size }
  })
  let timer: NodeJS.Timeout | undefined
  const ending = new AbortController()
  const round = (timeoutMs: number, among = standings) =>
    showAll(parts, among, () => AbortSignal.any([ending.signal, AbortSignal.timeout(timeoutMs)]))
  return {
    async ask() {
      const [first] = [await remembered(parts), ...(await round(ASK_TIMEOUT_MS))].filter((text) => text !== undefined)
      if (first !== undefined) throw new Error(`${first} The gateway does not start. ${ADVICE}`)
      return standings.every(({ trouble }) => trouble !== HASHES_MISSING)
    },
    begin() {
      if (standings.length > 0) timer = setInterval(() => void round(SHOW_TIMEOUT_MS), parts.everyMs).unref()
    },
    get views() {
      return standings.map(viewOf)
    },
    async close() {
      clearInterval(timer)
      const limit = setTimeout(() => ending.abort(), LAST_TIMEOUT_MS)
      // Those that are of no use hold up nobody; one that is just being shown an earlier head gets the last one after it.
      const last = () =>
        round(
          LAST_TIMEOUT_MS,
          standings.filter(({ state }) => state === 'cosigning'),
        )
      await Promise.all([last(), ...standings.map(({ busy }) => busy)])
      await last()
      clearTimeout(limit)
    },
  }
}

export const HASHES_MISSING = 'the hashes of this log are not all on disk yet'

const ADVICE =
  'Stop whatever else writes this log; keep its directory as evidence; restore the newest copy of it, or start a new log in an empty data_dir under another audit.origin. If it is the witness that is wrong, take it out of audit.witnesses. docs/witness.md says more.'

/** What the last cosigned checkpoint on disk says against the log beside it. */
async function remembered({ cosigned, head }: WitnessingParts): Promise<string | undefined> {
  const { checkpoint } = cosigned
  if (!checkpoint) return undefined
  const now = await head().catch(() => undefined) // why it cannot be read is said where the log is opened
  if (!now) return undefined
  const place = 'the last cosigned checkpoint (checkpoint.witnessed)'
  if (checkpoint.size > now.size)
    return `TRUNCATION: ${place} of ${now.origin} has ${checkpoint.size} entries, and this log has only ${now.size}: its end is missing.`
  const root = await now.rootAt(checkpoint.size).catch(() => checkpoint.root) // recovery makes lost hashes again
  if (root.equals(checkpoint.root)) return undefined
  return `ROLLBACK: ${place} of ${now.origin} has ${checkpoint.size} entries that are not the first of these ${now.size}: this log was put back to an earlier state and went on differently.`
}

/** One round: each witness by itself, so that none waits for another. @returns conflicts in words. Never rejects. */
async function showAll(parts: WitnessingParts, standings: readonly Standing[], limit: () => AbortSignal) {
  if (standings.length === 0) return []
  let head: Head
  try {
    head = await parts.head()
  } catch {
    return [] // the log says by itself that it cannot be read
  }
  const due = standings.filter(({ busy, size, state }) => !busy && (size !== head.size || state !== 'cosigning'))
  const shows = due.map((standing) => {
    const showing = showOne(parts, standing, head, limit()).finally(() => Object.assign(standing, { busy: undefined }))
    standing.busy = showing
    return showing
  })
  return (await Promise.all(shows)).filter((text) => text !== undefined)
}

async function showOne(parts: WitnessingParts, standing: Standing, head: Head, limit: AbortSignal) {
  try {
    const shown = await showTo(standing.terms, head, standing.size, limit)
    if (shown.is === 'cosigned') await parts.cosigned.add(head, shown.lines, parts.clock.nowMs())
    const news = settle(standing, head, shown)
    // Sizes change with every round: that of a conflict is not news.
    const told = news?.is === 'conflict' ? news.conflict.divergence : news?.text
    if (news && told !== standing.told) parts.tell(news)
    standing.told = told
    return news?.is === 'conflict' ? news.text : undefined
  } catch {
    return undefined // the cosigned checkpoint cannot be kept: the disk is failing, and the log says so
  }
}

/** Take over what the witness said. */
function settle(standing: Standing, head: Head, shown: Shown): WitnessNews | undefined {
  const { name, url } = standing.terms
  const was = standing.state
  if (shown.is === 'cosigned') {
    Object.assign(standing, { state: 'cosigning', size: head.size, trouble: undefined, wasWell: true })
    standing.cosignedAt = shown.timestampS
    return was === 'waiting' || was === 'cosigning' ? undefined : { is: 'well', text: `witness ${name} cosigns again` }
  }
  if (shown.is === 'useless') {
    Object.assign(standing, { state: 'useless', trouble: shown.why })
    return { is: 'useless', text: `witness ${name} (${url}) does not cosign: ${shown.why}` }
  }
  const divergence = divergenceOf(standing, head, shown.size)
  const text = sentence(divergence, name, head, shown.size)
  Object.assign(standing, { state: 'conflict', trouble: `${divergence}: ${text}` })
  const conflict = { witness: name, divergence, size: head.size, witness_size: shown.size }
  return { is: 'conflict', conflict, text: `${divergence.toUpperCase()}: ${text}` }
}

/**
 * Once a witness has followed this process, only a second holder of the key can have led it away. Before that, the log itself is
 * not what it was when it was last witnessed.
 */
function divergenceOf({ wasWell }: Standing, { size }: Head, witnessed: number): Divergence {
  if (wasWell || size === witnessed) return 'fork'
  return witnessed > size ? 'truncation' : 'rollback'
}

function sentence(divergence: Divergence, name: string, { origin, size }: Head, witnessed: number): string {
  const seen = `witness ${name} has cosigned ${witnessed} entries of ${origin}`
  switch (divergence) {
    case 'fork':
      return `${seen} that are not the first of these ${size}: somebody else signs another history with the key of this log.`
    case 'truncation':
      return `${seen}, and this log has only ${size}: its end is missing.`
    case 'rollback':
      return `${seen} that are not the first of these ${size}: this log was put back to an earlier state and went on differently.`
    default:
      return divergence satisfies never
  }
}

function viewOf({ terms, state, size, cosignedAt, trouble }: Standing): WitnessView {
  const view = { name: terms.name, url: terms.url, state, size, cosigned_at: cosignedAt }
  return trouble === undefined ? view : { ...view, trouble }
}
