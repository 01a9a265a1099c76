/**
 * `checkpoint.witnessed`: the newest checkpoint of this log with the cosignatures of its witnesses, for whoever asks for proof. It
 * also remembers, over a restart, what the log once was.
 */
import { join } from 'node:path'
import { readIfThere, replace } from '../../private-file.ts'
import { files } from '../lines.ts'
import { type Checkpoint, openCheckpoint } from '../tree/checkpoint.ts'
import { NoteRefused, type NoteVerifier, parseNote, type SignatureLine, signatureLine } from '../tree/note.ts'
import type { Head } from './call.ts'
import { cosignedAt } from './cosignature.ts'

export interface Cosigned {
  /** As it is on disk; undefined without one. */
  readonly checkpoint: Checkpoint | undefined
  /** Entries that the witness has cosigned as far as the file says; 0 if it does not. */
  sizeOf(witness: NoteVerifier): number
  /** Durable when this resolves, if the file was changed. */
  add(head: Head, lines: readonly SignatureLine[], nowMs: number): Promise<void>
}

/** Heads of which cosignatures are gathered: slow witnesses may answer for an older one. */
const MAX_GATHERED = 4
/** A checkpoint with fewer cosignatures takes the place of one with more only after this: some witness is away for longer. */
const PATIENCE_MS = 60_000

interface Gathered {
  readonly head: Pick<Head, 'size' | 'note'>
  /** Name and key id → signature line. */
  readonly lines: Map<string, string>
}

interface Kept extends Checkpoint {
  /** Witnesses of the settings that cosigned it. */
  readonly count: number
  readonly atMs: number
}

/** Open the file in `dir`. One that is not signed by this key of the log counts for nothing: it is a copy. */
export async function openCosigned(
  dir: string,
  log: NoteVerifier,
  witnesses: readonly NoteVerifier[],
): Promise<Cosigned> {
  const path = join(dir, files.witnessed)
  const countIn = (note: Buffer) => witnesses.filter((witness) => isCosigned(note, witness)).length
  const present = await readIfThere(path)
  let kept = present && openKept(present, log, countIn(present))
  const gathered: Gathered[] = []
  let writing = Promise.resolve()

  const write = async ({ head, lines }: Gathered, nowMs: number): Promise<void> => {
    const count = lines.size
    const isBetter =
      !kept ||
      (head.size >= kept.size && count >= kept.count) ||
      (head.size > kept.size && nowMs - kept.atMs > PATIENCE_MS)
    if (!isBetter) return
    const note = head.note + [...lines.values()].join('')
    await replace(path, note)
    kept = { ...openCheckpoint(Buffer.from(note), log), count, atMs: nowMs }
  }

  return {
    get checkpoint() {
      return kept
    },
    sizeOf: (witness) => (present && kept && isCosigned(present, witness) ? kept.size : 0),
    add(head, signatures, nowMs) {
      const known = gathered.find((one) => one.head.note === head.note)
      const found = known ?? { head, lines: new Map<string, string>() }
      if (!known) gathered.push(found)
      if (gathered.length > MAX_GATHERED) gathered.shift()
      for (const line of signatures)
        found.lines.set(`${line.name}+${line.keyId.toString('hex')}`, signatureLine(line, line.signature))
      const written = writing.then(() => write(found, nowMs))
      writing = written.catch(() => undefined)
      return written
    },
  }
}

function openKept(note: Buffer, log: NoteVerifier, count: number): Kept | undefined {
  try {
    return { ...openCheckpoint(note, log), count, atMs: 0 }
  } catch (cause) {
    if (cause instanceof NoteRefused) return undefined
    throw cause
  }
}

function isCosigned(note: Buffer, witness: NoteVerifier): boolean {
  try {
    const { text, signatures } = parseNote(note)
    return cosignedAt(text, signatures, witness) !== undefined
  } catch {
    return false
  }
}
