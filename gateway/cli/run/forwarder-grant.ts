/**
 * The grant that the forwarder adds, and the tunnels that hang on it: a tunnel shows its grant once, when it is opened, so it
 * ends with that grant and not with the run.
 */
import type { Socket } from 'node:net'

/** A tunnel is looked at this often for a moment in which cutting it costs nothing. */
const LOOK_MS = 500
/** Tunnels are closed in a quiet moment of these last seconds, and at their end in any case. */
const CLOSING_MS = 20_000

export class HeldGrant {
  #authorization: string
  /** opened under the present grant */
  #tunnels = new Set<Socket>()

  constructor(authorization: string) {
    this.#authorization = authorization
  }

  /** Proxy-Authorization towards the gateway, with its scheme. */
  get authorization(): string {
    return this.#authorization
  }

  carry(tunnel: Socket): void {
    const tunnels = this.#tunnels
    tunnels.add(tunnel)
    tunnel.once('close', () => tunnels.delete(tunnel))
  }

  /** @param graceMs how long the grant so far is still good, and with it the tunnels that were opened under it. */
  replace(authorization: string, graceMs: number): void {
    const former = this.#tunnels
    this.#authorization = authorization
    this.#tunnels = new Set()
    const closingMs = Math.min(Math.max(graceMs, 0), CLOSING_MS)
    if (closingMs === 0) cut(former)
    else setTimeout(() => close(former, closingMs), graceMs - closingMs).unref()
  }
}

interface Seen {
  readonly read: number
  readonly written: number
  /** The last bytes went to the client: what it asked has been answered, as far as can be seen from outside. */
  readonly isAnswered: boolean
}

/** Each tunnel as soon as it is quiet after an answer, all of them in the end. */
function close(tunnels: ReadonlySet<Socket>, withinMs: number): void {
  const seen = new Map<Socket, Seen>()
  const timer = setInterval(() => {
    for (const tunnel of tunnels) {
      const { bytesRead: read, bytesWritten: written } = tunnel
      const before = seen.get(tunnel)
      if (before === undefined) seen.set(tunnel, { read, written, isAnswered: true })
      else if (before.read !== read) seen.set(tunnel, { read, written, isAnswered: false })
      else if (before.written !== written) seen.set(tunnel, { read, written, isAnswered: true })
      else if (before.isAnswered) tunnel.destroy()
    }
    if (tunnels.size === 0) clearInterval(timer)
  }, LOOK_MS).unref()
  setTimeout(() => {
    clearInterval(timer)
    cut(tunnels)
  }, withinMs).unref()
}

function cut(tunnels: ReadonlySet<Socket>): void {
  for (const tunnel of [...tunnels]) tunnel.destroy()
}
