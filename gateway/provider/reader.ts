/** Secrets by which this gateway is known to those it reads public things from: values never leave this file but on their way there. */
import type { GuardedFetch } from './provider.ts'
import type { ReadSecret, SecretReference } from './reference.ts'

export interface ReaderOptions {
  readonly fetch: GuardedFetch
  /** Header → where its value is read, anew for each request. */
  readonly headers: Readonly<Record<string, SecretReference>>
  readonly readSecret: ReadSecret
}

interface Found {
  readonly status: number
  readonly etag: string | undefined
  readonly body: Buffer
}

interface Wanted {
  /** Only another one than that. */
  readonly etag?: string | undefined
  /** JSON text that is posted; absent: nothing is, and it is a GET. */
  readonly json?: string
  readonly signal: AbortSignal
}

/** @returns what asks for a document, of bounded size and time. */
export function createReader({ fetch, headers, readSecret }: ReaderOptions) {
  return async (url: string, o: Wanted): Promise<Found> => {
    const own = await Promise.all(
      Object.entries(headers).map(async ([name, place]) => [name, (await readSecret(place)).reveal()] as const),
    )
    const answer = await fetch(url, {
      ...(o.json !== undefined && { method: 'POST', body: o.json }),
      headers: {
        ...(o.etag !== undefined && { 'if-none-match': o.etag }),
        ...(o.json !== undefined && { 'content-type': 'application/json', accept: 'application/json' }),
        ...Object.fromEntries(own),
      },
      redirect: 'manual', // a secret never follows a redirect
      signal: o.signal,
    })
    const body = Buffer.from(await answer.arrayBuffer())
    return { status: answer.status, etag: answer.headers.get('etag') ?? undefined, body }
  }
}

/** Value of the field `Authorization` (RFC 7617), for a program that sends it. */
export async function basicAuthorization(
  user: string,
  place: SecretReference,
  readSecret: ReadSecret,
): Promise<string> {
  return `Basic ${Buffer.from(`${user}:${(await readSecret(place)).reveal()}`).toString('base64')}`
}
