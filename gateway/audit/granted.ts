/** A grant and who stands behind it, as entries about grants hold them: everything that gives authority, and no token. */
import { hash } from 'node:crypto'
import type { Grant, Human } from '../protocol/grant.ts'
import type { Workload } from '../protocol/identity.ts'
import type { JsonValue } from './canonical.ts'

export type Fields = Record<string, JsonValue | undefined>

/** Who authorised, through whom, for which task. */
export function authorityOf({ human, lineage, lineageHash, task, attestations }: Grant): Fields {
  return {
    human: evidenceOf(human),
    // Human and first agent stand before the first delegation.
    lineage: lineage.map((step, i) => ({ ...step, att: hashOf(attestations[i - 2]) })),
    lineage_hash: lineageHash,
    task: { ...task, intent_hash: hash('sha256', task.purpose, 'base64url') },
  }
}

/** When and how the human proved to be it is what somebody asks for later. */
export function evidenceOf({ iss, sub, authTime, amr, acr }: Human): Fields {
  return { iss, sub, auth_time: authTime, amr: amr && [...amr], acr }
}

export function grantOf(grant: Grant): Fields {
  const { id, owner, purpose, riskTier } = grant.agent
  return {
    id: grant.id,
    parent: grant.ancestry.at(-1)?.id,
    parent_hash: grant.parentHash,
    depth: grant.depth,
    max_depth: grant.maxDepth,
    delegable: grant.delegable,
    agent: { id, owner, purpose, risk_tier: riskTier },
    attested: grant.attested ?? false,
    instance: grant.instance,
    cnf: grant.cnf && { ...grant.cnf },
    authority: grant.authority.map((one) => ({ ...one }) as unknown as JsonValue),
    preset: grant.preset,
    step: grant.step,
    trace: grant.trace,
    issued: grant.issuedAt,
    expires: grant.expiresAt,
  }
}

export function workloadOf({ id, kind, issuer, instance }: Workload): Fields {
  return { id, kind, issuer, instance }
}

/** Names an attestation without repeating it: whoever keeps the attestations can match them. */
export function hashOf(attestation: string | undefined): string | undefined {
  return attestation === undefined ? undefined : `sha256:${hash('sha256', attestation, 'base64url')}`
}
