/**
 * Messages to one receiver, as a sink of the log: each by itself, tried at once, then kept on disk and tried again for three days, then
 * given up by name and kept for whoever sends it again. A receiver that is down is asked seldom, one message at a time; one message that
 * it will not have does not keep the others waiting. Order is not promised, nor that a message comes once: it has the same id each time.
 */
import type { LetterFormat } from '../../protocol/exporting.ts'
import { type Letter, letterOf } from './letter.ts'
import { attempt, type Outcome } from './letter-attempt.ts'
import { delayMs, GIVE_UP_MS, LONGEST_REST_MS, MAX_OWN_FAILURES } from './letter-schedule.ts'
import type { LetterTerms } from './letter-terms.ts'
import { type Sink, Unavailable } from './sink.ts'
import type { Send } from './sink-http.ts'
import type { Key, Spool, Waiting } from './spool.ts'

export interface LetterState {
  /** Messages that are to be sent. */
  readonly waiting: number
  /** Messages given up that can be sent again. */
  readonly dead: number
  /** Why nothing is taken at the moment. */
  readonly failure: string | undefined
}

export interface LetterboxOptions {
  readonly format: LetterFormat
  readonly terms: LetterTerms
  readonly spool: Spool
  /** Undefined: the receiver comes and takes them. */
  readonly send: Send | undefined
  /** Every change. */
  report(state: LetterState): void
  warn(text: string): void
  /** A message was given up. */
  gaveUp(letter: Waiting): void
  nowMs(): number
  /** From 0 to less than 1. */
  random(): number
  /** Calls `done` after so many milliseconds. @returns what takes that back. */
  after(ms: number, done: () => void): () => void
}

export interface Letterbox extends Sink {
  /** Sends what waits until `stop` is aborted. */
  run(stop: AbortSignal): Promise<void>
  /** Look at the disk again, and try at once: somebody wants a message sent again. */
  wake(): Promise<void>
}

/** Beyond, entries stay in the log until there is room: nothing is lost, and the disk does not fill. */
const MAX_WAITING = 10_000
const MAX_DEAD = 10_000

interface Pending extends Key {
  readonly firstMs: number
  /** Failures that were its own: the attempt before, of another message, had succeeded. */
  own: number
  nextMs: number
  triedMs: number
}

export function createLetterbox(o: LetterboxOptions): Letterbox {
  return new Box(o)
}

class Box implements Letterbox {
  readonly #o: LetterboxOptions
  readonly #pending = new Map<string, Pending>()
  #dead = 0
  /** Failed attempts in a row. */
  #failures = 0
  #failure: string | undefined
  #notBeforeMs = 0
  /** HTTP 410: it wants no more of this. Until somebody sends one again, or the gateway starts anew. */
  #isGone = false
  #loaded: Promise<void> | undefined
  #rouse: () => void = () => undefined

  constructor(o: LetterboxOptions) {
    this.#o = o
  }

