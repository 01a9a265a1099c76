/**
 * AWS as far as the gateway speaks with it: STS, which verifies signatures and web identity tokens and gives sessions, and behind it APIs
 * that verify signatures and say what arrived. One server over TLS or in the clear, on a port of its own.
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer as createClearServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { buffer } from 'node:stream/consumers'
import { type Keys, type Received, sha256, type Verdict, verifySignature } from './aws-verifier.ts'

export interface TestAws {
  readonly port: number
  /** Keys of the source, as IAM knows them. */
  readonly source: Keys
  /** Parameters of the session requests that were granted. */
  readonly sessions: Record<string, string>[]
  /** Requests to other hosts than STS, that were verified; the text is why one was not. */
  readonly calls: { readonly verdict: Verdict | string; readonly received: Received }[]
  /** What STS answers instead, once: status, error code, and seconds that its `Date` is ahead. */
  fail: { readonly status: number; readonly code: string; readonly aheadS?: number } | undefined
  /** Somebody ends every session: what was signed with it is refused, and the body alone says why. */
  endSessions(): void
  /** Seconds that sessions live longer than was asked for. */
  tooLongS: number
  /** Milliseconds that its clock shows more than ours. */
  aheadMs: number
  stop(): Promise<void>
}

export interface AwsOptions {
  readonly tls?: { readonly key: string; readonly cert: string }
  /** Verifies a web identity token: throws if it is not valid. @returns its claims. */
  readonly verifyToken?: (token: string) => Promise<Record<string, unknown>>
}

/** Most minutes a signature may be old or early. */
const SKEW_MS = 5 * 60_000

export async function startAws({ tls, verifyToken }: AwsOptions = {}): Promise<TestAws> {
  const source: Keys = { accessKeyId: `AKIA${id()}`, secretAccessKey: randomBytes(30).toString('base64') }
  const known = new Map([[source.accessKeyId, source]])
  const ended = new Set<string>()
  const state: Omit<TestAws, 'port' | 'stop' | 'endSessions'> = {
    source,
    sessions: [],
    calls: [],
    fail: undefined,
    tooLongS: 0,
    aheadMs: 0,
  }

  const listener = async (request: IncomingMessage, response: ServerResponse) => {
    response.setHeader('Date', new Date(Date.now() + state.aheadMs).toUTCString())
    const { method = '', url = '', rawHeaders } = request
    const body = await buffer(request).catch(() => undefined)
    if (body === undefined) return // it broke off: nothing is stored
    const received = { method, path: url, rawHeaders, body }
    const form = new URLSearchParams(received.body.toString())
    const verdict = await verifySignature(received, (accessKeyId) => known.get(accessKeyId))
    const isCurrent = typeof verdict === 'string' || Math.abs(dateOf(received) - Date.now() - state.aheadMs) < SKEW_MS
    if (!isCurrent) return fail(response, 403, 'RequestTimeTooSkewed')
    if (form.get('Action')?.startsWith('AssumeRole')) return assume(form, verdict, response)
    state.calls.push({ verdict, received })
    if (typeof verdict !== 'string' && ended.has(verdict.accessKeyId)) return failInBody(response, verdict.service)
    if (typeof verdict === 'string') return fail(response, 403, 'SignatureDoesNotMatch')
    response.setHeader('Content-Type', 'application/json')
    response.end(
      JSON.stringify({ service: verdict.service, accessKeyId: verdict.accessKeyId, sha256: sha256(verdict.payload) }),
    )
  }

  async function assume(form: URLSearchParams, verdict: Verdict | string, response: ServerResponse) {
    const told = state.fail
    state.fail = undefined
    if (told !== undefined) {
      if (told.aheadS !== undefined) response.setHeader('Date', new Date(Date.now() + told.aheadS * 1000).toUTCString())
      return fail(response, told.status, told.code)
    }
    const token = form.get('WebIdentityToken')
    try {
      const claims = token === null ? {} : ((await verifyToken?.(token)) ?? {})
      if (token === null && typeof verdict === 'string') return fail(response, 403, 'SignatureDoesNotMatch')
      state.sessions.push({ ...Object.fromEntries(form), claims: JSON.stringify(claims) })
    } catch {
      return fail(response, 400, 'InvalidIdentityToken')
    }
    const keys: Required<Keys> = {
      accessKeyId: `ASIA${id()}`,
      secretAccessKey: randomBytes(30).toString('base64'),
      sessionToken: randomBytes(90).toString('base64'),
    }
    known.set(keys.accessKeyId, keys)
    const endsAt = new Date(Date.now() + state.aheadMs + (Number(form.get('DurationSeconds')) + state.tooLongS) * 1000)
    response.setHeader('Content-Type', 'text/xml')
    response.end(`<${form.get('Action')}Response xmlns="https://sts.amazonaws.com/doc/2011-06-15/">
  <${form.get('Action')}Result><Credentials><AccessKeyId>${keys.accessKeyId}</AccessKeyId><SecretAccessKey>${keys.secretAccessKey}</SecretAccessKey>
    <SessionToken>${keys.sessionToken}</SessionToken><Expiration>${endsAt.toISOString().replace(/\.\d+/, '')}</Expiration></Credentials>
  <AssumedRoleUser><Arn>arn:aws:sts::123456789012:assumed-role/agents/x</Arn></AssumedRoleUser></${form.get('Action')}Result></${form.get('Action')}Response>`)
  }

  const server = tls ? createServer(tls, listener) : createClearServer(listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return Object.assign(state, {
    port: (server.address() as AddressInfo).port,
    endSessions() {
      for (const id of known.keys()) if (id !== source.accessKeyId) ended.add(id)
    },
    async stop() {
      server.closeAllConnections()
      await new Promise((done) => server.close(done))
    },
  })
}

function id(): string {
  return randomBytes(16).toString('hex').toUpperCase().slice(0, 16)
}

function dateOf({ path, rawHeaders }: Received): number {
  const header = rawHeaders[rawHeaders.findIndex((name) => name.toLowerCase() === 'x-amz-date') + 1]
  const text = new URL(path, 'https://x').searchParams.get('X-Amz-Date') ?? header ?? ''
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'))
}

function failInBody(response: ServerResponse, service: string): void {
  const isXml = service === 's3'
  response.writeHead(400, { 'Content-Type': isXml ? 'application/xml' : 'application/x-amz-json-1.0' })
  response.end(
    isXml ? '<Error><Code>ExpiredToken</Code></Error>' : '{"__type":"com.amazon.coral.service#ExpiredTokenException"}',
  )
}

function fail(response: ServerResponse, status: number, code: string): void {
  response.statusCode = status
  response.setHeader('x-amzn-ErrorType', code)
  response.setHeader('Content-Type', 'text/xml')
  response.end(
    `<ErrorResponse><Error><Type>Sender</Type><Code>${code}</Code><Message>arn:aws:iam::123456789012:user/canary</Message></Error></ErrorResponse>`,
  )
}
