/**
 * What S3 checks of a body besides its signature: the framing of a body with trailer, that the trailer is the announced one, and every checksum that
 * head or trailer name, against the bytes that arrived.
 */
import { createHash } from 'node:crypto'
import { crc32 } from 'node:zlib'

export interface Payload {
  readonly bytes: Buffer
  /** `x-amz-checksum-crc32: …` and its like, as they came. */
  readonly checksums: Readonly<Record<string, string>>
}

const hashed = (algorithm: string) => (bytes: Buffer) => createHash(algorithm).update(bytes).digest('base64')

/** Field → Base64 of a payload. Others that a client sends are refused, so that none passes unseen. */
const CHECKSUMS: Readonly<Record<string, (bytes: Buffer) => string>> = {
  'x-amz-checksum-crc32': (bytes) => {
    const sum = Buffer.alloc(4)
    sum.writeUInt32BE(crc32(bytes))
    return sum.toString('base64')
  },
  'x-amz-checksum-sha1': hashed('sha1'),
  'x-amz-checksum-sha256': hashed('sha256'),
  'content-md5': hashed('md5'),
}

/** @param fields of the head, lower case. @returns the payload, or what is wrong with it. */
export function readPayload(body: Buffer, fields: Readonly<Record<string, string>>): Payload | string {
  const isFramed = fields['x-amz-content-sha256']?.startsWith('STREAMING-') === true
  const framed = isFramed ? unframed(body) : { bytes: body, trailer: {} }
  if (typeof framed === 'string') return framed
  const { bytes, trailer } = framed
  if (isFramed && fields['x-amz-decoded-content-length'] !== String(bytes.length)) return 'not of its decoded length'
  if (Object.keys(trailer).join() !== (fields['x-amz-trailer'] ?? '')) return 'another trailer than was announced'
  const told = Object.entries({ ...fields, ...trailer }).filter(([name]) =>
    /^(?:x-amz-checksum-(?!mode|algorithm|type)|content-md5$)/.test(name),
  )
  for (const [name, value] of told) if (CHECKSUMS[name]?.(bytes) !== value) return `${name} is not ${value}`
  return { bytes, checksums: Object.fromEntries(told.filter(([name]) => name !== 'content-md5')) }
}

/** The signatures in it are checked by `verifySignature`. */
function unframed(body: Buffer): { bytes: Buffer; trailer: Record<string, string> } | string {
  const parts: Buffer[] = []
  for (let at = 0; ; ) {
    const end = body.indexOf('\r\n', at)
    const [, size] = /^([0-9a-f]+)(?:;chunk-signature=[0-9a-f]{64})?$/.exec(body.toString('latin1', at, end)) ?? []
    if (size === undefined) return `no chunk begins at ${at}`
    const [from, to] = [end + 2, end + 2 + Number.parseInt(size, 16)]
    if (to === from) return { bytes: Buffer.concat(parts), trailer: trailerOf(body.toString('latin1', from)) }
    parts.push(body.subarray(from, to))
    at = to + 2
  }
}

function trailerOf(text: string): Record<string, string> {
  const pairs = text.split(/\r?\n/).flatMap((line) => {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon).toLowerCase()
    return colon === -1 || name === 'x-amz-trailer-signature' ? [] : [[name, line.slice(colon + 1).trim()]]
  })
  return Object.fromEntries(pairs) as Record<string, string>
}
