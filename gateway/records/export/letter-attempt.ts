/** One attempt to deliver a message, and what the answer means for it. The request itself is made, and signed, by whoever may dial. */
import type { LetterFormat } from '../../protocol/exporting.ts'
import type { Letter } from './letter.ts'
import { retryAfterMs, type Send } from './sink-http.ts'

export type Outcome =
  | { readonly kind: 'taken' }
  /** `refused`: never to be taken. `gone`: nor any other. */
  | { readonly kind: 'failed' | 'refused' | 'gone'; readonly reason: string; readonly afterMs?: number | undefined }

export interface AttemptTerms {
  readonly format: LetterFormat
  readonly send: Send
  nowMs(): number
}

/** Never throws: a receiver that cannot be reached is an outcome. */
export async function attempt({ id, text }: Pick<Letter, 'id' | 'text'>, o: AttemptTerms): Promise<Outcome> {
  try {
    const headers = { 'content-type': 'application/json', 'webhook-id': id }
    const answer = await o.send({ url: '', headers, body: Buffer.from(text) })
    const { status } = answer
    if (status >= 200 && status <= 299) return { kind: 'taken' }
    const reason = `HTTP ${status}${answer.text === '' ? '' : `: ${answer.text}`}`
    if (status === 410) return { kind: 'gone', reason }
    // RFC 8935 §2.4: it was read, and will not be taken however often it comes.
    if (status === 400 && o.format === 'set') return { kind: 'refused', reason }
    if (status >= 300 && status <= 399)
      return {
        kind: 'failed',
        reason: `HTTP ${status}: redirects are not followed; name the place itself in the settings`,
      }
    return { kind: 'failed', reason, afterMs: retryAfterMs(answer, o.nowMs()) }
  } catch (cause) {
    return { kind: 'failed', reason: (cause as Error).message }
  }
}
