/**
 * A refresh token is used by one at a time over all replicas: claim the connection, refresh, store what came before anybody uses it.
 * A server that rotates ends the whole family when an old token is shown again (RFC 9700 §4.14.2), so every state that a crash can
 * leave is named here, with what the next one does about it. State: refreshes under way in this process, written only by this class.
 */
import { setTimeout as pause } from 'node:timers/promises'
import type { Clock } from '../../protocol/clock.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import { type Connection, type ConnectionRows, type Connector, nameOf, type StoredConnection } from './connection.ts'

/** What a token endpoint gives. */
export interface TokenAnswer {
  readonly accessToken: Secret
  /** Epoch seconds. */
  readonly expiresAt: number
  /** Undefined: the one that was shown stays in use. */
  readonly refreshToken: Secret | undefined
  readonly scope: string | undefined
  /** Why the access token cannot be used. */
  readonly refusal: GatewayError | undefined
}

/** Asks the token endpoint once. @throws {GatewayError} when the answer says nothing about the refresh token. */
export type Refresh = (
  token: Secret,
  connection: Connection,
  signal: AbortSignal,
) => Promise<TokenAnswer | 'invalid_grant'>

interface RefreshRooms {
  readonly rows: ConnectionRows
  readonly clock: Clock
  /** The server has ended a connection: somebody has to be told. Once for each. */
  lost(connection: Connection): Promise<void>
}

/** Milliseconds that one refresh may take. Not shortened when its caller leaves or the gateway stops: the answer may be the only token there is. */
const EXCHANGE_MS = 10_000
/** Two exchanges, and the time to store what they gave: who holds a claim longer has died. */
const CLAIM_MS = 30_000
const STORE_PAUSE_MS = 200

export class Refreshes {
  readonly #rooms: RefreshRooms
  /** connection → the last refresh of this process, which the next one waits for */
  readonly #turns = new Map<string, Promise<unknown>>()
  /** connection → what could not be stored while its claim lasted; no copy of it is anywhere else */
  readonly #unstored = new Map<string, Connection>()

  constructor(rooms: RefreshRooms) {
    this.#rooms = rooms
  }

  /**
   * An access token of this connection.
   * @param issuedTo what the connection must have been made with.
   * @throws {GatewayError} `reauthorize`, and what `refresh` throws; `credential_unavailable` when the signal ends the wait.
   */
  async run(connector: Connector, issuedTo: string, refresh: Refresh, signal: AbortSignal): Promise<TokenAnswer> {
    if (signal.aborted) throw tooLate()
    const name = nameOf(connector)
    const before = this.#turns.get(name) ?? Promise.resolve()
    const turn = before.then(() => {
      if (signal.aborted) throw tooLate()
      return this.#refresh(connector, issuedTo, refresh, signal)
    })
    const settled = turn.then(
      () => undefined,
      () => undefined,
    )
    this.#turns.set(name, settled)
    void settled.then(() => {
      if (this.#turns.get(name) === settled) this.#turns.delete(name)
    })
    return Promise.race([turn, aborted(signal)])
  }

  /** Wait for what is under way, so that no token is lost. */
  async close(): Promise<void> {
    await Promise.all(this.#turns.values())
  }

  async #refresh(connector: Connector, issuedTo: string, refresh: Refresh, signal: AbortSignal): Promise<TokenAnswer> {
    await this.#storeLate(connector)
    const claimed = await this.#claim(connector, signal)
    const { connection } = claimed
    if (connection.state === 'reauthorize' || connection.issuedTo !== issuedTo) {
      await this.#release(claimed)
      throw notConnected()
    }
    // Claimed, nothing asked. A crash here leaves the tokens as they are; the claim lapses.
    const { used, answer } = await this.#ask(claimed, refresh)
    // The server has answered. A crash here loses a token that nobody else has: the next one shows the old token, which a server
    // with a time of grace takes, and any other answers with invalid_grant.
    const next: Connection = {
      ...connection,
      refreshToken: answer.refreshToken ?? used,
      // Not rotated: what was shown has proved itself. Rotated: it stays until the new one has.
      previous: answer.refreshToken === undefined ? undefined : used,
      refreshedAt: Math.floor(this.#rooms.clock.nowMs() / 1000),
    }
    await this.#store(next, claimed)
    // Stored. A crash here leaves an access token that nobody used.
    return answer
  }

  /** @returns the connection, which is ours alone until it is written. */
  async #claim(connector: Connector, signal: AbortSignal): Promise<StoredConnection> {
    for (;;) {
      const claimed = await this.#rooms.rows.claim(connector, CLAIM_MS)
      if (claimed === undefined) throw notConnected()
      if (claimed !== 'taken') return claimed
      await pause(20 + Math.random() * 80, undefined, { signal }).catch(() => {
        throw tooLate()
      })
    }
  }

  /** Show the refresh token; where the server does not know it, the one before, which it may not have let go of. */
  async #ask(claimed: StoredConnection, refresh: Refresh): Promise<{ used: Secret; answer: TokenAnswer }> {
    const { refreshToken, previous } = claimed.connection
    try {
      for (const used of [refreshToken, ...(previous ? [previous] : [])]) {
        const answer = await refresh(used, claimed.connection, AbortSignal.timeout(EXCHANGE_MS))
        if (answer !== 'invalid_grant') return { used, answer }
      }
    } catch (cause) {
      // No word about the token: it may be used up and may not. It is shown again, and the server says.
      await this.#release(claimed)
      throw cause
    }
    await this.#lose(claimed)
    throw notConnected()
  }

