/**
 * The agent's end of an answer: its head; its body, whose bytes go out as they are, or coded again for an agent that offered to undo the coding.
 * Only scrubbed bytes come here, so nothing secret shares a compression context with what the agent chose (BREACH).
 */
import type { Transform } from 'node:stream'
import { constants, createBrotliCompress, createDeflate, createGzip, createZstdCompress } from 'node:zlib'
import type { Reply } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { withoutField } from '../protocol/raw-headers.ts'

/** Levels that cost about as much as undoing the coding did. */
const GZIP_LEVEL = 4
const BROTLI_QUALITY = 3

const MAX_JOINED_BYTES = 16 * 1024

interface OutgoingHead {
  readonly status: number
  readonly statusText: string
  readonly headers: string[]
}

export class Outlet {
  readonly #reply: Reply
  readonly #onDrain: () => void
  readonly #encoder: Transform | undefined
  #isListening = false

  /** @param coding `isDecodable`; undefined: bytes go out as they are. @param onDrain after `write` has said false. */
  constructor(reply: Reply, coding: string | undefined, onDrain: () => void) {
    this.#reply = reply
    this.#onDrain = onDrain
    if (coding === undefined) return
    const encoder = encoderFor(coding)
    this.#encoder = encoder
    encoder.on('data', (bytes: Buffer) => {
      if (!this.#send(bytes)) encoder.pause()
    })
    encoder.on('drain', onDrain)
  }

  /** @returns false when the next bytes should wait for `onDrain`. */
  write(bytes: Buffer): boolean {
    if (this.#encoder === undefined) return this.#send(bytes)
    const mayGoOn = this.#encoder.write(bytes)
    ;(this.#encoder as Transform & { flush(): void }).flush() // an event does not wait for the next one
    return mayGoOn
  }

  /** @param then when everything is with the reply, which is left open. */
  end(then: () => void): void {
    if (this.#encoder === undefined) then()
    else this.#encoder.once('end', then).end()
  }

  destroy(): void {
    this.#encoder?.destroy()
  }

  #send(bytes: Buffer): boolean {
    if (this.#reply.write(bytes)) return true
    if (!this.#isListening) {
      this.#isListening = true
      this.#reply.on('drain', () => {
        if (this.#encoder === undefined) this.#onDrain()
        else this.#encoder.resume()
      })
    }
    return false
  }
}

/** @throws {GatewayError} `upstream_broken` for a head that Node does not write. */
export function writeHead(reply: Reply, { status, statusText, headers }: OutgoingHead): void {
  try {
    reply.writeHead(status, statusText, headers)
  } catch (cause) {
    // Node refuses to announce trailers to an HTTP/1.0 agent, which gets no chunks.
    if ((cause as NodeJS.ErrnoException).code !== 'ERR_HTTP_TRAILER_INVALID') throw unwritable(cause)
    reply.writeHead(status, statusText, withoutField(headers, 'trailer'))
  }
}

/** The whole body, and with it the end; up to some size as a string, which Node joins with the head into one write. */
export function endWith(reply: Reply, body: Buffer | undefined): void {
  if (body === undefined) reply.end()
  else if (body.length <= MAX_JOINED_BYTES) reply.end(body.toString('latin1'), 'latin1')
  else reply.end(body)
}

function unwritable(cause: unknown): GatewayError {
  return new GatewayError('upstream_broken', 'The head of the answer cannot be passed on.', { cause })
}

/** Whether an agent that sent this can undo the coding (RFC 9110 §12.5.3). Without the field it gets no coding. */
export function isAccepted(acceptEncoding: string | undefined, coding: string): boolean {
  const name = coding === 'x-gzip' ? 'gzip' : coding
  let any = false
  for (const part of (acceptEncoding ?? '').toLowerCase().split(',')) {
    const [offered = '', ...parameters] = part.split(';').map((word) => word.trim())
    const isWanted = !parameters.some((parameter) => /^q=0(?:\.0*)?$/.test(parameter))
    if (offered === name || offered === coding) return isWanted
    if (offered === '*') any = isWanted
  }
  return any
}

function encoderFor(coding: string): Transform {
  switch (coding) {
    case 'br':
      return createBrotliCompress({ params: { [constants.BROTLI_PARAM_QUALITY]: BROTLI_QUALITY } })
    case 'zstd':
      return createZstdCompress()
    case 'deflate':
      return createDeflate({ level: GZIP_LEVEL })
    default:
      return createGzip({ level: GZIP_LEVEL })
  }
}
