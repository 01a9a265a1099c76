/**
 * What attestations say (LG/1 §1.3), and the one that the gateway makes on behalf of a holder that has no key; holders make theirs
 * in `holder.ts`. No `aud`: an attestation is evidence, and no token that anyone accepts.
 */
import type { KeyObject } from 'node:crypto'
import { uuidv7 } from '../../protocol/id.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type Hop, type Link, linkOf, ON_BEHALF, PROOF_TYPE, THUMBPRINT_URN } from './attestation.ts'
import { signJws, thumbprintOf } from './jws.ts'

/** `iss` of what a holder signs (RFC 9278). */
export function holderName(key: KeyObject): string {
  return THUMBPRINT_URN + thumbprintOf(key)
}

/** @throws {GatewayError} `delegation_refused` when the holder has a key: then nobody else may speak for it. */
export function onBehalf(hop: Hop, key: KeyObject, kid: string): string {
  const link = linkOf(hop)
  if (link.delegator !== undefined) {
    throw new GatewayError(
      'delegation_refused',
      `Grant ${hop.parent.id} is bound to a key, so its holder must attest this delegation. Send the attestation along (\`actor_proof\`), signed with that key.`,
    )
  }
  const { child, issuer, policy, reason } = hop
  const claims = statement(link, {
    iss: issuer,
    from: child.issuedAt,
    until: child.expiresAt,
    policy,
    ...(reason !== undefined && { reason }),
  })
  return signJws({ typ: PROOF_TYPE, kid }, { ...claims, att: ON_BEHALF }, key)
}

export interface Said {
  readonly iss: string
  readonly from: number
  readonly until: number
  readonly policy?: string
  readonly reason?: string
}

/** Claims of an attestation. */
export function statement(link: Link, { iss, from, until, policy, reason }: Said): object {
  return {
    ...opening(link, { iss, from, until }),
    ad_hash: link.authorityHash,
    ...(policy !== undefined && { pol: policy }),
    ...(reason !== undefined && { reason }),
  }
}

/** Claims that attestations and offline delegations begin with. */
export function opening(link: Link, { iss, from, until }: Omit<Said, 'policy' | 'reason'>): object {
  return {
    iss,
    jti: uuidv7(from * 1000),
    iat: from,
    exp: until,
    txn: link.task,
    act: { iss: link.issuer, sub: link.agent, sub_profile: 'ai_agent' },
    ...(link.cnf && { cnf: link.cnf }),
    target: { aud: link.issuer },
    del_depth: link.depth,
    par_hash: link.parentHash,
    ...(link.previous !== undefined && { prh: link.previous }),
  }
}
