/**
 * The trust anchors of one SPIFFE trust domain, from a file that its CA's rotation rewrites. Read at each use, a few kilobytes:
 * so a CA that was taken out is not trusted a moment longer. A file that cannot be read trusts nobody.
 */
import { readFile } from 'node:fs/promises'
import { type Certificate, readCertificate } from './certificate.ts'

export interface TrustBundle {
  /** @throws {Error} when the file is missing or holds no usable CA certificate; the message says which, not where. */
  anchors(): Promise<readonly Certificate[]>
}

const MAX_BYTES = 512 * 1024

/** State: the text read last and what it says, so that it is parsed once. Written only by `anchors()`. */
export function openTrustBundle(file: string): TrustBundle {
  let last: { readonly text: string; readonly anchors: readonly Certificate[] } | undefined
  return {
    async anchors() {
      const text = await readFile(file, 'utf8')
      if (last?.text !== text) last = { text, anchors: anchorsOf(text) }
      return last.anchors
    },
  }
}

/** PEM, or a SPIFFE bundle document (SPIFFE Trust Domain and Bundle §4). @throws {Error} */
export function anchorsOf(text: string): readonly Certificate[] {
  if (text.length > MAX_BYTES) throw new Error(`it is larger than ${MAX_BYTES} bytes`)
  const encoded = text.trimStart().startsWith('{') ? fromDocument(text) : fromPem(text)
  if (encoded.length === 0) throw new Error('it holds no certificate')
  return encoded.map((one, index) => {
    try {
      const anchor = readCertificate(Buffer.from(one, 'base64'))
      if (anchor.isAuthority) return anchor
    } catch (cause) {
      throw new Error(`its certificate ${index + 1} cannot be used: ${(cause as Error).message}`, { cause })
    }
    throw new Error(`its certificate ${index + 1} is not a CA`)
  })
}

function fromPem(text: string): readonly string[] {
  return [...text.matchAll(/-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----/g)].map(
    ([, body = '']) => body,
  )
}

/** Keys with `use: x509-svid` have exactly one certificate in `x5c`; the others are for JWT-SVIDs. */
function fromDocument(text: string): readonly string[] {
  const { keys } = JSON.parse(text) as { keys?: unknown }
  if (!Array.isArray(keys)) throw new Error('it is JSON without `keys`')
  return keys
    .filter((key: { use?: unknown } | null) => key?.use === 'x509-svid')
    .map(({ x5c }: { x5c?: unknown }) => {
      const [only, ...more]: unknown[] = Array.isArray(x5c) ? x5c : []
      if (typeof only === 'string' && more.length === 0) return only
      throw new Error('one of its keys for X.509-SVIDs does not have exactly one certificate')
    })
}
