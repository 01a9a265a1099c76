/**
 * The certificate authority that intercepted TLS hangs on: one root per gateway (or per set of replicas, by a shared
 * directory), made on first start, and short-lived leaves for the hosts that agents connect to. Strict verifiers decide
 * the fields: RFC 5280 key identifiers, a critical path length of 0, minimal positive serials, names only in SAN.
 */
import './reflect.ts'
import { createPrivateKey, randomBytes, X509Certificate as StoredCertificate, webcrypto } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { isIP } from 'node:net'
import { join } from 'node:path'
import {
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
  SubjectAlternativeNameExtension,
  SubjectKeyIdentifierExtension,
  X509Certificate,
  X509CertificateGenerator,
} from '@peculiar/x509'
import { readOrCreate } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'

/** What a TLS server for one host needs. */
export interface Leaf {
  /** PKCS #8 PEM of the P-256 key that all leaves of this process share. Never written down. */
  readonly key: string
  /** Leaf and root, PEM. The root is sent too: some clients match it by its key (clients.md §0.11). */
  readonly cert: string
  /** Milliseconds since the Unix epoch from which a new leaf should take over. */
  readonly renewAtMs: number
}

export interface CertificateAuthority {
  /** The root certificate: what agents must trust. */
  readonly caPem: string
  /** A fresh leaf for a host name or IP address (no brackets). Callers keep it until `renewAtMs`. */
  issueLeaf(host: string): Promise<Leaf>
}

const ECDSA = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const
const HOUR_MS = 3_600_000
/** Clocks of agents may be behind ours. */
const BACKDATE_MS = HOUR_MS
const ROOT_LIFE_MS = 365 * 24 * HOUR_MS
const LEAF_LIFE_MS = 24 * HOUR_MS
/** A leaf is replaced this long before its end, so that a handshake never sees one that is about to expire. */
const RENEW_BEFORE_MS = 6 * HOUR_MS
/** RFC 5280 upper bound of a common name (`ub-common-name`). */
const MAX_COMMON_NAME = 64

/**
 * Read `ca.pem` and `ca.key` in `dir`, creating both (0600) if neither is there. Replicas that start at once agree on one pair.
 * @throws Error naming the file and what to do, when they are unreadable, do not belong together, or have expired.
 */
export async function loadAuthority(dir: string, clock: Clock): Promise<CertificateAuthority> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const keyPath = join(dir, 'ca.key')
  const certPath = join(dir, 'ca.pem')
  // The pair is one file when it is made, so that no crash or race leaves half of it; `ca.pem` is only a copy of its public part.
  const pair = (await readOrCreate(keyPath, () => createRoot(clock))).toString('utf8')
  const caPem = (await readOrCreate(certPath, () => certificateIn(pair, keyPath))).toString('utf8')
  const root = checkRoot({ pair, caPem, keyPath, certPath }, clock)
  return authority(root, caPem, clock)
}

/** Key first, certificate after it, in one PEM file. */
async function createRoot(clock: Clock): Promise<string> {
  const keys = await webcrypto.subtle.generateKey(ECDSA, true, ['sign', 'verify'])
  const notBefore = clock.nowMs() - BACKDATE_MS
  const identifier = await SubjectKeyIdentifierExtension.create(keys.publicKey)
  const root = await X509CertificateGenerator.createSelfSigned({
    serialNumber: newSerial(),
    // Two gateways' roots in one trust store must differ by name: OpenSSL looks issuers up by it.
    name: [{ CN: [`Keyless CA ${identifier.keyId.slice(0, 8)}`] }],
    notBefore: new Date(notBefore),
    notAfter: new Date(notBefore + ROOT_LIFE_MS),
    keys,
    signingAlgorithm: ECDSA,
    extensions: [
      new BasicConstraintsExtension(true, 0, true),
      new KeyUsagesExtension(KeyUsageFlags.keyCertSign | KeyUsageFlags.cRLSign, true),
      identifier,
      await AuthorityKeyIdentifierExtension.create(keys.publicKey),
    ],
  })
  return `${await exportKey(keys.privateKey)}${root.toString('pem')}\n`
}

