/**
 * Exports of a running gateway: starts the thread, makes its requests, and knows how far each has come. Whatever happens to a
 * receiver or to the thread, calls go on; what was not delivered is in the log and leaves later.
 */
import { Worker } from 'node:worker_threads'
import type { FormatName, LetterFormat, LetterView, Mask } from '../../protocol/exporting.ts'
import { threadEnv } from '../../thread-env.ts'
import type { LetterTerms } from './letter-terms.ts'
import type { LetterState } from './letterbox.ts'
import type { PumpState } from './pump.ts'
import type { Push, Pushed, Send } from './sink-http.ts'

export interface ExportJob {
  readonly name: string
  readonly format: FormatName
  readonly to:
    | { readonly file: string }
    | { readonly url: string }
    | { readonly postgres: string; readonly table: string }
    | LetterJob
  readonly mask: readonly Mask[]
  readonly kinds: readonly string[] | undefined
  readonly notify?: readonly string[] | undefined
}

/** Messages, one for each entry, kept until they are taken. */
export interface LetterJob {
  readonly letters: LetterFormat
  readonly terms: LetterTerms
  /** Where those are kept that wait, or were given up. */
  readonly spoolDir: string
  /** The receiver comes and takes them. */
  readonly isPolled: boolean
}

export interface ThreadPlan {
  /** Name of the log. */
  readonly log: string
  /** Its directory. */
  readonly dir: string
  /** Where the cursors are. */
  readonly stateDir: string
  readonly maskKey: Uint8Array
  readonly jobs: readonly ExportJob[]
}

export type FromThread =
  | { readonly kind: 'send'; readonly name: string; readonly id: number; readonly push: Push }
  | { readonly kind: 'state'; readonly name: string; readonly state: PumpState }
  | { readonly kind: 'warn'; readonly name: string; readonly text: string }
  | { readonly kind: 'letters'; readonly name: string; readonly state: LetterState }
  | { readonly kind: 'undelivered'; readonly name: string; readonly letter: LetterView }

export type ToThread =
  | { readonly kind: 'answered'; readonly id: number; readonly pushed: Pushed }
  | { readonly kind: 'failed'; readonly id: number; readonly why: string }
  | { readonly kind: 'wake'; readonly name: string }
  | { readonly kind: 'stop' }

export interface ExportLag {
  /** Entries of the log that the receiver does not have. */
  readonly entries: number
  /** Age of the oldest of them. */
  readonly seconds: number
  /** Why nothing is delivered at the moment; undefined while it is. */
  readonly failure: string | undefined
  /** Entries set aside since the start, because the receiver will not have them. */
  readonly refused: number
}

export interface Exports {
  /** By name of the export. */
  lag(): Readonly<Record<string, ExportLag>>
  /** Messages, by name of what sends them. */
  letters(): Readonly<Record<string, LetterState>>
  /** Messages were put back to wait: send them now. */
  wake(name: string): void
  /** Delivers what is there if that is quick, and ends. */
  close(): Promise<void>
}

export interface ExportsOptions extends ThreadPlan {
  /** Name → how its requests are made. */
  readonly senders: ReadonlyMap<string, Send>
  readonly nowMs: () => number
  /** What somebody should know, one sentence. */
  warn(text: string): void
  /** A message was given up; it is kept. */
  undelivered?(name: string, letter: LetterView): void
}

/** A receiver that does not answer must not keep the gateway from ending. */
const CLOSE_MS = 2_000
const RESTART_MS = 5_000
/** The thread holds a stretch of the log and its formatted text. */
const MEMORY_MB = 256

export function openExports(o: ExportsOptions): Exports {
  const states = new Map<string, PumpState>()
  const boxes = new Map<string, LetterState>()
  let restart: NodeJS.Timeout | undefined
  let isClosing = false
  let worker = start()

  function start(): Worker {
    const { log, dir, stateDir, maskKey, jobs } = o
    const workerData: ThreadPlan = { log, dir, stateDir, maskKey, jobs }
    const made = new Worker(new URL('./export-worker.ts', import.meta.url), {
      workerData,
      env: threadEnv(),
      execArgv: [],
      resourceLimits: { maxOldGenerationSizeMb: MEMORY_MB },
    })
    made.on('message', (message: FromThread) => hear(made, message))
    made.on('error', (cause) => o.warn(`the exports stopped: ${(cause as Error).message}. They begin again shortly.`))
    made.on('exit', () => {
      if (isClosing) return
      restart = setTimeout(() => {
        worker = start()
      }, RESTART_MS).unref()
    })
    return made
  }

  function hear(from: Worker, message: FromThread): void {
    if (message.kind === 'state') states.set(message.name, message.state)
    else if (message.kind === 'warn') o.warn(`export ${message.name}: ${message.text}`)
    else if (message.kind === 'letters') boxes.set(message.name, message.state)
    else if (message.kind === 'undelivered') o.undelivered?.(message.name, message.letter)
    else void answer(from, message)
  }

  async function answer(from: Worker, { name, id, push }: Extract<FromThread, { kind: 'send' }>): Promise<void> {
    const reply = (message: ToThread) => from.postMessage(message)
    try {
      const send = o.senders.get(name)
      if (!send) throw new Error(`export ${name} has no sender`)
      reply({ kind: 'answered', id, pushed: await send(push) })
    } catch (cause) {
      reply({ kind: 'failed', id, why: (cause as Error).message })
    }
  }

  return {
    letters: () => Object.fromEntries(boxes),
    wake: (name) => worker.postMessage({ kind: 'wake', name } satisfies ToThread),
    lag: () => Object.fromEntries(o.jobs.map(({ name }) => [name, lagOf(states.get(name), o.nowMs())])),
    async close() {
      isClosing = true
      clearTimeout(restart)
      if (worker.threadId === -1) return // it has ended by itself
      const ended = new Promise<void>((done) => worker.once('exit', () => done()))
      worker.postMessage({ kind: 'stop' } satisfies ToThread)
      const timer = setTimeout(() => void worker.terminate(), CLOSE_MS)
      await ended
      clearTimeout(timer)
    },
  }
}

function lagOf(state: PumpState | undefined, nowMs: number): ExportLag {
  const { entries = 0, sinceMs, failure, refused = 0 } = state ?? {}
  return { entries, seconds: sinceMs === undefined ? 0 : Math.max(0, (nowMs - sinceMs) / 1000), failure, refused }
}
