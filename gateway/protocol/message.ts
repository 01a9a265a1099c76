/**
 * The two sides of a proxied request. All ingress shapes become one `Inbound`; what leaves is an `Outbound`.
 * Headers are flat lists (`name, value, name, value`) in the order and case received, as Node and undici use them.
 */
import type { Duplex, Readable } from 'node:stream'
import type { SecureContext, SecureContextOptions } from 'node:tls'
import type { AwsClaim } from './aws-claim.ts'
import type { Standing } from './decision.ts'
import type { Confirmation, Grant } from './grant.ts'
import type { Meter } from './meter.ts'
import type { GatewayError } from './problem.ts'
import type { Secret } from './secret.ts'
import type { Service, Slot } from './service.ts'

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

type ReplyEvent = 'close' | 'drain' | 'finish'

/** The part of Node's `ServerResponse` that a reply needs; over HTTP/2 it is `ingress/http2-reply.ts`. */
export interface Reply {
  readonly headersSent: boolean
  readonly writableEnded: boolean
  readonly writableNeedDrain: boolean
  readonly destroyed: boolean
  /** The answer may be complete before the request is (RFC 9113 §8.1). Absent over HTTP/1.1, where the connection would be lost. */
  readonly mayAnswerEarly?: boolean
  /** False: the connection ends with this answer, and no request behind it is served. Absent over HTTP/2. */
  shouldKeepAlive?: boolean
  writeHead(status: number, headers: string[]): unknown
  writeHead(status: number, reason: string, headers: string[]): unknown
  flushHeaders(): void
  write(bytes: Buffer | string): boolean
  addTrailers(pairs: [string, string][]): void
  end(): unknown
  end(bytes: Buffer | string): unknown
  end(text: string, encoding: BufferEncoding): unknown
  /** Cut it: whoever reads it must see that something is missing. */
  destroy(): unknown
  /** `close` comes once, also when the agent leaves before the end. */
  on(event: ReplyEvent, listener: () => void): unknown
  once(event: ReplyEvent, listener: () => void): unknown
  off(event: ReplyEvent, listener: () => void): unknown
}

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
  readonly proof?: Confirmation | undefined
  /** In reverse mode, the service named by the route; the agent's credential sat in its slot. */
  readonly route?: string | undefined
  readonly client: { readonly address: string; readonly userAgent: string | undefined }
  /** `traceparent` as sent, if it is one and the only one (`trace.ts`). */
  readonly trace?: string | undefined
  /** `sha256:` and base64url, as the caller gave it for the prompt behind this request (`prompt-hash.ts`). */
  readonly promptHash?: string | undefined
  readonly body: Readable | null
  /** It came over HTTP/2, and goes on over HTTP/2 where the upstream offers that. */
  readonly isHttp2?: boolean
  /**
   * Only where a grant looks into bodies, or where a service takes credentials there or signs them: `body`, read whole before the
   * decision, without what stood in slots. Exactly these bytes are sent, but for a credential of ours.
   */
  readonly content?: Content
  readonly upgrade?: Upgrade
  readonly reply: Reply
}

/** What of a request says where it leads, and as which operation. */
export type Destination = Pick<
  Inbound,
  'mode' | 'method' | 'scheme' | 'host' | 'port' | 'rawPath' | 'rawHeaders' | 'hostHeader' | 'route' | 'content'
>

export interface Content {
  readonly bytes: Buffer
  /** What the bytes say, read in the one way that every reader agrees on. Undefined: they are no JSON. */
  readonly json?: unknown
  /** Of a form that says what the request asks for: as it came. */
  readonly form?: string
  /** What the agent had put into slots. */
  readonly taken: readonly SlotValue[]
}

/** What stood where a service takes a credential. */
export interface SlotValue {
  readonly slot: Slot
  readonly value: string
}

/** Head of an upstream's answer. */
export interface AnswerHead {
  readonly status: number
  /** `name, value, …`, bytes as received. */
  readonly raw: readonly Buffer[]
  /** What followed, whole and as received: only where `isRejection` asked for it. */
  readonly body?: Buffer
}

/** `body`: only a body can say, and it is asked again with that, if that is small. */
export type Rejection = boolean | 'body'

