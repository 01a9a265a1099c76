/**
 * `fetch` for answers of an issuer: at most 256 KiB, no header but the content type, status and `Retry-After` remembered. An
 * authorization server is configured, not trusted: it may be slow (the signal), huge (the bound) or someone else's error page.
 */
import { retryAfterMs } from '../protocol/retry-after.ts'
import type { GuardedFetch } from './provider.ts'

/** Bytes; the largest token answers seen in the field are below 16 KiB. */
const MAX_ANSWER_BYTES = 262_144

/** RFC 9110 §6.4.1: answers with these statuses have no content, and `Response` refuses one. */
const WITHOUT_BODY: ReadonlySet<number> = new Set([204, 205, 304])

export interface BoundedFetch {
  readonly fetch: GuardedFetch
  /** Status of the last answer; undefined while none came. */
  status(): number | undefined
  /** Milliseconds that the last answer asked to wait; undefined where it said nothing of it. */
  retryAfterMs(): number | undefined
}

/** The answer was larger than 256 KiB. */
export class AnswerTooLarge extends Error {
  override readonly name = 'AnswerTooLarge'
}

export function boundedFetch(fetch: GuardedFetch): BoundedFetch {
  let status: number | undefined
  let waitMs: number | undefined
  return {
    async fetch(input, init) {
      const response = await fetch(input, init)
      status = response.status
      waitMs = retryAfterMs(response.headers)
      const body = await readBounded(response)
      // WWW-Authenticate is left out on purpose: with it, `oauth4webapi` would not read the error code in the body.
      const type = response.headers.get('content-type')
      const headers: Record<string, string> = type === null ? {} : { 'content-type': type }
      return new Response(WITHOUT_BODY.has(response.status) ? null : body, { status: response.status, headers })
    },
    status: () => status,
    retryAfterMs: () => waitMs,
  }
}

async function readBounded(response: Response): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array[] = []
  let bytes = 0
  // Leaving the loop early cancels the stream, which ends the exchange.
  for await (const chunk of response.body ?? []) {
    bytes += chunk.byteLength
    if (bytes > MAX_ANSWER_BYTES) throw new AnswerTooLarge('answer larger than 256 KiB')
    chunks.push(chunk)
  }
  return new Uint8Array(Buffer.concat(chunks))
}
