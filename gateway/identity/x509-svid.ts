/**
 * X.509-SVIDs (SPIFFE X509-SVID §5): a certificate that the TLS handshake proved possession of, as a workload. Only the one
 * URI of the certificate is an identity: no DNS name, no subject, and no header that claims to carry a certificate.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../protocol/clock.ts'
import type { Workload } from '../protocol/identity.ts'
import { type Certificate, NAME, readCertificate } from './certificate.ts'
import { findPath, USAGE } from './certificate-path.ts'
import { agentOf } from './mapping.ts'
import { type Refuse, refusing, shown } from './refuse.ts'
import { parseSpiffeId } from './spiffe-id.ts'
import { openTrustBundle } from './trust-bundle.ts'
import type { X509Trust } from './trust-x509.ts'

export interface X509Svids {
  /**
   * @param chain DER, leaf first, as presented. Possession of the leaf's key is the TLS handshake's to prove.
   * @param clientId what the client calls itself: its SPIFFE ID or the agent that it is. Undefined: it does not say.
   * @throws {GatewayError} `client_invalid`
   */
  verify(chain: readonly Buffer[], clientId?: string): Promise<Workload>
}

export interface X509SvidOptions {
  /** One row per trust domain, `bundle.file` absolute. */
  readonly trust: readonly X509Trust[]
  readonly clock: Clock
}

const MAX_CHAIN = 8

export function createX509Svids(o: X509SvidOptions): X509Svids {
  const bundles = new Map(o.trust.map((row) => [row.trust_domain, openTrustBundle(row.bundle.file)]))
  return {
    async verify(chain, clientId) {
      const refuse = refusing('client_invalid', 'The client certificate')
      const [leaf, ...intermediates] = readChain(chain, refuse)
      const { id, trustDomain } = idOf(leaf, refuse)
      const row = o.trust.find((one) => one.trust_domain === trustDomain)
      if (row === undefined)
        throw refuse(`its trust domain ${trustDomain} is not trusted here; add it to the settings part trust.x509`)
      const anchors = await bundles
        .get(trustDomain)
        ?.anchors()
        .catch((cause: unknown) => {
          throw refuse(`the bundle of ${trustDomain} cannot be used (${whyOf(cause)}); correct its file`, cause)
        })
      checkLeaf(leaf, refuse)
      const skewMs = row.clock_skew_s * 1000
      const path = findPath(leaf, { anchors: anchors ?? [], intermediates, nowMs: o.clock.nowMs(), skewMs })
      if (typeof path === 'string') throw refuse(path)
      const agent = row.agents === undefined ? id : agentOf(row.agents, () => id, refuse)
      if (clientId !== undefined && clientId !== id && clientId !== agent)
        throw refuse(`it is that of ${id}, and client_id is ${shown(clientId)}`)
      return {
        id: agent,
        kind: 'x509-svid',
        issuer: trustDomain,
        attributes: { spiffe_id: id, serial: leaf.serial },
        expiresAt: Math.floor(Math.min(...path.map(({ notAfterMs }) => notAfterMs)) / 1000),
        cnf: { 'x5t#S256': createHash('sha256').update(leaf.raw).digest('base64url') }, // RFC 8705 §3.1
      }
    },
  }
}

function readChain(chain: readonly Buffer[], refuse: Refuse): readonly [Certificate, ...Certificate[]] {
  if (chain.length > MAX_CHAIN)
    throw refuse(`it came with ${chain.length - 1} more, where at most ${MAX_CHAIN - 1} may be`)
  const [leaf, ...rest] = chain.map((der) => {
    try {
      return readCertificate(der)
    } catch (cause) {
      throw refuse((cause as Error).message, cause)
    }
  })
  if (leaf === undefined) throw refuse('there is none')
  return [leaf, ...rest]
}

/** §2, §5.2: exactly one URI, and that is the SPIFFE ID of a workload. */
function idOf(leaf: Certificate, refuse: Refuse): { readonly id: string; readonly trustDomain: string } {
  const [uri, ...more] = leaf.names.filter(({ form }) => form === NAME.uri)
  if (uri === undefined) throw refuse('it has no URI as alternative name; a DNS name is no identity')
  if (more.length > 0) throw refuse(`it has ${more.length + 1} URIs as alternative names, where a SVID has exactly one`)
  const parsed = parseSpiffeId(uri.text)
  if (parsed === undefined) throw refuse(`its URI ${shown(uri.text)} is not the SPIFFE ID of a workload`)
  return { id: uri.text, trustDomain: parsed.trustDomain }
}

/** RFC 5280 §4.2.1.12. */
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2'

/** §4.3, §4.4, §5.2. */
function checkLeaf({ isAuthority, usage, purposes }: Certificate, refuse: Refuse): void {
  if (isAuthority) throw refuse('it is that of a CA, which never acts as a workload')
  if (usage === undefined || !usage.isCritical) throw refuse('it has no critical key usage')
  if (usage.has(USAGE.keyCertSign) || usage.has(USAGE.cRLSign))
    throw refuse('its key may sign certificates or revocation lists, which a workload never does')
  if (!usage.has(USAGE.digitalSignature)) throw refuse('its key may not sign (digitalSignature)')
  if (purposes !== undefined && !purposes.includes(CLIENT_AUTH))
    throw refuse('its extended key usage does not have client authentication')
}

/** Without the file's path, which is nobody's business outside. */
function whyOf(cause: unknown): string {
  const { code, message } = cause as NodeJS.ErrnoException
  return code ?? message
}
