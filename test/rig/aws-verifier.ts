/**
 * Whether a request is signed as AWS wants it, said by Smithy, whose signer is AWS's own: the request is built anew from what arrived,
 * signed with the key that the server knows, and the signatures are compared. Chunks are checked by the rules of the S3
 * documentation ("Transferring payload in multiple chunks").
 */
import { createHash, createHmac, createPublicKey, verify } from 'node:crypto'
import { SignatureV4 } from '@smithy/signature-v4'
import { asymmetricKey } from '../../gateway/provider/aws/asymmetric.ts'

export interface Received {
  readonly method: string
  /** Path and query as they arrived. */
  readonly path: string
  /** `name, value, …` */
  readonly rawHeaders: readonly string[]
  readonly body: Buffer
}

export interface Keys {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string | undefined
}

/** What a valid signature says. */
export interface Verdict {
  readonly accessKeyId: string
  readonly region: string
  readonly service: string
  readonly signedHeaders: readonly string[]
  /** Of a chunked body, what it holds. */
  readonly payload: Buffer
}

interface Claim {
  readonly inQuery: boolean
  readonly algorithm: string
  readonly accessKeyId: string
  /** `20261122/eu-west-1/s3/aws4_request` */
  readonly scope: string
  readonly region: string
  readonly service: string
  readonly signedHeaders: readonly string[]
  readonly signature: string
  readonly date: string
  readonly token: string | undefined
}

type Fields = ReadonlyMap<string, string>

/** What Smithy hashes with. */
export class Sha256 {
  readonly #hash
  constructor(secret?: string | ArrayBuffer | Uint8Array) {
    this.#hash = secret === undefined ? createHash('sha256') : createHmac('sha256', bytesOf(secret))
  }
  update(data: string | ArrayBuffer | Uint8Array): void {
    this.#hash.update(bytesOf(data))
  }
  async digest(): Promise<Uint8Array> {
    return this.#hash.digest()
  }
  reset(): void {}
}

function bytesOf(data: string | ArrayBuffer | Uint8Array): string | Buffer {
  return typeof data === 'string' ? data : Buffer.from(data as Uint8Array)
}

/** @returns what the signature says, or why it is not valid. @param keysOf secret and token of an access key id. */
export async function verifySignature(
  request: Received,
  keysOf: (accessKeyId: string) => Keys | undefined,
): Promise<Verdict | string> {
  const all = fieldsOf(request.rawHeaders)
  const url = new URL(request.path, 'https://x')
  const claim = claimOf(all, url.searchParams)
  if (claim === undefined) return 'not signed'
  const keys = keysOf(claim.accessKeyId)
  if (keys === undefined) return `unknown key ${claim.accessKeyId}`
  if (claim.token !== keys.sessionToken) return 'other token'
  const unsigned = [...all.keys()].filter((name) => name.startsWith('x-amz-') && !claim.signedHeaders.includes(name))
  if (unsigned.length > 0 || !claim.signedHeaders.includes('host')) return `unsigned ${unsigned.join()}`
  const toSign = requestOf(request, claim, all, url)
  if (claim.algorithm !== 'AWS4-HMAC-SHA256') {
    return isAsymmetric(claim, toSign, keys) ? { ...claim, payload: request.body } : 'asymmetric signature is not valid'
  }
  const expected = await expectedSignature(claim, toSign, keys, url)
  if (expected !== claim.signature) return `signature is ${claim.signature}, expected ${expected}`
  const declared = all.get('x-amz-content-sha256') ?? ''
  if (/^[0-9a-f]{64}$/.test(declared) && declared !== sha256(request.body)) return 'other body'
  const payload = chunkedPayload(request.body, declared, claim, keys)
  return typeof payload === 'string' ? payload : { ...claim, payload }
}

function fieldsOf(rawHeaders: readonly string[]): Map<string, string> {
  const all = new Map<string, string>()
  for (let i = 0; i + 1 < rawHeaders.length; i += 2) {
    const name = (rawHeaders[i] as string).toLowerCase()
    const value = rawHeaders[i + 1] as string
    all.set(name, all.has(name) ? `${all.get(name)},${value}` : value)
  }
  return all
}

const AUTHORIZATION = /^(\S+) Credential=([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]+)$/

function claimOf(all: Fields, query: URLSearchParams): Claim | undefined {
  const inQuery = query.has('X-Amz-Signature')
  const of = (name: string) => query.get(`X-Amz-${name}`) ?? ''
  const parts = inQuery
    ? [of('Algorithm'), of('Credential'), of('SignedHeaders'), of('Signature')]
    : AUTHORIZATION.exec(all.get('authorization') ?? '')?.slice(1)
  if (parts === undefined) return undefined
  const [algorithm = '', credential = '', names = '', signature = ''] = parts
  const [accessKeyId = '', ...scope] = credential.split('/')
  return {
    inQuery,
    algorithm,
    accessKeyId,
    scope: scope.join('/'),
    region: scope.length === 4 ? (scope[1] ?? '') : (all.get('x-amz-region-set') ?? of('Region-Set')),
    service: scope.at(-2) ?? '',
    signedHeaders: names.split(';'),
    signature,
    date: inQuery ? of('Date') : (all.get('x-amz-date') ?? ''),
    token: inQuery ? (query.get('X-Amz-Security-Token') ?? undefined) : all.get('x-amz-security-token'),
  }
}

interface ToSign {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly path: string
  readonly query: Record<string, string | string[]>
  readonly headers: Record<string, string>
  readonly body: Buffer
}

