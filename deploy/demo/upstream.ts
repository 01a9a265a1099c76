/**
 * The demo upstream: an OAuth authorization server and an API behind it, both over TLS under a throw-away CA. Runs by itself,
 * prints one JSON line when it is ready, and stops on SIGTERM; tests start the same thing in their own process.
 *
 *   node deploy/demo/upstream.ts --host 127.0.0.1 --api-port 0 --issuer-port 0 --dir DIRECTORY
 */
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, rm, writeFile } from 'node:fs/promises'
import type { RequestListener } from 'node:http'
import { createServer, type Server } from 'node:https'
import { type AddressInfo, isIP } from 'node:net'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { createRemoteJWKSet, customFetch, type JWTPayload, jwtVerify } from 'jose'
import { Agent, fetch as undiciFetch } from 'undici'
import { type Access, createApi } from './api.ts'
import { throwAwayTls } from './certificate.ts'
import { type ClientKeys, createIssuer, SCOPES } from './issuer.ts'

export const API_HOST = 'api.keyless.test'
export const ISSUER_HOST = 'issuer.keyless.test'

export interface DemoOptions {
  /** Address to listen on. Default `127.0.0.1`. */
  readonly host?: string
  /** Default 0: any free port. */
  readonly apiPort?: number
  readonly issuerPort?: number
  /** Where the CA and the client's secrets are written, 0600. */
  readonly dir: string
  /** Seconds a token lives. Default 300. */
  readonly tokenTtlS?: number
}

/** What is printed when the demo is ready. Files are readable by their owner only. */
export interface DemoFacts {
  /** `https://api.keyless.test:PORT`, which is also the audience of tokens. */
  readonly api: string
  readonly issuer: string
  readonly token_url: string
  readonly ca_file: string
  /** client_secret_basic */
  readonly client_id: string
  readonly client_secret_file: string
  /** client_secret_post */
  readonly post_client_id: string
  readonly post_client_secret_file: string
  /** private_key_jwt, ES256 */
  readonly jwt_client_id: string
  readonly kid: string
  readonly key_file: string
  readonly scope: string
}

export interface DemoUpstream {
  readonly facts: DemoFacts
  readonly caPem: string
  readonly apiPort: number
  readonly issuerPort: number
  /** `GET /notes` → requests that arrived there, refused ones included. */
  readonly counts: ReadonlyMap<string, number>
  /** Tokens issued so far. */
  readonly issuedTokens: number
  /** From now on the API answers 401 to every token issued so far. */
  revokeTokens(): void
  stop(): Promise<void>
}

export async function startDemoUpstream(options: DemoOptions): Promise<DemoUpstream> {
  const host = options.host ?? '127.0.0.1'
  const tls = await throwAwayTls([API_HOST, ISSUER_HOST, 'localhost', '127.0.0.1'])
  const [apiServer, issuerServer] = [createServer(tls), createServer(tls)]
  const [apiPort, issuerPort] = await Promise.all([
    listen(apiServer, options.apiPort ?? 0, host),
    listen(issuerServer, options.issuerPort ?? 0, host),
  ])
  const resource = `https://${API_HOST}:${apiPort}`
  const issuerUrl = `https://${ISSUER_HOST}:${issuerPort}`
  const issuer = createIssuer({ url: issuerUrl, resource, tokenTtlS: options.tokenTtlS ?? 300 })
  const revoked = new Set<string>()
  const minted = new Map<string, Access>()
  const verifier = createVerifier({ issuerUrl, issuerPort, host, resource, caPem: tls.caPem, revoked })
  const api = createApi({
    resource,
    verify: async (token) => minted.get(token) ?? verifier.verify(token),
    mint(access) {
      const token = `demo_${randomBytes(32).toString('base64url')}`
      minted.set(token, access)
      return token
    },
  })
  serve(issuerServer, issuer.listener)
  serve(apiServer, api.listener)
  return {
    facts: await writeFacts(resolve(options.dir), { issuerUrl, resource, caPem: tls.caPem, clients: issuer.clients }),
    caPem: tls.caPem,
    apiPort,
    issuerPort,
    counts: api.counts,
    get issuedTokens() {
      return issuer.issued.length
    },
    revokeTokens() {
      for (const jti of issuer.issued) revoked.add(jti)
      minted.clear()
    },
    async stop() {
      await Promise.all([close(apiServer), close(issuerServer), verifier.close()])
    },
  }
}

