/**
 * A witness (C2SP tlog-witness): cosigns a checkpoint only if it continues the last one that it cosigned of the same log, and
 * remembers it durably before the answer. So it never signs two histories of one log, whatever its logs or its machine do.
 */
import type { Clock } from '../../protocol/clock.ts'
import { type Checkpoint, parseCheckpoint, parseSize } from '../tree/checkpoint.ts'
import { EMPTY_ROOT, verifyConsistency } from '../tree/merkle.ts'
import { linesOf, type Note, NoteRefused, type NoteVerifier, openNote, parseNote, strictBase64 } from '../tree/note.ts'
import { type Cosigner, cosignedAt } from './cosignature.ts'

/** What another history is: two of one size; one that does not continue what was seen; one that is shorter. */
export type Divergence = 'fork' | 'rollback' | 'truncation'

export interface WitnessAnswer {
  readonly status: 200 | 400 | 403 | 404 | 409 | 422 | 500
  readonly type: 'text/plain; charset=utf-8' | 'text/x.tlog.size'
  readonly body: string
}

/** Remembers one note for each log. */
export interface WitnessStore {
  /** The last cosigned checkpoint of the log, as it was kept. */
  latest(origin: string): Promise<Buffer | undefined>
  /** Durable when this resolves: the new note or the old one, whole, also after a power cut. */
  keep(origin: string, note: string): Promise<void>
  /** Keep two signed checkpoints that contradict each other: proof against whoever holds the log's key. */
  keepEvidence(origin: string, notes: readonly (Checkpoint & { readonly bytes: Uint8Array })[]): Promise<void>
}

export interface Finding {
  readonly origin: string
  readonly divergence: Divergence
  /** In words, for the operator of the witness. */
  readonly text: string
}

export interface WitnessOptions {
  readonly store: WitnessStore
  readonly cosigner: Cosigner
  /** Keys of the logs. Several of one name are keys of one log, as after a rotation. */
  readonly logs: readonly NoteVerifier[]
  readonly clock: Clock
  /** Told each time a log shows another history. */
  readonly report: (finding: Finding) => void
}

export interface Witness {
  /** Never throws: what is wrong with the body, the log or the disk is an answer. */
  addCheckpoint(body: Uint8Array): Promise<WitnessAnswer>
}

/** 63 hashes and more signatures than C2SP signed-note wants taken, also of post-quantum keys. */
export const MAX_BODY_BYTES = 128 * 1024
/** C2SP tlog-witness: a client must not send more. */
const MAX_HASHES = 63

interface Submission {
  readonly old: number
  readonly proof: readonly Buffer[]
  readonly bytes: Uint8Array
  readonly note: Note
  readonly checkpoint: Checkpoint
}

/** What was cosigned last; the empty tree, without a note, if nothing was. */
interface Latest extends Checkpoint {
  readonly bytes: Uint8Array | undefined
}

export function createWitness(o: WitnessOptions): Witness {
  /** origin → its last submission: one at a time, so that what is compared is what is replaced. */
  const queues = new Map<string, Promise<unknown>>()
  return {
    async addCheckpoint(body) {
      try {
        const shown = parseSubmission(body)
        const { origin } = shown.checkpoint
        const keys = o.logs.filter((log) => log.name === origin)
        if (keys.length === 0) return plain(404, 'This witness does not know the log of that origin.')
        if (!isSigned(shown, keys)) return plain(403, 'The checkpoint is not signed by the key of its log.')
        if (shown.old > shown.checkpoint.size) return plain(400, 'The old size is larger than the checkpoint.')
        const turn = (queues.get(origin) ?? Promise.resolve()).then(() => judge(shown, o))
        queues.set(
          origin,
          turn.catch(() => undefined),
        )
        return await turn
      } catch (cause) {
        if (cause instanceof NoteRefused) return plain(400, `Bad request: ${cause.message}.`)
        return plain(500, 'The witness cannot read or write what it remembers, so it signs nothing.')
      }
    },
  }
}

