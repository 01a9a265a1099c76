/**
 * A SPIFFE trust domain that signs X.509-SVIDs field by field as SPIRE's server does by default: subjects, validity, key usages,
 * key identifiers, which extensions are critical. Every field can be made wrong.
 */
import '../../gateway/protocol/reflect.ts' // before @peculiar/x509
import { createHash, KeyObject, randomBytes, type webcrypto as Web, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' }
const { digitalSignature, keyEncipherment, keyAgreement, keyCertSign, cRLSign } = x509.KeyUsageFlags
export const USAGES = { digitalSignature, keyEncipherment, keyAgreement, keyCertSign, cRLSign }
const { clientAuth, serverAuth } = x509.ExtendedKeyUsage
export const PURPOSES = { clientAuth, serverAuth }

export interface Signed {
  readonly der: Buffer
  readonly pem: string
  /** PKCS #8 PEM */
  readonly key: string
}

export interface LeafChange {
  readonly uris?: readonly string[]
  readonly dns?: readonly string[]
  readonly isAuthority?: boolean
  /** undefined leaves the extension out. */
  readonly usages?: number | undefined
  readonly isUsageCritical?: boolean
  /** undefined leaves the extension out. */
  readonly purposes?: readonly string[] | undefined
  readonly notBeforeMs?: number
  readonly notAfterMs?: number
  readonly more?: readonly x509.Extension[]
  readonly hash?: 'SHA-1' | 'SHA-256'
}

export interface AuthorityChange {
  readonly notAfterMs?: number
  readonly notBeforeMs?: number
  readonly isAuthority?: boolean
  readonly usages?: number
  readonly pathLength?: number
  readonly more?: readonly x509.Extension[]
}

export interface TrustDomain {
  readonly name: string
  readonly pem: string
  readonly der: Buffer
  /** An SVID for `/path` of this domain. */
  issue(path: string, change?: LeafChange): Promise<Signed>
  /** A CA below this one: a downstream SPIRE server. */
  downstream(change?: AuthorityChange): Promise<TrustDomain>
}

/** SPIRE: ten seconds of cushion before, an hour of life, a day for the CA. */
const CUSHION_MS = 10_000
const SVID_MS = 3_600_000
const CA_MS = 86_400_000

export async function trustDomain(name: string, nowMs: number, change: AuthorityChange = {}): Promise<TrustDomain> {
  return authority({ name, nowMs, change, parent: undefined })
}

interface Parent {
  readonly certificate: x509.X509Certificate
  readonly keys: Web.CryptoKeyPair
}

async function authority(o: {
  name: string
  nowMs: number
  change: AuthorityChange
  parent: Parent | undefined
}): Promise<TrustDomain> {
  const { name, nowMs, change } = o
  const keys = await newKeys()
  const serialNumber = newSerial()
  const subject: x509.JsonName = [
    { C: ['US'] },
    { O: ['SPIFFE'] },
    ...(o.parent === undefined ? [] : [{ OU: [`DOWNSTREAM-${serialNumber.slice(0, 6)}`] }]),
    { '2.5.4.5': [BigInt(`0x${serialNumber}`).toString()] },
  ]
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber,
    subject,
    issuer: o.parent?.certificate.subjectName.toJSON() ?? subject,
    notBefore: new Date(change.notBeforeMs ?? nowMs - CUSHION_MS),
    notAfter: new Date(change.notAfterMs ?? nowMs + CA_MS),
    publicKey: keys.publicKey,
    signingKey: (o.parent?.keys ?? keys).privateKey,
    signingAlgorithm: algorithm,
    extensions: [
      new x509.KeyUsagesExtension(change.usages ?? keyCertSign | cRLSign, true),
      new x509.BasicConstraintsExtension(change.isAuthority ?? true, change.pathLength, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      ...(o.parent === undefined ? [] : [await x509.AuthorityKeyIdentifierExtension.create(o.parent.keys.publicKey)]),
      new x509.SubjectAlternativeNameExtension([{ type: 'url', value: `spiffe://${name}` }]),
      ...(change.more ?? []),
    ],
  })
  return {
    name,
    pem: `${certificate.toString('pem')}\n`,
    der: Buffer.from(certificate.rawData),
    issue: (path, leaf = {}) => issue({ name, nowMs, path, change: leaf, parent: { certificate, keys } }),
    downstream: (below = {}) => authority({ name, nowMs, change: below, parent: { certificate, keys } }),
  }
}

async function issue(o: {
  name: string
  nowMs: number
  path: string
  change: LeafChange
  parent: Parent
}): Promise<Signed> {
  const { change, nowMs, parent } = o
  const keys = await newKeys()
  const has = (member: keyof LeafChange) => Object.hasOwn(change, member)
  const usages = has('usages') ? change.usages : digitalSignature | keyEncipherment | keyAgreement
  const purposes = has('purposes') ? change.purposes : [serverAuth, clientAuth]
  const names = [
    ...(change.dns ?? []).map((value) => ({ type: 'dns' as const, value })),
    ...(change.uris ?? [`spiffe://${o.name}${o.path}`]).map((value) => ({ type: 'url' as const, value })),
  ]
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: newSerial(),
    subject: 'C=US, O=SPIRE',
    issuer: parent.certificate.subjectName.toJSON(),
    notBefore: new Date(change.notBeforeMs ?? nowMs - CUSHION_MS),
    notAfter: new Date(change.notAfterMs ?? nowMs + SVID_MS),
    publicKey: keys.publicKey,
    signingKey: parent.keys.privateKey,
    signingAlgorithm: { ...algorithm, hash: change.hash ?? 'SHA-256' },
    extensions: [
      ...(usages === undefined ? [] : [new x509.KeyUsagesExtension(usages, change.isUsageCritical ?? true)]),
      ...(purposes === undefined ? [] : [new x509.ExtendedKeyUsageExtension([...purposes])]),
      new x509.BasicConstraintsExtension(change.isAuthority ?? false, undefined, true),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(parent.keys.publicKey),
      ...(names.length === 0 ? [] : [new x509.SubjectAlternativeNameExtension(names)]),
      ...(change.more ?? []),
    ],
  })
  return {
    der: Buffer.from(certificate.rawData),
    pem: `${certificate.toString('pem')}\n`,
    key: KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

/** A SPIFFE bundle document, as a bundle endpoint serves it. */
export function bundleDocument(domains: readonly TrustDomain[]): string {
  const keys = domains.map(({ der }) => ({ kty: 'EC', use: 'x509-svid', x5c: [der.toString('base64')] }))
  return JSON.stringify({ spiffe_sequence: 1, keys: [...keys, { kty: 'EC', use: 'jwt-svid', kid: 'a' }] })
}

/** RFC 8705 §3.1. */
export function thumbprint(der: Buffer): string {
  return createHash('sha256').update(der).digest('base64url')
}

/** An extension of any content. */
export function extension(oid: string, isCritical: boolean, hex: string): x509.Extension {
  return new x509.Extension(oid, isCritical, Buffer.from(hex, 'hex'))
}

async function newKeys(): Promise<Web.CryptoKeyPair> {
  x509.cryptoProvider.set(webcrypto as Crypto)
  return (await webcrypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])) as Web.CryptoKeyPair
}

function newSerial(): string {
  const serial = randomBytes(16)
  serial[0] = ((serial[0] ?? 0) & 0x3f) | 0x40 // positive, and in its shortest form
  return serial.toString('hex')
}
