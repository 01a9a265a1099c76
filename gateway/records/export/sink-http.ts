/** A receiver behind HTTP. The request itself is made by whoever may dial; this decides what is sent and what an answer means. */
import { promisify } from 'node:util'
import { gzip } from 'node:zlib'
import type { Body } from './body.ts'
import type { Format } from './format.ts'
import { Refusal, type Sink, Unavailable } from './sink.ts'

export interface Push {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

export interface Pushed {
  readonly status: number
  /** As received. */
  readonly retryAfter: string | null
  /** Beginning of the answer's body, without anything secret. */
  readonly text: string
}

export type Send = (push: Push) => Promise<Pushed>

/** What a receiver says about the batch and not about itself or us: it cannot read it, it is too large, it does not make sense. */
const REFUSALS: ReadonlySet<number> = new Set([400, 413, 422])
const ZIP_FROM_BYTES = 1024
const MAX_RETRY_AFTER_MS = 600_000

const zip = promisify(gzip)

export function createHttpSink(o: { url: string; format: Format; send: Send; nowMs: () => number }): Sink {
  const push = async (body: Body) => {
    const answer = await o.send(await pushOf(o.url, o.format, body))
    const { status, text } = answer
    const said = `HTTP ${status}${text === '' ? '' : `: ${text}`}`
    if (REFUSALS.has(status)) throw new Refusal(said)
    if (status < 200 || status > 299) throw new Unavailable(said, retryAfterMs(answer, o.nowMs()))
    const rejected = body.path && rejectedIn(text)
    if (rejected) throw new Refusal(rejected)
  }
  return {
    async deliver(items) {
      for (const body of o.format.bodies(items)) await push(body)
    },
    close: async () => {},
  }
}

async function pushOf(url: string, { contentType, isZipped }: Format, { path, text }: Body): Promise<Push> {
  const plain = Buffer.from(text)
  const isSmall = plain.length < ZIP_FROM_BYTES
  const headers = { 'content-type': contentType }
  const to = path === undefined ? url : `${url.replace(/\/(?:v1\/(?:logs|traces))?\/?$/, '')}/${path}`
  if (!isZipped || isSmall) return { url: to, headers, body: plain }
  return { url: to, headers: { ...headers, 'content-encoding': 'gzip' }, body: await zip(plain) }
}

/** RFC 9110 §10.2.3: seconds, or a date. */
export function retryAfterMs({ retryAfter }: Pushed, nowMs: number): number | undefined {
  if (retryAfter === null) return undefined
  const ms = /^\d+$/.test(retryAfter.trim()) ? Number(retryAfter) * 1000 : Date.parse(retryAfter) - nowMs
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), MAX_RETRY_AFTER_MS) : undefined
}

/** An OTLP receiver answers 200 and says in the body what it did not take (`partialSuccess`). */
function rejectedIn(text: string): string | undefined {
  try {
    const { partialSuccess: told } = JSON.parse(text) as { partialSuccess?: Record<string, unknown> }
    const count = Number(told?.rejectedLogRecords ?? told?.rejectedSpans ?? 0)
    return count > 0 ? `${count} rejected: ${String(told?.errorMessage ?? '').slice(0, 200)}` : undefined
  } catch {
    return undefined // an empty answer, or one that is not JSON: it said yes
  }
}
