/**
 * The key of AWS signature version 4a, which is derived from an ordinary pair of access key and secret, and good for every region: an
 * elliptic curve key on P-256 (NIST SP 800-108 in counter mode; the first candidate in range counts). Pure.
 */
import { createECDH, createHmac, createPrivateKey, type KeyObject } from 'node:crypto'
import { AWS4A } from '../../protocol/aws-claim.ts'

/** Order of P-256, less two. */
const LAST = 0xffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551n - 2n

export function asymmetricKey(secret: string, accessKeyId: string): KeyObject {
  for (let counter = 1; counter < 255; counter++) {
    const label = Buffer.concat([
      Buffer.from([0, 0, 0, 1]),
      Buffer.from(AWS4A),
      Buffer.from([0]),
      Buffer.from(accessKeyId),
      Buffer.from([counter, 0, 0, 1, 0]),
    ])
    const candidate = createHmac('sha256', `AWS4A${secret}`).update(label).digest('hex')
    const scalar = BigInt(`0x${candidate}`)
    if (scalar <= LAST) return privateKey((scalar + 1n).toString(16).padStart(64, '0'))
  }
  throw new Error('no key of version 4a can be derived')
}

function privateKey(hex: string): KeyObject {
  const pair = createECDH('prime256v1')
  pair.setPrivateKey(hex, 'hex')
  const point = pair.getPublicKey()
  const [x, y] = [point.subarray(1, 33), point.subarray(33)].map((bytes) => bytes.toString('base64url'))
  const d = Buffer.from(hex, 'hex').toString('base64url')
  return createPrivateKey({ format: 'jwk', key: { kty: 'EC', crv: 'P-256', x: x ?? '', y: y ?? '', d } })
}
