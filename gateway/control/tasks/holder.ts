/** Who gives an instruction about a task: the owner of the socket, or a holder that presents its grant. */
import type { FastifyReply, FastifyRequest } from 'fastify'
import { certificatesOf } from '../../door-tls.ts'
import { proofOf } from '../../grant/life/living.ts'
import type { Confirmation, Grant, Human } from '../../protocol/grant.ts'
import type { Identities } from '../../protocol/identity.ts'
import type { Mandate } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { type Prover, presentedGrant, provedKey } from '../oauth/client.ts'

export interface HolderDoor extends Prover {
  /** Whose request it is, where that was settled before it came here. Default: what it presents says so. */
  known?(request: FastifyRequest): Grant | undefined
  readonly identities: Pick<Identities, 'proof' | 'nonce'>
  readonly grants: {
    /** Who presents this, with the keys that were proved along. */
    holder(token: string, proof?: Confirmation): Promise<Grant>
  }
}

/**
 * The living grant in `Authorization`; undefined when the field is absent. A key counts as proved only under the scheme DPoP
 * (RFC 9449 §7.1): a bound grant sent as Bearer is a stolen one.
 * @throws {GatewayError} `grant_invalid`, `grant_expired`, `grant_revoked`, `dpop_invalid`, …
 */
export async function holderOf(request: FastifyRequest, door: HolderDoor): Promise<Grant | undefined> {
  if (door.known) return door.known(request)
  const held = presentedGrant(request)
  if (held === undefined) return undefined
  const [path = ''] = request.url.split('?', 1)
  const jkt = await provedKey(request, path, door, held.token)
  const certificates = certificatesOf(request.raw.socket)
  const proof = proofOf({ ...(certificates && { certificates }) }, held.scheme === 'dpop' ? jkt : undefined)
  return door.grants.holder(held.token, proof)
}

/** @param o.human owner of the socket; undefined over TCP, where nobody is known by the connection alone. */
export async function mandateOf(
  request: FastifyRequest,
  reply: FastifyReply,
  o: { readonly door: HolderDoor; readonly human: Human | undefined },
): Promise<Mandate> {
  const { door, human } = o
  if (request.headers.dpop !== undefined) void reply.header('dpop-nonce', door.identities.nonce()) // RFC 9449 §9
  const holder = await holderOf(request, door)
  if (holder !== undefined) return { holder }
  if (human !== undefined) return { human }
  throw new GatewayError(
    'grant_missing',
    'Nothing was presented that says who is asking. Send the grant of the task: `Authorization: Bearer <grant>`, or `DPoP` with a proof.',
  )
}
