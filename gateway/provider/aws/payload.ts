/**
 * What a signature says of the body. S3 and most SDKs declare it, and what is declared is signed, so that whoever receives the body
 * checks it and nothing is held here; where nothing is declared the body is read and hashed.
 */
import { hash } from 'node:crypto'
import type { Readable } from 'node:stream'
import { AWS4A, type AwsScope } from '../../protocol/aws-claim.ts'
import type { Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { wholeBody } from '../placement/whole-body.ts'
import { EMPTY_HASH } from './canonical.ts'
import { type ChunkTerms, resignedBytes, resignedStream } from './chunks.ts'

/** Bytes that are read to be hashed. The largest request of an API that declares no hash is that of Bedrock, 25 MB. */
const MAX_HASHED_BYTES = 32 * 1024 * 1024
/** Bytes of a body that may be sent again; the same as in the room that sends it. */
const MAX_KEPT_BYTES = 64 * 1024

const HEX = /^[0-9a-fA-F]{64}$/
const UNSIGNED = 'UNSIGNED-PAYLOAD'
/** `x-amz-content-sha256` values of S3 whose body passes as it is. */
const AS_IT_IS: ReadonlySet<string> = new Set([UNSIGNED, 'STREAMING-UNSIGNED-PAYLOAD-TRAILER'])
const CHUNKED = 'STREAMING-AWS4-HMAC-SHA256-PAYLOAD'
const CHUNKED_TRAILER = `${CHUNKED}-TRAILER`

export interface Payload {
  /** Last line of the canonical request, and value of `X-Amz-Content-Sha256` where that is sent. */
  readonly text: string
  readonly body: Outbound['body']
  /** How the body is signed once the head is; undefined where it passes as it is. */
  readonly chunks: Pick<ChunkTerms, 'hasTrailer' | 'length'> | undefined
}

/** @throws {GatewayError} `content_too_large`, `request_malformed` */
export async function payloadOf(outbound: Outbound, scope: AwsScope): Promise<Payload> {
  const { body } = outbound
  const { payload: declared, place } = outbound.signed ?? { place: 'header' }
  if (declared !== undefined) return declaredPayload(outbound, scope, declared)
  if (body === null && place === 'header') return { text: EMPTY_HASH, body, chunks: undefined }
  if (isS3(scope)) return { text: UNSIGNED, body, chunks: undefined }
  const why = 'the signature of this API covers the whole of it, and the client declares no X-Amz-Content-Sha256.'
  const whole = await wholeBody(body, MAX_HASHED_BYTES, why)
  return { text: hash('sha256', whole), body: whole.length === 0 ? null : whole, chunks: undefined }
}

/** S3 and its relatives: encoded once, and the body is declared in the head. */
export function isS3({ service }: AwsScope): boolean {
  return service === 's3' || service.startsWith('s3-')
}

function declaredPayload(outbound: Outbound, scope: AwsScope, declared: string): Payload {
  const { body, signed } = outbound
  if (HEX.test(declared) || AS_IT_IS.has(declared)) return { text: declared, body, chunks: undefined }
  const isChunked = declared === CHUNKED || declared === CHUNKED_TRAILER
  if (!isChunked || scope.algorithm === AWS4A || signed?.place === 'query') throw unsignable(declared, scope)
  const length = announcedLength(outbound)
  return { text: declared, body, chunks: { hasTrailer: declared === CHUNKED_TRAILER, length } }
}

/** The body under the signature of its head: small ones whole, so that they can be sent again, large ones as they come. */
export async function signedBody(
  outbound: Outbound,
  body: Outbound['body'],
  terms: ChunkTerms,
): Promise<Buffer | Readable> {
  if (body === null) throw malformed('its X-Amz-Content-Sha256 announces chunks, and it has no body')
  if (Buffer.isBuffer(body)) return resignedBytes(body, terms)
  const sent = Number(field(outbound, 'content-length') ?? Number.POSITIVE_INFINITY)
  if (sent > MAX_KEPT_BYTES) return resignedStream(body, terms)
  return resignedBytes(await wholeBody(body, MAX_KEPT_BYTES, 'it is longer than its Content-Length.'), terms)
}

function announcedLength(outbound: Outbound): number {
  const text = field(outbound, 'x-amz-decoded-content-length') ?? ''
  if (!/^\d{1,15}$/.test(text)) throw malformed('its X-Amz-Decoded-Content-Length is not one number')
  return Number(text)
}

/** The only value of a field; undefined when it is there twice, or not at all. */
function field({ headers }: Outbound, name: string): string | undefined {
  const values = headers.filter((_, i) => i % 2 === 1 && headers[i - 1]?.toLowerCase() === name)
  return values.length === 1 ? values[0]?.trim() : undefined
}

function unsignable(declared: string, { algorithm }: AwsScope): GatewayError {
  const shown = /^[A-Z0-9-]{1,64}$/.test(declared) ? declared : 'what it says'
  const instead = declared.endsWith('-EVENTS')
    ? 'event streams are signed message by message with a key that the client does not have. Use the operation without streaming input'
    : 'use UNSIGNED-PAYLOAD, STREAMING-UNSIGNED-PAYLOAD-TRAILER or the hash of the body'
  return malformed(`X-Amz-Content-Sha256 is ${shown}, which cannot be signed anew with ${algorithm}: ${instead}`)
}

function malformed(what: string): GatewayError {
  return new GatewayError('request_malformed', `The AWS request cannot be signed: ${what}.`)
}
