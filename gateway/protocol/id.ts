/**
 * UUIDv7 (RFC 9562 §5.7): ids of events, tasks and grants sort by time and cannot be guessed. Random bytes come from a
 * pool, because a system call per request costs more than everything else an id needs.
 */
import { randomFillSync } from 'node:crypto'

const BYTES_PER_ID = 10
const DIGITS = Buffer.from('0123456789abcdef', 'latin1')
/** Bytes are used once, front to back; written only by `uuidv7()`. */
const pool = Buffer.allocUnsafeSlow(BYTES_PER_ID * 256)
let used = pool.length
/** The last id: putting one together out of strings would cost as many strings as it has parts. */
const written = Buffer.from('00000000-0000-7000-8000-000000000000', 'latin1')
/** The digit of the variant, and where the random ones stand around it. */
const VARIANT = 19
const RANDOM = [15, 16, 17, VARIANT, 20, 21, 22, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35]
/** The first two groups change once a millisecond. */
let stampMs = -1

const SHAPE = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** Whether the text could be an id of ours. */
export function isUuidv7(text: string): boolean {
  return SHAPE.test(text)
}

/**
 * A new id: 36 lower-case characters.
 * @param nowMs milliseconds since the Unix epoch, 0 to 2^48-1. Default: the wall clock.
 */
export function uuidv7(nowMs: number = Date.now()): string {
  const ms = Math.trunc(nowMs)
  if (ms !== stampMs) {
    const hex = ms.toString(16).padStart(12, '0')
    written.write(`${hex.slice(0, 8)}-${hex.slice(8)}`, 'latin1')
    stampMs = ms
  }
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  for (let i = 0; i < RANDOM.length; i++) {
    const byte = pool[used + (i >> 1)] as number
    const half = (i & 1) === 0 ? byte >> 4 : byte & 0xf
    const at = RANDOM[i] as number
    written[at] = DIGITS[at === VARIANT ? 8 | (half & 3) : half] as number
  }
  used += BYTES_PER_ID
  return written.toString('latin1')
}
