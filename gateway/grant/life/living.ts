/** The living grant behind what is presented at an instruction door, or named by its id from the local socket. */
import { hash } from 'node:crypto'
import type { Confirmation, Grant } from '../../protocol/grant.ts'
import { isUuidv7 } from '../../protocol/id.ts'
import type { ClientEvidence } from '../../protocol/identity.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { offlineOf } from '../chain/presented.ts'
import { digestOf, isHandle } from '../handle.ts'
import type { Room } from '../room.ts'
import type { Standing } from '../store/store.ts'

/** As at the proxy door: with the keys that were proved along. @throws {GatewayError} as `Authenticator.authenticate` */
export async function heldGrant(
  room: Room,
  tenant: string,
  { token, proof }: { readonly token: string; readonly proof?: Confirmation | undefined },
): Promise<Grant> {
  const presented = { token, scheme: 'bearer' } as const
  return room.authenticator.authenticate({ tenant, presented, ...(proof !== undefined && { proof }) })
}

/** Whoever names it, and whether or not a key was proved. @throws {GatewayError} `grant_invalid`, `grant_revoked`, … */
export async function namedGrant(room: Room, tenant: string, name: string): Promise<Grant> {
  return room.authenticator.admit(await standingNamed(room, tenant, name))
}

/**
 * What can still be ended. The store alone is asked: an end of which only this process knows has not reached the replicas, and
 * is made again. @throws {GatewayError} `grant_invalid`, `grant_revoked`, `grant_expired`
 */
export async function endableGrant(room: Room, tenant: string, name: string): Promise<Grant> {
  const standing = await standingNamed(room, tenant, name)
  const { ended, stored } = standing
  const isOver = ended !== undefined || stored.expiresAt * 1000 <= room.clock.nowMs()
  return isOver ? room.authenticator.admit(standing) : room.records.open(stored)
}

/** A living grant below all those above it, root first. */
export async function chainTo(room: Room, tenant: string, id: string): Promise<readonly Grant[]> {
  const grant = await namedGrant(room, tenant, id)
  return Promise.all([...grant.ancestry.map((above) => namedGrant(room, tenant, above.id)), grant])
}

export function isGrantId(text: string): boolean {
  return isUuidv7(text)
}

/** What the door saw proved: a DPoP key, and the certificate of the connection (RFC 8705 §3). */
export function proofOf({ certificates }: ClientEvidence, jkt: string | undefined): Confirmation | undefined {
  const leaf = certificates?.[0]
  if (jkt === undefined && leaf === undefined) return undefined
  return {
    ...(jkt !== undefined && { jkt }),
    ...(leaf !== undefined && { 'x5t#S256': hash('sha256', leaf, 'base64url') }),
  }
}

async function standingNamed(room: Room, tenant: string, name: string): Promise<Standing> {
  const standing = isGrantId(name) ? await standingOfId(room, tenant, name) : await standingOf(room, tenant, name)
  if (standing !== undefined) return standing
  throw new GatewayError('grant_invalid', 'There is no such grant here, or it ended more than an hour ago.')
}

async function standingOf(room: Room, tenant: string, token: string): Promise<Standing | undefined> {
  if (isHandle(token)) {
    const digest = digestOf(token)
    const standing = await room.store.byHandle(tenant, digest)
    return standing?.stored.handleDigest === digest ? standing : undefined
  }
  const offline = offlineOf(token)
  if (offline !== undefined) {
    const standing = await standingOfId(room, tenant, offline.id)
    // Its id was chosen by whoever signed it: it is the known grant only if that was made by this very text.
    const newest = standing === undefined ? undefined : room.records.open(standing.stored).attestations.at(-1)
    return newest === offline.delegation ? standing : undefined
  }
  const claimed = await room.seal.verify(token)
  return claimed.tenant === tenant ? standingOfId(room, tenant, claimed.id) : undefined
}

/** A store may be written to by others: what it has under an id must be of that id, and of this tenant. */
async function standingOfId(room: Room, tenant: string, id: string): Promise<Standing | undefined> {
  const standing = await room.store.byId(tenant, id)
  return standing?.stored.id === id && standing.stored.tenant === tenant ? standing : undefined
}
