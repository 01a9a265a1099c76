/** Says what went wrong on the far side, as a coded refusal. Codes of Node, OpenSSL and undici end here. */
import type { Leaks } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

/** An error of an exchange with `place` (`host:port`) as a refusal. Coded errors of the dial come through as they are. */
export function asFailure(cause: unknown, place: string): GatewayError {
  if (cause instanceof GatewayError) return cause
  const code = cause instanceof Error ? String((cause as NodeJS.ErrnoException).code ?? '') : ''
  switch (code) {
    case 'UND_ERR_HEADERS_TIMEOUT':
      return new GatewayError('upstream_timeout', `${place} sent no answer in time.`, { cause })
    case 'UND_ERR_BODY_TIMEOUT':
      return new GatewayError('upstream_timeout', `${place} stopped sending its answer.`, { cause })
    case 'UND_ERR_INVALID_ARG':
    case 'UND_ERR_NOT_SUPPORTED':
    case 'ERR_INVALID_HTTP_TOKEN':
    case 'ERR_HTTP2_INVALID_CONNECTION_HEADERS':
    case 'ERR_HTTP2_INVALID_PSEUDOHEADER':
      return new GatewayError(
        'request_malformed',
        'The request has a path, method or header that HTTP does not allow.',
        { cause },
      )
    case 'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH':
      return new GatewayError('request_malformed', 'The body is not as long as Content-Length says.', { cause })
    case 'UND_ERR_HEADERS_OVERFLOW':
      return new GatewayError('upstream_broken', `The header of the answer from ${place} is too large.`, { cause })
    case 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH':
      return new GatewayError('upstream_broken', `The answer from ${place} is not as long as it says.`, { cause })
    default:
      // In TLS 1.3 an upstream judges our certificate when the connection is open already.
      if (OURS_REFUSED.test(code))
        return new GatewayError('upstream_tls', `TLS with ${place} failed: ${describeTlsFailure(code)}`, { cause })
      return new GatewayError('upstream_broken', describeBreak(code, place), { cause })
  }
}

/** The same failure, with the credentials that were overwritten in an answer of which nothing is passed on. A copy: others may share it. */
export function withLeaks(
  failure: GatewayError,
  answer: { readonly found: number; readonly leaks: Leaks },
): GatewayError {
  if (answer.found === 0) return failure
  const { code, detail, cause } = failure
  return Object.assign(new GatewayError(code, detail, { cause }), { leaks: answer.leaks })
}

/** Did a connection end under a request, so that another connection may do better? */
export function isConnectionLoss(cause: unknown): boolean {
  const code = cause instanceof Error ? (cause as NodeJS.ErrnoException).code : undefined
  return code === 'UND_ERR_SOCKET' || code === 'ECONNRESET' || code === 'EPIPE' || code === 'ERR_HTTP2_SESSION_ERROR'
}

/** Alerts by which an upstream says that it wants a client certificate, or another one (RFC 8446 §6.2). */
const OURS_REFUSED =
  /ALERT_(?:HANDSHAKE_FAILURE|(?:BAD|UNSUPPORTED)_CERTIFICATE|CERTIFICATE_(?:REVOKED|EXPIRED|UNKNOWN|REQUIRED)|UNKNOWN_CA|ACCESS_DENIED|DECRYPT_ERROR)$/
const OURS_ADVICE =
  'It wants a client certificate that it trusts: give the service the slot `{ in: certificate }` and a credential of provider mtls, and have the upstream trust its authority.'

/** What an OpenSSL or Node TLS code means and what to do about it. */
export function describeTlsFailure(code: string): string {
  switch (code) {
    case 'CERT_HAS_EXPIRED':
      return 'its certificate has expired. Its operator must renew it.'
    case 'CERT_NOT_YET_VALID':
      return 'its certificate is not valid yet. Compare the clocks of both sides.'
    case 'ERR_TLS_CERT_ALTNAME_INVALID':
      return 'its certificate is for other names. Check the host of the service.'
    case 'DEPTH_ZERO_SELF_SIGNED_CERT':
    case 'SELF_SIGNED_CERT_IN_CHAIN':
    case 'UNABLE_TO_GET_ISSUER_CERT':
    case 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY':
    case 'UNABLE_TO_VERIFY_LEAF_SIGNATURE':
      return 'its certificate comes from an authority that is not trusted. Add that authority under `upstream.ca` if it is yours.'
    case 'ERR_SSL_UNSUPPORTED_PROTOCOL':
    case 'ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION':
      return 'it offers no TLS 1.2 or newer.'
    case 'ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL':
      return 'it does not speak HTTP/1.1. Reach it with a client that uses HTTP/2, and leave `upstream.http2` on.'
    case 'ERR_SSL_WRONG_VERSION_NUMBER':
    case 'ERR_SSL_PACKET_LENGTH_TOO_LONG':
      return 'it does not speak TLS on this port.'
    default:
      return OURS_REFUSED.test(code) ? `${code}. ${OURS_ADVICE}` : `${code}.`
  }
}

function describeBreak(code: string, place: string): string {
  if (code.startsWith('HPE_')) return `The answer from ${place} is not HTTP/1.1 (${code}).`
  if (code === 'ERR_HTTP2_STREAM_ERROR') return `${place} reset the request before its answer was complete.`
  if (code.startsWith('ERR_HTTP2_')) return `The answer from ${place} is not HTTP/2 (${code}).`
  return `${place} closed the connection before its answer was complete.`
}
