/** The agent's body on its way up: small ones as one buffer that can be sent again, large ones as a stream with back-pressure. */
import { Readable } from 'node:stream'
import type { Outbound, RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'

/** A body up to this size is collected before it is sent, so that it can be sent again. */
export const MAX_REPLAY_BYTES = 64 * 1024

/** What Content-Length says, or undefined. */
export function lengthOf(headers: RawHeaders): number | undefined {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]?.length === 14 && headers[i]?.toLowerCase() === 'content-length') return Number(headers[i + 1])
  }
  return undefined
}

/**
 * Read a body of known, small length.
 * @param done called once, at once if the body has arrived already; null when it broke off.
 */
export function collect(body: Readable, length: number, done: (bytes: Buffer | null) => void): void {
  const first = body.read() as Buffer | null
  if (first?.length === length) {
    body.resume() // to its end, or the agent's connection is not free for the next request
    done(first)
    return
  }
  const chunks: Buffer[] = first === null ? [] : [first]
  const settle = (bytes: Buffer | null) => {
    body.off('data', add).off('end', succeed).off('error', fail).off('close', fail)
    done(bytes)
  }
  const add = (chunk: Buffer) => chunks.push(chunk)
  const succeed = () => settle(Buffer.concat(chunks))
  const fail = () => settle(null)
  body.on('data', add).on('end', succeed).on('error', fail).on('close', fail)
}

type Terms = Pick<Outbound, 'meter' | 'censor'>

/** Why these bytes of a body may not go up, if they may not; else they are counted. */
export function refusalOf(bytes: Buffer, { meter, censor }: Terms): GatewayError | undefined {
  const refusal = censor?.look(bytes)
  if (refusal !== undefined || meter === undefined) return refusal
  return meter.send(bytes.length) ? undefined : meter.exceeded()
}

/** A body as undici may own it: destroying this one leaves the agent's connection alone. */
export class Upload extends Readable {
  readonly #source: Readable
  readonly #terms: Terms
  #isBroken = false
  readonly #add = (chunk: Buffer) => {
    const refusal = refusalOf(chunk, this.#terms)
    if (refusal !== undefined) this.destroy(refusal)
    else if (!this.push(chunk)) this.#source.pause()
  }
  readonly #finish = () => {
    this.#source.off('close', this.#fail)
    this.push(null)
  }
  readonly #fail = (cause?: unknown) => {
    // Whoever rewrites it found that it is not what its head announces: a refusal, not a client that left.
    if (cause instanceof GatewayError) {
      this.destroy(cause)
      return
    }
    this.#isBroken = true
    this.destroy(new Error('the body broke off'))
  }

  constructor(source: Readable, terms: Terms) {
    super({ highWaterMark: 64 * 1024 })
    this.#source = source
    this.#terms = terms
    this.on('error', ignore) // the exchange learns of it through undici
    source.on('data', this.#add).on('end', this.#finish).on('error', this.#fail).on('close', this.#fail)
    source.pause()
  }

  /** The agent's side ended before the body was complete. */
  get isBroken(): boolean {
    return this.#isBroken
  }

  override _read(): void {
    this.#source.resume()
  }

  override _destroy(cause: Error | null, callback: (error?: Error | null) => void): void {
    this.#source.off('data', this.#add).off('end', this.#finish).off('error', this.#fail).off('close', this.#fail)
    this.#source.on('error', ignore)
    this.#source.resume() // what nobody wants any more, so that the agent can read its answer
    callback(cause)
  }
}

function ignore(): void {
  // See `Upload`.
}
