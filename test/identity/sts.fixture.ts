/**
 * An imitation of AWS STS over real HTTPS that verifies signatures (SigV4) for the keys that it knows, and a client that signs
 * with the signer of the AWS SDK.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { SignatureV4 } from '@smithy/signature-v4'
import { systemClock } from '../../gateway/protocol/clock.ts'
import { createUpstream } from '../../gateway/upstream/forward.ts'
import { makeAuthority } from '../upstream/certificate.fixture.ts'

export const BODY = 'Action=GetCallerIdentity&Version=2011-06-15'

/** Keys of a session, and who AWS says has them. */
export interface Keys {
  readonly accessKeyId: string
  readonly secretAccessKey: string
  readonly sessionToken?: string
}

export interface Sts {
  /** `localhost:port` */
  readonly host: string
  /** access key id → secret, and what is answered about it */
  readonly callers: Map<string, { readonly keys: Keys; readonly xml: string }>
  /** Requests that arrived, verified or not. */
  readonly seen: { readonly headers: IncomingMessage['headers']; readonly body: string }[]
  /** Answers in place of what STS would say. */
  answer: ((response: ServerResponse) => void) | undefined
  readonly fetchFor: (addresses: readonly string[]) => typeof globalThis.fetch
  close(): Promise<void>
}

export function answerAbout(o: { arn: string; userId: string; account: string }): string {
  return `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <GetCallerIdentityResult>
    <Arn>${o.arn}</Arn>
    <UserId>${o.userId}</UserId>
    <Account>${o.account}</Account>
  </GetCallerIdentityResult>
  <ResponseMetadata>
    <RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId>
  </ResponseMetadata>
</GetCallerIdentityResponse>
`
}

export async function openSts(): Promise<Sts> {
  const authority = await makeAuthority()
  const { cert, key } = await authority.issue(['localhost'])
  const server = createServer({ cert, key }, async (request, response) => {
    let body = ''
    for await (const chunk of request.setEncoding('utf8')) body += chunk
    sts.seen.push({ headers: request.headers, body })
    if (sts.answer !== undefined) return sts.answer(response)
    const caller = sts.callers.get(/Credential=([^/]+)/.exec(request.headers.authorization ?? '')?.[1] ?? '')
    const isTrue = caller !== undefined && verifies(request, body, caller.keys)
    response.writeHead(isTrue ? 200 : 403, { 'content-type': 'text/xml' })
    response.end(
      isTrue ? caller.xml : '<ErrorResponse><Error><Code>SignatureDoesNotMatch</Code></Error></ErrorResponse>',
    )
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const upstream = createUpstream({
    connectTimeoutMs: 2_000,
    headersTimeoutMs: 2_000,
    bodyTimeoutMs: 2_000,
    ca: [authority.pem],
    hosts: new Map([['localhost', '127.0.0.1']]),
    clock: systemClock,
  })
  const sts: Sts = {
    host: `localhost:${(server.address() as AddressInfo).port}`,
    callers: new Map(),
    seen: [],
    answer: undefined,
    fetchFor: (addresses) => upstream.fetchFor(addresses),
    async close() {
      await upstream.close()
      server.closeAllConnections()
      await once(server.close(), 'close')
    },
  }
  return sts
}

/** Signature Version 4, from AWS's description of it: canonical request, string to sign, derived key. */
function verifies(request: IncomingMessage, body: string, keys: Keys): boolean {
  const { authorization = '', ...headers } = request.headers
  const [, scope = '', list = '', signature = ''] =
    /^AWS4-HMAC-SHA256 Credential=[^/]+\/([^,]+), SignedHeaders=([^,]+), Signature=([0-9a-f]{64})$/.exec(
      authorization,
    ) ?? []
  if (keys.sessionToken !== undefined && headers['x-amz-security-token'] !== keys.sessionToken) return false
  const fields = list.split(';').map(
    (name) =>
      `${name}:${String(headers[name] ?? '')
        .trim()
        .replaceAll(/ +/g, ' ')}\n`,
  )
  const canonical = [request.method, '/', '', fields.join(''), list, sha256(body)].join('\n')
  const date = String(headers['x-amz-date'])
  const signed = ['AWS4-HMAC-SHA256', date, scope, sha256(canonical)].join('\n')
  const key = scope
    .split('/')
    .reduce((secret: Buffer, part) => hmac(secret, part), Buffer.from(`AWS4${keys.secretAccessKey}`))
  const expected = hmac(key, signed)
  return signature.length === 64 && timingSafeEqual(expected, Buffer.from(signature, 'hex'))
}

export interface CallerToken {
  method: string
  url: string
  headers: Record<string, string>
  body: string
}

export interface Signing {
  readonly keys: Keys
  readonly host: string
  /** Server id that is signed along; undefined leaves it out. */
  readonly serverId: string | undefined
  readonly at: Date
  readonly more?: Record<string, string>
}

/** The request as a client of ours makes it, with the signer of the AWS SDK. */
export async function signCaller({ keys, host, serverId, at, more = {} }: Signing): Promise<CallerToken> {
  const signer = new SignatureV4({ credentials: keys, region: 'eu-central-1', service: 'sts', sha256: Sha256 })
  const [hostname = '', port] = host.split(':')
  const headers = {
    host,
    'content-type': 'application/x-www-form-urlencoded; charset=utf-8',
    ...(serverId !== undefined && { 'x-keyless-server-id': serverId }),
    ...more,
  }
  const request = {
    method: 'POST',
    protocol: 'https:',
    hostname,
    ...(port && { port: Number(port) }),
    path: '/',
    headers,
    body: BODY,
  }
  const signed = (await signer.sign(request as never, { signingDate: at })) as unknown as CallerToken
  return { method: 'POST', url: `https://${host}/`, headers: { ...signed.headers }, body: BODY }
}

export function encode(token: unknown): string {
  return Buffer.from(typeof token === 'string' ? token : JSON.stringify(token)).toString('base64')
}

/** What the signer wants of a hash. */
class Sha256 {
  readonly #secret: string | Uint8Array | undefined
  readonly #parts: Uint8Array[] = []

  constructor(secret?: unknown) {
    this.#secret = secret as string | Uint8Array | undefined
  }

  update(data: string | Uint8Array): void {
    this.#parts.push(Buffer.from(data as string))
  }

  async digest(): Promise<Uint8Array> {
    const hash = this.#secret === undefined ? createHash('sha256') : createHmac('sha256', this.#secret)
    return hash.update(Buffer.concat(this.#parts)).digest()
  }

  reset(): void {
    this.#parts.length = 0
  }
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function hmac(key: Buffer, text: string): Buffer {
  return createHmac('sha256', key).update(text).digest()
}
