/**
 * Refusals as gRPC clients read them: HTTP 200, and a status of their own in a head without content ("trailers-only", gRPC
 * over HTTP/2, Responses). From any other answer they make up a status, and lose the sentence. Pure.
 */
import type { ProblemCode } from '../protocol/problem.ts'
import { type ProblemBody, type RenderedProblem, sentence } from './dialect.ts'

/** google.rpc.Code, those that a gateway can mean. */
const INVALID_ARGUMENT = 3
const DEADLINE_EXCEEDED = 4
const PERMISSION_DENIED = 7
const RESOURCE_EXHAUSTED = 8
const UNIMPLEMENTED = 12
const INTERNAL = 13
const UNAVAILABLE = 14
const UNAUTHENTICATED = 16

/** google.rpc.Code: PERMISSION_DENIED is not for what is used up or for callers who are not known. */
const BY_CODE: Partial<Record<ProblemCode, number>> = {
  grant_missing: UNAUTHENTICATED,
  grant_invalid: UNAUTHENTICATED,
  grant_expired: UNAUTHENTICATED,
  grant_revoked: UNAUTHENTICATED,
  limit_exceeded: RESOURCE_EXHAUSTED,
  use_spent: RESOURCE_EXHAUSTED,
}

const CONTENT_TYPE = /^application\/grpc(?:-web(?:-text)?)?(?=$|[+;\s])/i

/** The media type to answer with, if this is that of a gRPC or gRPC-Web request. */
export function grpcTypeOf(contentType: string | undefined): string | undefined {
  return contentType === undefined ? undefined : CONTENT_TYPE.exec(contentType)?.[0].toLowerCase()
}

export function renderGrpc(problem: ProblemBody, contentType: string): RenderedProblem {
  const headers = ['grpc-status', String(statusOf(problem)), 'grpc-message', percentEncoded(sentence(problem))]
  // gRFC A6: a client with a retry policy asks again on its own unless it is told not to.
  if (problem.remedy !== 'retry') headers.push('grpc-retry-pushback-ms', '-1')
  return { status: 200, contentType, text: '', headers }
}

function statusOf({ code, status, remedy }: ProblemBody): number {
  const exact = BY_CODE[code]
  if (exact !== undefined) return exact
  if (status === 401 || status === 407) return UNAUTHENTICATED
  if (status === 403) return PERMISSION_DENIED
  if (status === 404 || status === 405 || status === 426) return UNIMPLEMENTED
  if (status === 504) return DEADLINE_EXCEEDED
  if (status === 500) return INTERNAL
  if (status > 500) return remedy === 'retry' ? UNAVAILABLE : INTERNAL
  return INVALID_ARGUMENT
}

/** gRPC over HTTP/2, Status-Message: UTF-8, with everything beyond printable ASCII and the percent sign encoded. */
function percentEncoded(text: string): string {
  let encoded = ''
  for (const byte of Buffer.from(text, 'utf8')) {
    const isPlain = byte >= 0x20 && byte <= 0x7e && byte !== 0x25
    encoded += isPlain ? String.fromCharCode(byte) : `%${byte.toString(16).toUpperCase().padStart(2, '0')}`
  }
  return encoded
}
