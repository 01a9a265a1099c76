/**
 * A call that asks for its connection: handshake, one better credential after a 401, then frames until either side is done.
 * It ends once. Its connections are its own and are never given to another call.
 */
import type { Grant } from '../protocol/grant.ts'
import { BodyHash } from '../protocol/keyed-hash.ts'
import type { AnswerHead, Outbound, Outcome, Upgrade } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { answering } from './answering.ts'
import { type Attempt, isRejected } from './attempt.ts'
import { type Switched, UpgradeAttempt, type UpgradeOwner } from './attempt-upgrade.ts'
import type { Call, ExchangeParts } from './exchange.ts'
import { asFailure, withLeaks } from './failure.ts'
import type { FrameLimits } from './frames.ts'
import type { PoolOptions } from './lane.ts'
import type { Lasting } from './lasting.ts'
import { Relay } from './relay.ts'

export interface UpgradeParts extends Pick<ExchangeParts, 'searchers' | 'hashes' | 'lasting' | 'flushSoon'> {
  readonly options: PoolOptions
  readonly limits: FrameLimits
}

export interface Upgrades {
  /** @param call its `outbound` has an `upgrade`. */
  serve(call: Call): void
  /** The gateway is shutting down: end all that are open, and those still to come. */
  goAway(): void
}

/** Status recorded when the agent left before any answer (nginx's word for it). */
const CLIENT_CLOSED_REQUEST = 499

export function createUpgrades(parts: UpgradeParts): Upgrades {
  /** Calls that have their connection. */
  const open = new Set<Lasting>()
  let isLeaving = false
  const opened = (call: Lasting) => {
    open.add(call)
    if (isLeaving) call.cut(goingAway())
  }
  return {
    serve: (call) => new UpgradeCall({ ...parts, opened, closed: (one) => open.delete(one) }, call).start(),
    goAway() {
      isLeaving = true
      for (const call of open) call.cut(goingAway())
    },
  }
}

function goingAway(): GatewayError {
  return new GatewayError('draining', 'The gateway is shutting down. Connect again; another instance takes over.')
}

interface CallParts extends UpgradeParts {
  /** It has its connection. */
  opened(call: Lasting): void
  closed(call: Lasting): void
}

class UpgradeCall implements UpgradeOwner, Lasting {
  place = -1
  unwatch: Lasting['unwatch']
  readonly #parts: CallParts
  readonly #call: Call
  #outbound: Outbound
  #attempt: UpgradeAttempt | undefined
  #relay: Relay | undefined
  #foundInHead = 0
  #mayReissue: boolean
  #isOver = false

  constructor(parts: CallParts, call: Call) {
    this.#parts = parts
    this.#call = call
    this.#outbound = call.outbound
    this.#mayReissue = call.outbound.secrets.length > 0
  }

  get grant(): Grant {
    return this.#outbound.grant
  }

  get service(): Outbound['service'] {
    return this.#outbound.service
  }

  get standing(): Outbound['standing'] {
    return this.#outbound.standing
  }

  start(): void {
    const { reply } = this.#call
    if (reply.destroyed) {
      this.#settle('client_left')
      return
    }
    reply.on('close', () => {
      if (this.#relay === undefined) this.#settle('client_left')
    })
    this.#parts.lasting.add(this)
    this.#send()
  }

  cut(why: GatewayError): void {
    if (this.#relay === undefined) this.#fail(why)
    else this.#relay.cut(why)
  }

  /** A handshake has no body. */
  newHash(): BodyHash {
    return new BodyHash(undefined, '')
  }

  challenged(_attempt: Attempt, answer: AnswerHead): boolean {
    if (!this.#mayReissue || this.#isOver || isRejected(this.#outbound, answer) !== true) return false
    this.#mayReissue = false
    this.#call.reissue(answer).then(
      (better) => this.#reissued(better),
      (cause) => this.#fail(cause),
    )
    return true
  }

  delivered(): void {
    this.#settle(undefined)
  }

  failed(attempt: Attempt, cause: unknown): void {
    if (attempt === this.#attempt) this.#fail(cause)
  }

  repeated(found: number): void {
    this.#foundInHead = found
    this.#call.leaked()
  }

  upgraded(attempt: UpgradeAttempt, { socket, headers }: Switched): void {
    if (this.#isOver || attempt !== this.#attempt) {
      socket.destroy()
      return
    }
    const { searchers, limits } = this.#parts
    const { upgrade, secrets, meter, censor } = this.#outbound
    const relay = new Relay({
      agent: (upgrade as Upgrade).accept(headers),
      upstream: socket,
      searcher: searchers.for(secrets),
      limits,
      meter,
      censor,
      leaked: this.#call.leaked,
      ended: (error) => this.#settle(error),
    })
    this.#relay = relay
    relay.start()
    this.#parts.opened(this)
  }

  #send(): void {
    const { options, searchers } = this.#parts
    const outbound = this.#outbound
    const answer = answering(this.#parts, outbound, this.#call)
    const attempt = new UpgradeAttempt(this, answer, { outbound, searcher: searchers.for(outbound.secrets), options })
    this.#attempt = attempt
    attempt.send(outbound)
  }

  #reissued(better: Outbound | null): void {
    if (this.#isOver) return
    if (better === null) {
      this.#attempt?.proceed()
      return
    }
    this.#attempt?.abandon()
    this.#outbound = better
    this.#send()
  }

  #fail(cause: unknown): void {
    if (this.#isOver) return
    const { host, port } = this.#outbound
    const failure = asFailure(cause, `${host}:${port}`)
    if (this.#attempt?.answer.isSent) {
      this.#settle(failure.code)
      this.#call.reply.destroy()
      return
    }
    this.#end()
    this.#attempt?.abandon()
    const found = this.#foundInHead
    const seen = found > 0 ? { found, leaks: { head: found } } : this.#attempt?.answer.overwritten
    this.#call.reject(seen === undefined ? failure : withLeaks(failure, seen))
  }

  #settle(error: string | undefined): void {
    if (this.#isOver) return
    this.#end()
    const attempt = this.#attempt
    const relay = this.#relay
    if (error !== undefined && relay === undefined) attempt?.abandon()
    this.#call.resolve({ ...this.#passed(), address: attempt?.address, error })
  }

  #passed(): Omit<Outcome, 'address' | 'error'> {
    const attempt = this.#attempt
    const relay = this.#relay
    if (relay !== undefined) {
      const { sentBytes, receivedBytes, found } = relay
      const head = this.#foundInHead
      const leaks = { ...(head > 0 && { head }), ...(found > 0 && { frame: found }) }
      return { status: 101, sentBytes, receivedBytes, scrubbed: head + found, ...(head + found > 0 && { leaks }) }
    }
    const answer = attempt?.answer
    const status = answer?.isSent && attempt ? attempt.status : CLIENT_CLOSED_REQUEST
    const scrubbed = answer?.overwritten.found ?? 0
    const leaks = scrubbed > 0 ? answer?.overwritten.leaks : undefined
    const received = { receivedBytes: answer?.passed ?? 0, receivedHash: answer?.hash.take() }
    return { status, sentBytes: 0, ...received, scrubbed, ...(leaks && { leaks }) }
  }

  #end(): void {
    this.#isOver = true
    this.#parts.lasting.delete(this)
    this.#parts.closed(this)
  }
}
