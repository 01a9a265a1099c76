/** A granted token request as RFC 6749 §5.1, RFC 8693 §2.2.1 and RFC 9396 §7 word it, with what only we can tell. */
import { lineageSentence } from '../../grant/chain/lineage.ts'
import { formatScope } from '../../protocol/authority.ts'
import { detailsOf } from '../../protocol/details.ts'
import type { IssuedGrant } from '../../protocol/instruction.ts'

export interface TokenAnswer {
  readonly access_token: string
  readonly issued_token_type: string
  readonly token_type: 'Bearer' | 'DPoP'
  /** Seconds, cut to whole ones. */
  readonly expires_in: number
  /** Operations granted without any constraint; absent when every entry has one. */
  readonly scope?: string
  readonly authorization_details: readonly Record<string, unknown>[]
  readonly task: string
  readonly grant: string
  /** For clients that can only do Basic proxy authentication. Absent for a grant bound to a key. */
  readonly handle?: string
  /** Who authorised whom for what. */
  readonly lineage: string
  /** What was cut away because `allow_narrowing` was set. */
  readonly narrowed?: readonly string[]
}

/** @param nowS epoch seconds. */
export function tokenAnswer({ grant, handle, token, narrowed }: IssuedGrant, nowS: number): TokenAnswer {
  const scope = formatScope(grant.authority)
  return {
    access_token: token,
    issued_token_type: 'urn:ietf:params:oauth:token-type:access_token',
    token_type: grant.cnf?.jkt === undefined ? 'Bearer' : 'DPoP',
    expires_in: Math.max(0, Math.floor(grant.expiresAt - nowS)),
    ...(scope !== '' && { scope }),
    authorization_details: detailsOf(grant.authority),
    task: grant.task.id,
    grant: grant.id,
    ...(handle !== undefined && { handle }),
    lineage: lineageSentence(grant),
    ...(narrowed !== undefined && narrowed.length > 0 && { narrowed }),
  }
}
