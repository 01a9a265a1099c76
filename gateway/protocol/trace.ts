/** The trace that a request says it belongs to (W3C Trace Context §3.2). Pure. */
import type { RawHeaders } from './message.ts'

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** The trace id, 32 hex digits. Undefined for no, two, or a malformed `traceparent`: readers differ on which one counts. */
export function traceIdOf(rawHeaders: RawHeaders): string | undefined {
  let found: string | undefined
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    if (rawHeaders[i]?.toLowerCase() !== 'traceparent') continue
    if (found !== undefined) return undefined
    found = rawHeaders[i + 1]
  }
  return found === undefined ? undefined : TRACEPARENT.exec(found)?.[1]
}
