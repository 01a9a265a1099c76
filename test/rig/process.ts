/** Children of a test: run one to its end, or keep one, read what it says, and end it by its pid. */
import { type ChildProcessWithoutNullStreams, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

/** The repository's root. */
export const ROOT = fileURLToPath(new URL('../..', import.meta.url))

export interface RunOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Default: nothing; the child sees an end of input at once. */
  readonly input?: string | Buffer
  /** Milliseconds until it is killed. Default 45,000. */
  readonly timeoutMs?: number
}

export interface Ended {
  /** Exit code, or null when a signal ended it. */
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

/** Run to the end. A non-zero exit is an answer, not an error. */
export async function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ended> {
  const child = start(command, args, options)
  child.input.end(options.input ?? '')
  const timer = setTimeout(() => child.kill('SIGKILL'), options.timeoutMs ?? 45_000)
  try {
    return await child.ended
  } finally {
    clearTimeout(timer)
  }
}

/** Run to the end. @throws with everything it said when the exit code is not 0. */
export async function runOk(command: string, args: readonly string[], options: RunOptions = {}): Promise<string> {
  const ended = await run(command, args, options)
  if (ended.code === 0) return ended.stdout
  throw new Error(
    `${command} ${args.join(' ')} ended with ${ended.signal ?? ended.code}\n${ended.stdout}\n${ended.stderr}`,
  )
}

export interface Running {
  readonly pid: number
  readonly input: ChildProcessWithoutNullStreams['stdin']
  readonly ended: Promise<Ended>
  /** What it has said so far. */
  readonly stdout: string
  readonly stderr: string
  kill(signal: NodeJS.Signals): void
  /** The first match in what it says on either stream. @throws when it ends without, or after 45 s. */
  says(pattern: RegExp): Promise<RegExpExecArray>
  /** SIGTERM, then SIGKILL after 10 s. */
  stop(): Promise<Ended>
}

export function start(command: string, args: readonly string[], options: RunOptions = {}): Running {
  const child = spawn(command, args, { cwd: options.cwd, env: options.env, stdio: 'pipe' })
  const said = { stdout: '', stderr: '' }
  const listeners = new Set<() => void>()
  for (const stream of ['stdout', 'stderr'] as const) {
    child[stream].setEncoding('utf8').on('data', (text: string) => {
      said[stream] += text
      for (const listener of listeners) listener()
    })
  }
  child.stdin.on('error', () => {}) // it may end before it has read everything
  const ended = once(child, 'close').then(([code, signal]) => ({ code, signal, ...said }) as Ended)
  ended.catch(() => {}) // a command that does not exist is reported to whoever awaits
  const kill = (signal: NodeJS.Signals) => {
    if (child.exitCode === null && child.signalCode === null) child.kill(signal)
  }
  return {
    pid: child.pid ?? -1,
    input: child.stdin,
    ended,
    kill,
    get stdout() {
      return said.stdout
    },
    get stderr() {
      return said.stderr
    },
    says: (pattern) => waitFor({ pattern, said, listeners, ended, name: command }),
    async stop() {
      kill('SIGTERM')
      const timer = setTimeout(() => kill('SIGKILL'), 10_000)
      return ended.finally(() => clearTimeout(timer))
    },
  }
}

interface Waiting {
  readonly pattern: RegExp
  readonly said: Readonly<{ stdout: string; stderr: string }>
  readonly listeners: Set<() => void>
  readonly ended: Promise<Ended>
  readonly name: string
}

function waitFor({ pattern, said, listeners, ended, name }: Waiting): Promise<RegExpExecArray> {
  return new Promise((resolve, reject) => {
    const done = () => {
      listeners.delete(look)
      clearTimeout(timer)
    }
    const look = () => {
      const found = pattern.exec(said.stdout) ?? pattern.exec(said.stderr)
      if (!found) return false
      done()
      resolve(found)
      return true
    }
    const fail = (why: string) => {
      if (look()) return
      done()
      reject(new Error(`${name} ${why} ${pattern}:\n${said.stdout}\n${said.stderr}`))
    }
    const timer = setTimeout(() => fail('did not say within 45 s'), 45_000)
    listeners.add(look)
    look()
    ended.then(
      () => fail('ended without saying'),
      (cause: unknown) => fail(`did not start (${String(cause)}) to say`),
    )
  })
}
