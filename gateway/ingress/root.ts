/**
 * One root certificate and its key: how it is made and read, and what may be known of it. Strict verifiers decide the fields:
 * RFC 5280 key identifiers, a critical path length of 0, a name of its own, a positive minimal serial.
 */
import '../protocol/reflect.ts'
import {
  createPrivateKey,
  type KeyObject,
  randomBytes,
  X509Certificate as StoredCertificate,
  webcrypto,
} from 'node:crypto'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { type Constraints, constrainTo, constraintsOf } from './constraints.ts'

export interface Root {
  /** Place in the succession: the higher, the newer. */
  readonly number: number
  /** What agents are told to trust, PEM: its own certificate, or the last above it; of an operator's all of them. */
  readonly anchors: string
  /** What is sent behind a leaf, PEM: the certificate that signed it, and those above. */
  readonly chain: string
  /** P-256. */
  readonly key: KeyObject
  /** Of `key`. */
  readonly certificate: StoredCertificate
  /** The last of the chain. */
  readonly top: StoredCertificate
  /** DER: the subject of `certificate`, as leaves name it. */
  readonly subject: Buffer
  readonly keyId: Buffer
  readonly madeAtMs: number
  readonly endsAtMs: number
  /** Undefined: it may sign for any host. */
  readonly constraints: Constraints | undefined
  /** Brought by an operator as two plain files: it is theirs to replace. */
  readonly isOperators: boolean
}

export interface RootTerms {
  /** Hosts that it may sign for; undefined: any. */
  readonly hosts: readonly string[] | undefined
  readonly lifeMs: number
  readonly nowMs: number
  /** Begins the subject. */
  readonly title: string
}

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
/** Clocks of agents may be behind ours. */
export const BACKDATE_MS = 3_600_000

/**
 * A new root as one PEM text: key first, certificates after it, so that no crash or race leaves half of it.
 *
 * The key of a constrained root signs one certificate, that of an issuing CA, and is forgotten: verifiers may ignore what stands
 * in a certificate that they were told to trust (RFC 5280 §6.2; Java does), but never what stands in one below it.
 */
export async function makeRoot(terms: RootTerms): Promise<string> {
  const keys = await newKeys()
  const { hosts, title } = terms
  const root = await certify({ terms, subject: keys, signer: keys, title, pathLength: hosts === undefined ? 0 : 1 })
  if (hosts === undefined) return `${await keyText(keys)}${root.toString('pem')}\n`
  const issuing = await newKeys()
  const below = {
    terms,
    subject: issuing,
    signer: keys,
    issuer: root.subject,
    title: `${title} issuing`,
    pathLength: 0,
  }
  return `${await keyText(issuing)}${(await certify(below)).toString('pem')}\n${root.toString('pem')}\n`
}

type Keys = Awaited<ReturnType<typeof newKeys>>

function newKeys() {
  return webcrypto.subtle.generateKey(ECDSA, true, ['sign', 'verify'])
}

interface Authority {
  readonly terms: RootTerms
  readonly subject: Keys
  readonly signer: Keys
  /** Name of the signer. Default: its own. */
  readonly issuer?: string
  readonly title: string
  readonly pathLength: number
}

async function certify({ terms, subject, signer, issuer, title, pathLength }: Authority): Promise<X509Certificate> {
  const { hosts, lifeMs, nowMs } = terms
  const identifier = await SubjectKeyIdentifierExtension.create(subject.publicKey)
  // Roots that stand in one trust store must differ by name: OpenSSL looks issuers up by it.
  const name = `CN=${title} ${identifier.keyId.slice(0, 8)}`
  return X509CertificateGenerator.create({
    serialNumber: newSerial().toString('hex'),
    subject: name,
    issuer: issuer ?? name,
    notBefore: new Date(nowMs - BACKDATE_MS),
    notAfter: new Date(nowMs + lifeMs),
    publicKey: subject.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: ECDSA,
    extensions: [
      new BasicConstraintsExtension(true, pathLength, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      identifier,
      await AuthorityKeyIdentifierExtension.create(signer.publicKey),
      ...(hosts === undefined ? [] : [constrainTo(hosts)]),
    ],
  })
}

async function keyText({ privateKey }: Keys): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', privateKey))
  return String(createPrivateKey({ key: der, format: 'der', type: 'pkcs8' }).export({ type: 'pkcs8', format: 'pem' }))
}

const CERTIFICATE = /-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g

/** The PEM blocks of certificates in a text. */
export function certificatesIn(text: string): string[] {
  return text.match(CERTIFICATE) ?? []
}

/**
 * A root from its file.
 * @param published certificates of `ca.pem`, where that of an operator's own key is found, and those above it.
 * @throws Error when it is no P-256 key, or no CA certificate of it is found.
 */
export function readRoot(file: string, number: number, published: readonly string[]): Root {
  const key = createPrivateKey(file)
  if (key.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('not a P-256 key')
  const own = certificatesIn(file)
  const pool = (own.length > 0 ? own : published).map((pem) => new StoredCertificate(pem))
  const certificate = pool.find((candidate) => candidate.ca && candidate.checkPrivateKey(key))
  if (certificate === undefined) throw new Error('no CA certificate of this key')
  const decoded = new X509Certificate(certificate.raw)
  const identifier = decoded.getExtension(SubjectKeyIdentifierExtension)?.keyId
  const isOperators = own.length === 0
  const chain = [certificate, ...above(certificate, pool)]
  const top = chain.at(-1) as StoredCertificate
  return {
    number,
    anchors: textOf(isOperators ? chain : [top]),
    chain: textOf(chain),
    key,
    certificate,
    top,
    subject: Buffer.from(decoded.subjectName.toArrayBuffer()),
    keyId: Buffer.from(identifier ?? certificate.fingerprint256.replaceAll(':', '').slice(0, 40), 'hex'),
    madeAtMs: decoded.notBefore.getTime() + (isOperators ? 0 : BACKDATE_MS),
    endsAtMs: decoded.notAfter.getTime(),
    constraints: constraintsOf(decoded),
    isOperators,
  }
}

function textOf(certificates: readonly StoredCertificate[]): string {
  return certificates.map((one) => `${one.toString().trim()}\n`).join('')
}

/** Issuer after issuer, as far as they are there. */
function above(certificate: StoredCertificate, pool: readonly StoredCertificate[]): StoredCertificate[] {
  const chain: StoredCertificate[] = []
  let last = certificate
  for (;;) {
    const next = pool.find((one) => last.checkIssued(one) && one !== certificate && !chain.includes(one))
    if (next === undefined) return chain
    chain.push(next)
    last = next
  }
}

/** 126 random bits, as 16 bytes that begin with 01: positive, and no shorter encoding exists (RFC 5280 §4.1.2.2, X.690 §8.3.2). */
export function newSerial(): Buffer {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40
  return bytes
}
