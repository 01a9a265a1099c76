/** A throw-away certificate authority with one leaf, made at start and forgotten at the end. For the demo and tests only. */
import '../../gateway/protocol/reflect.ts'
import { randomBytes, webcrypto } from 'node:crypto'
import { isIP } from 'node:net'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  PemConverter,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509CertificateGenerator,
} from '@peculiar/x509'

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const DAY_MS = 86_400_000

export interface ThrowAwayTls {
  readonly caPem: string
  readonly key: string
  /** Leaf, then root. */
  readonly cert: string
}

/** @param names host names and IP addresses of the leaf. Valid for a week, and from an hour ago. */
export async function throwAwayTls(names: readonly string[]): Promise<ThrowAwayTls> {
  const keys = await webcrypto.subtle.generateKey(ECDSA, true, ['sign', 'verify'])
  const leafKeys = await webcrypto.subtle.generateKey(ECDSA, true, ['sign', 'verify'])
  const validity = { notBefore: new Date(Date.now() - DAY_MS / 24), notAfter: new Date(Date.now() + 7 * DAY_MS) }
  const root = await X509CertificateGenerator.createSelfSigned({
    serialNumber: serial(),
    name: `CN=Keyless demo CA ${randomBytes(4).toString('hex')}`,
    ...validity,
    keys,
    signingAlgorithm: ECDSA,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      await SubjectKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  const leaf = await X509CertificateGenerator.create({
    serialNumber: serial(),
    subject: `CN=${names[0] ?? 'localhost'}`,
    issuer: root.subject,
    ...validity,
    publicKey: leafKeys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: ECDSA,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
      new SubjectAlternativeNameExtension(
        names.map((value) => (isIP(value) === 0 ? { type: 'dns', value } : { type: 'ip', value })),
      ),
      await AuthorityKeyIdentifierExtension.create(keys.publicKey),
      await SubjectKeyIdentifierExtension.create(leafKeys.publicKey),
    ],
  })
  const key = PemConverter.encode(
    await webcrypto.subtle.exportKey('pkcs8', leafKeys.privateKey),
    PemConverter.PrivateKeyTag,
  )
  return { caPem: `${root.toString('pem')}\n`, key, cert: `${leaf.toString('pem')}\n${root.toString('pem')}\n` }
}

/** Positive and minimal: the first bit is clear, the first byte is not zero. */
function serial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] ?? 0) & 0x7f) | 0x01
  return bytes.toString('hex')
}
