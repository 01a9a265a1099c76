/** Requests and answers as HTTP/2 writes their fields: names in lower case, pseudo-fields first (RFC 9113 §8.2, §8.3). */
import { sensitiveHeaders } from 'node:http2'
import type { Outbound } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import { MAX_HEADER_BYTES } from './lane.ts'

/** Worked out once per service. */
const guarded = new WeakMap<Service, string[]>()

/** What `ClientHttp2Session.request` takes: a flat list, and which of its names no compressor may remember. */
export function requestFields({ method, scheme, path, headers, service }: Outbound): string[] {
  const fields = [':method', method, ':scheme', scheme, ':authority', '', ':path', path]
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = (headers[i] as string).toLowerCase()
    if (name === 'host') fields[5] = headers[i + 1] as string
    else fields.push(name, headers[i + 1] as string)
  }
  return Object.assign(fields, { [sensitiveHeaders]: guarded.get(service) ?? guard(service) })
}

/**
 * RFC 7541 §7.1: literals that are never indexed, so that nobody learns a credential from the size of what is sent beside
 * it, and no hop behind us puts it into a table.
 */
function guard(service: Service): string[] {
  const names = new Set(['authorization', 'cookie'])
  for (const slot of service.slots) {
    if (slot.in === 'header') names.add(slot.name.toLowerCase())
    else if (slot.in === 'query') names.add(':path')
  }
  const list = [...names]
  guarded.set(service, list)
  return list
}

/**
 * Fields of an answer or of its trailers in one piece of memory, as undici's parser has them; pseudo-fields are left out.
 * @throws {GatewayError} `upstream_broken` for more than `MAX_HEADER_BYTES`.
 */
export function answerFields(raw: readonly string[]): Buffer[] {
  const bytes = Buffer.from(raw.join('\n'), 'latin1')
  // nghttp2 holds the upstream to our settings only once it has acknowledged them.
  if (bytes.length > MAX_HEADER_BYTES)
    throw new GatewayError('upstream_broken', `The header of the answer has more than ${MAX_HEADER_BYTES} bytes.`)
  const fields: Buffer[] = []
  let start = 0
  for (let i = 0; i < raw.length; i += 1) {
    const end = start + (raw[i] as string).length
    if (!raw[i - (i % 2)]?.startsWith(':')) fields.push(bytes.subarray(start, end))
    start = end + 1
  }
  return fields
}
