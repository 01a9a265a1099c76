/**
 * TLS on the TCP listeners of both doors. A client may show a certificate, and the handshake proves that it has the key
 * (RFC 8446 §4.4.3); whose certificate that is, and whether it counts, is for the room `identity`. A header that claims to carry
 * a certificate is never looked at (RFC 8705 §6.5): whoever ends TLS in front of a door ends mTLS there.
 */
import { constants } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { createSecureContext, type Server, TLSSocket, type TlsOptions } from 'node:tls'

/** PEM files, absolute. */
export interface TlsFiles {
  /** Certificate of this door, and the intermediates below its root. */
  readonly cert: string
  readonly key: string
  /** CAs that clients are told of, so that one with several certificates sends the right one. They decide nothing. */
  readonly clientCa: readonly string[]
}

/** Files are looked at this often: whoever renews certificates need not restart the gateway. */
const RENEWAL_MS = 60_000
const HANDSHAKE_TIMEOUT_MS = 10_000
/** Certificates of one client that are looked at. A longer chain is refused where it is verified. */
const MAX_CHAIN = 16

interface Material {
  readonly cert: string
  readonly key: string
  readonly ca?: string[]
}

/** What the listener is made with. @throws {Error} that says which file of `files` cannot be used. */
export function tlsOptions(files: TlsFiles): TlsOptions {
  return { ...RULES, ...materialOf(files), handshakeTimeout: HANDSHAKE_TIMEOUT_MS }
}

/**
 * Take over renewed files while the door is open. Files that cannot be used are reported and change nothing.
 * @returns what ends it.
 */
export function renewTls(
  server: Pick<Server, 'setSecureContext'>,
  files: TlsFiles,
  report: (cause: unknown) => void,
): () => void {
  let last = JSON.stringify(materialOf(files))
  const timer = setInterval(() => {
    try {
      const material = materialOf(files)
      const text = JSON.stringify(material)
      if (text === last) return
      server.setSecureContext({ ...RULES, ...material })
      last = text
    } catch (cause) {
      report(cause)
    }
  }, RENEWAL_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/**
 * The certificates that the client of this connection proved to hold the key of: DER, leaf first. Undefined without TLS and
 * when it showed none. Nothing but possession is verified.
 */
export function certificatesOf(socket: Socket): readonly Buffer[] | undefined {
  if (!(socket instanceof TLSSocket)) return undefined
  const chain: Buffer[] = []
  let next = socket.getPeerX509Certificate()
  while (next !== undefined && chain.length < MAX_CHAIN) {
    chain.push(next.raw)
    next = next.issuerCertificate
  }
  return chain.length === 0 ? undefined : chain
}

const RULES = {
  minVersion: 'TLSv1.2',
  requestCert: true,
  rejectUnauthorized: false,
  // A resumed session has the leaf without its intermediates; and who is on a connection must not change while it lasts.
  secureOptions: constants.SSL_OP_NO_TICKET | constants.SSL_OP_NO_RENEGOTIATION,
} as const satisfies TlsOptions

function materialOf({ cert, key, clientCa }: TlsFiles): Material {
  const material = {
    cert: readFileSync(cert, 'utf8'),
    key: readFileSync(key, 'utf8'),
    ...(clientCa.length > 0 && { ca: clientCa.map((file) => readFileSync(file, 'utf8')) }),
  }
  createSecureContext(material) // says now what a handshake would say to every client
  return material
}
