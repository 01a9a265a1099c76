/**
 * The desk: where an agent that only has its proxy finds the gateway itself. A name that exists inside the proxy alone; nothing that
 * is sent there goes on to anywhere.
 */
import type { Grant } from './grant.ts'

/** `.internal` is kept for private use (ICANN, 2024): no name server of the internet answers for it. */
export const DESK_HOST = 'keyless.internal'

/** Plain HTTP: it does not leave the connection to the proxy, and clients need to trust no certificate for it. */
export const DESK_URL = `http://${DESK_HOST}`

/** What an agent asks, by a grant that was found to live. */
export interface DeskCall {
  readonly method: string
  /** Path and query as sent. */
  readonly path: string
  /** Those few fields that matter, by name in lower case. */
  readonly fields: Readonly<Record<string, string>>
  readonly body: Buffer
  readonly grant: Grant
}

export interface DeskAnswer {
  readonly status: number
  /** `name, value, …`; without the length. */
  readonly headers: readonly string[]
  readonly body: Buffer
}

/** @throws {GatewayError} the refusal, which is yet to be recorded. */
export type Desk = (call: DeskCall) => Promise<DeskAnswer>
