/**
 * What the holder of a grant that is bound to a key signs by itself, without asking a gateway: attestations that it sends along
 * with a request for a child, and children that it makes offline. Reads the holder's own token; nothing here verifies.
 */
import type { KeyObject } from 'node:crypto'
import { detailsOf } from '../protocol/details.ts'
import type { Authority, Confirmation } from '../protocol/grant.ts'
import { holderName, opening, statement } from './attest.ts'
import { DELEGATION_TYPE, type Link, PROOF_TYPE, readAttestation } from './attestation.ts'
import { authorityHash, grantOf, VERSION } from './claims.ts'
import { hashOf, inputOf, publicJwk, readJws, signJws } from './jws.ts'
import { SEPARATOR } from './offline.ts'
import { TOKEN_LIMIT } from './token.ts'

/** What a holder delegates. */
export interface Delegation {
  /** The holder's own token: as the gateway signed it, or as it was delegated offline. */
  readonly parent: string
  /** Private key that the parent is bound to, Ed25519 or P-256. */
  readonly key: KeyObject
  /** Registered agent id. */
  readonly agent: string
  readonly authority: readonly Authority[]
  /** Epoch seconds. */
  readonly issuedAt: number
  /** Epoch seconds, at most the parent's. */
  readonly expiresAt: number
  /** Key of the child. An offline child without one is whoever has the text, and can delegate no further. */
  readonly cnf?: Confirmation
  /** At most 500 characters, for the record. */
  readonly reason?: string
}

export interface OfflineDelegation extends Delegation {
  /** Default: the parent's. */
  readonly maxDepth?: number
  /** Default true. */
  readonly delegable?: boolean
  readonly step?: string
  /** W3C trace id. */
  readonly trace?: string
}

/** An attestation for `actor_proof` of a token exchange. */
export function signAttestation(o: Delegation): string {
  const { link } = below(o)
  const said = {
    iss: holderName(o.key),
    from: o.issuedAt,
    until: o.expiresAt,
    ...(o.reason !== undefined && { reason: o.reason }),
  }
  return signJws({ typ: PROOF_TYPE, jwk: publicJwk(o.key) }, statement(link, said), o.key)
}

/** @returns a token for the child: its own hop, and those above it that the gateway has not signed, newest first. */
export function signOffline(o: OfflineDelegation): string {
  const { link, id, isOffline } = below(o)
  const claims = {
    ver: VERSION,
    ...opening(link, { iss: holderName(o.key), from: o.issuedAt, until: o.expiresAt }),
    par: id,
    authorization_details: detailsOf(o.authority),
    ...(o.maxDepth !== undefined && { del_max_depth: o.maxDepth }),
    ...(o.delegable === false && { delegable: false }),
    ...(o.step !== undefined && { step: o.step }),
    ...(o.trace !== undefined && { trace: o.trace }),
    ...(o.reason !== undefined && { reason: o.reason }),
  }
  const own = signJws({ typ: DELEGATION_TYPE, jwk: publicJwk(o.key) }, claims, o.key)
  return isOffline ? own + SEPARATOR + o.parent : own
}

interface Below {
  /** Id of the parent. */
  readonly id: string
  readonly isOffline: boolean
  readonly link: Link
}

function below({ parent, agent, authority, cnf }: Delegation): Below {
  const [newest = ''] = parent.split(SEPARATOR, 1)
  const child = { agent, authorityHash: authorityHash(authority), delegator: undefined, ...(cnf && { cnf }) }
  const jws = readJws(newest, TOKEN_LIMIT)
  const parentHash = hashOf(inputOf(newest))
  if (jws.header.typ === DELEGATION_TYPE) {
    const { id, issuer, task, depth } = readAttestation(newest, 1)
    const link = { ...child, issuer, task, depth: depth + 1, parentHash, previous: hashOf(newest) }
    return { id, isOffline: true, link }
  }
  const issuer = String(jws.payload.iss)
  const { id, task, depth, lin } = grantOf(jws.payload, issuer)
  const link = {
    ...child,
    issuer,
    task: task.id,
    depth: depth + 1,
    parentHash,
    previous: depth === 0 ? undefined : lin,
  }
  return { id, isOffline: false, link }
}
