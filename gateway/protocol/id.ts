/**
 * UUIDv7 (RFC 9562 §5.7): ids of events, tasks and grants sort by time and cannot be guessed. Random bytes come from a
 * pool, because a system call per request costs more than everything else an id needs.
 */
import { randomFillSync } from 'node:crypto'

const BYTES_PER_ID = 10
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, '0'))
/** Bytes are used once, front to back; written only by `uuidv7()`. */
const pool = Buffer.allocUnsafeSlow(BYTES_PER_ID * 256)
let used = pool.length
/** The first two groups change once a millisecond. */
let stampMs = -1
let stamp = ''

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
    stamp = `${hex.slice(0, 8)}-${hex.slice(8)}-7`
    stampMs = ms
  }
  if (used === pool.length) {
    randomFillSync(pool)
    used = 0
  }
  const at = used
  used += BYTES_PER_ID
  const variant = 0x80 | (byte(at + 2) & 0x3f)
  return `${stamp}${hex(at).slice(1)}${hex(at + 1)}-${HEX[variant]}${hex(at + 3)}-${hex(at + 4)}${hex(at + 5)}${hex(at + 6)}${hex(at + 7)}${hex(at + 8)}${hex(at + 9)}`
}

function byte(at: number): number {
  return pool[at] as number
}

function hex(at: number): string {
  return HEX[byte(at)] as string
}
