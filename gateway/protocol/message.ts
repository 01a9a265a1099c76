/**
 * The two sides of a proxied request. All ingress shapes become one `Inbound`; what leaves is an `Outbound`.
 * Headers are flat lists (`name, value, name, value`) in the order and case received, as Node and undici use them.
 */
import type { ServerResponse } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { Confirmation, Grant } from './grant.ts'
import type { Meter } from './meter.ts'
import type { Secret } from './secret.ts'
import type { Service } from './service.ts'

/** Flat header list: even indexes are names, odd indexes values (latin1). */
export type RawHeaders = readonly string[]

export type Mode = 'forward' | 'intercept' | 'reverse'

/** What the caller presented to say who it is. `user` is what came before the colon of Basic, a hint for logs only. */
export interface Presented {
  readonly token: string
  /** `dpop`: along with a proof of the key that it is bound to (RFC 9449 §7.1). */
  readonly scheme: 'basic' | 'bearer' | 'dpop' | 'slot'
  readonly user?: string
}

/** The part of Node's response that a reply needs; `http2` compatibility responses have the same shape. */
export type Reply = Pick<
  ServerResponse,
  | 'writeHead'
  | 'write'
  | 'end'
  | 'destroy'
  | 'on'
  | 'once'
  | 'off'
  | 'addTrailers'
  | 'headersSent'
  | 'writableEnded'
  | 'destroyed'
  | 'writableNeedDrain'
  | 'flushHeaders'
>

/** A request that asks for its connection (RFC 9110 §7.8). Refused or answered like any other, or taken over by `accept`. */
export interface Upgrade {
  readonly protocol: 'websocket'
  /** Answer 101 with these fields, and have the connection. Once, and only while `reply` has sent nothing. */
  accept(headers: RawHeaders): Duplex
}

/** One request as it came in. Everything here is controlled by the agent until `locate()` and `authenticate()` have run. */
export interface Inbound {
  /** UUIDv7. Request id, event id and the `instance` of a refusal. */
  readonly id: string
  readonly tenant: string
  readonly mode: Mode
  readonly method: string
  readonly scheme: 'http' | 'https'
  /** Host of the target, lower case, no brackets, no trailing dot. */
  readonly host: string
  readonly port: number
  /** Path and query, byte for byte as received (origin form, or what followed the authority in absolute form). */
  readonly rawPath: string
  readonly rawHeaders: RawHeaders
  /** Host field as received; must name the same place as `host` and `port`. */
  readonly hostHeader: string | undefined
  readonly presented: Presented | null
  /** Keys that the caller proved to have with this very request: by DPoP, by its TLS certificate. */
  readonly proof?: Confirmation
  /** In reverse mode, the service named by the route; the agent's credential sat in its slot. */
  readonly route?: string
  readonly client: { readonly address: string; readonly userAgent: string | undefined }
  readonly body: Readable | null
  /** Only where a grant looks into bodies: `body`, read whole before the decision. Exactly these bytes are sent. */
  readonly content?: Content
  readonly upgrade?: Upgrade
  readonly reply: Reply
}

export interface Content {
  readonly bytes: Buffer
  /** What the bytes say, read in the one way that every reader agrees on. */
  readonly json: unknown
}

/** One request as it goes out, after `cleanse` and `attach`. */
export interface Outbound {
  readonly method: string
  readonly service: Service
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  /** Path and query as sent; equals the inbound bytes unless the credential is placed there. */
  readonly path: string
  readonly headers: RawHeaders
  readonly body: Readable | Buffer | null
  /** What the call may still carry; absent: as much as it likes. */
  readonly meter?: Meter
  /** Present: the connection is asked for; what flows on it afterwards is frames. */
  readonly upgrade?: Upgrade
  /** Under which it is made. What outlasts its head is cut when this ends. */
  readonly grant: Grant
  /** Upstream sockets are shared only between requests with equal keys: tenant and grant. */
  readonly isolation: string
  /** Values that must not come back to the agent, in any encoding. */
  readonly secrets: readonly Secret[]
}

/** How a forwarded call ended; written into the outcome entry. */
export interface Outcome {
  readonly status: number
  /** Bytes of body received from the agent and sent upstream. */
  readonly sentBytes: number
  /** Bytes of body received from upstream and sent to the agent. */
  readonly receivedBytes: number
  /** Times a credential was found in the answer and removed. */
  readonly scrubbed: number
  /** Address that was dialled. */
  readonly address: string | undefined
  /** Stable code when the exchange broke off after the head was sent; `client_left` when the agent went away. */
  readonly error: string | undefined
}
