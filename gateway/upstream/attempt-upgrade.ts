/**
 * A WebSocket handshake (RFC 6455 §4) with the upstream, on a connection of its own that speaks HTTP/1.1. Both sides get a
 * handshake of ours: the agent's key is answered by us, and the upstream answers ours. An answer other than 101 goes to the
 * agent like any other answer.
 */
import { randomBytes } from 'node:crypto'
import type { Duplex } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { Outbound, RawHeaders } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { valuesOf } from '../protocol/raw-headers.ts'
import { acceptOf } from '../protocol/websocket.ts'
import type { Answer, Source } from './answer.ts'
import { readFields } from './answer-fields.ts'
import type { AttemptOwner } from './attempt.ts'
import { Http1Attempt } from './attempt-http1.ts'
import { Connection } from './connection.ts'
import { readHead } from './head.ts'
import type { PoolOptions } from './lane.ts'
import type { Searcher } from './searcher.ts'

export interface UpgradeOwner extends AttemptOwner {
  /** 101, and checked: the connection is the upstream's side of the WebSocket. */
  upgraded(attempt: UpgradeAttempt, switched: Switched): void
  /** Before it is checked: so many credentials were overwritten in its head. */
  repeated(found: number): void
}

export interface Switched {
  readonly socket: Duplex
  /** For the agent. */
  readonly headers: RawHeaders
}

/** What of the agent's handshake is made anew. No extension is offered: compressed frames could not be searched. */
const OURS = /^sec-websocket-(?:key|version|extensions|accept)$/i
const NOT_FOR_AGENT = /^(?:sec-websocket-accept|content-length)$/i

/** Nobody else gets its connection. */
const DESTROYED = {
  release: (connection: Connection) => connection.destroy(),
  discard: (connection: Connection) => connection.destroy(),
}

export class UpgradeAttempt extends Http1Attempt {
  readonly #owner: UpgradeOwner
  readonly #outbound: Outbound
  readonly #searcher: Searcher | null
  readonly #key = randomBytes(16).toString('base64')

  constructor(
    owner: UpgradeOwner,
    answer: (source: Source) => Answer,
    o: { readonly outbound: Outbound; readonly searcher: Searcher | null; readonly options: PoolOptions },
  ) {
    super(owner, answer, DESTROYED, new Connection(o.outbound, { ticket: undefined }, o.options))
    this.#owner = owner
    this.#outbound = o.outbound
    this.#searcher = o.searcher
  }

  override send({ path, method, headers }: Outbound): void {
    const fields = [...without(headers, OURS), 'Sec-WebSocket-Version', '13', 'Sec-WebSocket-Key', this.#key]
    this.connection.client.dispatch({ path, method, headers: fields, body: null, upgrade: 'websocket' }, this)
  }

  onRequestUpgrade(controller: Dispatcher.DispatchController, _: number, __: unknown, socket: Duplex): void {
    const { secrets, service, headers: sent } = this.#outbound
    const { texts: fields, found } = readFields(controller.rawHeaders as readonly Buffer[], this.#searcher)
    if (found > 0) this.#owner.repeated(found)
    checkSwitch(fields, this.#key, offered(sent)) // what is thrown here comes back as onResponseError
    const isCredentialed = secrets.length > 0
    const terms = { slots: service.slots, isCredentialed, isSearched: true, searcher: this.#searcher }
    const { headers } = readHead({ status: 101, statusText: '', fields, hasBody: false }, terms)
    this.#owner.upgraded(this, { socket, headers: without(headers, NOT_FOR_AGENT) })
  }

  override onResponseStart(
    controller: Dispatcher.DispatchController,
    status: number,
    fields: unknown,
    statusText = '',
  ): void {
    if (status === 101) throw broken('it switched to no protocol')
    super.onResponseStart(controller, status, fields, statusText)
  }
}

/** RFC 6455 §4.1, on the server's handshake. @throws {GatewayError} `upstream_broken` */
function checkSwitch(fields: readonly string[], key: string, protocols: readonly string[]): void {
  const values = (name: string) => valuesOf(fields, name)
  if (values('upgrade').join().toLowerCase() !== 'websocket') throw broken('it switched to another protocol')
  if (values('sec-websocket-accept').join() !== acceptOf(key)) throw broken('it did not answer the key')
  if (values('sec-websocket-extensions').length > 0) throw broken('it wants an extension that was not offered')
  const [chosen, ...others] = values('sec-websocket-protocol')
  if (others.length > 0 || (chosen !== undefined && !protocols.includes(chosen)))
    throw broken('it chose a subprotocol that was not offered')
}

/** Subprotocols that the upstream may choose from. */
function offered(headers: RawHeaders): string[] {
  return valuesOf(headers, 'sec-websocket-protocol').flatMap((list) =>
    list.split(',').map((protocol) => protocol.trim()),
  )
}

function without(headers: RawHeaders, names: RegExp): string[] {
  return headers.filter((_, i) => !names.test(headers[i - (i % 2)] as string))
}

function broken(what: string): GatewayError {
  return new GatewayError('upstream_broken', `The upstream's WebSocket handshake is not valid: ${what}.`)
}