const OF_SIGNATURE = /^X-Amz-(?:Algorithm|Credential|Date|Expires|SignedHeaders|Signature|Security-Token)$/

function requestOf({ method, path, body }: Received, claim: Claim, all: Fields, url: URL): ToSign {
  const headers: Record<string, string> = {}
  for (const name of claim.signedHeaders) headers[name] = all.get(name) ?? ''
  const query: ToSign['query'] = {}
  for (const [name, value] of url.searchParams) {
    if (claim.inQuery && OF_SIGNATURE.test(name)) continue
    const known = query[name]
    query[name] = known === undefined ? value : [known, value].flat()
  }
  const [rawPath = '/'] = path.split('?')
  const once = claim.service === 's3' ? reencoded(rawPath) : rawPath
  return { method, protocol: 'https:', hostname: headers.host ?? '', path: once, query, headers, body }
}

function reencoded(path: string): string {
  const strict = (part: string) =>
    encodeURIComponent(part).replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`)
  return decodeURIComponent(path).split('/').map(strict).join('/')
}

async function expectedSignature(claim: Claim, toSign: ToSign, keys: Keys, url: URL): Promise<string> {
  const { region, service, date, inQuery, signedHeaders } = claim
  const uriEscapePath = service !== 's3'
  const signer = new SignatureV4({
    credentials: keys as never,
    region,
    service,
    sha256: Sha256 as never,
    uriEscapePath,
    applyChecksum: false,
  })
  const signingDate = new Date(date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))
  if (!inQuery) {
    const signed = await signer.sign(toSign, { signingDate, signableHeaders: new Set(signedHeaders) })
    return /Signature=(\w+)/.exec(signed.headers.authorization ?? '')?.[1] ?? ''
  }
  const hashed = 'x-amz-content-sha256'
  const isHashed = service === 's3' && toSign.headers[hashed] === undefined
  const headers = isHashed ? { ...toSign.headers, [hashed]: 'UNSIGNED-PAYLOAD' } : toSign.headers
  const signed = await signer.presign(
    { ...toSign, headers },
    {
      signingDate,
      expiresIn: Number(url.searchParams.get('X-Amz-Expires')),
      unhoistableHeaders: new Set(Object.keys(headers)),
      unsignableHeaders: new Set(isHashed ? [hashed] : []),
      signableHeaders: new Set(signedHeaders),
    },
  )
  return String(signed.query?.['X-Amz-Signature'])
}

/** An elliptic curve signature differs each time, so it is verified. That the key is right, test/provider/aws-signature.test.ts shows. */
function isAsymmetric(claim: Claim, { method, path, query, headers, body }: ToSign, keys: Keys): boolean {
  const asked = Object.entries(query).map(
    ([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(String(value))}`,
  )
  const canonical = [
    method,
    path,
    asked.sort().join('&'),
    ...claim.signedHeaders.map((name) => `${name}:${headers[name]?.replace(/\s+/g, ' ').trim()}`),
    '',
    claim.signedHeaders.join(';'),
    headers['x-amz-content-sha256'] ?? sha256(body),
  ].join('\n')
  const text = [claim.algorithm, claim.date, claim.scope, sha256(canonical)].join('\n')
  const key = createPublicKey(asymmetricKey(keys.secretAccessKey, keys.accessKeyId))
  return verify('sha256', Buffer.from(text), key, Buffer.from(claim.signature, 'hex'))
}

/** @returns the payload of a body, whose chunks are signed if the head says so; or what is wrong. */
function chunkedPayload(
  body: Buffer,
  kind: string,
  { date, scope, signature: seed }: Claim,
  keys: Keys,
): Buffer | string {
  if (!kind.startsWith('STREAMING-AWS4-HMAC')) return body
  const hmac = (key: Buffer, text: string) => createHmac('sha256', key).update(text).digest()
  const key = scope.split('/').reduce(hmac, Buffer.from(`AWS4${keys.secretAccessKey}`))
  const sign = (name: string, ...rest: string[]) => hmac(key, [name, date, scope, ...rest].join('\n')).toString('hex')
  const parts: Buffer[] = []
  let [at, before, size] = [0, seed, -1]
  while (size !== 0) {
    const end = body.indexOf('\r\n', at)
    const head = /^([0-9a-f]+);chunk-signature=([0-9a-f]{64})$/.exec(body.toString('latin1', at, end))
    size = Number.parseInt(head?.[1] ?? '', 16)
    const chunk = body.subarray(end + 2, end + 2 + size)
    const expected = sign('AWS4-HMAC-SHA256-PAYLOAD', before, sha256(''), sha256(chunk))
    if (head?.[2] !== expected) return `chunk ${parts.length} is not signed`
    before = expected
    parts.push(chunk)
    at = end + 2 + size + (size === 0 ? 0 : 2)
  }
  const rest = body.toString('latin1', at)
  if (!kind.endsWith('-TRAILER')) return rest === '\r\n' ? Buffer.concat(parts) : 'it does not end with its last chunk'
  const [, trailer = '', last = ''] = /^(.*?)\r\nx-amz-trailer-signature:([0-9a-f]{64})\r\n\r\n$/s.exec(rest) ?? []
  const isSigned = last === sign('AWS4-HMAC-SHA256-TRAILER', before, sha256(`${trailer.trim()}\n`))
  return isSigned ? Buffer.concat(parts) : 'its trailer is not signed'
}

export function sha256(data: string | Buffer): string {
  return createHash('sha256').update(data).digest('hex')
}
