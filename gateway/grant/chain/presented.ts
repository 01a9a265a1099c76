/**
 * What a caller presents to say who it is: nothing, a handle, a grant that this gateway signed, or one that its parent's holder
 * signed without asking. Everything here is the attacker's; only its shape is looked at.
 */
import type { Confirmation, Grant } from '../../protocol/grant.ts'
import type { Inbound } from '../../protocol/message.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { isHandle } from '../handle.ts'
import { JwsError, readJws } from './jws.ts'
import { TOKEN_LIMIT } from './token.ts'

/** What a caller says and proves about itself, of whatever it asks. */
export type Caller = Pick<Inbound, 'tenant' | 'presented' | 'proof'>

/** @throws {GatewayError} `grant_missing`, `grant_invalid` for more than 16 KiB. */
export function tokenOf(caller: Caller): string {
  const { presented } = caller
  if (presented === null) {
    if (caller.proof?.['x5t#S256'] !== undefined)
      throw new GatewayError(
        'grant_missing',
        'The connection shows a certificate, which says who is calling but not for which task. With that certificate, ask the token endpoint of the control door for a grant, and present it.',
      )
    throw new GatewayError(
      'grant_missing',
      'Nothing was presented that says who is calling. Run the command with `keyless run`, or use the proxy URL that `keyless task open` prints.',
    )
  }
  const { token } = presented
  if (token.length > TOKEN_LIMIT) throw invalid(`What was presented is longer than ${TOKEN_LIMIT} characters.`)
  return token
}

/** @throws {GatewayError} `grant_invalid` */
export function checkShape(token: string, caller: Caller): void {
  if (isHandle(token) || token.includes('~') || token.split('.').length === 3) return
  throw invalid(
    `A value of ${token.length} characters was presented${where(caller)} that is neither a handle (kh_…) nor a signed grant.`,
  )
}

/** A grant that was delegated offline: the delegation that made it, and the id that it says it has. */
export interface OfflineGrant {
  /** Compact JWS; equals the last of the grant's attestations once it is known. */
  readonly delegation: string
  readonly id: string
}

/**
 * @returns undefined for anything but an offline delegation: newest hop first, joined by `~`.
 * @throws {GatewayError} `grant_invalid`
 */
export function offlineOf(token: string): OfflineGrant | undefined {
  const isChain = token.includes('~')
  const delegation = isChain ? token.slice(0, token.indexOf('~')) : token
  try {
    const { header, payload } = readJws(delegation, TOKEN_LIMIT)
    if (!isChain && header.typ !== 'keyless-delegation+jwt') return undefined
    if (typeof payload.jti === 'string') return { delegation, id: payload.jti }
  } catch (cause) {
    if (!(cause instanceof JwsError)) throw cause
    if (!isChain) return undefined // what is wrong with it is said where it is verified
  }
  throw invalid('An offline delegation was presented that is no signed delegation of a grant.')
}

/** Whether every key that a grant is bound to was proved; what is bound to none needs no proof. */
export function isProved(cnf: Confirmation | undefined, proof: Confirmation | undefined): boolean {
  if (cnf === undefined) return true
  const isHeld = cnf.jkt === undefined || cnf.jkt === proof?.jkt
  const isCertified = cnf['x5t#S256'] === undefined || cnf['x5t#S256'] === proof?.['x5t#S256']
  return isHeld && isCertified && (cnf.jkt ?? cnf['x5t#S256']) !== undefined
}

/** A grant that is bound to a key is worth nothing to whoever merely saw it. @throws {GatewayError} `grant_invalid` */
export function checkProof(grant: Grant, proof: Confirmation | undefined): void {
  if (isProved(grant.cnf, proof)) return
  throw new GatewayError(
    'grant_invalid',
    'The grant is bound to a key, and the request does not prove that the caller has it. Send a DPoP proof made with that key, or connect with the certificate that the grant names.',
  )
}

/** What `check` says; if it refuses, the record of the refusal names the grant that was presented. */
export function about<T>({ id }: Pick<Grant, 'id'>, check: () => T): T {
  try {
    return check()
  } catch (cause) {
    if (cause instanceof GatewayError) cause.grant = id
    throw cause
  }
}

export function invalid(what: string): GatewayError {
  return new GatewayError('grant_invalid', `${what} Open a new task with \`keyless task open\` or \`keyless run\`.`)
}

function where(caller: Caller): string {
  switch (caller.presented?.scheme) {
    case 'basic':
      return ' as Basic password'
    case 'bearer':
      return ' as Bearer token'
    case 'dpop':
      return ' as DPoP token'
    default:
      return ' in the credential slot of the service'
  }
}
