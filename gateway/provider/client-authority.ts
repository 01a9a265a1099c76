/**
 * Certificates by which the gateway shows an upstream for whom it calls. Their authority is one of its own: it never signs for a host, and
 * what signs for hosts (`ingress/root.ts`) never signs these. Where it is kept, nobody here knows.
 */
import '../protocol/reflect.ts' // before @peculiar/x509
import {
  createPrivateKey,
  generateKeyPairSync,
  type KeyObject,
  randomBytes,
  X509Certificate as StoredCertificate,
  type webcrypto as Web,
  webcrypto,
} from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  type Extension,
  KeyUsageFlags,
  KeyUsagesExtension,
  Name,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { Secret } from '../protocol/secret.ts'

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** Clocks of upstreams may be behind ours. */
const BACKDATE_MS = 300_000
const ROOT_LIFE_MS = 5 * 365 * 86_400_000
/** RFC 5280 upper bounds of a common name and of an organizational unit. */
const MAX_NAME = 64

/** A key that signs, with its certificate. */
export interface ClientRoot {
  readonly key: KeyObject
  readonly certificate: StoredCertificate
}

/** Whom a certificate is for. */
export interface ClientTerms {
  /** Its one subject alternative name. */
  readonly uri: string
  readonly agent: string
  readonly task: string
  readonly lineageHash: string
  readonly nowMs: number
  readonly lifeS: number
}

export interface Certified {
  /** PEM. */
  readonly certificate: Secret
  /** PKCS #8 PEM of a P-256 key that only this certificate has. */
  readonly privateKey: Secret
  /** Epoch seconds. */
  readonly expiresAt: number
}

/** A new root as one PEM text, key first. */
export async function makeClientRoot(nowMs: number): Promise<string> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const identifier = await SubjectKeyIdentifierExtension.create(await imported(publicKey))
  // Roots that stand in one trust store must differ by name: OpenSSL looks issuers up by it.
  const name = nameOf([['CN', `Keyless client CA ${identifier.keyId.slice(0, 8)}`]])
  const root = await signed({
    ...{ subject: name, issuer: name, publicKey, key: privateKey },
    ...{ notBeforeMs: nowMs - BACKDATE_MS, notAfterMs: nowMs + ROOT_LIFE_MS },
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      // Where it is trusted for more than it is meant for, what it signs is still no certificate of a server.
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
      identifier,
    ],
  })
  return `${privateKey.export({ type: 'pkcs8', format: 'pem' })}${root.toString('pem')}\n`
}

/** @throws {Error} when the text holds no P-256 key with the CA certificate of it. */
export function readClientRoot(text: string): ClientRoot {
  const key = createPrivateKey(text)
  const certificate = new StoredCertificate(text.slice(text.indexOf('-----BEGIN CERTIFICATE-----')))
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1' || !certificate.ca || !certificate.checkPrivateKey(key))
    throw new Error('it holds no P-256 key with the CA certificate of it')
  return { key, certificate }
}

/** A certificate for a key of its own, which ends with it. */
export async function certifyClient({ key, certificate }: ClientRoot, terms: ClientTerms): Promise<Certified> {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const { agent, task, lineageHash, uri, nowMs, lifeS } = terms
  const root = new X509Certificate(certificate.raw)
  const expiresAt = Math.min(Math.floor(nowMs / 1000) + lifeS, Math.floor(root.notAfter.getTime() / 1000))
  const leaf = await signed({
    subject: nameOf([
      ['CN', agent],
      ['OU', `task ${task}`],
      ['OU', `lineage ${lineageHash}`],
    ]),
    issuer: root.subjectName,
    publicKey,
    key,
    notBeforeMs: nowMs - BACKDATE_MS,
    notAfterMs: expiresAt * 1000,
    extensions: [
      new BasicConstraintsExtension(false, undefined, true),
      new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
      new ExtendedKeyUsageExtension([ExtendedKeyUsage.clientAuth]),
      new SubjectAlternativeNameExtension([{ type: 'url', value: uri }]),
      await SubjectKeyIdentifierExtension.create(await imported(publicKey)),
      await AuthorityKeyIdentifierExtension.create(root.publicKey),
    ],
  })
  return {
    certificate: new Secret(`${leaf.toString('pem')}\n`),
    privateKey: new Secret(String(privateKey.export({ type: 'pkcs8', format: 'pem' }))),
    expiresAt,
  }
}

function nameOf(attributes: readonly (readonly [type: string, value: string])[]): Name {
  return new Name(attributes.map(([type, value]) => ({ [type]: [{ utf8String: value.slice(0, MAX_NAME) }] })))
}

interface Unsigned {
  readonly subject: Name
  readonly issuer: Name
  readonly publicKey: KeyObject
  readonly key: KeyObject
  readonly notBeforeMs: number
  readonly notAfterMs: number
  readonly extensions: Extension[]
}

async function signed({ subject, issuer, publicKey, key, extensions, ...times }: Unsigned): Promise<X509Certificate> {
  const serial = randomBytes(16)
  serial[0] = ((serial[0] as number) & 0x3f) | 0x40 // positive, and no shorter encoding exists (RFC 5280 §4.1.2.2)
  return X509CertificateGenerator.create(
    {
      serialNumber: serial.toString('hex'),
      subject: subject.toJSON(),
      issuer: issuer.toJSON(),
      notBefore: new Date(times.notBeforeMs),
      notAfter: new Date(times.notAfterMs),
      publicKey: await imported(publicKey),
      signingKey: key.toCryptoKey(ECDSA, false, ['sign']),
      signingAlgorithm: ECDSA,
      extensions,
    },
    webcrypto as Crypto,
  )
}

async function imported(publicKey: KeyObject): Promise<Web.CryptoKey> {
  return publicKey.toCryptoKey(ECDSA, true, ['verify'])
}
