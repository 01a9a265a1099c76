/** Certificates made on the spot. */
import '../../gateway/protocol/reflect.ts' // before @peculiar/x509

import { KeyObject, type webcrypto as Web, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const DAY_MS = 86_400_000

export interface Authority {
  readonly pem: string
  issue(names: readonly string[], change?: { notAfter?: Date }): Promise<{ cert: string; key: string }>
}

/** @param name of its root: verifiers look issuers up by it. */
export async function makeAuthority(name = 'Test Root'): Promise<Authority> {
  x509.cryptoProvider.set(webcrypto as Crypto)
  const keys = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as Web.CryptoKeyPair
  const root = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: '01',
    name: `CN=${name}`,
    notBefore: new Date(Date.now() - 2 * DAY_MS),
    notAfter: new Date(Date.now() + DAY_MS),
    keys,
    signingAlgorithm: algorithm,
    extensions: [new x509.BasicConstraintsExtension(true, undefined, true)],
  })
  return {
    pem: root.toString('pem'),
    async issue(names, { notAfter = new Date(Date.now() + DAY_MS) } = {}) {
      const own = (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as Web.CryptoKeyPair
      const leaf = await x509.X509CertificateGenerator.create({
        serialNumber: '02',
        subject: `CN=${names[0]}`,
        issuer: root.subject,
        notBefore: new Date(Date.now() - 2 * DAY_MS),
        notAfter,
        publicKey: own.publicKey,
        signingKey: keys.privateKey,
        signingAlgorithm: algorithm,
        extensions: [
          new x509.SubjectAlternativeNameExtension(
            names.map((name) => ({ type: /^[\d.:]+$/.test(name) ? ('ip' as const) : ('dns' as const), value: name })),
          ),
        ],
      })
      const key = KeyObject.from(own.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString()
      return { cert: leaf.toString('pem'), key }
    },
  }
}
