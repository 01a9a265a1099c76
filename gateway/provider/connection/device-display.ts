/**
 * What an authorization server wants a human to see and type (RFC 8628 §3.2). It stands in a terminal, where control characters are
 * commands and others turn the order of words, so only what is a page and a code is passed on. Pure.
 */
import { GatewayError } from '../../protocol/problem.ts'
import { isReachedSafely } from '../endpoint-schema.ts'

export interface ShownDevice {
  readonly userCode: string
  readonly verificationUri: string
  readonly verificationUriComplete: string | undefined
  /** Seconds between two questions. */
  readonly intervalS: number
}

interface Answered {
  readonly user_code: string
  readonly verification_uri: string
  readonly verification_uri_complete?: string | undefined
  readonly interval?: number | undefined
}

/** Groups that people type. */
const USER_CODE = /^[^\p{C}\p{Z}]{1,64}(?: [^\p{C}\p{Z}]{1,64}){0,3}$/u
/** RFC 8628 §3.2, when the server names none. */
const INTERVAL_S = 5
/** No code lives for much longer. */
const MAX_INTERVAL_S = 300
const MAX_ADDRESS = 2048

/** @param addresses ranges in which http is taken. @throws {GatewayError} `credential_rejected` */
export function shownDevice(answer: Answered, host: string, addresses: readonly string[]): ShownDevice {
  const { user_code: userCode, interval: intervalS = INTERVAL_S, verification_uri_complete: whole } = answer
  const verificationUri = pageOf(answer.verification_uri, addresses)
  const verificationUriComplete = whole === undefined ? undefined : pageOf(whole, addresses)
  const isFit = verificationUri !== undefined && (whole === undefined || verificationUriComplete !== undefined)
  if (isFit && USER_CODE.test(userCode) && intervalS >= 1 && intervalS <= MAX_INTERVAL_S)
    return { userCode, verificationUri, verificationUriComplete, intervalS }
  throw new GatewayError(
    'credential_rejected',
    `The authorization server at ${host} began a device code that nobody should be shown: an address that is not https, a code that nobody can type, or an interval that is none. Check device_url.`,
  )
}

/** As it is parsed: every character that is not of a URL is escaped. */
function pageOf(text: string, addresses: readonly string[]): string | undefined {
  const url = URL.parse(text)
  if (url === null || url.username !== '' || url.href.length > MAX_ADDRESS) return undefined
  return isReachedSafely(url.href, addresses) ? url.href : undefined
}
