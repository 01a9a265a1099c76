/**
 * Leaf certificates for the hosts that agents connect to. Written as DER from prepared parts, because whoever names many hosts
 * makes us sign as many: a general encoder takes twenty times as long. Every field is one that strict verifiers demand
 * (RFC 5280 §4.2): key identifiers, key usage, names only in the subject alternative name.
 */
import '../protocol/reflect.ts'
import { createHash, generateKeyPairSync, type KeyObject, sign } from 'node:crypto'
import { isIP } from 'node:net'
import {
  BasicConstraintsExtension,
  ExtendedKeyUsage,
  ExtendedKeyUsageExtension,
  KeyUsageFlags,
  KeyUsagesExtension,
} from '@peculiar/x509'
import ipaddr from 'ipaddr.js'
import { newSerial, type Root } from './root.ts'

/** RFC 5280 upper bound of a common name (`ub-common-name`). */
const MAX_COMMON_NAME = 64

const SEQUENCE = 0x30
const OCTET_STRING = 0x04
const VERSION_3 = Buffer.from('a003020102', 'hex')
const ECDSA_WITH_SHA256 = Buffer.from('300a06082a8648ce3d040302', 'hex')
const COMMON_NAME = Buffer.from('0603550403', 'hex')
const ORGANIZATION = Buffer.from('060355040a', 'hex')
const SUBJECT_KEY_IDENTIFIER = Buffer.from('0603551d0e', 'hex')
const AUTHORITY_KEY_IDENTIFIER = Buffer.from('0603551d23', 'hex')
const SUBJECT_ALTERNATIVE_NAME = Buffer.from('0603551d11', 'hex')

export interface LeafTerms {
  readonly issuer: Root
  /** Host name of LDH labels, or an IP address without brackets. */
  readonly host: string
  readonly notBeforeMs: number
  readonly notAfterMs: number
}

export interface LeafKey {
  /** PKCS #8 PEM of a P-256 key. */
  readonly pem: string
  /** A leaf for this key, PEM. */
  certify(terms: LeafTerms): string
}

/** The key that all leaves of this process share. Never written down. */
export function createLeafKey(): LeafKey {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = publicKey.export({ type: 'spki', format: 'der' })
  const extensions = [
    new BasicConstraintsExtension(false, undefined, true),
    new KeyUsagesExtension(KeyUsageFlags.digitalSignature, true),
    new ExtendedKeyUsageExtension([ExtendedKeyUsage.serverAuth]),
  ].map(({ rawData }) => Buffer.from(rawData))
  const identifier = extension(SUBJECT_KEY_IDENTIFIER, der(OCTET_STRING, keyIdentifier(publicKey)))
  return {
    pem: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    certify({ issuer, host, notBeforeMs, notAfterMs }) {
      const authority = extension(AUTHORITY_KEY_IDENTIFIER, der(SEQUENCE, der(0x80, issuer.keyId)))
      const body = der(
        SEQUENCE,
        VERSION_3,
        der(0x02, newSerial()),
        ECDSA_WITH_SHA256,
        issuer.subject,
        der(SEQUENCE, time(notBeforeMs), time(notAfterMs)),
        subject(host),
        spki,
        der(0xa3, der(SEQUENCE, ...extensions, identifier, authority, alternativeName(host))),
      )
      const signature = sign('sha256', body, issuer.key)
      return pem(der(SEQUENCE, body, ECDSA_WITH_SHA256, der(0x03, Buffer.of(0), signature)))
    },
  }
}

/** RFC 5280 §4.2.1.2 (1): SHA-1 of the key's bits; it names the key and protects nothing. */
function keyIdentifier(publicKey: KeyObject): Buffer {
  const { x = '', y = '' } = publicKey.export({ format: 'jwk' })
  const point = Buffer.concat([Buffer.of(4), Buffer.from(x, 'base64url'), Buffer.from(y, 'base64url')])
  return createHash('sha1').update(point).digest()
}

/** For people who look. Without a DNS name beside it OpenSSL and GnuTLS take a common name for one: addresses get none. */
function subject(host: string): Buffer {
  const isName = isIP(host) === 0 && host.length <= MAX_COMMON_NAME
  const attribute = isName ? [COMMON_NAME, utf8(host)] : [ORGANIZATION, utf8('Keyless')]
  return der(SEQUENCE, der(0x31, der(SEQUENCE, ...attribute)))
}

function utf8(text: string): Buffer {
  return der(0x0c, Buffer.from(text))
}

function alternativeName(host: string): Buffer {
  const name =
    isIP(host) === 0 ? der(0x82, Buffer.from(host)) : der(0x87, Buffer.from(ipaddr.parse(host).toByteArray()))
  return extension(SUBJECT_ALTERNATIVE_NAME, der(SEQUENCE, name))
}

function extension(id: Buffer, value: Buffer): Buffer {
  return der(SEQUENCE, id, der(OCTET_STRING, value))
}

/** RFC 5280 §4.1.2.5: UTCTime through 2049, GeneralizedTime from then on. */
function time(ms: number): Buffer {
  const text = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+/g, '')
  return text < '2050' ? der(0x17, Buffer.from(text.slice(2))) : der(0x18, Buffer.from(text))
}

/** One element; nothing in a leaf comes near 64 KiB. */
function der(tag: number, ...content: readonly Buffer[]): Buffer {
  const length = content.reduce((sum, part) => sum + part.length, 0)
  const head = length < 0x80 ? [length] : length < 0x100 ? [0x81, length] : [0x82, length >> 8, length & 0xff]
  return Buffer.concat([Buffer.of(tag, ...head), ...content])
}

function pem(bytes: Buffer): string {
  const lines = bytes.toString('base64').match(/.{1,64}/g) ?? []
  return `-----BEGIN CERTIFICATE-----\n${lines.join('\n')}\n-----END CERTIFICATE-----\n`
}
