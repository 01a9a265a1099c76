/**
 * Signs canonical requests with one key pair: version 4 with a key derived for day, region and service, version 4a with an elliptic
 * curve key derived from the pair. What is derived is kept for the last day only. Holds the secret; prints nothing.
 */
import { createHmac, hash, type KeyObject, sign } from 'node:crypto'
import { AWS4, AWS4A, type AwsScope } from '../../protocol/aws-claim.ts'
import type { Credential } from '../provider.ts'
import { asymmetricKey } from './asymmetric.ts'
import { type Canonical, canonicalRequest } from './canonical.ts'

export interface Stamp {
  readonly scope: AwsScope
  /** `20261122T141500Z` */
  readonly date: string
}

export interface Signer {
  readonly accessKeyId: string
  readonly sessionToken: string | undefined
  /** Hex, of a canonical request. */
  signature(canonical: Canonical, stamp: Stamp): string
  /** Hex, of any other text to sign that chains on a signature before it: chunks of a body. Version 4 alone. */
  chained(kind: string, rest: readonly string[], stamp: Stamp): string
}

export { canonicalRequest }

/** `20261122/eu-west-1/s3/aws4_request`, without region in version 4a. */
export function credentialScope({ scope, date }: Stamp): string {
  const region = scope.algorithm === AWS4A ? '' : `${scope.region}/`
  return `${date.slice(0, 8)}/${region}${scope.service}/aws4_request`
}

export function stampOf(scope: AwsScope, nowMs: number): Stamp {
  return { scope, date: new Date(nowMs).toISOString().replace(/[-:]|\.\d{3}/g, '') }
}

export function createSigner(credential: Pick<Credential, 'secret' | 'parts'>): Signer {
  const accessKeyId = credential.parts?.access_key_id?.reveal() ?? ''
  /** credential scope → key; of one day. */
  const keys = new Map<string, Buffer>()
  let day = ''
  let asymmetric: KeyObject | undefined

  function keyFor(stamp: Stamp): Buffer {
    const name = credentialScope(stamp)
    if (!stamp.date.startsWith(day) || day === '') keys.clear()
    day = stamp.date.slice(0, 8)
    const known = keys.get(name)
    if (known !== undefined) return known
    const { region, service } = stamp.scope
    const key = [day, region, service, 'aws4_request'].reduce<Buffer>(
      hmac,
      Buffer.from(`AWS4${credential.secret.reveal()}`),
    )
    if (keys.size < MAX_KEYS) keys.set(name, key)
    return key
  }

  return {
    accessKeyId,
    sessionToken: credential.parts?.session_token?.reveal(),
    signature(canonical, stamp) {
      const text = [
        stamp.scope.algorithm,
        stamp.date,
        credentialScope(stamp),
        hash('sha256', Buffer.from(canonical.text, 'latin1')),
      ].join('\n')
      if (stamp.scope.algorithm === AWS4) return hmac(keyFor(stamp), text).toString('hex')
      asymmetric ??= asymmetricKey(credential.secret.reveal(), accessKeyId)
      return sign('sha256', Buffer.from(text), asymmetric).toString('hex')
    },
    chained: (kind, rest, stamp) =>
      hmac(keyFor(stamp), [kind, stamp.date, credentialScope(stamp), ...rest].join('\n')).toString('hex'),
  }
}

/** Regions times services that one credential signs for; more are derived anew each time. */
const MAX_KEYS = 64

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
