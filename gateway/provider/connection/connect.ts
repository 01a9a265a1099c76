/**
 * Connecting a human to a service: a ticket, one browser that takes it, one callback that belongs to that browser, one code. Or a code
 * that the human types elsewhere (RFC 8628). Nothing is kept of an answer before the log knows of the connection.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto'
import { generateRandomCodeVerifier } from 'oauth4webapi'
import type { Clock } from '../../protocol/clock.ts'
import { asGatewayError, GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'
import { scopeWords } from '../oauth/token-credential.ts'
import {
  CONNECTING_MS,
  type Connecting,
  type ConnectingRows,
  idOf,
  newTicket,
  type StoredConnecting,
} from './connecting.ts'
import type { Connection, ConnectionRows, Connector } from './connection.ts'
import type { TokenAnswer } from './refresh.ts'
import { type ConnectionServer, excessScope } from './server.ts'

/** A credential that a human can connect. */
export interface Connectable {
  readonly server: ConnectionServer
  readonly scope: string | undefined
  readonly per: 'human' | 'gateway'
}

export interface ConnectRooms {
  readonly connecting: ConnectingRows
  readonly connections: ConnectionRows
  /** @throws {GatewayError} `instruction_invalid` for a name that no human can connect. */
  connectable(credential: string): Connectable
  readonly clock: Clock
  /** `<public_url>/connect` */
  readonly base: string
  record(kind: 'admin.connected' | 'admin.disconnected', connector: Connector): Promise<unknown>
}

export interface BegunDevice {
  readonly ticket: string
  readonly userCode: string
  readonly verificationUri: string
  readonly verificationUriComplete: string | undefined
  readonly intervalS: number
}

/** What a human sees before they agree. */
export interface Offer {
  readonly connector: Connector
  readonly host: string
  readonly scope: string | undefined
  readonly state: Connecting['state']
}

export type Progress =
  | { readonly state: 'pending'; readonly intervalS: number }
  | { readonly state: 'done' }
  | { readonly state: 'failed'; readonly why: string }

/** Milliseconds that one exchange with a server may take. */
const EXCHANGE_MS = 10_000
/** Seconds between two looks at a browser flow. */
const LOOK_S = 2

export class Connect {
  readonly #rooms: ConnectRooms

  constructor(rooms: ConnectRooms) {
    this.#rooms = rooms
  }

  /** @returns the ticket, and the page that takes it: whoever opens that first connects. */
  async begin(connector: Connector): Promise<{ readonly ticket: string; readonly url: string }> {
    this.#rooms.connectable(connector.credential)
    const ticket = newTicket()
    await this.#rooms.connecting.add(idOf(ticket), this.#fresh(connector, CONNECTING_MS))
    return { ticket, url: `${this.#rooms.base}/t/${ticket}` }
  }