  async deliver(items: Parameters<Sink['deliver']>[0]): Promise<void> {
    await this.#load()
    for (const item of items) {
      const letter = letterOf(this.#o.format, item, this.#o.terms)
      if (letter !== undefined) await this.#admit(letter)
    }
  }

  async close(): Promise<void> {}

  async run(stop: AbortSignal): Promise<void> {
    const { send } = this.#o
    if (send === undefined) return
    stop.addEventListener('abort', () => this.#rouse())
    while (!stop.aborted) {
      await this.#round(stop, send).catch((cause: Error) => this.#failed(cause.message)) // the disk: what waits is there still
      if (!stop.aborted) await this.#rest()
    }
  }

  async wake(): Promise<void> {
    this.#loaded = undefined
    this.#failures = 0
    this.#notBeforeMs = 0
    this.#isGone = false
    await this.#load()
    this.#rouse()
  }

  #load(): Promise<void> {
    this.#loaded ??= this.#read().catch((cause) => {
      this.#loaded = undefined
      throw cause
    })
    return this.#loaded
  }

  async #read(): Promise<void> {
    const [keys, dead] = await Promise.all([this.#o.spool.keys('waiting'), this.#o.spool.keys('dead')])
    const nowMs = this.#o.nowMs()
    for (const key of keys) {
      const known = this.#pending.get(key.id)
      const firstMs = known?.firstMs ?? (await this.#o.spool.get('waiting', key))?.firstMs ?? nowMs
      this.#pending.set(key.id, { ...key, firstMs, own: 0, nextMs: 0, triedMs: known?.triedMs ?? 0 })
    }
    this.#dead = dead.length
    this.#tell()
  }

  /** A crash before the cursor of the log moves on brings the same message again, under the same id. */
  async #admit(letter: Letter): Promise<void> {
    const { send } = this.#o
    const fresh: Waiting = { ...letter, attempts: 0, firstMs: this.#o.nowMs(), reason: undefined }
    if (this.#isGone) return this.#giveUp(fresh, 'the receiver wants no more messages (HTTP 410)')
    if (send !== undefined && this.#pending.size === 0 && this.#failures === 0) {
      const outcome = await attempt(letter, { ...this.#o, send })
      if (outcome.kind === 'taken') return
      await this.#keep(fresh)
      await this.#settle(fresh, outcome)
      return this.#rouse()
    }
    if (this.#pending.size >= MAX_WAITING) await this.#recount()
    await this.#keep(fresh)
    this.#rouse()
  }

  async #keep(letter: Waiting): Promise<void> {
    await this.#o.spool.put('waiting', letter)
    const { id, seq, firstMs } = letter
    this.#pending.set(id, { id, seq, firstMs, own: 0, nextMs: 0, triedMs: 0 })
    this.#tell()
  }

  /** Whoever takes messages from the disk does not say so here. @throws {Unavailable} when there are really so many. */
  async #recount(): Promise<void> {
    const kept = new Set((await this.#o.spool.keys('waiting')).map(({ id }) => id))
    for (const id of this.#pending.keys()) if (!kept.has(id)) this.#pending.delete(id)
    if (this.#pending.size >= MAX_WAITING) throw new Unavailable(`${MAX_WAITING} messages wait already`)
  }

  async #round(stop: AbortSignal, send: Send): Promise<void> {
    await this.#load()
    const due = [...this.#pending.values()].filter(({ nextMs }) => nextMs <= this.#o.nowMs())
    for (const one of due.sort((a, b) => a.triedMs - b.triedMs || a.seq - b.seq)) {
      if (stop.aborted || this.#o.nowMs() < this.#notBeforeMs) break
      const letter = await this.#o.spool.get('waiting', one)
      if (letter === undefined) this.#pending.delete(one.id)
      else await this.#settle(letter, await attempt(letter, { ...this.#o, send }))
    }
    if (this.#failures > 0) await this.#giveUpOld()
    this.#tell()
  }

  async #settle(letter: Waiting, outcome: Outcome): Promise<void> {
    const nowMs = this.#o.nowMs()
    const one = this.#pending.get(letter.id)
    if (outcome.kind === 'taken') {
      await this.#o.spool.remove('waiting', letter)
      this.#pending.delete(letter.id)
      if (this.#failures > 0) this.#o.warn('messages are taken again')
      this.#failures = 0
      this.#failure = undefined
      return
    }
    const { reason } = outcome
    const tried = { ...letter, attempts: letter.attempts + 1, reason }
    if (outcome.kind === 'gone') this.#isGone = true
    if (outcome.kind !== 'failed') return this.#giveUp(tried, reason)
    if (one !== undefined) {
      if (this.#failures === 0) one.own += 1
      if (one.own >= MAX_OWN_FAILURES) return this.#giveUp(tried, reason)
      one.triedMs = nowMs
      one.nextMs = one.own === 0 ? 0 : nowMs + delayMs(one.own, this.#o.random())
    }
    this.#failed(reason, outcome.afterMs)
    await this.#o.spool.put('waiting', tried)
  }

  #failed(reason: string, afterMs = 0): void {
    this.#failures += 1
    this.#notBeforeMs = this.#o.nowMs() + Math.max(afterMs, delayMs(this.#failures, this.#o.random()))
    if (this.#failure !== reason) this.#o.warn(`a message waits and is tried again: ${reason}`)
    this.#failure = reason
    this.#tell()
  }

  async #giveUpOld(): Promise<void> {
    const nowMs = this.#o.nowMs()
    for (const one of [...this.#pending.values()].filter(({ firstMs }) => nowMs - firstMs >= GIVE_UP_MS)) {
      const letter = await this.#o.spool.get('waiting', one)
      if (letter === undefined) this.#pending.delete(one.id)
      else await this.#giveUp(letter, letter.reason ?? this.#failure ?? 'not taken in time')
    }
  }

  async #giveUp(letter: Waiting, reason: string): Promise<void> {
    const dead = { ...letter, reason }
    await this.#o.spool.put('dead', dead)
    await this.#o.spool.remove('waiting', letter)
    this.#pending.delete(letter.id)
    this.#dead += 1
    if (this.#dead > MAX_DEAD) await this.#dropOldest()
    this.#o.warn(`gave up on a message about entry ${letter.seq} (${reason}); "keyless webhooks retry" sends it again`)
    this.#o.gaveUp(dead)
    this.#tell()
  }

  /** The log has the entry still. */
  async #dropOldest(): Promise<void> {
    const keys = await this.#o.spool.keys('dead')
    for (const key of keys.slice(0, Math.max(0, keys.length - MAX_DEAD))) await this.#o.spool.remove('dead', key)
    this.#dead = Math.min(keys.length, MAX_DEAD)
  }

  async #rest(): Promise<void> {
    const isEmpty = this.#loaded !== undefined && this.#pending.size === 0
    const nextMs = [...this.#pending.values()].reduce(
      (least, one) => Math.min(least, one.nextMs),
      Number.POSITIVE_INFINITY,
    )
    const untilMs = Math.max(this.#loaded ? nextMs : 0, this.#notBeforeMs) - this.#o.nowMs()
    await new Promise<void>((done) => {
      const ms = Math.max(0, Math.min(untilMs, LONGEST_REST_MS))
      const cancel = isEmpty ? undefined : this.#o.after(ms, done)
      this.#rouse = () => {
        cancel?.()
        done()
      }
    })
  }

  #tell(): void {
    this.#o.report({ waiting: this.#pending.size, dead: this.#dead, failure: this.#failure })
  }
}
