/**
 * Who stands behind an entry, and from where: human, lineage, task, client. The only place where these become members of an entry,
 * in canonical order, because the two entries of a call are not sorted. Values are cut here, and written plain: `Letterhead.seal`
 * is asked of what is composed of them.
 */
import { hash } from 'node:crypto'
import type { Grant, Human, LineageStep } from '../../protocol/grant.ts'
import type { Inbound } from '../../protocol/message.ts'
import { cut, cutList, type JsonValue, type Limits } from '../canonical.ts'

export type Fields = Record<string, JsonValue | undefined>

/** Entries about grants are rare, and hold everything that fits. */
const WHOLE: Limits = { path: 4096, prose: 4096, name: 4096, items: 1024 }

/** As the entries of calls have it. */
export function standing(grant: Grant, limits: Limits) {
  return {
    human: humanFields(grant.human, limits),
    lineage: steps(grant.lineage, limits),
    lineage_hash: cut(grant.lineageHash, limits.name),
    task: { id: cut(grant.task.id, limits.name), purpose: cut(grant.task.purpose, limits.prose) },
  }
}

/** As entries about grants and leases have it: every attestation by its hash, and the declared intent by its own. */
export function authorityOf(grant: Grant): Fields {
  const { lineage, task, ...rest } = standing(grant, WHOLE)
  return {
    ...rest,
    lineage: lineage.map((step, i) => ({ ...step, att: hashOf(grant.attestations[i - FIRST_DELEGATION]) })),
    task: {
      ...task,
      intent_hash: hash('sha256', grant.task.purpose, 'base64url'),
      plan: grant.task.plan && [...grant.task.plan],
    },
  }
}

/** Human and first agent stand before the first delegation. */
const FIRST_DELEGATION = 2

/** When and how the human proved to be it is what somebody asks for later. */
export function humanFields({ acr, amr, authTime, iss, sub }: Human, limits: Limits = WHOLE) {
  return {
    acr: acr === undefined ? undefined : cut(acr, limits.name),
    amr: amr && cutList(amr, limits),
    auth_time: authTime,
    iss: cut(iss, limits.name),
    sub: cut(sub, limits.name),
  }
}

/** Where a call came from, and what it says of itself. @param refused grant that was presented and is not accepted. */
export function clientFields(
  { client, mode, presented, promptHash }: Inbound,
  refused: string | undefined,
  limits: Limits,
) {
  return {
    auth: presented?.scheme,
    grant: refused,
    ip: cut(client.address, limits.name),
    mode,
    prompt_hash: promptHash,
    ua: client.userAgent === undefined ? undefined : cut(client.userAgent, limits.prose),
  }
}

/** Names an attestation without repeating it: whoever keeps the attestations can match them. */
export function hashOf(attestation: string | undefined): string | undefined {
  return attestation === undefined ? undefined : `sha256:${hash('sha256', attestation, 'base64url')}`
}

/** Both ends of a chain that is too long are kept; `lineage_hash` covers all of it. */
function steps(lineage: readonly LineageStep[], limits: Limits) {
  const write = ({ grant, id, n, on_behalf, type }: LineageStep) => ({
    grant: grant === undefined ? undefined : cut(grant, limits.name),
    id: cut(id, limits.name),
    n,
    on_behalf,
    type,
  })
  if (lineage.length <= limits.items) return lineage.map(write)
  const half = limits.items / 2
  const between = { cut: lineage.length - limits.items }
  return [...lineage.slice(0, half).map(write), between, ...lineage.slice(-half).map(write)]
}