interface VerifierOptions {
  readonly issuerUrl: string
  readonly issuerPort: number
  /** Address the issuer listens on. */
  readonly host: string
  readonly resource: string
  readonly caPem: string
  readonly revoked: ReadonlySet<string>
}

/** RFC 9068 §4, with the issuer's keys fetched from its own JWKS over TLS. The host name leads to this machine. */
function createVerifier({ issuerUrl, issuerPort, host, resource, caPem, revoked }: VerifierOptions) {
  const address = host === '0.0.0.0' ? '127.0.0.1' : host
  const family = isIP(address)
  const dispatcher = new Agent({
    connect: { ca: caPem, lookup: (_name, _options, done) => done(null, [{ address, family }]) },
  })
  const fetchKeys = (url: string, init: object) =>
    undiciFetch(url, { ...init, dispatcher }) as unknown as Promise<Response>
  const keys = createRemoteJWKSet(new URL(`https://${ISSUER_HOST}:${issuerPort}/jwks`), { [customFetch]: fetchKeys })
  return {
    async verify(token: string): Promise<Access | undefined> {
      let claims: JWTPayload
      try {
        claims = (
          await jwtVerify(token, keys, { issuer: issuerUrl, audience: resource, typ: 'at+jwt', algorithms: ['ES256'] })
        ).payload
      } catch (cause) {
        if (cause instanceof Error && 'code' in cause && String(cause.code).startsWith('ERR_J')) return undefined
        throw cause
      }
      if (claims.jti === undefined || revoked.has(claims.jti)) return undefined
      return {
        clientId: String(claims.client_id ?? claims.sub),
        scopes: new Set(String(claims.scope ?? '').split(' ')),
      }
    },
    close: () => dispatcher.close(),
  }
}

interface Facts {
  readonly issuerUrl: string
  readonly resource: string
  readonly caPem: string
  readonly clients: ClientKeys
}

async function writeFacts(dir: string, { issuerUrl, resource, caPem, clients }: Facts): Promise<DemoFacts> {
  await mkdir(dir, { recursive: true, mode: 0o700 })
  const write = async (name: string, text: string) => {
    const file = join(dir, name)
    await writeFile(file, text, { mode: 0o600 })
    await chmod(file, 0o600) // a file from an earlier run keeps its mode otherwise
    return file
  }
  return {
    api: resource,
    issuer: issuerUrl,
    token_url: `${issuerUrl}/token`,
    ca_file: await write('upstream-ca.pem', caPem),
    client_id: clients.basic.id,
    client_secret_file: await write('client-secret', clients.basic.secret),
    post_client_id: clients.post.id,
    post_client_secret_file: await write('post-client-secret', clients.post.secret),
    jwt_client_id: clients.jwt.id,
    kid: clients.jwt.kid,
    key_file: await write('client-key.pem', clients.jwt.privateKeyPem),
    scope: SCOPES.join(' '),
  }
}

async function listen(server: Server, port: number, host: string): Promise<number> {
  server.listen(port, host)
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}

/** Long transfers and idle keep-alive sockets are what this is for: nothing here times out by itself. */
function serve(server: Server, listener: RequestListener): void {
  server.on('request', listener)
  server.requestTimeout = 0
  server.keepAliveTimeout = 60_000
}

async function close(server: Server): Promise<void> {
  if (!server.listening) return
  server.close()
  server.closeAllConnections()
  await once(server, 'close')
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      host: { type: 'string', default: '127.0.0.1' },
      'api-port': { type: 'string', default: '0' },
      'issuer-port': { type: 'string', default: '0' },
      dir: { type: 'string' },
      'token-ttl': { type: 'string', default: '300' },
    },
  })
  if (values.dir === undefined)
    throw new Error('--dir DIRECTORY is needed: the CA and the client secrets are written there')
  const factsFile = join(values.dir, 'facts.json')
  await rm(factsFile, { force: true })
  const upstream = await startDemoUpstream({
    host: values.host,
    apiPort: Number(values['api-port']),
    issuerPort: Number(values['issuer-port']),
    dir: values.dir,
    tokenTtlS: Number(values['token-ttl']),
  })
  const facts = `${JSON.stringify(upstream.facts)}\n`
  await writeFile(factsFile, facts, { mode: 0o600 }) // who waits for a container looks for this
  process.stdout.write(facts)
  for (const signal of ['SIGTERM', 'SIGINT'] as const)
    process.once(signal, () => void upstream.stop().then(() => process.exit(0)))
}

if (import.meta.main) await main()