/** What the gateway shows of itself to an upstream in TLS. */
export interface ClientCertificate {
  /** Tells one from another: connections are shared only between requests that show the same. Not secret. */
  readonly id: string
  /** With certificate and key, and `base` for everything else. The key leaves `provider/` in no other form. */
  secureContext(base: SecureContextOptions): SecureContext
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
  /** To be sent over HTTP/2 where the upstream offers that; otherwise, and by default, over HTTP/1.1. */
  readonly isHttp2?: boolean
  /** What the call may still carry; absent: as much as it likes. */
  readonly meter?: Meter | undefined
  /** Present: the connection is asked for; what flows on it afterwards is frames. */
  readonly upgrade?: Upgrade | undefined
  /** Under which it is made. What outlasts its head is cut when this ends. */
  readonly grant: Grant
  /** On what it was decided: what outlasts its head is decided again. */
  readonly standing: Standing
  /** Upstream sockets are shared only between requests with equal keys: tenant and grant. */
  readonly isolation: string
  /** Values that must not come back to the agent, in any encoding. */
  readonly secrets: readonly Secret[]
  /** Shown in TLS. Default: none. */
  readonly certificate?: ClientCertificate
  /** What the agent's own AWS signature claimed, where the service is signed that way; the signature itself is gone. */
  readonly signed?: AwsClaim
  /** Whether an answer of 4xx says that the credential is not taken. Default: status 401. */
  readonly isRejection?: ((answer: AnswerHead) => Rejection) | undefined
  /** Codings that the agent can undo, as it said; the upstream is asked for `identity`. Absent: it said nothing. */
  readonly acceptEncoding?: string | undefined
  /** Present: the answer is itself a credential, and the agent gets something that stands for it. */
  readonly capture?: Capture
  /** JSON pointers to what policy keeps back of the answer (`upstream/redact.ts`). */
  readonly redact?: readonly string[] | undefined
  /** Looks at every piece of the body before it leaves. */
  readonly censor?: Censor | undefined
}

/** What becomes of an answer that holds credentials (`upstream/capture.ts`). */
export interface Capture {
  /** Where they are: JSON pointers, `*` for any member. */
  readonly pointers: readonly string[]
  /**
   * Keep these values for the grant, recorded and sealed.
   * @returns what stands for each, in the same order.
   * @throws {GatewayError} `answer_withheld`, `grant_revoked`, as rejection.
   */
  keep(found: readonly Captive[]): Promise<readonly string[]>
}

/** A credential in an answer. */
export interface Captive {
  readonly secret: Secret
  /** Beginning of what stands for it, so that clients take it for one of its kind; tells nothing that is secret. */
  readonly look: string
  /** When it ends, as the answer says it: epoch seconds, or seconds from now. */
  readonly expiresAt: number | undefined
  readonly expiresInS: number | undefined
}

/** Told of a body, or of messages, as they pass, in order. */
export interface Censor {
  /**
   * @param isLast the message is complete with these: the next ones are looked at without them.
   * @returns the refusal if these bytes, together with those before, must not leave.
   */
  look(chunk: Buffer, isLast?: boolean): GatewayError | undefined
  /** The same of bytes that stand by themselves, in the middle of a message or not. */
  lookAlone(bytes: Buffer): GatewayError | undefined
}

/** Something in a request that looks like a credential, and is none of ours. */
export interface Sighting {
  /** Id of the pattern: `github`, `privatekey`; `slot`: it stands where the service takes credentials. */
  readonly rule: string
  /** `header x-note`, `path or query`, `body`, or the name of the slot. */
  readonly where: string
}

/**
 * Why something that never became a request or an instruction was turned away. Nobody is known by then and it costs nothing to
 * send, so it is counted and has no entry of its own.
 */
export type TurnedAway = 'malformed' | 'unanswered' | 'connections' | 'protocol' | 'web_page' | 'host' | 'busy'

/** Where in an answer credentials were found, and how many. */
export type Leaks = Readonly<Partial<Record<'head' | 'body' | 'trailer' | 'frame', number>>>

/** How a forwarded call ended; written into the outcome entry. */
export interface Outcome {
  readonly status: number
  /** Bytes of body received from the agent and sent upstream. */
  readonly sentBytes: number
  /** Bytes of body received from upstream and sent to the agent. */
  readonly receivedBytes: number
  /** `hmac:` of the bytes of body that were sent upstream; absent when there were none, or settings want none. */
  readonly sentHash?: string | undefined
  /** `hmac:` of the bytes of body that the upstream sent, before anything was decoded, overwritten or coded again. */
  readonly receivedHash?: string | undefined
  /** Times a credential was found in the answer and removed. */
  readonly scrubbed: number
  /** The same by place; absent when there was none. */
  readonly leaks?: Leaks
  /** Address that was dialled. */
  readonly address: string | undefined
  /** Stable code when the exchange broke off after the head was sent; `client_left` when the agent went away. */
  readonly error: string | undefined
}
