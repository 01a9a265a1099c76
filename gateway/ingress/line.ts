/**
 * What a proxy door remembers of each HTTP connection (a line) and of the CONNECT tunnel it may be the inside of. Nothing
 * about permission is kept here: every request is authenticated and decided again.
 */
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Desk } from '../protocol/desk.ts'
import type { Confirmation } from '../protocol/grant.ts'
import type { Presented } from '../protocol/message.ts'
import type { GatewayError } from '../protocol/problem.ts'
import type { Service } from '../protocol/service.ts'
import type { RequestRooms } from '../request-rooms.ts'

/** The other end of a connection, as far as the connection itself shows it. */
export interface Peer {
  /** As a balancer announced it, else of the socket. IPv4 is written as IPv4. */
  readonly address: string
  /** The TLS certificate whose key it proved to have: of the connection, and so of every request on it and in its tunnels. */
  readonly proof?: Confirmation | undefined
  /** Why no request on it is served. */
  readonly refusal?: GatewayError | undefined
}

/** A tunnel that was let in, by CONNECT or SOCKS: where it leads and who asked. */
export interface Tunnel extends Peer {
  /** What the bytes inside turned out to be. */
  readonly scheme: 'http' | 'https'
  readonly host: string
  readonly port: number
  /** Presented on the CONNECT; each request inside is authenticated with it again, so that expiry and revocation act at once. */
  readonly presented: Presented | null
  /** Of the CONNECT request, for messages about clients that never get to send a request. */
  readonly userAgent: string | undefined
  /** Server name of the TLS handshake when it is not `host`: every request inside is refused. */
  readonly foreignName: string | undefined
}

/** One connection that speaks HTTP to us, on the port itself or inside a tunnel. */
export interface Line extends Peer {
  readonly tunnel: Tunnel | null
  /** Requests without a complete answer. Counted by the listener. */
  busy: number
  /** Has any request come? */
  isUsed: boolean
  /** How its client is told to go elsewhere. Absent over HTTP/1.1, where it is closed after its last answer. */
  retire: (() => void) | undefined
  /** The latest of those over HTTP/1.1. */
  reply: ServerResponse | undefined
  /** Last Proxy-Authorization seen on this connection, parsed: most agents repeat it with every request. */
  credentialText: string | undefined
  presented: Presented | null
  /** Last Host field inside the tunnel that was found to name the tunnel's own place. */
  agreedHost: string | undefined
}

/** DPoP (RFC 9449), as the room of identities reads it. */
export interface Proofs {
  /** @throws {GatewayError} `dpop_invalid`, `dpop_nonce_required` */
  proof(dpop: string, request: { method: string; url: string; accessToken?: string }): Promise<{ readonly jkt: string }>
  /** A nonce for the next proof (§8). */
  nonce(): string
}

/** What the parts of a proxy door share. */
export interface Door {
  readonly tenant: string
  readonly rooms: RequestRooms
  /** Answers agents that ask the gateway itself. Absent: that name leads nowhere. */
  readonly desk?: Desk | undefined
  /** Service of a reverse route. */
  route(name: string): Service | undefined
  /** Milliseconds since the Unix epoch. */
  nowMs(): number
  /** Verifies what comes with grants that are bound to a key. Absent: none of them counts here. */
  readonly proofs: Proofs | undefined
  /** Where agents find this door, without trailing slash: what their proofs on reverse routes are about, whatever Host says. */
  url: string
  /** Our own port: an absolute-form request to it is a reverse route that came through the proxy setting. */
  port: number
  isDraining: boolean
  readonly lines: Map<Socket, Line>
  /** Know a connection of which it is not known yet what it speaks, or of which more is known now. */
  hold(socket: Socket, peer: Peer): void
  /** Let the HTTP parser have a connection that is known, or the inside of `tunnel`. */
  serveHttp(socket: Socket, tunnel: Tunnel | null): void
}

export function newLine(tunnel: Tunnel | null, { address, proof, refusal }: Peer): Line {
  return {
    tunnel,
    address,
    proof,
    refusal,
    busy: 0,
    isUsed: false,
    retire: undefined,
    reply: undefined,
    credentialText: undefined,
    presented: null,
    agreedHost: undefined,
  }
}
