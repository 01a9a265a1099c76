/**
 * TLS between agents and the proxy door, before any HTTP: ends it, and says what certificate the client proved to have. The
 * certificate belongs to the connection, so it counts for every request on it and in its tunnels.
 */
import type { Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { certificatesOf, renewTls, type TlsFiles, tlsOptions } from '../door-tls.ts'
import { proofOf } from '../grant/life/living.ts'
import { asGatewayError, GatewayError } from '../protocol/problem.ts'
import { rawOf, type TlsComplaint } from './intercept.ts'
import type { Peer } from './line.ts'

export interface ProxyTls extends TlsFiles {
  /** Nothing is served to a connection without an X.509-SVID that is believed here. Default: certificates are optional. */
  readonly require?: 'svid'
}

/** @throws {GatewayError} `client_invalid`. @returns undefined where nobody's certificates are believed. */
export type VerifyClient = (evidence: { readonly certificates: readonly Buffer[] }) => Promise<unknown>

export interface ProxyTlsParts {
  readonly tls: ProxyTls
  readonly verifyClient: VerifyClient
  onSecure(raw: Socket, secure: TLSSocket, peer: Peer): void
  onTlsError(complaint: TlsComplaint): void
}

export interface SecureDoor {
  /** Take over a raw connection whose next bytes are a ClientHello. */
  accept(raw: Socket, peer: Peer): void
  close(): void
}

/** @throws {Error} that says which file cannot be used. */
export function createSecureDoor({ tls, verifyClient, onSecure, onTlsError }: ProxyTlsParts): SecureDoor {
  /** raw socket → what was known of it before its handshake */
  const peers = new WeakMap<Socket, Peer>()
  const server = createServer({ ...tlsOptions(tls), ALPNProtocols: ['http/1.1'] })
  server.on('secureConnection', (secure) => {
    const raw = rawOf(secure)
    const peer = raw && peers.get(raw)
    secure.on('error', ignore) // it has no other owner while its certificate is looked at
    if (raw === undefined || peer === undefined)
      secure.destroy() // whose connection this is cannot be told
    else void known(secure, peer).then((found) => onSecure(raw, secure, found))
  })
  server.on('tlsClientError', (error: NodeJS.ErrnoException, secure) => {
    const code = error.code ?? error.name
    onTlsError({ host: 'listen.proxy', code, userAgent: undefined, text: complaint(code) })
    secure.destroy()
  })
  const stopRenewal = renewTls(server, tls, (cause) => {
    onTlsError({ host: 'listen.proxy', code: 'RENEWAL', userAgent: undefined, text: unrenewed(cause) })
  })

  async function known(secure: TLSSocket, { address }: Peer): Promise<Peer> {
    const certificates = certificatesOf(secure)
    const proof = certificates && proofOf({ certificates }, undefined)
    if (tls.require === undefined) return { address, proof }
    return { address, proof, refusal: await refusalFor(certificates, verifyClient) }
  }

  return {
    accept(raw, peer) {
      peers.set(raw, peer)
      raw.allowHalfOpen = false // a client that ends its side in the handshake is gone
      server.emit('connection', raw)
    },
    close: stopRenewal,
  }
}

async function refusalFor(
  certificates: readonly Buffer[] | undefined,
  verify: VerifyClient,
): Promise<GatewayError | undefined> {
  try {
    if (certificates !== undefined && (await verify({ certificates })) !== undefined) return undefined
  } catch (cause) {
    return asGatewayError(cause)
  }
  return new GatewayError(
    'client_invalid',
    'This door asks for a client certificate, an X.509-SVID of a trust domain under trust.x509. Connect with one (curl: --proxy-cert and --proxy-key).',
  )
}

function complaint(code: string): string {
  const remedy =
    'Give clients the CA of listen.proxy_tls.cert (curl: --proxy-cacert) and a name that the certificate has.'
  return `A client could not set up TLS with the proxy door (${code}). ${remedy}`
}

function unrenewed(cause: unknown): string {
  return `The files of listen.proxy_tls cannot be taken over, so the certificate before them stays: ${(cause as Error).message}`
}

/** Whoever reads or writes next sees that the socket is destroyed. */
function ignore(): void {}