  async #lose({ connection, version }: StoredConnection): Promise<void> {
    const lost: Connection = { ...connection, state: 'reauthorize' }
    const isOurs = (await this.#rooms.rows.write(lost, version).catch(() => undefined)) !== undefined
    if (isOurs) await this.#rooms.lost(lost).catch(() => undefined)
  }

  /** Best effort: a claim lapses by itself. */
  async #release({ connection, version }: StoredConnection): Promise<void> {
    await this.#rooms.rows.write(connection, version).catch(() => undefined)
  }

  /** Until it is stored, or the claim is over. @throws {GatewayError} `store_unavailable`: the access token must not be used. */
  async #store(next: Connection, claimed: StoredConnection): Promise<void> {
    const untilMs = this.#rooms.clock.elapsedMs() + CLAIM_MS - 2 * EXCHANGE_MS
    for (;;) {
      try {
        if ((await this.#rooms.rows.write(next, claimed.version)) === undefined) await this.#storeBeside(next, claimed)
        return
      } catch (cause) {
        if (this.#rooms.clock.elapsedMs() >= untilMs) {
          this.#unstored.set(nameOf(next), next)
          throw cause
        }
        await pause(STORE_PAUSE_MS)
      }
    }
  }

  /** The claim lapsed, and somebody else has it. Ours is newer than what they began with, unless they got one too, or it was removed. */
  async #storeBeside(next: Connection, { connection }: StoredConnection): Promise<void> {
    const present = await this.#rooms.rows.read(next)
    if (present === undefined || !isSame(present.connection.refreshToken, connection.refreshToken)) return
    if (present.connection.connectedAt !== connection.connectedAt) return
    await this.#rooms.rows.write(next, present.version)
  }

  /** What could not be stored when it came. */
  async #storeLate(connector: Connector): Promise<void> {
    const name = nameOf(connector)
    const late = this.#unstored.get(name)
    if (late === undefined) return
    const present = await this.#rooms.rows.read(connector)
    if (present !== undefined && late.previous && isSame(present.connection.refreshToken, late.previous))
      await this.#rooms.rows.write({ ...late, state: 'connected' }, present.version)
    this.#unstored.delete(name)
  }
}

function isSame(one: Secret, other: Secret): boolean {
  return one.reveal() === other.reveal()
}

function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, fail) => signal.addEventListener('abort', () => fail(tooLate()), { once: true }))
}

function tooLate(): GatewayError {
  return new GatewayError('credential_unavailable', 'The refresh of this connection did not end in time. Try again.')
}

/** Words that help are the provider's to say: it knows for whom and where. */
function notConnected(): GatewayError {
  return new GatewayError('reauthorize', 'There is no connection that could be used.')
}
