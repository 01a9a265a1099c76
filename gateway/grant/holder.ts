/**
 * What the holder of a grant that is bound to a key signs by itself, without asking a gateway: attestations that it sends along
 * with a request for a child, and children that it makes offline. Reads the holder's own token; nothing here verifies.
 */
import type { KeyObject } from 'node:crypto'
import { detailsOf } from '../protocol/details.ts'
import type { Authority, Confirmation } from '../protocol/grant.ts'
import { holderName, opening, statement } from './chain/attest.ts'
import { DELEGATION_TYPE, type Link, PROOF_TYPE, readAttestation } from './chain/attestation.ts'
import { authorityHash, authorityOf, grantOf, VERSION } from './chain/claims.ts'
import { hashOf, inputOf, publicJwk, readJws, signJws } from './chain/jws.ts'
import { SEPARATOR } from './chain/offline.ts'
import { TOKEN_LIMIT } from './chain/token.ts'

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

/** What the holder's own token says that it has. Nothing here is verified: holders know whom they got it from. */
export interface Held {
  readonly id: string
  /** Delegated offline; otherwise signed by the gateway. */
  readonly isOffline: boolean
  readonly issuer: string
  readonly task: string
  readonly depth: number
  /** Absent where an offline hop leaves it as it was above. */
  readonly maxDepth?: number
  readonly delegable: boolean
  readonly authority: readonly Authority[]
  /** Epoch seconds. */
  readonly expiresAt: number
  readonly cnf: Confirmation | undefined
  /** What its children name as `par_hash` and `prh`. */
  readonly parentHash: string
  readonly previous: string | undefined
}

/** @throws {JwsError | ClaimError | GatewayError} for a text that is no grant. */
export function readHeld(token: string): Held {
  const [newest = ''] = token.split(SEPARATOR, 1)
  const jws = readJws(newest, TOKEN_LIMIT)
  const parentHash = hashOf(inputOf(newest))
  if (jws.header.typ === DELEGATION_TYPE) {
    const { id, issuer, task, depth, expiresAt, cnf, claims } = readAttestation(newest, 1)
    const { del_max_depth: maxDepth } = claims
    return {
      ...{ id, isOffline: true, issuer, task, depth, expiresAt, cnf, parentHash, previous: hashOf(newest) },
      ...(maxDepth !== undefined && { maxDepth: maxDepth as number }),
      delegable: claims.delegable === undefined,
      authority: authorityOf(claims.authorization_details),
    }
  }
  const issuer = String(jws.payload.iss)
  const { id, task, depth, maxDepth, delegable, authority, expiresAt, cnf, lin } = grantOf(jws.payload, issuer)
  const previous = depth === 0 ? undefined : lin
  const own = { depth, maxDepth, delegable, authority, expiresAt, cnf }
  return { id, isOffline: false, issuer, task: task.id, ...own, parentHash, previous }
}

function below({ parent, agent, authority, cnf }: Delegation): Held & { readonly link: Link } {
  const held = readHeld(parent)
  const { issuer, task, depth, parentHash, previous } = held
  const child = { agent, authorityHash: authorityHash(authority), delegator: undefined, ...(cnf && { cnf }) }
  return { ...held, link: { ...child, issuer, task, depth: depth + 1, parentHash, previous } }
}
