/**
 * A real enough git LFS server beside a repository: the batch API, and objects on a path of their own that take nothing but the
 * authorization which the batch handed out for them (docs/api/batch.md and basic-transfers.md of git-lfs).
 */
import { createHash, randomBytes } from 'node:crypto'
import type { IncomingMessage, ServerResponse } from 'node:http'

const LFS_JSON = 'application/vnd.git-lfs+json'

interface BatchRequest {
  readonly operation: 'upload' | 'download'
  readonly objects: readonly { readonly oid: string; readonly size: number }[]
}

export class LfsStore {
  readonly objects = new Map<string, Buffer>()
  /** What the objects' requests carried as Authorization, in order. */
  readonly presented: string[] = []
  /** What the batches handed out. */
  readonly handedOut = new Set<string>()

  /** @returns whether the request was one for an object; these are authorised by themselves. */
  async serveObject(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    const [, oid] = /^\/lfs\/objects\/([0-9a-f]{64})$/.exec(request.url ?? '') ?? []
    if (oid === undefined) return false
    const given = request.headers.authorization ?? ''
    this.presented.push(given)
    const body = await read(request)
    if (!this.handedOut.has(given)) response.writeHead(403).end()
    else if (request.method === 'PUT') this.#store(oid, body, response)
    else this.#fetch(oid, response)
    return true
  }

  /** @returns whether the request was LFS; whoever asks has shown the credential of the repository. */
  async serveRepository(request: IncomingMessage, response: ServerResponse): Promise<boolean> {
    if (!request.url?.includes('/info/lfs/')) return false
    const body = await read(request)
    if (request.url.endsWith('/objects/batch')) {
      const { operation, objects } = JSON.parse(body.toString()) as BatchRequest
      const base = `https://${request.headers.host}/lfs/objects`
      const answer = { transfer: 'basic', objects: objects.map((one) => this.#offer(operation, one, base)) }
      response.writeHead(200, { 'content-type': LFS_JSON }).end(JSON.stringify(answer))
    } else response.writeHead(404, { 'content-type': LFS_JSON }).end('{"message":"no locks here"}')
    return true
  }

  #offer(operation: BatchRequest['operation'], { oid, size }: BatchRequest['objects'][number], base: string): object {
    if (operation === 'upload' && this.objects.has(oid)) return { oid, size }
    const authorization = `RemoteAuth ${randomBytes(24).toString('base64url')}`
    this.handedOut.add(authorization)
    const action = { href: `${base}/${oid}`, header: { Authorization: authorization }, expires_in: 600 }
    return { oid, size, authenticated: true, actions: { [operation]: action } }
  }

  #store(oid: string, body: Buffer, response: ServerResponse): void {
    const isWhole = createHash('sha256').update(body).digest('hex') === oid
    if (isWhole) this.objects.set(oid, body)
    response.writeHead(isWhole ? 200 : 422).end()
  }

  #fetch(oid: string, response: ServerResponse): void {
    const found = this.objects.get(oid)
    response.writeHead(found ? 200 : 404, { 'content-type': 'application/octet-stream' }).end(found)
  }
}

async function read(request: IncomingMessage): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
  return Buffer.concat(parts)
}
