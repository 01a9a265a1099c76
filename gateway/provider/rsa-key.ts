/** RSA keys by which the gateway signs towards an issuer that knows their other half: GitHub Apps, Google service accounts, Entra certificates. */
import { createPrivateKey, type KeyObject } from 'node:crypto'
import { GatewayError } from '../protocol/problem.ts'

/**
 * @param pem PKCS#8 or PKCS#1, not encrypted. Text beside the key, such as a certificate, does no harm.
 * @param whose how messages call it: `private_key of the GitHub App`.
 * @throws {GatewayError} `credential_unconfigured`. Parser errors quote their input, which is a private key: nothing of them is kept.
 */
export function rsaPrivateKey(pem: string, whose: string): KeyObject {
  let key: KeyObject | undefined
  try {
    key = createPrivateKey(pem)
  } catch {}
  // RFC 7518 §3.3: at least 2048 bits.
  if (key?.asymmetricKeyType === 'rsa' && (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048) return key
  throw new GatewayError(
    'credential_unconfigured',
    `The ${whose} cannot be used: it is not an unencrypted RSA private key in PEM of 2048 bits or more.`,
  )
}
