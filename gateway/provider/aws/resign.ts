/**
 * A request that an agent signed with a placeholder, signed with a real key: for the region and service that it claimed, if its host
 * and the settings agree, with the time of now, in the place where the client put its own. Everything else stays.
 */
import { AWS4A } from '../../protocol/aws-claim.ts'
import type { Outbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { canonicalRequest, encode } from './canonical.ts'
import { isS3, type Payload, payloadOf, signedBody } from './payload.ts'
import { requireScope, type ScopeTerms } from './scope.ts'
import { credentialScope, type Signer, type Stamp, stampOf } from './signer.ts'

export interface ResignTerms extends ScopeTerms {
  readonly signer: Signer
  /** By the clock of AWS, as far as that is known. */
  readonly nowMs: number
}

/** Seconds for which a URL is signed anew: it is used at once, and by the gateway alone. */
const URL_LIFE_S = 300

/**
 * @throws {GatewayError} `target_mismatch` for a region or service that is not allowed here, `request_malformed` for a body or a URL
 *   that cannot be signed, `content_too_large`.
 */
export async function resigned(outbound: Outbound, terms: ResignTerms): Promise<Outbound> {
  const scope = requireScope(outbound, terms)
  requireCurrent(outbound, terms.nowMs)
  const payload = await payloadOf(outbound, scope)
  const stamp = stampOf(scope, terms.nowMs)
  const { signature, ...head } =
    outbound.signed?.place === 'query'
      ? inQuery(outbound, payload, stamp, terms.signer)
      : inHeader(outbound, payload, stamp, terms.signer)
  const { signer } = terms
  const body = payload.chunks
    ? await signedBody(outbound, payload.body, { ...payload.chunks, signer, stamp, seed: signature })
    : payload.body
  return { ...outbound, ...head, body }
}

/** A URL that its maker let end is not given more time. */
function requireCurrent({ signed }: Outbound, nowMs: number): void {
  if (signed?.endsAt === undefined || nowMs < signed.endsAt * 1000) return
  throw new GatewayError(
    'request_malformed',
    'The presigned URL has ended, as its X-Amz-Date and X-Amz-Expires say. Make another one.',
  )
}

type Head = Pick<Outbound, 'path' | 'headers'> & { readonly signature: string }

function inHeader(outbound: Outbound, { text }: Payload, stamp: Stamp, signer: Signer): Head {
  const { scope, date } = stamp
  const headers = [...outbound.headers, 'X-Amz-Date', date]
  if (signer.sessionToken !== undefined) headers.push('X-Amz-Security-Token', signer.sessionToken)
  if (scope.algorithm === AWS4A) headers.push('X-Amz-Region-Set', scope.region)
  if (isS3(scope) || outbound.signed?.payload !== undefined) headers.push('X-Amz-Content-Sha256', text)
  const canonical = canonicalRequest({ ...outbound, headers }, text, isS3(scope))
  const signature = signer.signature(canonical, stamp)
  const credential = `${signer.accessKeyId}/${credentialScope(stamp)}`
  headers.push(
    'Authorization',
    `${scope.algorithm} Credential=${credential}, SignedHeaders=${canonical.signedHeaders}, Signature=${signature}`,
  )
  return { path: outbound.path, headers, signature }
}

/** Parameters of a presigned URL may stand for fields, which only count in a request whose signature is in the query too. */
function inQuery(outbound: Outbound, { text }: Payload, stamp: Stamp, signer: Signer): Head {
  const { scope, date } = stamp
  const headers =
    outbound.signed?.payload === undefined ? outbound.headers : [...outbound.headers, 'X-Amz-Content-Sha256', text]
  const parameters: [string, string][] = [
    ['X-Amz-Algorithm', scope.algorithm],
    ['X-Amz-Credential', `${signer.accessKeyId}/${credentialScope(stamp)}`],
    ['X-Amz-Date', date],
    ['X-Amz-Expires', String(URL_LIFE_S)],
  ]
  if (signer.sessionToken !== undefined) parameters.push(['X-Amz-Security-Token', signer.sessionToken])
  if (scope.algorithm === AWS4A) parameters.push(['X-Amz-Region-Set', scope.region])
  // Which fields are signed does not depend on the query, and is itself part of what is signed.
  const { signedHeaders } = canonicalRequest({ ...outbound, headers }, text, isS3(scope))
  parameters.push(['X-Amz-SignedHeaders', signedHeaders])
  const path = parameters.reduce(withParameter, outbound.path)
  const signature = signer.signature(canonicalRequest({ ...outbound, headers, path }, text, isS3(scope)), stamp)
  return { path: withParameter(path, ['X-Amz-Signature', signature]), headers, signature }
}

function withParameter(path: string, [name, value]: readonly [string, string]): string {
  const joint = !path.includes('?') ? '?' : path.endsWith('?') || path.endsWith('&') ? '' : '&'
  return `${path}${joint}${name}=${encode(value, false)}`
}
