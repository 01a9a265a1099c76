/** What the gateway trusts in TLS with the far side, and what it shows of itself. */
import { createSecureContext, getCACertificates, type SecureContext, type SecureContextOptions } from 'node:tls'
import type { ClientCertificate } from '../protocol/message.ts'

/** The context for connections that show this certificate; without one, for those that show nothing. */
export type ContextFor = (certificate?: ClientCertificate) => SecureContext

/** @param ca roots in PEM, trusted besides the system's. */
export function createContexts(ca: readonly string[]): ContextFor {
  const roots = ca.length === 0 ? {} : { ca: [...getCACertificates('default'), ...ca] }
  const base: SecureContextOptions = { minVersion: 'TLSv1.2', ...roots }
  const plain = createSecureContext(base)
  /** Made once for each certificate: parsing all the roots takes milliseconds. The key in it dies with the certificate. */
  const shown = new WeakMap<ClientCertificate, SecureContext>()
  return (certificate) => {
    if (certificate === undefined) return plain
    const known = shown.get(certificate)
    if (known !== undefined) return known
    const made = certificate.secureContext(base)
    shown.set(certificate, made)
    return made
  }
}
