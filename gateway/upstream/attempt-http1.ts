/** An attempt over HTTP/1.1: undici's handler, on a connection that serves nothing else meanwhile. */
import type { Dispatcher } from 'undici'
import type { Outbound } from '../protocol/message.ts'
import type { Answer, Source } from './answer.ts'
import { Attempt, type AttemptOwner, type Body } from './attempt.ts'
import type { Connection } from './connection.ts'
import type { Tickets } from './lane.ts'

/** To whom a connection goes back: the pool. */
interface Keeper<Lane extends Tickets> {
  /** The exchange was complete. */
  release(connection: Connection<Lane>): void
  /** It broke off. */
  discard(connection: Connection<Lane>): void
}

export class Http1Attempt<Lane extends Tickets = Tickets> extends Attempt implements Dispatcher.DispatchHandler {
  readonly #keeper: Keeper<Lane>
  protected readonly connection: Connection<Lane>
  #controller: Dispatcher.DispatchController | undefined
  #isGivenBack = false

  constructor(
    owner: AttemptOwner,
    answer: (source: Source) => Answer,
    keeper: Keeper<Lane>,
    connection: Connection<Lane>,
  ) {
    super(owner, answer)
    this.#keeper = keeper
    this.connection = connection
  }

  get address(): string | undefined {
    return this.connection.address
  }

  get isFresh(): boolean {
    return this.connection.isFresh
  }

  get isUnprocessed(): boolean {
    return false // HTTP/1.1 has no way to say so
  }

  send(outbound: Outbound, body: Body): void {
    const { path, method, headers } = outbound
    // `blocking` keeps others off a connection that nobody shares, and would have undici look for them when the head comes.
    this.connection.client.dispatch({ path, method, headers: headers as string[], body, blocking: false }, this)
  }

  // A connection that was given back may be another call's by now, which alone holds it up and lets it go on.

  pause(): void {
    if (!this.#isGivenBack) this.#controller?.pause()
  }

  resume(): void {
    if (!this.#isGivenBack) this.#controller?.resume()
  }

  protected cancel(): void {
    if (!this.#isGivenBack) this.#keeper.discard(this.connection)
    this.#isGivenBack = true
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller
  }

  onBodySent(chunk: Buffer): void {
    this.sent(chunk)
  }

  onResponseStarted(): void {
    this.hasSpoken = true
  }

  onResponseStart(controller: Dispatcher.DispatchController, status: number, _: unknown, statusText = ''): void {
    this.head(status, statusText, controller.rawHeaders as readonly Buffer[]) // what it throws comes back as onResponseError
  }

  onResponseData(_: Dispatcher.DispatchController, chunk: Buffer): void {
    this.data(chunk)
  }

  onResponseEnd(controller: Dispatcher.DispatchController): void {
    // undici takes a reset for the end of an answer that only the closing of its connection ends.
    if (this.connection.isReset) {
      this.onResponseError(controller, new Error('reset'))
      return
    }
    if (!this.#isGivenBack) this.#keeper.release(this.connection)
    this.#isGivenBack = true
    this.finish((controller.rawTrailers ?? []) as readonly Buffer[])
  }

  onResponseError(_: unknown, cause: unknown): void {
    this.cancel()
    this.fail(cause)
  }
}
