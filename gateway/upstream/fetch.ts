/**
 * `fetch` for those who get credentials: through the guarded dial, without redirects, of bounded size and time. Issuers
 * answer with small documents; anything else is refused before it fills memory.
 */
import { Agent, fetch as undiciFetch } from 'undici'
import type { ClientCertificate } from '../protocol/message.ts'
import { GatewayError } from '../protocol/problem.ts'
import { DEFAULT_PORTS } from '../protocol/target.ts'
import type { Dial } from './dial.ts'
import { asFailure } from './failure.ts'

export type Fetch = typeof globalThis.fetch

export interface BoundedFetch {
  readonly fetch: Fetch
  close(): Promise<void>
}

/** Decoded bytes; a JWKS or token answer has a few thousand. */
const MAX_BYTES = 512 * 1024
const TIMEOUT_MS = 30_000

/** Certificates are renewed all day; with so many at once, the one unused for longest is closed. */
const MAX_CERTIFICATES = 200

/** Each with connections of its own. */
export class Fetches {
  readonly #dial: Dial
  readonly #plain: BoundedFetch[] = []
  /** certificate id and ranges → what shows that certificate, unused for longest first */
  readonly #shown = new Map<string, BoundedFetch>()

  constructor(dial: Dial) {
    this.#dial = dial
  }

  for(addresses: readonly string[], certificate?: ClientCertificate): Fetch {
    if (certificate === undefined) {
      const made = createFetch(this.#dial, addresses)
      this.#plain.push(made)
      return made.fetch
    }
    const key = JSON.stringify([certificate.id, ...addresses])
    const made = this.#shown.get(key) ?? createFetch(this.#dial, addresses, certificate)
    this.#shown.delete(key)
    this.#shown.set(key, made)
    if (this.#shown.size > MAX_CERTIFICATES) this.#closeOldest()
    return made.fetch
  }

  async close(): Promise<void> {
    await Promise.all([...this.#plain, ...this.#shown.values()].map((made) => made.close()))
  }

  #closeOldest(): void {
    for (const [key, made] of this.#shown) {
      this.#shown.delete(key)
      void made.close() // after what is under way
      return
    }
  }
}

/**
 * @param addresses CIDR ranges that may be dialled besides public addresses
 * @param certificate shown in TLS, on connections that nobody else uses
 */
export function createFetch(dial: Dial, addresses: readonly string[], certificate?: ClientCertificate): BoundedFetch {
  const agent = new Agent({
    allowH2: false,
    keepAliveTimeout: 4_000,
    maxResponseSize: MAX_BYTES,
    connect: ({ hostname, protocol, port }, callback) => {
      const scheme = protocol === 'http:' ? 'http' : 'https'
      const target = {
        scheme,
        host: bare(hostname),
        port: Number(port) || DEFAULT_PORTS[scheme],
        allowed: addresses,
        certificate,
      } as const
      // Whoever wants a certificate shown wants to be known by it: a bare request would go out as somebody else.
      if (certificate !== undefined && scheme === 'http') {
        callback(new GatewayError('target_mismatch', 'A client certificate is shown over https alone.'), null)
        return
      }
      dial(target, new AbortController().signal).then(
        ({ socket }) => callback(null, socket),
        (cause) => callback(cause, null),
      )
    },
  })
  const bounded: Fetch = async (input, init = {}) => {
    const request = new Request(input, init)
    const signal = AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)])
    try {
      const answer = await undiciFetch(request.url, {
        method: request.method,
        headers: [...request.headers],
        body: request.body === null ? null : new Uint8Array(await request.arrayBuffer()),
        redirect: request.redirect === 'manual' ? 'manual' : 'error', // a credential never follows a redirect
        signal,
        dispatcher: agent,
      })
      return await readBounded(answer)
    } catch (cause) {
      if (request.signal.aborted) throw request.signal.reason
      throw explain(cause, new URL(request.url).host)
    }
  }
  return { fetch: bounded, close: () => agent.close() }
}

type Answer = Awaited<ReturnType<typeof undiciFetch>>

async function readBounded(answer: Answer): Promise<Response> {
  const chunks: Uint8Array[] = []
  let size = 0
  for await (const chunk of answer.body ?? []) {
    size += chunk.length
    if (size > MAX_BYTES) throw new GatewayError('upstream_broken', `The answer is larger than ${MAX_BYTES} bytes.`)
    chunks.push(chunk)
  }
  const headers = new Headers([...answer.headers])
  headers.delete('content-encoding')
  headers.delete('content-length')
  const body = answer.body === null ? null : Buffer.concat(chunks)
  return new Response(body, { status: answer.status, statusText: answer.statusText, headers })
}

function explain(cause: unknown, place: string): unknown {
  if (cause instanceof GatewayError) return cause
  if (cause instanceof Error && cause.name === 'TimeoutError') {
    return new GatewayError('upstream_timeout', `${place} sent no answer in time.`, { cause })
  }
  return asFailure(cause instanceof Error && cause.cause !== undefined ? cause.cause : cause, place)
}

function bare(hostname: string): string {
  return hostname.startsWith('[') ? hostname.slice(1, -1) : hostname
}
