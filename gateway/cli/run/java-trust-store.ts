/**
 * A JKS trust store written without a JDK: what Java reads where others read a PEM bundle. The format is Sun's of JDK 1.2, which
 * every later one reads under any `keystore.type`: entries, then a keyed SHA-1 that is checked only when a password is given.
 */
import { hash, X509Certificate } from 'node:crypto'

const MAGIC = 0xfeedfeed
const VERSION = 2
const TRUSTED_CERTIFICATE = 2
/** The password that everybody uses for stores without secrets; programs that insist on one send this. */
const PASSWORD = 'changeit'

/** @param pem any number of certificates; what is none is left out. @param createdAtMs date of every entry. */
export function javaTrustStore(pem: readonly string[], createdAtMs: number): Buffer {
  const certificates = pem.flatMap(derOf)
  const entries = certificates.map((der, index) =>
    Buffer.concat([
      uint32(TRUSTED_CERTIFICATE),
      text(`keyless-${index}`),
      uint64(createdAtMs),
      text('X.509'),
      uint32(der.length),
      der,
    ]),
  )
  const store = Buffer.concat([uint32(MAGIC), uint32(VERSION), uint32(entries.length), ...entries])
  const key = Buffer.from(PASSWORD, 'utf16le').swap16()
  return Buffer.concat([store, hash('sha1', Buffer.concat([key, Buffer.from('Mighty Aphrodite'), store]), 'buffer')])
}

/** One certificate that cannot be parsed would cost Java the whole store. */
function derOf(pem: string): Buffer[] {
  try {
    return [new X509Certificate(pem).raw]
  } catch {
    return []
  }
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value)
  return bytes
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(value))
  return bytes
}

/** Java's modified UTF-8, which for ASCII is ASCII. */
function text(ascii: string): Buffer {
  const length = Buffer.alloc(2)
  length.writeUInt16BE(ascii.length)
  return Buffer.concat([length, Buffer.from(ascii, 'latin1')])
}
