/**
 * Bodies of S3 that are signed chunk by chunk (`STREAMING-AWS4-HMAC-SHA256-PAYLOAD`, with or without trailer): the agent's framing is
 * read strictly, its signatures give way to ours, and every other byte stays, so the length stays too. One chunk is held at a time.
 * Each signature chains on the one before it, the first on that of the head.
 */
import { createHash, hash } from 'node:crypto'
import { type Readable, Transform } from 'node:stream'
import { GatewayError } from '../../protocol/problem.ts'
import { EMPTY_HASH } from './canonical.ts'
import type { Signer, Stamp } from './signer.ts'

export interface ChunkTerms {
  readonly signer: Signer
  readonly stamp: Stamp
  /** Signature of the head, hex. */
  readonly seed: string
  readonly hasTrailer: boolean
  /** Bytes of payload that the request announces (`X-Amz-Decoded-Content-Length`). */
  readonly length: number
}

/** Bytes of one chunk that are held until its signature is known. SDKs send 64 KiB to 128 KiB. */
const MAX_CHUNK_BYTES = 4 * 1024 * 1024
/** `<size in hex>;chunk-signature=<64 hex digits>` */
const MAX_HEAD_BYTES = 8 + 17 + 64
const MAX_TRAILER_BYTES = 16 * 1024

const HEAD = /^([0-9a-fA-F]{1,8});chunk-signature=[0-9a-f]{64}$/
/** S3 takes both ends of a line: SDKs differ. */
const TRAILER =
  /^((?:[A-Za-z0-9-]{1,64}:[\x20-\x7e]*(?:\r\n|\n\r\n)){1,16})x-amz-trailer-signature:[0-9a-f]{64}\r\n\r\n$/
const CRLF = Buffer.from('\r\n')
const END = Buffer.from('\r\n\r\n')

type State = 'head' | 'data' | 'trailer' | 'over'

/** A body signed anew. @throws {GatewayError} `request_malformed`, by which the stream is destroyed. */
export function resignedStream(body: Readable, terms: ChunkTerms): Readable {
  const chunks = new Chunks(terms)
  const out = new Transform({
    transform(bytes: Buffer, _encoding, done) {
      settle(() => {
        for (const piece of chunks.take(bytes)) out.push(piece)
      }, done)
    },
    flush: (done) => settle(() => chunks.end(), done),
  })
  // Piped, not bound together: a refusal must not cost the agent its connection.
  const broken = () => {
    if (!body.readableEnded) out.destroy(new Error('the body broke off'))
  }
  body.on('error', broken).on('close', broken)
  return body.pipe(out)
}

/** The same of a body that is here. @throws {GatewayError} `request_malformed` */
export function resignedBytes(body: Buffer, terms: ChunkTerms): Buffer {
  const chunks = new Chunks(terms)
  const pieces = chunks.take(body)
  chunks.end()
  return Buffer.concat(pieces)
}

function settle(step: () => void, done: (error?: Error | null) => void): void {
  try {
    step()
    done()
  } catch (cause) {
    done(cause as Error)
  }
}

class Chunks {
  readonly #terms: ChunkTerms
  #state: State = 'head'
  /** Signature before the next one. */
  #before: string
  /** What has come of the part under way. */
  #held: Buffer[] = []
  #heldBytes = 0
  /** Of the chunk under way: its size as written, and in bytes. */
  #sizeText = ''
  #size = 0
  #total = 0

  constructor(terms: ChunkTerms) {
    this.#terms = terms
    this.#before = terms.seed
  }

  take(bytes: Buffer): Buffer[] {
    const out: Buffer[] = []
    let rest = bytes
    while (rest.length > 0) rest = this.#step(rest, out)
    return out
  }

