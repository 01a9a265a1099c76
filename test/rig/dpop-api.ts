/**
 * An API that verifies every DPoP proof (RFC 9449 §4.3, §7) with another library than the one that made it, and wants a nonce. Paths under
 * `/bearer/` take a bearer token and answer with what it says.
 */
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { calculateJwkThumbprint, decodeJwt, EmbeddedJWK, type JWK, jwtVerify } from 'jose'

export interface DpopApi {
  readonly port: number
  /** What was served, or why not. */
  readonly seen: string[]
  stop(): Promise<void>
}

/** @param tls default: plain HTTP */
export async function startDpopApi(tls?: { readonly cert: string; readonly key: string }): Promise<DpopApi> {
  const seen: string[] = []
  const ids = new Set<unknown>()
  const scheme = tls === undefined ? 'http' : 'https'
  const answered = async (request: IncomingMessage, response: ServerResponse) => {
    const { url = '', headers, method } = request
    if (url.startsWith('/bearer/')) {
      const token = /^Bearer (\S+)$/.exec(headers.authorization ?? '')?.[1] ?? ''
      return response.end(JSON.stringify(decodeJwt(token)))
    }
    const why = await verified(request, scheme, ids).catch((cause: Error) => cause.message)
    seen.push(why ?? `${method} ${url}`)
    if (why === undefined) return response.end('{}')
    response.setHeader('DPoP-Nonce', 'served')
    response.setHeader('WWW-Authenticate', `DPoP error="${why}", algs="ES256"`)
    return response.writeHead(401).end()
  }
  const listener = (request: IncomingMessage, response: ServerResponse) => void answered(request, response)
  const server = tls === undefined ? createServer(listener) : createTlsServer(tls, listener)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    port: (server.address() as AddressInfo).port,
    seen,
    async stop() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}

/** @returns why not. */
async function verified(request: IncomingMessage, scheme: string, ids: Set<unknown>): Promise<string | undefined> {
  const token = /^DPoP (\S+)$/.exec(request.headers.authorization ?? '')?.[1]
  if (token === undefined || typeof request.headers.dpop !== 'string') return 'invalid_token'
  const options = { typ: 'dpop+jwt', algorithms: ['ES256'], maxTokenAge: 60 }
  const { payload, protectedHeader } = await jwtVerify(request.headers.dpop, EmbeddedJWK, options)
  const jkt = await calculateJwkThumbprint(protectedHeader.jwk as JWK)
  if ((decodeJwt(token).cnf as { jkt: string }).jkt !== jkt) return 'invalid_token'
  if (payload.nonce === undefined) return 'use_dpop_nonce'
  const url = `${scheme}://${request.headers.host}${request.url?.split('?')[0]}`
  const ath = createHash('sha256').update(token).digest('base64url')
  const isFor = payload.htm === request.method && payload.htu === url && payload.ath === ath
  if (!isFor || payload.nonce !== 'served' || ids.has(payload.jti)) return 'invalid_dpop_proof'
  ids.add(payload.jti)
  return undefined
}
