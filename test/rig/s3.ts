/**
 * As much of S3 as SDKs need to put, get, list and upload in parts, in memory, over TLS. Nothing is done for a request whose signature, declared hash,
 * chunk signatures or checksums are not right. One bucket in both styles of address.
 */
import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type Keys, type Received, verifySignature } from './aws-verifier.ts'
import { readPayload } from './s3-payload.ts'

export interface S3Call {
  readonly received: Received
  readonly host: string
  /** `X-Amz-Content-Sha256`, or `presigned`. */
  readonly signedAs: string
}

export interface TestS3 {
  readonly port: number
  /** Key → content. */
  readonly objects: ReadonlyMap<string, Stored>
  readonly calls: readonly S3Call[]
  /** Why requests were refused. */
  readonly refusals: readonly string[]
  stop(): Promise<void>
}

export interface Stored {
  readonly bytes: Buffer
  /** `name, value, …` told along with the object. */
  readonly fields: readonly string[]
}

export interface S3Options {
  readonly tls: { readonly key: string; readonly cert: string }
  readonly keys: Keys
  readonly region: string
  readonly bucket: string
}

export async function startS3({ tls, keys, region, bucket }: S3Options): Promise<TestS3> {
  const [calls, refusals]: [S3Call[], string[]] = [[], []]
  const store = openStore()

  async function listener(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = '', url = '', rawHeaders } = request
    const body = await buffer(request).catch(() => undefined)
    if (body === undefined) return
    const received = { method, path: url, rawHeaders, body }
    const fields = request.headers as Record<string, string>
    const host = (fields.host ?? '').replace(/:\d+$/, '')
    calls.push({ received, host, signedAs: fields['x-amz-content-sha256'] ?? 'presigned' })
    const verdict = await verifySignature(received, (id) => (id === keys.accessKeyId ? keys : undefined))
    const payload = readPayload(body, fields)
    const why = [verdict, payload].find((one) => typeof one === 'string')
    const isElsewhere = typeof verdict !== 'string' && (verdict.region !== region || verdict.service !== 's3')
    if (why !== undefined || isElsewhere || typeof payload === 'string') {
      refusals.push(`${method} ${url}: ${why ?? 'another scope'}`)
      refuse(response, 403, 'SignatureDoesNotMatch')
      return
    }
    const { pathname, searchParams } = new URL(url, 'https://x')
    const isVirtual = host.startsWith(`${bucket}.`)
    const [named, ...rest] = decodeURIComponent(pathname).slice(1).split('/')
    if (!isVirtual && named !== bucket) {
      refuse(response, 404, 'NoSuchBucket')
      return
    }
    const key = isVirtual ? decodeURIComponent(pathname).slice(1) : rest.join('/')
    const kept = [
      ...Object.entries(payload.checksums),
      ...Object.entries(fields).filter(([name]) => name.startsWith('x-amz-meta-')),
    ]
    store(
      { method, key, query: searchParams, range: fields.range, stored: { bytes: payload.bytes, fields: kept.flat() } },
      response,
    )
  }

  const server = createServer(tls, (request, response) => void listener(request, response))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    objects: store.objects,
    calls,
    refusals,
    async stop() {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  }
}

interface Asked {
  readonly method: string
  readonly key: string
  readonly query: URLSearchParams
  readonly range: string | undefined
  readonly stored: Stored
}

function openStore() {
  const objects = new Map<string, Stored>()
  /** Upload id → part number → part. */
  const uploads = new Map<string, Map<number, Buffer>>()

  function put({ key, query, stored }: Asked, response: ServerResponse): void {
    const upload = uploads.get(query.get('uploadId') ?? '')
    if (upload === undefined) objects.set(key, stored)
    else upload.set(Number(query.get('partNumber')), stored.bytes)
    response.writeHead(200, ['ETag', etagOf(stored.bytes), ...stored.fields]).end()
  }

  function post({ key, query }: Asked, response: ServerResponse): void {
    const upload = uploads.get(query.get('uploadId') ?? '')
    if (upload === undefined) {
      const id = randomUUID()
      uploads.set(id, new Map())
      xml(response, 'InitiateMultipartUploadResult', `<UploadId>${id}</UploadId>`)
    } else {
      const bytes = Buffer.concat([...upload].sort(([a], [b]) => a - b).map(([, part]) => part))
      objects.set(key, { bytes, fields: [] })
      xml(response, 'CompleteMultipartUploadResult', `<ETag>${etagOf(bytes)}</ETag>`)
    }
  }

  function list({ query }: Asked, response: ServerResponse): void {
    const found = [...objects.keys()].filter((key) => key.startsWith(query.get('prefix') ?? ''))
    const contents = found.map((key) => `<Contents><Key>${encodeURIComponent(key)}</Key></Contents>`)
    xml(response, 'ListBucketResult', `<EncodingType>url</EncodingType>${contents.join('')}`)
  }

  function get({ method, range }: Asked, { bytes, fields }: Stored, response: ServerResponse): void {
    response.setHeader('ETag', etagOf(bytes))
    const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(range ?? '') ?? []
    if (from === undefined) {
      response.writeHead(200, ['Content-Length', String(bytes.length), ...fields])
      response.end(method === 'HEAD' ? undefined : bytes)
      return
    }
    const part = bytes.subarray(Number(from), to ? Number(to) + 1 : undefined)
    response.setHeader('Content-Range', `bytes ${from}-${Number(from) + part.length - 1}/${bytes.length}`)
    response.writeHead(206).end(part)
  }

  const serve = (asked: Asked, response: ServerResponse): void => {
    const stored = objects.get(asked.key)
    if (asked.method === 'PUT') put(asked, response)
    else if (asked.method === 'POST') post(asked, response)
    else if (asked.key === '') list(asked, response)
    else if (stored === undefined) refuse(response, 404, 'NoSuchKey')
    else get(asked, stored, response)
  }
  return Object.assign(serve, { objects })
}

function etagOf(bytes: Buffer): string {
  return `"${createHash('md5').update(bytes).digest('hex')}"`
}

function xml(response: ServerResponse, name: string, content: string): void {
  response.setHeader('Content-Type', 'application/xml')
  response.end(
    `<?xml version="1.0" encoding="UTF-8"?><${name} xmlns="http://s3.amazonaws.com/doc/2006-03-01/">${content}</${name}>`,
  )
}

function refuse(response: ServerResponse, status: number, code: string): void {
  response.writeHead(status, { 'Content-Type': 'application/xml' })
  response.end(`<?xml version="1.0" encoding="UTF-8"?><Error><Code>${code}</Code><Message>so says S3</Message></Error>`)
}
