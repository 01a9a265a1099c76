/** The trace that a request says it belongs to (W3C Trace Context §3.2). Pure. */
import { valuesOf } from './raw-headers.ts'

const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

/** A `traceparent` as it was sent; undefined for one that is malformed. */
export function traceparentOf(text: string | undefined): string | undefined {
  return text !== undefined && TRACEPARENT.test(text) ? text : undefined
}

/** The same of a whole head. Undefined for none or two as well: readers differ on which one counts. */
export function traceparentIn(rawHeaders: readonly string[]): string | undefined {
  const [one, ...more] = valuesOf(rawHeaders, 'traceparent')
  return more.length === 0 ? traceparentOf(one) : undefined
}

/** 32 hex digits of a well-formed `traceparent`. */
export function traceIdOf(traceparent: string): string {
  return traceparent.slice(3, 35)
}
