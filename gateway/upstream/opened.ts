/** Waiting for a socket to get somewhere: in time, and no longer than anybody wants it. */
import type { Socket } from 'node:net'

export class TimeoutError extends Error {}

export interface Patience {
  readonly timeoutMs: number
  readonly signal: AbortSignal
}

/**
 * What `begin` finds on a socket. A socket that fails, ends, or comes too late is destroyed.
 * @param begin starts to look, calls `done` once, and returns what stops it.
 */
export function within<T>(
  socket: Socket,
  { timeoutMs, signal }: Patience,
  begin: (done: (found: T) => void) => () => void,
): Promise<T> {
  socket.on('error', ignore) // between two owners a socket must not be without a listener
  return new Promise((resolve, reject) => {
    const fail = (cause: unknown) => {
      settle()
      socket.destroy()
      reject(cause)
    }
    const leave = () => fail(signal.reason)
    const end = () => fail(new Error('closed during the handshake'))
    const late = setTimeout(() => fail(new TimeoutError()), Math.max(1, timeoutMs))
    const stop = begin((found) => {
      settle()
      resolve(found)
    })
    const settle = () => {
      clearTimeout(late)
      signal.removeEventListener('abort', leave)
      socket.off('error', fail).off('close', end)
      stop()
    }
    socket.once('error', fail).once('close', end)
    signal.addEventListener('abort', leave)
    if (signal.aborted) leave()
  })
}

/** Wait until a socket is open. */
export function opened(socket: Socket, event: 'connect' | 'secureConnect', patience: Patience): Promise<void> {
  return within<void>(socket, patience, (done) => {
    socket.once(event, done)
    return () => socket.off(event, done)
  })
}

/** Node's code of an error, for messages and for what to do about it. */
export function codeOf(cause: unknown): string {
  const code = cause instanceof Error ? (cause as NodeJS.ErrnoException).code : undefined
  return code ?? (cause instanceof Error ? cause.message : 'unknown')
}

function ignore(): void {
  // The next owner sees the error in `socket.errored`.
}
