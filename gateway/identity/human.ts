/**
 * ID tokens (OIDC Core §2, §3.1.3.7) as subject tokens: a person, and the evidence of how the issuer made sure of it. The
 * `nonce` belonged to the login and is not looked at; a nested `act` decides nothing (RFC 8693 §4.1).
 */
import type { Human } from '../protocol/grant.ts'
import { type Claims, INERT_HEADERS, type Jwt, type JwtTools, PLAIN_JWT, rulesOf, textOf, verifyJwt } from './jwt.ts'
import { isRecord } from './key-set.ts'
import { type Refuse, shown } from './refuse.ts'
import type { TrustOf } from './trust.ts'

export interface KnownHuman {
  readonly human: Human
  /** Agents that may act for this person; undefined: any that policy admits. */
  readonly mayAct?: readonly string[]
}

/** @param tools `issuer` is our own: agents are named by us. */
export async function verifyHuman(
  jwt: Jwt,
  row: TrustOf<'human'>,
  tools: JwtTools & { readonly issuer: string },
): Promise<KnownHuman> {
  const { refuse } = tools
  const { claims } = jwt
  await verifyJwt(jwt, { ...rulesOf(row), typ: PLAIN_JWT, inert: INERT_HEADERS, audiences: 'all' }, tools)
  // Keycloak types its access and refresh tokens only here.
  if (claims.typ !== undefined && claims.typ !== 'ID') throw refuse(`its claim typ is ${shown(claims.typ)}, not "ID"`)
  checkParty(claims, row.authorized_parties ?? row.audience, refuse)
  const actor = actorOf(claims, tools.issuer, refuse)
  const mayAct = actor === undefined ? row.agents : [actor].filter((id) => row.agents?.includes(id) ?? true)
  return {
    human: { iss: row.issuer, sub: textOf(claims, 'sub', refuse), ...evidenceOf(claims, refuse) },
    ...(mayAct !== undefined && { mayAct }),
  }
}

/** OIDC Core §3.1.3.7 steps 4 and 5. */
function checkParty({ aud, azp }: Claims, accepted: readonly string[], refuse: Refuse): void {
  if (azp === undefined && !(Array.isArray(aud) && aud.length > 1)) return
  if (typeof azp !== 'string' || !accepted.includes(azp))
    throw refuse(`it was issued to the client ${shown(azp)} (azp), not to ${accepted.join(' or ')}`)
}

/**
 * RFC 8693 §4.4 `may_act`: the one agent that may act for this person. A condition that is not understood is not met, so any
 * other member refuses the token, and so does an `iss` that is not ours: `sub` would then be a name of someone else's agents.
 */
function actorOf({ may_act: mayAct }: Claims, ownIssuer: string, refuse: Refuse): string | undefined {
  if (mayAct === undefined) return undefined
  if (!isRecord(mayAct)) throw refuse('its may_act is not an object')
  const stranger = Object.keys(mayAct).find((name) => name !== 'sub' && name !== 'iss')
  if (stranger !== undefined) throw refuse(`its may_act has ${shown(stranger)}; only sub and iss are understood`)
  if (mayAct.iss !== undefined && mayAct.iss !== ownIssuer)
    throw refuse(`its may_act is about an actor of ${shown(mayAct.iss)}, not about an agent of ${ownIssuer}`)
  return textOf(mayAct, 'sub', refuse)
}

const MAX_METHODS = 16

function evidenceOf(claims: Claims, refuse: Refuse): Pick<Human, 'authTime' | 'amr' | 'acr'> {
  const { auth_time: authTime, amr, acr } = claims
  if (authTime !== undefined && !Number.isSafeInteger(authTime)) throw refuse('its auth_time is not a time in seconds')
  if (amr !== undefined && !(Array.isArray(amr) && amr.length <= MAX_METHODS))
    throw refuse(`its amr is not a list of at most ${MAX_METHODS} methods`)
  return {
    ...(authTime !== undefined && { authTime: authTime as number }),
    ...(amr !== undefined && { amr: (amr as unknown[]).map((method) => textOf({ amr: method }, 'amr', refuse, 64)) }),
    ...(acr !== undefined && { acr: textOf(claims, 'acr', refuse) }),
  }
}
