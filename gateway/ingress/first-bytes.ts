/**
 * The first bytes of a connection, before it is known who will parse it: looked at, and given back. What is at the other end is
 * anybody, so whoever stays silent or comes in drops is closed in time, and no more is kept than was asked for.
 */
import type { Socket } from 'node:net'

/** Calls `next` with the first bytes, at least one, all of them still unread; closes the connection if none comes. */
export function awaitFirstByte(socket: Socket, patienceMs: number, next: (seen: Buffer) => void): void {
  const close = (): void => {
    socket.destroy()
  }
  const onData = (chunk: Buffer): void => {
    socket.setTimeout(0)
    socket.off('timeout', close)
    socket.off('end', close)
    socket.off('data', onData)
    socket.pause()
    socket.unshift(chunk)
    next(chunk)
  }
  socket.setTimeout(patienceMs)
  socket.on('timeout', close)
  socket.on('end', close)
  socket.on('data', onData)
  socket.resume()
}

/** Takes exact counts of bytes, however they are cut; `release` gives back what was not taken. */
export class FirstBytes {
  readonly #socket: Socket
  readonly #deadline: NodeJS.Timeout
  #seen: Buffer = Buffer.alloc(0)

  /** @param patienceMs after which the connection is closed, unless released before. */
  constructor(socket: Socket, patienceMs: number) {
    this.#socket = socket
    this.#deadline = setTimeout(() => socket.destroy(), patienceMs)
    socket.once('close', () => clearTimeout(this.#deadline))
  }

  /** @throws {Error} when the connection ends before. */
  async take(count: number): Promise<Buffer> {
    const taken = await this.peek(count)
    this.#seen = this.#seen.subarray(count)
    return taken
  }

  /** As `take`, and they stay. */
  async peek(count: number): Promise<Buffer> {
    while (this.#seen.length < count) this.#seen = Buffer.concat([this.#seen, await this.#next()])
    return this.#seen.subarray(0, count)
  }

  release(): void {
    clearTimeout(this.#deadline)
    if (this.#seen.length > 0 && !this.#socket.readableEnded) this.#socket.unshift(this.#seen)
    this.#seen = Buffer.alloc(0)
  }

  #next(): Promise<Buffer> {
    const socket = this.#socket
    return new Promise((resolve, reject) => {
      const settle = (): void => {
        socket.off('data', onData).off('end', onEnd).off('close', onEnd)
      }
      const onData = (chunk: Buffer): void => {
        settle()
        socket.pause()
        resolve(chunk)
      }
      const onEnd = (): void => {
        settle()
        reject(new Error('The connection ended.'))
      }
      if (socket.destroyed || socket.readableEnded) onEnd()
      else socket.on('data', onData).on('end', onEnd).on('close', onEnd).resume()
    })
  }
}
