/**
 * Undoes a content coding while a body streams, so that it can be searched. An answer that unfolds beyond reason is cut
 * off (standards.md H22).
 */
import type { Transform } from 'node:stream'
import {
  constants,
  createBrotliDecompress,
  createGunzip,
  createInflate,
  createInflateRaw,
  createZstdDecompress,
} from 'node:zlib'
import { GatewayError } from '../protocol/problem.ts'

/** Bytes out for each byte in, once `FREE_BYTES` have come out. */
const MAX_RATIO = 100
const FREE_BYTES = 1024 * 1024
/** Bytes out of one answer. Memory is bounded without it; the time that one answer may cost is not. */
const MAX_BYTES = 8 * 1024 ** 3
/** RFC 9659: senders may count on a window of 8 MiB, and a decoder need not lend more. */
const ZSTD_WINDOW_LOG = 23

export interface Decoded {
  bytes(chunk: Buffer): void
  end(): void
  failed(cause: unknown): void
  /** The coded bytes may go on. */
  drained(): void
}

/** Can this coding be undone? Several at once cannot. */
export function isDecodable(coding: string): boolean {
  return /^(?:gzip|x-gzip|deflate|br|zstd)$/.test(coding)
}

export class Decoder {
  readonly #coding: string
  readonly #to: Decoded
  #stream: Transform | undefined
  #in = 0
  #out = 0
  /** The coding says that nothing follows. */
  #isDecoded = false
  /** The upstream has sent everything. */
  #isWhole = false

  constructor(coding: string, to: Decoded) {
    this.#coding = coding
    this.#to = to
  }

  /** @returns false when the next chunk should wait for `drained`. */
  write(chunk: Buffer): boolean {
    this.#in += chunk.length
    if (this.#isDecoded) return true
    this.#stream ??= this.#open(chunk)
    return this.#stream.write(chunk)
  }

  end(): void {
    this.#isWhole = true
    if (this.#stream === undefined || this.#isDecoded) this.#to.end()
    else this.#stream.end()
  }

  pause(): void {
    this.#stream?.pause()
  }

  resume(): void {
    this.#stream?.resume()
  }

  destroy(): void {
    this.#stream?.destroy()
  }

  #open(first: Buffer): Transform {
    const stream = streamFor(this.#coding, first)
    stream.on('data', (chunk: Buffer) => {
      this.#out += chunk.length
      if ((this.#out > FREE_BYTES && this.#out > this.#in * MAX_RATIO) || this.#out > MAX_BYTES) {
        stream.destroy(
          new GatewayError(
            'upstream_encoding',
            'The answer unfolds to more than a hundred times its size, or to 8 GiB.',
          ),
        )
        return
      }
      this.#to.bytes(chunk)
    })
    stream.on('end', () => {
      this.#isDecoded = true
      // Zeros, say, may follow. The answer ends with its upload and its connection, or the call would outlive its record and grant.
      if (this.#isWhole) this.#to.end()
      else this.#to.drained()
    })
    stream.on('drain', () => this.#to.drained())
    stream.on('error', (cause) => this.#to.failed(cause))
    return stream
  }
}

function streamFor(coding: string, first: Buffer): Transform {
  switch (coding) {
    case 'br':
      return createBrotliDecompress()
    case 'zstd':
      return createZstdDecompress({ params: { [constants.ZSTD_d_windowLogMax]: ZSTD_WINDOW_LOG } })
    case 'deflate':
      // RFC 9110 §8.4.1.2: some servers send it without the zlib wrapper, whose first nibble is always 8.
      return ((first[0] ?? 0) & 0x0f) === 8 ? createInflate() : createInflateRaw()
    default:
      return createGunzip()
  }
}