/** Runs alone for its log. The order of the checks is the specification's. */
async function judge(shown: Submission, o: WitnessOptions): Promise<WitnessAnswer> {
  const { checkpoint, old, proof, note } = shown
  const latest = await recall(checkpoint.origin, o)
  if (old !== latest.size) {
    if (checkpoint.size < latest.size) o.report(finding('truncation', checkpoint, latest))
    return { status: 409, type: 'text/x.tlog.size', body: `${latest.size}\n` }
  }
  if (checkpoint.size === latest.size && !checkpoint.root.equals(latest.root)) {
    await diverged('fork', shown, latest, o)
    return plain(409, `Two histories of ${latest.size} entries are signed: the log was forked.`)
  }
  if (!verifyConsistency(latest, checkpoint, proof)) {
    if (checkpoint.size > latest.size) await diverged('rollback', shown, latest, o)
    return plain(422, `The proof does not show that the ${latest.size} entries seen before are still the first ones.`)
  }
  const line = o.cosigner.cosign(note.text, Math.floor(o.clock.nowMs() / 1000))
  // Remembered before it is said: a crash here leaves a checkpoint that nobody holds our signature of, and only it can be continued.
  if (checkpoint.size > latest.size || !latest.bytes) await o.store.keep(checkpoint.origin, cosigned(shown, line))
  return { status: 200, type: 'text/plain; charset=utf-8', body: line }
}

/** @throws {Error} when what is remembered is not what we cosigned: then nothing is signed. */
async function recall(origin: string, { store, cosigner }: WitnessOptions): Promise<Latest> {
  const bytes = await store.latest(origin)
  if (bytes === undefined) return { origin, size: 0, root: EMPTY_ROOT, bytes }
  const { text, signatures } = parseNote(bytes)
  const checkpoint = parseCheckpoint(text)
  if (checkpoint.origin !== origin || cosignedAt(text, signatures, cosigner.verifier) === undefined)
    throw new Error(`what is remembered of ${origin} is not signed by this witness`)
  return { ...checkpoint, bytes }
}

async function diverged(kind: Divergence, { checkpoint, bytes }: Submission, latest: Latest, o: WitnessOptions) {
  o.report(finding(kind, checkpoint, latest))
  const seen = latest.bytes && { ...latest, bytes: latest.bytes }
  if (seen) await o.store.keepEvidence(checkpoint.origin, [seen, { ...checkpoint, bytes }])
}

function finding(divergence: Divergence, { origin, size }: Checkpoint, latest: Latest): Finding {
  const text = {
    fork: `shows another history of ${size} entries than the one that was cosigned`,
    rollback: `shows ${size} entries that do not continue the ${latest.size} that were cosigned: it was put back and went on differently`,
    truncation: `shows ${size} entries after ${latest.size} were cosigned: its end is missing, or somebody repeats an old checkpoint`,
  }[divergence]
  return { origin, divergence, text }
}

/** The log's checkpoint with its own signature and ours. */
function cosigned({ note, bytes }: Submission, line: string): string {
  return `${note.text}\n${Buffer.from(bytes)
    .toString('utf8')
    .slice(note.text.length + 1)}${line}`
}

function isSigned({ bytes, note }: Submission, keys: readonly NoteVerifier[]): boolean {
  return keys.some((key) => {
    if (linesOf(note.signatures, key).length === 0) return false
    try {
      openNote(bytes, key)
      return true
    } catch {
      return false
    }
  })
}

/** @throws {NoteRefused} */
function parseSubmission(body: Uint8Array): Submission {
  const whole = Buffer.from(body.buffer, body.byteOffset, body.byteLength)
  const gap = whole.indexOf('\n\n')
  if (gap < 0) throw new NoteRefused('the body reads: old size, proof, empty line, checkpoint')
  const [first = '', ...hashes] = whole.toString('latin1', 0, gap).split('\n')
  const old = first.startsWith('old ') ? parseSize(first.slice(4)) : undefined
  if (old === undefined) throw new NoteRefused('the first line reads "old" and a size')
  if (hashes.length > MAX_HASHES) throw new NoteRefused(`a proof has at most ${MAX_HASHES} hashes`)
  const bytes = whole.subarray(gap + 2)
  const note = parseNote(bytes)
  return { old, proof: hashes.map(parseHash), bytes, note, checkpoint: parseCheckpoint(note.text) }
}

function parseHash(text: string): Buffer {
  const hash = strictBase64(text)
  if (hash?.length !== 32) throw new NoteRefused('a line of the proof is not a hash in base64')
  return hash
}

function plain(status: WitnessAnswer['status'], text: string): WitnessAnswer {
  return { status, type: 'text/plain; charset=utf-8', body: `${text}\n` }
}
