/** A credential that is shown in TLS: certificate and key, in the parts of a credential. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { createSecureContext } from 'node:tls'
import type { ClientCertificate } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import type { Secret } from '../../protocol/secret.ts'
import type { Credential } from '../provider.ts'

/** Private key → what is shown with it; made once for each credential, because connections are shared by it. */
const made = new WeakMap<Secret, ClientCertificate>()

/**
 * The certificate in part `certificate` (PEM, the leaf first, then what leads to a root), with the key in part `private_key`, or else in
 * the secret itself.
 * @throws {GatewayError} `credential_unconfigured` for a credential without one, `credential_rejected` for one that is none.
 */
export function certificateOf(credential: Pick<Credential, 'secret' | 'parts'>): ClientCertificate {
  const cert = credential.parts?.certificate
  const key = credential.parts?.private_key ?? credential.secret
  if (cert === undefined) {
    throw new GatewayError(
      'credential_unconfigured',
      'The service wants a client certificate, and its credential has no part "certificate". Use provider mtls, or one whose parts are certificate and private_key.',
    )
  }
  const known = made.get(key)
  if (known !== undefined) return known
  const certificate = clientCertificate(cert.reveal(), key)
  made.set(key, certificate)
  return certificate
}

/** @param cert PEM, the leaf first. @param key PEM. @throws {GatewayError} `credential_rejected` */
export function clientCertificate(cert: string, key: Secret): ClientCertificate {
  return {
    id: fingerprint(cert, key),
    secureContext: (base) => createSecureContext({ ...base, cert, key: key.reveal() }),
  }
}

/** SHA-256 of the leaf, once it is known that the key is its own. */
function fingerprint(cert: string, key: Secret): string {
  let isOwn: boolean
  let leaf: X509Certificate
  try {
    leaf = new X509Certificate(cert)
    isOwn = leaf.checkPrivateKey(createPrivateKey(key.reveal()))
  } catch {
    throw unusable('it is no certificate and unencrypted private key in PEM')
  }
  if (!isOwn) throw unusable('the private key is not that of the certificate')
  return leaf.fingerprint256
}

function unusable(why: string): GatewayError {
  return new GatewayError('credential_rejected', `The client certificate cannot be shown: ${why}. Check its source.`)
}