  async beginDevice(connector: Connector): Promise<BegunDevice> {
    const { server } = this.#rooms.connectable(connector.credential)
    const { deviceCode, expiresInS, intervalS, ...shown } = await server.startDevice(AbortSignal.timeout(EXCHANGE_MS))
    const ticket = newTicket()
    const device = { code: deviceCode.reveal(), intervalS, nextMs: this.#nowMs() + intervalS * 1000 }
    const untilMs = Math.min(expiresInS * 1000, 2 * CONNECTING_MS)
    await this.#rooms.connecting.add(idOf(ticket), { ...this.#fresh(connector, untilMs), state: 'sent', device })
    return { ticket, intervalS, ...shown }
  }

  /** What has become of it. A device code is asked after, as often as its server allows. */
  async progress(ticket: string): Promise<Progress> {
    const stored = await this.#rooms.connecting.read(idOf(ticket))
    const { state, why, device } = stored.connecting
    if (state === 'done') return { state }
    if (state === 'failed') return { state, why: why ?? 'It failed.' }
    if (device === undefined || state === 'redeeming') return { state: 'pending', intervalS: LOOK_S }
    if (this.#nowMs() < device.nextMs) return { state: 'pending', intervalS: device.intervalS }
    // Whoever moves the next time has the turn: of two that look at once, one asks.
    const turn = await this.#rooms.connecting.change(stored, {
      device: { ...device, nextMs: this.#nowMs() + device.intervalS * 1000 },
    })
    return this.#pollDevice(turn, device)
  }

  async offer(ticket: string): Promise<Offer> {
    const { connecting } = await this.#rooms.connecting.read(idOf(ticket))
    const connector = connectorOf(connecting)
    const { server, scope } = this.#rooms.connectable(connector.credential)
    return { connector, host: server.host, scope, state: connecting.state }
  }

  /** The human has agreed, in this browser: it alone can go on. @returns where it is sent. */
  async leave(ticket: string, browser: string): Promise<string> {
    const stored = await this.#rooms.connecting.read(idOf(ticket))
    const { connecting } = stored
    if (connecting.device !== undefined || (connecting.state !== 'open' && connecting.state !== 'sent')) throw used()
    if (connecting.browser !== undefined && !isSame(connecting.browser, digest(browser))) throw used()
    const { server } = this.#rooms.connectable(connecting.credential)
    const state = `${stored.id}.${randomBytes(32).toString('base64url')}`
    const verifier = generateRandomCodeVerifier()
    await this.#rooms.connecting.change(stored, { state: 'sent', browser: digest(browser), sent: { state, verifier } })
    return server.authorizationUrl(this.#request(state, verifier), AbortSignal.timeout(EXCHANGE_MS))
  }

  /** The browser is back. @param parameters everything in them is attacker-controlled. @returns what is connected now. */
  async callback(parameters: URLSearchParams, browser: string | undefined): Promise<Connector> {
    const states = parameters.getAll('state')
    const stored = await this.#rooms.connecting.read(states[0]?.split('.')[0] ?? '')
    const { connecting } = stored
    const { sent } = connecting
    // Another's callback, or one that this browser never asked for, changes nothing: not even that it is waited for.
    if (states.length !== 1 || sent === undefined || !isSame(sent.state, states[0] ?? '')) throw foreign()
    if (browser === undefined || connecting.browser === undefined || !isSame(connecting.browser, digest(browser)))
      throw foreign()
    if (connecting.state !== 'sent') throw used()
    const turn = await this.#rooms.connecting.change(stored, { state: 'redeeming' })
    const { server } = this.#rooms.connectable(connecting.credential)
    const request = this.#request(sent.state, sent.verifier)
    await this.#finish(turn, () => server.redeem(parameters, request, AbortSignal.timeout(EXCHANGE_MS)))
    return connectorOf(connecting)
  }

  /** Forget a connection, and end it at its server. @returns whether the server did; undefined where it offers nothing. */
  async disconnect(connector: Connector): Promise<boolean | undefined> {
    const { server } = this.#rooms.connectable(connector.credential)
    const { connections } = this.#rooms
    if ((await connections.read(connector)) === undefined)
      throw invalid('There is no such connection. `keyless connect list` shows them.')
    await this.#rooms.record('admin.disconnected', connector)
    const claimed = await connections.claim(connector, EXCHANGE_MS)
    if (claimed === 'taken')
      throw new GatewayError('store_unavailable', 'The connection is being refreshed. Try again in a moment.')
    if (claimed === undefined) return undefined
    // Nobody gets a token from it any more. A crash before it is removed leaves one that its server has ended.
    const { refreshToken } = claimed.connection
    const revoked = await server
      .revoke(refreshToken, 'refresh_token', AbortSignal.timeout(EXCHANGE_MS))
      .catch(() => undefined)
    await connections.remove(connector, claimed.version)
    return revoked === false ? undefined : revoked === true
  }

  async #pollDevice(turn: StoredConnecting, device: NonNullable<Connecting['device']>): Promise<Progress> {
    const { server } = this.#rooms.connectable(turn.connecting.credential)
    let answer: TokenAnswer | 'pending' | 'slow_down'
    try {
      answer = await server.pollDevice(new Secret(device.code), AbortSignal.timeout(EXCHANGE_MS))
    } catch (cause) {
      const refusal = asGatewayError(cause)
      // RFC 8628 §3.5: a server that does not answer is asked less often.
      if (refusal.code === 'credential_unavailable') answer = 'slow_down'
      else return this.#fail(turn, refusal)
    }
    if (answer === 'pending') return { state: 'pending', intervalS: device.intervalS }
    if (answer === 'slow_down') {
      const intervalS = device.intervalS + 5
      await this.#rooms.connecting.change(turn, {
        device: { ...device, intervalS, nextMs: this.#nowMs() + intervalS * 1000 },
      })
      return { state: 'pending', intervalS }
    }
    const given = answer
    return this.#finish(turn, async () => given).then(
      () => ({ state: 'done' }),
      (cause: unknown) => ({ state: 'failed', why: asGatewayError(cause).detail }),
    )
  }

  async #finish(turn: StoredConnecting, obtain: () => Promise<TokenAnswer>): Promise<void> {
    try {
      await this.#keep(connectorOf(turn.connecting), await obtain())
      await this.#rooms.connecting.change(turn, { state: 'done' })
    } catch (cause) {
      await this.#fail(turn, asGatewayError(cause))
      throw cause
    }
  }

  async #fail(turn: StoredConnecting, { detail }: GatewayError): Promise<Progress> {
    await this.#rooms.connecting.change(turn, { state: 'failed', why: detail }).catch(() => undefined)
    return { state: 'failed', why: detail }
  }

  async #keep(connector: Connector, answer: TokenAnswer): Promise<void> {
    const { server, scope } = this.#rooms.connectable(connector.credential)
    const refusal = answer.refusal ?? unfit(answer, scope)
    if (answer.refreshToken === undefined || refusal !== undefined) {
      const unwanted = answer.refreshToken ?? answer.accessToken
      await server
        .revoke(unwanted, answer.refreshToken ? 'refresh_token' : 'access_token', AbortSignal.timeout(EXCHANGE_MS))
        .catch(() => undefined)
      throw refusal ?? new TypeError('unreachable')
    }
    await this.#rooms.record('admin.connected', connector)
    const connection: Connection = {
      ...connector,
      refreshToken: answer.refreshToken,
      issuedTo: server.issuedTo,
      scope: answer.scope ?? scope,
      connectedAt: Math.floor(this.#nowMs() / 1000),
      state: 'connected',
    }
    // A refresh of the connection that it replaces may be under way: what is newer wins.
    for (;;) {
      const present = await this.#rooms.connections.read(connector)
      if ((await this.#rooms.connections.write(connection, present?.version ?? 0)) !== undefined) return
    }
  }

  #fresh({ credential, human }: Connector, forMs: number): Connecting {
    return { credential, human: human ?? null, untilMs: this.#nowMs() + forMs, state: 'open' }
  }

  #request(state: string, verifier: string) {
    return { state, verifier: new Secret(verifier), redirectUri: `${this.#rooms.base}/callback` }
  }

  #nowMs(): number {
    return this.#rooms.clock.nowMs()
  }
}

