/** Reads one HTTP/1.1 request off a socket, keeping the bytes of its head as they came. For the echo upstream. */

export interface WireRequest {
  readonly method: string
  readonly path: string
  readonly head: Buffer
  readonly body: Buffer
}

/** @returns undefined when the connection ended before another request. `rest` is what came after it. */
export async function readRequest(
  incoming: AsyncIterator<Buffer>,
  already: Buffer,
  onExpect: () => void,
): Promise<{ request: WireRequest; rest: Buffer } | undefined> {
  const reader = new Reader(incoming, already)
  const head = await reader.until('\r\n\r\n')
  if (!head) return undefined
  const text = head.toString('latin1')
  const [method = '', path = ''] = text.slice(0, text.indexOf('\r\n')).split(' ')
  const length = Number(/^content-length: *(\d+)/im.exec(text)?.[1] ?? 0)
  const isChunked = /^transfer-encoding:.*chunked/im.test(text)
  if (/^expect: *100-continue/im.test(text)) onExpect()
  const body = isChunked ? await readChunks(reader) : await reader.exactly(length)
  return body && { request: { method, path, head, body }, rest: reader.rest }
}

async function readChunks(reader: Reader): Promise<Buffer | undefined> {
  const parts: Buffer[] = []
  for (;;) {
    const line = await reader.until('\r\n')
    if (!line) return undefined
    const size = Number.parseInt(line.toString('latin1'), 16)
    if (size === 0) break
    const part = await reader.exactly(size + 2)
    if (!part) return undefined
    parts.push(part.subarray(0, size))
  }
  for (;;) {
    const trailer = await reader.until('\r\n')
    if (!trailer) return undefined
    if (trailer.length === 2) return Buffer.concat(parts)
  }
}

class Reader {
  rest: Buffer
  readonly #incoming: AsyncIterator<Buffer>

  constructor(incoming: AsyncIterator<Buffer>, already: Buffer) {
    this.#incoming = incoming
    this.rest = already
  }

  async until(mark: string): Promise<Buffer | undefined> {
    let from = 0
    for (;;) {
      const at = this.rest.indexOf(mark, from, 'latin1')
      if (at !== -1) return this.#take(at + mark.length)
      from = Math.max(0, this.rest.length - mark.length)
      if (!(await this.#more())) return undefined
    }
  }

  async exactly(count: number): Promise<Buffer | undefined> {
    const parts = [this.rest]
    let have = this.rest.length
    while (have < count) {
      const next = await this.#incoming.next()
      if (next.done) return undefined
      parts.push(next.value)
      have += next.value.length
    }
    this.rest = Buffer.concat(parts)
    return this.#take(count)
  }

  async #more(): Promise<boolean> {
    const next = await this.#incoming.next()
    if (next.done) return false
    this.rest = Buffer.concat([this.rest, next.value])
    return true
  }

  #take(count: number): Buffer {
    const taken = this.rest.subarray(0, count)
    this.rest = this.rest.subarray(count)
    return taken
  }
}
