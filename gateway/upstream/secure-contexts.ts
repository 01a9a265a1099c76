/** What the gateway trusts in TLS with the far side, and what it shows of itself. */
import { createSecureContext, type SecureContext, type SecureContextOptions } from 'node:tls'
import type { ClientCertificate } from '../protocol/message.ts'

/** The context for connections that show this certificate; without one, for those that show nothing. */
export type ContextFor = (certificate?: ClientCertificate) => SecureContext

const BASE: SecureContextOptions = { minVersion: 'TLSv1.2' }

/** @param ca roots in PEM, trusted besides the system's. */
export function createContexts(ca: readonly string[]): ContextFor {
  const plain = trusting(createSecureContext(BASE), ca)
  /** Made once for each certificate. The key in it dies with the certificate. */
  const shown = new WeakMap<ClientCertificate, SecureContext>()
  return (certificate) => {
    if (certificate === undefined) return plain
    const known = shown.get(certificate)
    if (known !== undefined) return known
    const made = trusting(certificate.secureContext(BASE), ca)
    shown.set(certificate, made)
    return made
  }
}

/**
 * Roots added as `createSecureContext` itself adds them. Its option `ca` would take the place of the system's roots, and naming those too
 * has all hundred and fifty parsed again, for tens of milliseconds in which nobody is served.
 */
function trusting(context: SecureContext, ca: readonly string[]): SecureContext {
  for (const root of ca) context.context.addCACert(root)
  return context
}
