/**
 * One exchange of JSON with an issuer whose API is not OAuth. What it answers is untrusted: bounded, parsed as one JSON object or
 * not at all, and no text of it reaches a message. What a status means is left to the provider.
 */
import { GatewayError } from '../../protocol/problem.ts'
import { AnswerTooLarge, boundedFetch } from '../bounded-fetch.ts'
import type { GuardedFetch } from '../provider.ts'
import { guardedRefusal, networkCode } from './token-failure.ts'

export interface IssuerRequest {
  readonly url: string
  readonly method: 'GET' | 'POST' | 'DELETE'
  readonly headers: Readonly<Record<string, string>>
  /** Sent as JSON, or as a form if it is `URLSearchParams`. Absent: no content. */
  readonly body?: unknown
  readonly signal: AbortSignal
}

export type JsonObject = Readonly<Record<string, unknown>>

export interface IssuerAnswer {
  readonly status: number
  /** Undefined: no content, or something else than a JSON object. */
  readonly json: JsonObject | undefined
  /** Milliseconds that it asked to wait. */
  readonly retryAfterMs: number | undefined
}

/**
 * @param issuer how messages call it: `Vault at vault.acme.test:8200`. No path and no secret.
 * @throws {GatewayError} `credential_unavailable` when there is no answer, or a huge one; what the guarded dial refuses, as it is.
 */
export async function exchange(fetch: GuardedFetch, issuer: string, request: IssuerRequest): Promise<IssuerAnswer> {
  const bounded = boundedFetch(fetch)
  const { url, method, headers, body, signal } = request
  try {
    const response = await bounded.fetch(url, {
      method,
      ...contentOf(headers, body),
      redirect: 'manual', // a secret never follows a redirect
      signal,
    })
    return { status: response.status, json: asObject(await response.text()), retryAfterMs: bounded.retryAfterMs() }
  } catch (cause) {
    throw unreached(cause, issuer, signal)
  }
}

function contentOf(headers: IssuerRequest['headers'], body: unknown): Pick<RequestInit, 'headers' | 'body'> {
  if (body === undefined) return { headers }
  // `fetch` names the type of a form itself.
  if (body instanceof URLSearchParams) return { headers, body }
  return { headers: { ...headers, 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
}

/** Statuses by which an issuer says that it may be able to later. */
export function isPassing(status: number): boolean {
  return status >= 500 || status === 429 || status === 408
}

/** `credential_unavailable`: the issuer may be able to later. */
export function unavailable(issuer: string, what: string, retryAfterMs?: number): GatewayError {
  return new GatewayError('credential_unavailable', `${issuer} ${what}.`, { retryAfterMs })
}

/** No answer, as a refusal. */
export function unreached(cause: unknown, issuer: string, signal: AbortSignal): GatewayError {
  if (signal.aborted) return unavailable(issuer, 'did not answer in time')
  const refusal = guardedRefusal(cause)
  if (refusal !== undefined) return new GatewayError(refusal.code, `${issuer}: ${refusal.detail}`)
  if (cause instanceof AnswerTooLarge) return unavailable(issuer, 'sent an answer larger than 256 KiB')
  return unavailable(issuer, `could not be reached (${networkCode(cause)})`)
}

function asObject(text: string): JsonObject | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined
  } catch {
    return undefined
  }
}
