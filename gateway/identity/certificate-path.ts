/**
 * The path from a certificate to a trust anchor (RFC 5280 §6), as far as X.509-SVIDs need it: without policies, because nothing
 * here depends on them, and without revocation lists, because SVIDs are short-lived instead (X509-SVID §5.1). What cannot be
 * decided is refused.
 */
import { type Certificate, type GeneralName, NAME } from './certificate.ts'

/** Bits of KeyUsage (RFC 5280 §4.2.1.3). */
export const USAGE = { digitalSignature: 0, keyCertSign: 5, cRLSign: 6 } as const

/** CAs between a workload and its anchor; deeper nestings of SPIRE servers are not known. */
const MAX_INTERMEDIATES = 6

export interface PathOptions {
  readonly anchors: readonly Certificate[]
  /** As the presenter sent them, in any order; nothing is believed about them. */
  readonly intermediates: readonly Certificate[]
  readonly nowMs: number
  readonly skewMs: number
}

/**
 * @returns the certificates from `leaf` (first) to an anchor (last), or why there is no path: the fault of the path that came
 *   furthest.
 */
export function findPath(leaf: Certificate, o: PathOptions): readonly Certificate[] | string {
  const fault = faultOf(leaf, o)
  if (fault !== undefined) return fault
  return climb([leaf], o)
}

/** Depth first; a path never uses a certificate twice, so it ends. */
function climb(path: readonly Certificate[], o: PathOptions): readonly Certificate[] | string {
  const below = path.at(-1) as Certificate
  const faults: string[] = []
  for (const issuer of candidates(path, o)) {
    const longer = [...path, issuer]
    const fault = linkFault(below, issuer) ?? faultOf(issuer, o) ?? authorityFault(issuer, path)
    if (fault !== undefined) {
      faults.push(fault)
      continue
    }
    if (o.anchors.includes(issuer)) return longer
    const found = climb(longer, o)
    if (typeof found !== 'string') return found
    faults.push(found)
  }
  return faults[0] ?? 'no certificate of the bundle issued it, nor one that was presented along with it'
}

function candidates(path: readonly Certificate[], o: PathOptions): readonly Certificate[] {
  const below = path.at(-1) as Certificate
  const issued = (one: Certificate) => one.subject.equals(below.issuer)
  const isUsed = (one: Certificate) => path.some((other) => other.raw.equals(one.raw))
  const middle = path.length <= MAX_INTERMEDIATES ? o.intermediates.filter((one) => !isUsed(one)) : []
  return [...o.anchors, ...middle].filter(issued)
}

function linkFault(below: Certificate, issuer: Certificate): string | undefined {
  try {
    if (below.x509.verify(issuer.publicKey)) return undefined
  } catch {} // a key of a kind that OpenSSL does not verify with
  return 'its signature does not verify with the key of its issuer'
}

/** RFC 5280 §6.1.3 (a)(2), and keys that nobody should use any more (SP 800-57: at least 112 bits). */
function faultOf(one: Certificate, { nowMs, skewMs }: PathOptions): string | undefined {
  const who = one.isAuthority ? 'a CA of its path' : 'it'
  if (nowMs + skewMs < one.notBeforeMs) return `${who} is valid only from ${new Date(one.notBeforeMs).toISOString()}`
  if (nowMs - skewMs > one.notAfterMs) return `${who} expired at ${new Date(one.notAfterMs).toISOString()}`
  return isStrong(one) ? undefined : `${who} has a key, or is signed with an algorithm, that is too weak`
}

/** RSA PKCS #1 v1.5 and ECDSA with SHA-256, -384, -512 (RFC 4055, RFC 5758), Ed25519 (RFC 8410). */
const SIGNATURES: ReadonlySet<string> = new Set([
  ...[11, 12, 13].map((n) => `1.2.840.113549.1.1.${n}`),
  ...[2, 3, 4].map((n) => `1.2.840.10045.4.3.${n}`),
  '1.3.101.112',
])
const CURVES: ReadonlySet<string | undefined> = new Set(['prime256v1', 'secp384r1', 'secp521r1'])

function isStrong({ publicKey, signature }: Certificate): boolean {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = publicKey
  if (!SIGNATURES.has(signature)) return false
  if (type === 'rsa') return (details?.modulusLength ?? 0) >= 2048
  return type === 'ec' ? CURVES.has(details?.namedCurve) : type === 'ed25519'
}

/** RFC 5280 §6.1.4 (k) to (n), and (b), (c) of §6.1.3 for all that stands below. */
function authorityFault(issuer: Certificate, path: readonly Certificate[]): string | undefined {
  if (!issuer.isAuthority) return 'its issuer is not a CA'
  if (issuer.usage !== undefined && !issuer.usage.has(USAGE.keyCertSign)) return 'its issuer may not sign certificates'
  // Self-issued ones (a CA that changed its key) are not counted; the leaf never is.
  const between = path.slice(1).filter((one) => !one.subject.equals(one.issuer)).length
  if (issuer.pathLength !== undefined && between > issuer.pathLength)
    return `a CA of its path allows ${issuer.pathLength} CAs below it, and there are ${between}`
  return isNamedWithin(issuer, path) ? undefined : 'its names are outside of what a CA of its path may certify'
}

const EMPTY_NAME = Buffer.from([0x30, 0x00])

/** RFC 5280 §4.2.1.10. URIs are compared; a constraint on a form that is not compared here refuses whoever has such a name. */
function isNamedWithin({ constraints }: Certificate, path: readonly Certificate[]): boolean {
  if (constraints === undefined) return true
  const { permitted, excluded } = constraints
  const constrained = new Set([...permitted, ...excluded].map(({ form }) => form))
  return path.every((one) => {
    if (constrained.has(NAME.directory) && !one.subject.equals(EMPTY_NAME)) return false
    return one.names.every((name) => {
      if (!constrained.has(name.form)) return true
      const host = name.form === NAME.uri ? HOST.exec(name.text)?.[1]?.toLowerCase() : undefined
      if (host === undefined) return false
      const covers = ({ form, text }: GeneralName) => form === NAME.uri && coversHost(text.toLowerCase(), host)
      const listed = permitted.filter(({ form }) => form === NAME.uri)
      return (listed.length === 0 || listed.some(covers)) && !excluded.some(covers)
    })
  })
}

const HOST = /^[a-z][a-z0-9+.-]*:\/\/([^/?#@:]+)(?:[/?#]|$)/i

/** A host is itself alone; with a leading dot, what is below it. */
function coversHost(base: string, host: string): boolean {
  return base.startsWith('.') ? host.endsWith(base) : host === base
}
