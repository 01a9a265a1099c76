/**
 * Tunnels to places that an order has blocked: those in which nothing is under way are cut, so that nobody goes on waiting in one. What is
 * under way in others is cut call by call, and told why; they follow when it is over.
 */
import type { Door, Tunnel } from './line.ts'

/** What is blocked at present, for everybody. */
export interface Closures {
  /** @param tell other orders may be in force. Must not throw. */
  onChange(tell: () => void): void
  isClosed(place: Pick<Tunnel, 'scheme' | 'host' | 'port'>): boolean
}

/** With the time in which a call is cut, within the second of DESIGN §2, promise 8. */
const AGAIN_MS = 200

/** From now on, until the door is closed. */
export function cutClosedTunnels(door: Door, { onChange, isClosed }: Closures): void {
  let isDue = false
  const sweepIn = (ms: number) => {
    if (isDue) return
    isDue = true
    setTimeout(() => {
      isDue = false
      if (sweep(door, isClosed)) sweepIn(AGAIN_MS)
    }, ms).unref()
  }
  onChange(() => sweepIn(0))
}

/** @returns whether in some of them calls are still under way. */
function sweep({ lines }: Door, isClosed: Closures['isClosed']): boolean {
  let isBusy = false
  for (const [socket, { tunnel, busy }] of lines) {
    if (tunnel === null || !isClosed(tunnel)) continue
    if (busy === 0) socket.destroy()
    else isBusy = true
  }
  return isBusy
}
