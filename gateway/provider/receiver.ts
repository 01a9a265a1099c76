/**
 * Secrets by which this gateway is known to those it exports to: headers, and the address of a database. Header values never leave
 * this file but on their way to the receiver; what a receiver answers is shown without them.
 */
import type { Secret } from '../protocol/secret.ts'
import type { GuardedFetch } from './provider.ts'
import type { ReadSecret, SecretReference } from './reference.ts'

export interface ReceiverOptions {
  readonly fetch: GuardedFetch
  /** Header → where its value is read. */
  readonly headers: Readonly<Record<string, SecretReference>>
  readonly readSecret: ReadSecret
  /** Characters of an answer that are kept. Default 300. */
  readonly maxText?: number
}

interface Pushed {
  readonly status: number
  readonly retryAfter: string | null
  readonly text: string
}

/** Characters of an answer that are kept: enough to say why. */
const MAX_TEXT = 300
const SHOWN = '[secret]'
/** Control characters, which must not reach a terminal or end a line. */
const CONTROLS = /\p{Cc}+/gu

/**
 * What sends a body to a receiver. Headers are read at the start, and again after the receiver did not accept them.
 * @throws {GatewayError} when a reference cannot be read.
 */
export async function createReceiver({ fetch, headers, readSecret, maxText = MAX_TEXT }: ReceiverOptions) {
  const read = async () =>
    Promise.all(Object.entries(headers).map(async ([name, place]) => [name, await readSecret(place)] as const))
  let secrets = await read()
  return async (push: {
    readonly url: string
    readonly headers: Readonly<Record<string, string>>
    readonly body: Uint8Array
  }): Promise<Pushed> => {
    const own = secrets.map(([name, secret]) => [name, secret.reveal()] as const)
    const answer = await fetch(push.url, {
      method: 'POST',
      headers: { ...push.headers, ...Object.fromEntries(own) },
      body: new Uint8Array(push.body),
      redirect: 'manual', // a secret never follows a redirect
    })
    const text = withoutSecrets(await answer.text(), secrets)
      .slice(0, maxText)
      .trim()
    if (answer.status === 401 || answer.status === 403) secrets = await read() // perhaps they were rotated
    return { status: answer.status, retryAfter: answer.headers.get('retry-after'), text }
  }
}

/** A receiver may say back what it was sent. */
function withoutSecrets(text: string, secrets: readonly (readonly [string, Secret])[]): string {
  const values = secrets.flatMap(([, secret]) => {
    const value = secret.reveal()
    return [value, JSON.stringify(value).slice(1, -1), ...value.split(' ').filter((word) => word.length >= 8)]
  })
  const shown = values.reduce((rest, value) => rest.replaceAll(value, SHOWN), text)
  return shown.replaceAll(CONTROLS, ' ')
}

/** URL of a database, whose driver wants it as text. @throws {Error} when it is not one; the message does not repeat it. */
export async function readDatabaseUrl(place: SecretReference, readSecret: ReadSecret): Promise<string> {
  const url = (await readSecret(place)).reveal()
  if (!/^postgres(?:ql)?:\/\//.test(url))
    throw new Error(
      'The secret that names a Postgres database is not one: write postgres://user:password@host:port/database.',
    )
  return url
}