interface StoredPair {
  readonly pair: string
  readonly caPem: string
  readonly keyPath: string
  readonly certPath: string
}

function checkRoot(
  { pair, caPem, keyPath, certPath }: StoredPair,
  clock: Clock,
): { key: string; stored: StoredCertificate } {
  const renew = `Remove ${keyPath} and ${certPath} to have a new authority made, and give agents the new ca.pem.`
  let stored: StoredCertificate
  let isPair: boolean
  let key: string
  try {
    stored = new StoredCertificate(caPem)
    const privateKey = createPrivateKey(pair)
    isPair = stored.checkPrivateKey(privateKey)
    key = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
    if (privateKey.asymmetricKeyDetails?.namedCurve !== 'prime256v1') throw new Error('not a P-256 key')
  } catch (cause) {
    throw new Error(`${certPath} and ${keyPath} are not a PEM certificate and its P-256 key. ${renew}`, { cause })
  }
  if (!isPair || !stored.ca) throw new Error(`${certPath} is not the CA certificate of the key in ${keyPath}. ${renew}`)
  if (Date.parse(stored.validTo) - LEAF_LIFE_MS < clock.nowMs())
    throw new Error(`The authority in ${certPath} ends on ${stored.validTo}. ${renew}`)
  return { key, stored }
}

async function authority(
  root: { key: string; stored: StoredCertificate },
  caPem: string,
  clock: Clock,
): Promise<CertificateAuthority> {
  const issuer = new X509Certificate(root.stored.raw)
  const signingKey = await importKey(root.key)
  const keys = await webcrypto.subtle.generateKey(ECDSA, true, ['sign', 'verify'])
  const key = await exportKey(keys.privateKey)
  const extensions = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
    await SubjectKeyIdentifierExtension.create(keys.publicKey),
    await AuthorityKeyIdentifierExtension.create(issuer.publicKey),
  ]
  return {
    caPem,
    async issueLeaf(host) {
      const notBefore = Math.max(clock.nowMs() - BACKDATE_MS, issuer.notBefore.getTime())
      const notAfter = Math.min(notBefore + LEAF_LIFE_MS, issuer.notAfter.getTime())
      const leaf = await X509CertificateGenerator.create({
        serialNumber: newSerial(),
        subject: [{ CN: [host.length <= MAX_COMMON_NAME ? host : 'keyless leaf'] }],
        issuer: issuer.subject,
        notBefore: new Date(notBefore),
        notAfter: new Date(notAfter),
        publicKey: keys.publicKey,
        signingKey,
        signingAlgorithm: ECDSA,
        extensions: [
          ...extensions,
          new SubjectAlternativeNameExtension([{ type: isIP(host) ? 'ip' : 'dns', value: host }]),
        ],
      })
      return { key, cert: `${leaf.toString('pem')}\n${caPem}`, renewAtMs: notAfter - RENEW_BEFORE_MS }
    },
  }
}

/** 126 random bits, as 16 bytes that begin with 01: positive, and no shorter encoding exists (RFC 5280 §4.1.2.2, X.690 §8.3.2). */
function newSerial(): string {
  const bytes = randomBytes(16)
  bytes[0] = ((bytes[0] as number) & 0x3f) | 0x40
  return bytes.toString('hex')
}

async function exportKey(key: webcrypto.CryptoKey): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey('pkcs8', key))
  return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString()
}

function importKey(pem: string): Promise<webcrypto.CryptoKey> {
  const der = createPrivateKey(pem).export({ type: 'pkcs8', format: 'der' })
  return webcrypto.subtle.importKey('pkcs8', der, ECDSA, false, ['sign'])
}

function certificateIn(pair: string, keyPath: string): string {
  const start = pair.indexOf('-----BEGIN CERTIFICATE-----')
  if (start === -1)
    throw new Error(
      `${keyPath} is there without its ca.pem. Restore ca.pem, or remove ${keyPath} to have a new authority made.`,
    )
  return pair.slice(start)
}
