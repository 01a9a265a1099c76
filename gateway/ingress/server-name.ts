/** The server name in a TLS ClientHello, before anybody answers it. Pure. What it says is the client's word and no more. */

const CLIENT_HELLO = 1
const SERVER_NAME = 0
const HOST_NAME = 0

/**
 * The name of the extension `server_name` (RFC 6066 §3), as written.
 * @param record the first TLS record, header included. @returns undefined where there is none that can be read.
 */
export function serverNameIn(record: Buffer): string | undefined {
  const hello = new Cursor(record, 5)
  try {
    if (hello.number(1) !== CLIENT_HELLO) return undefined
    hello.skip(3 + 2 + 32) // length, version, random
    hello.skip(hello.number(1)) // session id
    hello.skip(hello.number(2)) // cipher suites
    hello.skip(hello.number(1)) // compression methods
    hello.skip(2) // length of the extensions: they end where the record does
    for (;;) {
      const type = hello.number(2)
      const length = hello.number(2)
      if (type === SERVER_NAME) return nameIn(hello)
      hello.skip(length)
    }
  } catch (cause) {
    if (cause instanceof RangeError) return undefined // it ends here, or lies about its lengths
    throw cause
  }
}

function nameIn(list: Cursor): string | undefined {
  list.skip(2)
  return list.number(1) === HOST_NAME ? list.text(list.number(2)) : undefined
}

/** @throws {RangeError} where the bytes end. */
class Cursor {
  readonly #bytes: Buffer
  #at: number

  constructor(bytes: Buffer, at: number) {
    this.#bytes = bytes
    this.#at = at
  }

  number(width: 1 | 2): number {
    const value = this.#bytes.readUIntBE(this.#at, width)
    this.#at += width
    return value
  }

  skip(count: number): void {
    this.#at += count
  }

  text(length: number): string {
    if (this.#at + length > this.#bytes.length) throw new RangeError('cut short')
    return this.#bytes.toString('latin1', this.#at, this.#at + length)
  }
}
