/** The part of the composition root that keeps the CA as it is on disk, and says in the log when it changes. */
import { X509Certificate } from 'node:crypto'
import type { Audit } from '../audit/audit.ts'

/** How often the CA is looked at, ms: whether another replica or a command changed it, or a successor is due. */
const REFRESH_MS = 30_000

interface Authority {
  /** What agents must trust. */
  readonly caPem: string
  readonly trouble: string | undefined
  /** Never rejects: see `trouble`. */
  refresh(): Promise<void>
}

/** @returns what ends it. A problem that comes up meanwhile is said once; another root is in the log, whoever made it. */
export function keepFresh(authority: Authority, audit: Pick<Audit, 'administer'>, tenant: string): () => void {
  let told = authority.trouble
  let known = authority.caPem
  const look = async () => {
    await authority.refresh()
    const { caPem } = authority
    if (caPem !== known) {
      const facts = { before: fingerprints(known), after: fingerprints(caPem) }
      // In use already. A log that cannot be written is told at the next look.
      const recorded = await audit.administer('admin.ca_rotated', { tenant }, facts).catch(() => undefined)
      if (recorded) known = caPem
    }
    if (authority.trouble !== undefined && authority.trouble !== told)
      process.stderr.write(`keyless: warning: ${authority.trouble}\n`)
    told = authority.trouble
  }
  const timer = setInterval(look, REFRESH_MS).unref()
  return () => clearInterval(timer)
}

function fingerprints(pem: string): string[] {
  const certificates = pem.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  return certificates.map((one) => new X509Certificate(one).fingerprint256)
}
