/**
 * Client certificates. Either from the client CA of the gateway, one for each grant, of less than an hour, which names the agent, its task
 * and its lineage; or a certificate and key that somebody else renews, read from where they are kept. Shown in TLS, never sent.
 */
import { X509Certificate } from 'node:crypto'
import { z } from 'zod'
import type { Clock } from '../protocol/clock.ts'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import { clientCertificate } from './placement/certificate.ts'
import type { Placement } from './placement/placement.ts'
import type { CertifyClient, Credential, Provider } from './provider.ts'
import { type ReadSecret, referenceIdentity, secretReference } from './reference.ts'
import { credentialTerms } from './terms.ts'

/** Seconds; at most this, because nobody can revoke them. */
const MAX_LIFE_S = 3540
/** Of a certificate that somebody else makes: what lives longer is a standing key. */
const EPHEMERAL_S = 86_400

export const mtlsSchema = z
  .strictObject({
    provider: z.literal('mtls'),
    ...credentialTerms,
    /**
     * Subject alternative name of our certificates; `{agent}`, `{task}`, `{tenant}` stand for what is asked for, percent-encoded. Default:
     * the agent's id where it is a URI, else `urn:keyless:{tenant}:{agent}`.
     */
    uri: z
      .string()
      .regex(/^[a-z][a-z0-9+.-]*:(?:[!-z|~]|\{(?:agent|task|tenant)\})+$/i, {
        error: 'is not a URI with at most {agent}, {task} and {tenant} in it',
      })
      .optional(),
    /** Seconds that our certificates live. Default 900, at most 3540. */
    ttl_s: z.int().min(60).max(MAX_LIFE_S).default(900),
    /** A certificate of somebody else's, PEM, the leaf first. With `key`. */
    certificate: secretReference.optional(),
    /** Its private key, PEM. */
    key: secretReference.optional(),
  })
  .refine(({ certificate, key }) => (certificate === undefined) === (key === undefined), {
    path: ['key'],
    error: 'and certificate come together; without both, the client CA of the gateway makes certificates',
  })

export type MtlsConfig = z.output<typeof mtlsSchema>

export interface MtlsTools {
  readonly placement: Placement
  readonly readSecret: ReadSecret
  readonly clock: Clock
  readonly certifyClient: CertifyClient
}

export function createMtls(config: MtlsConfig, tools: MtlsTools): Provider {
  const { certificate, key } = config
  const kept = certificate && key && ({ certificate, key } as const)
  return {
    name: 'mtls',
    narrows: 'none',
    identity: JSON.stringify(
      kept
        ? ['mtls', referenceIdentity(kept.certificate), referenceIdentity(kept.key)]
        : ['mtls', config.uri ?? null, config.ttl_s],
    ),
    async issue({ grant, ttlS }, signal) {
      if (kept === undefined) return certified(config, tools, { grant, ttlS })
      const [cert, privateKey] = await Promise.all([
        tools.readSecret(kept.certificate, signal),
        tools.readSecret(kept.key, signal),
      ])
      clientCertificate(cert.reveal(), privateKey) // or it is told at once what is wrong with them
      return { secret: privateKey, parts: { certificate: cert }, ...lifeOf(cert.reveal(), tools.clock) }
    },
    attach: (credential, outbound) => tools.placement.place(credential, outbound),
  }
}

async function certified(
  { uri, ttl_s: lifeS }: MtlsConfig,
  { certifyClient }: MtlsTools,
  { grant, ttlS }: { readonly grant: Grant; readonly ttlS: number },
): Promise<Credential> {
  const { certificate, privateKey, expiresAt } = await certifyClient({
    uri: uriOf(grant, uri),
    agent: grant.agent.id,
    task: grant.task.id,
    lineageHash: grant.lineageHash,
    lifeS: Math.max(60, Math.min(lifeS, ttlS)), // a lease wants some life left after allowing for clocks that differ
  })
  return { secret: privateKey, parts: { certificate }, expiresAt, ephemeral: true }
}

function uriOf({ agent, task, tenant }: Grant, template: string | undefined): string {
  if (template === undefined && /^[a-z][a-z0-9+.-]*:[!-~]+$/i.test(agent.id)) return agent.id
  const known: Record<string, string> = { agent: agent.id, task: task.id, tenant }
  return (template ?? 'urn:keyless:{tenant}:{agent}').replaceAll(/\{(\w+)\}/g, (_, name: string) =>
    encodeURIComponent(known[name] ?? ''),
  )
}

function lifeOf(certificate: string, clock: Clock): Pick<Credential, 'expiresAt' | 'ephemeral'> {
  const { validFromDate, validToDate } = new X509Certificate(certificate)
  const expiresAt = Math.floor(validToDate.getTime() / 1000)
  if (expiresAt * 1000 <= clock.nowMs())
    throw new GatewayError('credential_rejected', 'The client certificate has ended. Renew it at its source.')
  return { expiresAt, ephemeral: expiresAt - validFromDate.getTime() / 1000 <= EPHEMERAL_S }
}