  /** The body is over. */
  end(): void {
    if (this.#state !== 'over') throw malformed('it ends before its last chunk')
    if (this.#total !== this.#terms.length)
      throw malformed(`it holds ${this.#total} bytes, and X-Amz-Decoded-Content-Length says ${this.#terms.length}`)
  }

  /** @returns what is left of the bytes. */
  #step(bytes: Buffer, out: Buffer[]): Buffer {
    switch (this.#state) {
      case 'head':
        return this.#head(bytes)
      case 'data':
        return this.#data(bytes, out)
      case 'trailer':
        return this.#trailer(bytes, out)
      default:
        throw malformed('something follows its last chunk')
    }
  }

  #head(bytes: Buffer): Buffer {
    const line = this.#until(CRLF, bytes, MAX_HEAD_BYTES + CRLF.length, 'the head of a chunk')
    if (line === undefined) return NOTHING
    const [, sizeText = ''] = HEAD.exec(line.part.toString('latin1', 0, line.part.length - CRLF.length)) ?? []
    if (sizeText === '') throw malformed('a chunk does not begin with <size>;chunk-signature=<64 hex digits>')
    this.#sizeText = sizeText
    this.#size = Number.parseInt(sizeText, 16)
    if (this.#size > MAX_CHUNK_BYTES) throw malformed(`a chunk is larger than ${MAX_CHUNK_BYTES} bytes`)
    this.#total += this.#size
    if (this.#total > this.#terms.length) throw malformed('it holds more than X-Amz-Decoded-Content-Length says')
    this.#state = 'data'
    // Of a body with trailer the last chunk has no line of its own: its head is followed by the trailer.
    if (this.#size === 0 && this.#terms.hasTrailer) this.#state = 'trailer'
    return line.rest
  }

  #data(bytes: Buffer, out: Buffer[]): Buffer {
    const wanted = this.#size + CRLF.length - this.#heldBytes
    const rest = this.#hold(bytes, wanted)
    if (this.#heldBytes < this.#size + CRLF.length) return rest
    const parts = this.#release()
    const [last, digest] = [Buffer.concat(parts.slice(-2)).subarray(-2), createHash('sha256')]
    if (!last.equals(CRLF)) throw malformed('a chunk is longer than it says')
    let left = this.#size
    for (const part of parts) {
      digest.update(part.subarray(0, left))
      left -= Math.min(left, part.length)
    }
    out.push(this.#signedHead(digest.digest('hex')), ...parts)
    this.#state = this.#size === 0 ? 'over' : 'head'
    return rest
  }

  #trailer(bytes: Buffer, out: Buffer[]): Buffer {
    const block = this.#until(END, bytes, MAX_TRAILER_BYTES, 'the trailer')
    if (block === undefined) return NOTHING
    const text = block.part.toString('latin1')
    const [, fields] = TRAILER.exec(text) ?? []
    if (fields === undefined) throw malformed('its trailer is not <name>:<value> lines and x-amz-trailer-signature')
    const canonical = fields
      .split(/\r?\n/)
      .filter((line) => line !== '')
      .map((line) => `${line.slice(0, line.indexOf(':')).toLowerCase()}:${line.slice(line.indexOf(':') + 1).trim()}\n`)
    const head = this.#signedHead(EMPTY_HASH)
    this.#chain('AWS4-HMAC-SHA256-TRAILER', [hash('sha256', canonical.join(''))])
    out.push(head, Buffer.from(`${fields}x-amz-trailer-signature:${this.#before}\r\n\r\n`, 'latin1'))
    this.#state = 'over'
    return block.rest
  }

  #signedHead(payloadHash: string): Buffer {
    this.#chain('AWS4-HMAC-SHA256-PAYLOAD', [EMPTY_HASH, payloadHash])
    return Buffer.from(`${this.#sizeText};chunk-signature=${this.#before}\r\n`)
  }

  #chain(kind: string, hashes: readonly string[]): void {
    const { signer, stamp } = this.#terms
    this.#before = signer.chained(kind, [this.#before, ...hashes], stamp)
  }

  /** Hold bytes until a mark has come. @returns the part with its mark, and what follows it. */
  #until(mark: Buffer, bytes: Buffer, limit: number, what: string): { part: Buffer; rest: Buffer } | undefined {
    const before = this.#heldBytes
    const all = before === 0 ? bytes : Buffer.concat([...this.#held, bytes])
    const at = all.indexOf(mark, Math.max(0, before - mark.length + 1))
    if ((at === -1 ? all.length : at + mark.length) > limit) throw malformed(`${what} is longer than ${limit} bytes`)
    this.#release()
    if (at !== -1) return { part: all.subarray(0, at + mark.length), rest: all.subarray(at + mark.length) }
    this.#hold(all, all.length)
    return undefined
  }

  /** @returns what is more than wanted. */
  #hold(bytes: Buffer, wanted: number): Buffer {
    const part = bytes.subarray(0, wanted)
    this.#held.push(part)
    this.#heldBytes += part.length
    return bytes.subarray(part.length)
  }

  #release(): Buffer[] {
    const parts = this.#held
    this.#held = []
    this.#heldBytes = 0
    return parts
  }
}

const NOTHING = Buffer.alloc(0)

function malformed(what: string): GatewayError {
  return new GatewayError(
    'request_malformed',
    `The body is not what its X-Amz-Content-Sha256 announces: ${what}. Nothing of it was stored.`,
  )
}
