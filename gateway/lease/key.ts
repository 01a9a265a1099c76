/**
 * The lease key: one name for everything that widens authority. Two calls share a credential only if every field here is
 * equal, so reviewers ask of each new input: what would make two requests wrongly share this? Pure.
 */
import { createHmac, type KeyObject } from 'node:crypto'

export interface LeaseAuthority {
  readonly tenant: string
  readonly service: string
  /** Name of the credential in settings. */
  readonly credential: string
  readonly provider: string
  /** `Provider.identity`: issuer, client, scope, key reference. */
  readonly identity: string
  /** `Provider.role` of the call; undefined where the provider knows none. */
  readonly role: string | undefined
  /** Grant id (`jti`). */
  readonly grant: string
  readonly lineageHash: string
  /** Obligations of the decision: they bound what is asked from the issuer. */
  readonly ttlS: number | undefined
  readonly singleUse: boolean
}

/**
 * Injective encoding: a version, then each field as its length in bytes (32 bit, big endian) and its UTF-16 code units, in
 * the order above. UTF-16 rather than UTF-8, because UTF-8 maps every lone surrogate to the same bytes.
 */
export function encodeAuthority(authority: LeaseAuthority): Buffer {
  const fields = [
    'keyless lease key v2',
    authority.tenant,
    authority.service,
    authority.credential,
    authority.provider,
    authority.identity,
    authority.role === undefined ? '' : `=${authority.role}`,
    authority.grant,
    authority.lineageHash,
    authority.ttlS === undefined ? '' : String(authority.ttlS),
    authority.singleUse ? 'single-use' : '',
  ]
  return Buffer.concat(fields.flatMap(lengthPrefixed))
}

/** @returns HMAC-SHA-256 of the authority, base64url, 43 characters: says nothing to whoever reads the cache. */
export function leaseKey(authority: LeaseAuthority, macKey: KeyObject): string {
  return createHmac('sha256', macKey).update(encodeAuthority(authority)).digest('base64url')
}

function lengthPrefixed(field: string): [length: Buffer, units: Buffer] {
  const units = Buffer.from(field, 'utf16le')
  const length = Buffer.alloc(4)
  length.writeUInt32BE(units.length)
  return [length, units]
}
