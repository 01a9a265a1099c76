/** One child process with this one's terminal: signals go on to it, and how it ended comes back as shells tell it. */
import { spawn } from 'node:child_process'
import { constants } from 'node:os'
import { isatty } from 'node:tty'

export interface Ending {
  /** The child's exit code; 128 + n when signal n ended it; 127 when there is no such command, 126 when it cannot be run. */
  readonly code: number
  readonly signal: NodeJS.Signals | null
}

/** What a terminal itself sends to every process in its foreground, the child among them. */
const FROM_TERMINAL: readonly NodeJS.Signals[] = ['SIGINT', 'SIGQUIT', 'SIGHUP']
const ALWAYS: readonly NodeJS.Signals[] = ['SIGTERM', 'SIGUSR1', 'SIGUSR2']

/** @param say gets one line when the command cannot be started. */
export async function superviseChild(
  command: readonly string[],
  env: Record<string, string>,
  say: (text: string) => void,
): Promise<Ending> {
  const [name = '', ...args] = command
  const { promise, resolve } = Promise.withResolvers<Ending>()
  // Listening first: a signal between the two would end this process and leave the child, and the task, behind.
  const release = forwardSignals((signal) => child.kill(signal))
  const child = spawn(name, args, { stdio: 'inherit', env })
  child.once('error', (cause: NodeJS.ErrnoException) => {
    if (child.pid !== undefined) return // a signal that could not be delivered; the child is still there
    resolve(cannotStart(name, cause.code, say))
  })
  child.once('exit', (code, signal) =>
    resolve({ code: signal === null ? (code ?? 1) : 128 + constants.signals[signal], signal }),
  )
  try {
    return await promise
  } finally {
    release()
  }
}

/** As shells tell it. @param code of the system's error. */
export function cannotStart(name: string, code: string | undefined, say: (text: string) => void): Ending {
  const isAbsent = code === 'ENOENT'
  say(isAbsent ? `${name}: command not found` : `${name}: cannot be run (${code})`)
  return { code: isAbsent ? 127 : 126, signal: null }
}

/**
 * Until the function that is returned is called. The child is in this process group, so what the terminal sends (Ctrl-C) reaches it without us; forwarding that too would
 * look like a second, impatient Ctrl-C. Without a terminal such a signal was sent to this process alone.
 */
export function forwardSignals(send: (signal: NodeJS.Signals) => void): () => void {
  // By number: touching process.stdin would open a stream on what is the child's to read.
  const hasTerminal = [0, 1, 2].some((fd) => isatty(fd))
  const listeners = new Map<NodeJS.Signals, () => void>()
  for (const signal of FROM_TERMINAL) listeners.set(signal, hasTerminal ? () => undefined : () => send(signal))
  for (const signal of ALWAYS) listeners.set(signal, () => send(signal))
  for (const [signal, listener] of listeners) process.on(signal, listener)
  return () => {
    for (const [signal, listener] of listeners) process.off(signal, listener)
  }
}
