/**
 * A grant as kept in a store: JSON under a keyed hash. Whoever can write to the store can lose grants, but can neither widen
 * one nor point a handle at another.
 */
import { createHmac, createSecretKey, hkdfSync, type KeyObject, timingSafeEqual } from 'node:crypto'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { StoredGrant } from './store.ts'

const MAC_BYTES = 32
const MAC_CHARS = 43

export interface Records {
  close(grant: Grant, handleDigest: string, watched: boolean): StoredGrant
  /** @throws {GatewayError} `grant_invalid` when the record is not one that this gateway wrote. */
  open(stored: StoredGrant): Grant
}

/** @param signingKey the key that signs grants; the key of the records is derived from it, so replicas agree. */
export function createRecords(signingKey: KeyObject): Records {
  const source = signingKey.export({ type: 'pkcs8', format: 'der' })
  const key = createSecretKey(
    Buffer.from(hkdfSync('sha256', source, Buffer.alloc(0), 'keyless grant records', MAC_BYTES)),
  )
  const mac = (handleDigest: string, json: string) =>
    createHmac('sha256', key).update(`${handleDigest}\n${json}`).digest()
  return {
    close(grant, handleDigest, watched) {
      const json = JSON.stringify(grant)
      const body = mac(handleDigest, json).toString('base64url') + json
      const { tenant, id, task, expiresAt } = grant
      return { tenant, id, task: task.id, handleDigest, body, expiresAt, watched }
    },
    open(stored) {
      const json = stored.body.slice(MAC_CHARS)
      const given = Buffer.from(stored.body.slice(0, MAC_CHARS), 'base64url')
      if (given.length !== MAC_BYTES || !timingSafeEqual(given, mac(stored.handleDigest, json))) throw forged()
      const grant = JSON.parse(json) as Grant // our own bytes: the seal was checked
      if (grant.tenant !== stored.tenant || grant.id !== stored.id || grant.task.id !== stored.task) throw forged()
      return grant
    },
  }
}

function forged(): GatewayError {
  return new GatewayError(
    'grant_invalid',
    'What the store holds for this grant does not carry this gateway’s seal: it was changed there, or the signing key was replaced. Open a new task.',
  )
}
