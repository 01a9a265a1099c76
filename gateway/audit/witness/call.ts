/**
 * One checkpoint shown to one witness (C2SP tlog-witness, the client's side). Whatever the witness answers, or does not, ends in
 * one of three: it cosigned; it knows another history; it is of no use now, and why.
 */
import { type Checkpoint, parseSize } from '../tree/checkpoint.ts'
import { linesOf, NoteRefused, type NoteVerifier, parseSignatures, type SignatureLine } from '../tree/note.ts'
import { cosignedAt } from './cosignature.ts'

export interface WitnessTerms {
  /** As in settings. */
  readonly name: string
  /** Submission prefix, without a slash at the end. */
  readonly url: string
  readonly key: NoteVerifier
  /** Guarded, of bounded size. */
  readonly send: typeof globalThis.fetch
}

/** A signed checkpoint of our log, and what proves that it continues earlier ones. */
export interface Head extends Checkpoint {
  /** Text of the note, and the whole note with the log's own signature. */
  readonly text: string
  readonly note: string
  /** Root over the first `size` entries. @throws {Error} when hashes are missing; the same below. */
  rootAt(size: number): Promise<Buffer>
  /** RFC 9162 §2.1.4 from `size` entries to this head. */
  consistency(size: number): Promise<readonly Buffer[]>
}

export type Shown =
  | { readonly is: 'cosigned'; readonly lines: readonly SignatureLine[]; readonly timestampS: number }
  | { readonly is: 'other'; readonly size: number }
  | { readonly is: 'useless'; readonly why: string }

/** The first may carry an old size that is not the witness's any more; its answer names the right one. */
const MAX_TRIES = 3

/** @param known size that the witness is thought to have cosigned last. @param signal ends the try. Never throws. */
export async function showTo(witness: WitnessTerms, head: Head, known: number, signal: AbortSignal): Promise<Shown> {
  let old = Math.min(known, head.size)
  try {
    for (let tries = 0; tries < MAX_TRIES; tries++) {
      const answer = await submit(witness, head, old, signal)
      if (answer.status === 200) return cosigned(await answer.text(), head, witness.key)
      if (answer.status !== 409 && answer.status !== 422) return useless(refusal(answer.status, head.origin))
      const size = answer.headers.get('content-type') === 'text/x.tlog.size' ? sizeIn(await answer.text()) : undefined
      if (answer.status === 422 || size === undefined) return contradicted(answer.status, old)
      if (size > head.size) return { is: 'other', size }
      // It says that the sizes agree, and refuses all the same: the roots differ.
      if (size === old) return contradicted(answer.status, old)
      old = size
    }
    return useless('it names another size each time')
  } catch (cause) {
    return useless(cause instanceof Error ? whyOf(cause) : String(cause))
  }
}

function submit({ url, send }: WitnessTerms, head: Head, old: number, signal: AbortSignal): Promise<Response> {
  return prove(head, old).then((proof) => {
    const lines = [`old ${old}`, ...proof.map((hash) => hash.toString('base64')), '', '']
    return send(`${url}/add-checkpoint`, {
      method: 'POST',
      headers: { 'content-type': 'text/plain; charset=utf-8' },
      body: lines.join('\n') + head.note,
      signal,
    })
  })
}

/** Empty from nothing, and from the same size. */
async function prove(head: Head, old: number): Promise<readonly Buffer[]> {
  return old === 0 || old === head.size ? [] : head.consistency(old)
}

function cosigned(body: string, { text }: Head, key: NoteVerifier): Shown {
  const lines = linesOf(parseSignatures(body), key)
  const timestampS = cosignedAt(text, lines, key)
  if (timestampS === undefined) return useless('it answers without a cosignature of its key in the settings')
  return { is: 'cosigned', lines, timestampS }
}

/** Only a witness that has seen something can contradict us. */
function contradicted(status: number, old: number): Shown {
  if (old > 0) return { is: 'other', size: old }
  return useless(`it refuses the first checkpoint that it is shown (HTTP ${status})`)
}

function refusal(status: number, origin: string): string {
  if (status === 404) return `it does not know the log ${origin}: give it this log's log.pub`
  if (status === 403) return `it knows another key for the log ${origin}: give it this log's log.pub`
  return `it answers HTTP ${status}`
}

function sizeIn(body: string): number | undefined {
  return body.endsWith('\n') ? parseSize(body.slice(0, -1)) : undefined
}

function useless(why: string): Shown {
  return { is: 'useless', why }
}

function whyOf(cause: Error): string {
  if (cause.name === 'TimeoutError' || cause.name === 'AbortError') return 'it does not answer in time'
  return cause instanceof NoteRefused ? `it answers what is no cosignature: ${cause.message}` : cause.message
}
