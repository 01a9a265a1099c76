/**
 * Approvals at rest: AES-256-GCM under a key of the gateways alone, bound to tenant, id and version. Whoever can write to the store
 * can lose an approval, but can neither make one, nor alter one, nor put one in the place of another; whoever can read it learns
 * nothing of what was asked.
 */
import { createCipheriv, createDecipheriv, createHmac, createSecretKey, type KeyObject, randomBytes } from 'node:crypto'
import type { ApprovalRecord } from './record.ts'
import type { StoredApproval } from './store.ts'

const NONCE_BYTES = 12
const TAG_BYTES = 16

export interface ApprovalSeal {
  close(record: ApprovalRecord): string
  /** @returns undefined for anything that no gateway of ours wrote for exactly this place. */
  open(stored: Pick<StoredApproval, 'tenant' | 'id' | 'version' | 'body'>): ApprovalRecord | undefined
  /** Keys fingerprints. */
  readonly fingerprintKey: KeyObject
}

/** @param storeKey 32 bytes, the same on every replica: that of the store of grants, from which one key per purpose is derived. */
export function createApprovalSeal(storeKey: KeyObject): ApprovalSeal {
  const key = derive(storeKey, 'approvals')
  return {
    fingerprintKey: derive(storeKey, 'approval fingerprints'),
    close(record) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', key, nonce)
      cipher.setAAD(placeOf(record))
      const body = cipher.update(JSON.stringify(record), 'utf8')
      cipher.final()
      return Buffer.concat([nonce, cipher.getAuthTag(), body]).toString('base64url')
    },
    open(stored) {
      try {
        const bytes = Buffer.from(stored.body, 'base64url')
        const decipher = createDecipheriv('aes-256-gcm', key, bytes.subarray(0, NONCE_BYTES), {
          authTagLength: TAG_BYTES,
        })
        decipher.setAAD(placeOf(stored))
        decipher.setAuthTag(bytes.subarray(NONCE_BYTES, NONCE_BYTES + TAG_BYTES))
        const text = decipher.update(bytes.subarray(NONCE_BYTES + TAG_BYTES), undefined, 'utf8')
        return JSON.parse(text + decipher.final('utf8')) as ApprovalRecord
      } catch {
        return undefined
      }
    },
  }
}

function derive(key: KeyObject, label: string): KeyObject {
  return createSecretKey(createHmac('sha256', key).update(label).digest())
}

function placeOf({ tenant, id, version }: Pick<StoredApproval, 'tenant' | 'id' | 'version'>): Buffer {
  return Buffer.from(`keyless approval v1\0${tenant}\0${id}\0${version}`, 'utf8')
}
