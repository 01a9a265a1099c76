/**
 * The body of a request, read whole because a signature covers it. It is remembered by its stream: a request may be attached twice,
 * and its stream can be read once.
 */
import type { Readable } from 'node:stream'
import { collect } from '../../protocol/collect.ts'
import type { Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'

/** An agent may not keep this much memory for as long as it likes. */
const READ_MS = 60_000

/** stream → what came of it */
const known = new WeakMap<Readable, Promise<Buffer>>()

/**
 * @param limit bytes
 * @param why what the body is needed for, and what the client can do instead: the end of a message.
 * @throws {GatewayError} `content_too_large`, `request_malformed` when it broke off or took longer than 60 s.
 */
export function wholeBody(body: Outbound['body'], limit: number, why: string): Buffer | Promise<Buffer> {
  if (body === null) return NOTHING
  if (Buffer.isBuffer(body)) {
    if (body.length > limit) throw tooLarge(limit, why)
    return body
  }
  const reading = known.get(body) ?? read(body, limit, why)
  known.set(body, reading)
  return reading
}

const NOTHING = Buffer.alloc(0)

function read(body: Readable, limit: number, why: string): Promise<Buffer> {
  const faults = {
    long: () => tooLarge(limit, why),
    late: () => new GatewayError('request_malformed', `The body took longer than ${READ_MS / 1000} s.`),
    broken: () => new GatewayError('request_malformed', 'The body broke off.'),
  }
  return collect(body, { maxBytes: limit, withinMs: READ_MS, refuse: (fault) => faults[fault]() })
}

function tooLarge(limit: number, why: string): GatewayError {
  return new GatewayError('content_too_large', `The body is larger than ${limit} bytes: ${why}`)
}