function connectorOf({ credential, human }: Connecting): Connector {
  return { credential, human: human ?? undefined }
}

/** Why this answer makes no connection. */
function unfit(answer: TokenAnswer, scope: string | undefined): GatewayError | undefined {
  if (answer.refreshToken === undefined)
    return new GatewayError(
      'credential_rejected',
      'The authorization server gave no refresh token. Ask for one: with the scope offline_access, or with authorization_params such as { access_type: offline, prompt: consent }, as the server wants it.',
    )
  const excess = excessScope(scope, answer.scope)
  if (excess.length === 0) return undefined
  return new GatewayError(
    'credential_too_wide',
    `The authorization server granted scope that was not asked for: ${scopeWords(excess)}.`,
  )
}

function digest(text: string): string {
  return hash('sha256', text, 'base64url')
}

function isSame(one: string, other: string): boolean {
  const [a, b] = [Buffer.from(one), Buffer.from(other)]
  return a.length === b.length && timingSafeEqual(a, b)
}

function foreign(): GatewayError {
  return invalid(
    'This answer belongs to no connection that this browser has begun. Begin again with the link that you were given.',
  )
}

function used(): GatewayError {
  return invalid('This link was used already. Ask for another one: keyless connect.')
}

function invalid(detail: string): GatewayError {
  return new GatewayError('instruction_invalid', detail)
}
