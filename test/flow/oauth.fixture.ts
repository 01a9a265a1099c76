/**
 * A whole gateway as an authorization server behind a relay, the identity provider of its people, the demo API, and two agents
 * with keys of their own. Clients are those of others: `oauth4webapi` and `openid-client`.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject, webcrypto } from 'node:crypto'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { parse, stringify } from 'yaml'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { IDP_HOST, type IdentityProvider, startIdentityProvider } from '../rig/oidc.ts'
import { run, runOk } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

export const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
export const TYPES = {
  access: 'urn:ietf:params:oauth:token-type:access_token',
  id: 'urn:ietf:params:oauth:token-type:id_token',
  svid: 'urn:keyless:token-type:jwt-svid',
}
export const RESEARCH = 'spiffe://acme.test/agents/research'
export const SEARCH = 'spiffe://acme.test/agents/search'

export interface OauthHouse {
  readonly upstream: TestUpstream
  readonly idp: IdentityProvider
  readonly gateway: TestGateway
  /** The setting `public_url`. */
  readonly issuer: string
  readonly as: oauth.AuthorizationServer
  /** Runs the commands of docs/oauth.md. @returns what each block printed. */
  followPage(idToken: string): Promise<string[]>
  /** `openid-client`, as the research agent. */
  config(): Promise<openid.Configuration>
  /** `oauth4webapi`, as the research agent; `form` besides the grant type. */
  ask(grantType: string, form: Record<string, string>, o?: AskOptions): Promise<Granted>
  /** A form by `fetch`, without a library in between. */
  post(path: string, form: Record<string, string> | string, headers?: Record<string, string>): Promise<Response>
  /** An assertion as RFC 7523 wants it, with changes. */
  assertion(changes?: Record<string, unknown>): Promise<string>
  /** A JWT-SVID of an agent of the trust domain. */
  svid(id: string): Promise<string>
  /** Status of a call through the proxy under a handle or grant. */
  call(credential: string, path?: string): Promise<string>
  stop(): Promise<void>
}

interface AskOptions {
  readonly DPoP?: oauth.DPoPHandle
}

/** What we say besides RFC 6749. */
export type Granted = oauth.TokenEndpointResponse & {
  readonly grant: string
  readonly task: string
  readonly handle?: string
  readonly lineage: string
  readonly narrowed?: readonly string[]
}

export const insecure = { [oauth.allowInsecureRequests]: true } as const

export async function openOauthHouse(): Promise<OauthHouse> {
  const dir = await mkdtemp(join(tmpdir(), 'keyless-oauth-'))
  const [upstream, idp, front] = await Promise.all([startUpstream(), startIdentityProvider(), openFront()])
  const [makeKey = '', ...page] = await pageScripts()
  await runOk('bash', ['-euc', makeKey], { cwd: dir })
  const own = createPrivateKey(await readFile(join(dir, 'research.pem')))
  const domain = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const file = async (name: string, text: string) => {
    await writeFile(join(dir, name), text)
    return join(dir, name)
  }
  const svidKey = { ...domain.publicKey.export({ format: 'jwk' }), kid: 'svid-1', alg: 'ES256', use: 'jwt-svid' }
  const settings = parse(await upstream.settings())
  settings.upstream.ca.push(await file('idp.pem', idp.caPem))
  settings.upstream.hosts[IDP_HOST] = '127.0.0.1'
  const trust = {
    issuers: [
      {
        kind: 'human',
        issuer: idp.issuer,
        audience: idp.clientId,
        jwks: { uri: idp.jwksUri },
        addresses: ['127.0.0.1/32'],
      },
      {
        kind: 'jwt-svid',
        trust_domain: 'acme.test',
        jwks: { file: await file('domain.json', JSON.stringify({ keys: [svidKey] })) },
      },
    ],
    clients: [{ id: RESEARCH, key: { file: join(dir, 'research.pub.pem') } }],
  }
  const agents = [RESEARCH, SEARCH].map((id) => ({ id, owner: 'ana@acme.test', purpose: 'answer questions' }))
  const gateway = await startGateway(stringify({ ...settings, public_url: front.url, agents, trust }))
  front.leadTo(Number(new URL(gateway.gateway.control).port))
  const issuer = front.url
  const as = await oauth.processDiscoveryResponse(
    new URL(issuer),
    await oauth.discoveryRequest(new URL(issuer), { algorithm: 'oauth2', ...insecure }),
  )
  const signing = await cryptoKey(own)
  const client = { client_id: RESEARCH }
  return {
    upstream,
    idp,
    gateway,
    issuer,
    as,
    config: () =>
      openid.discovery(new URL(issuer), RESEARCH, undefined, openid.PrivateKeyJwt(signing), {
        algorithm: 'oauth2',
        execute: [openid.allowInsecureRequests],
      }),
    async ask(grantType, form, o = {}) {
      const auth = oauth.PrivateKeyJwt(signing)
      const answer = await oauth.genericTokenEndpointRequest(as, client, auth, grantType, form, { ...insecure, ...o })
      return (await oauth.processGenericTokenEndpointResponse(as, client, answer)) as Granted
    },
    post: (path, form, headers = {}) =>
      fetch(issuer + path, {
        method: 'POST',
        headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
        body: typeof form === 'string' ? form : new URLSearchParams(form).toString(),
      }),
    assertion: (changes = {}) => signed(own, 'RS256', { aud: issuer, iss: RESEARCH, sub: RESEARCH, ...changes }),
    svid: (sub) => signed(domain.privateKey, 'ES256', { aud: issuer, sub }),
    async followPage(idToken) {
      const env = { ...process.env, GATEWAY: issuer, ID_TOKEN: idToken }
      const printed = await runOk('bash', ['-euc', page.join('\necho; echo ----\n')], { cwd: dir, env })
      return printed.split('----\n')
    },
    async call(credential, path = '/notes') {
      const proxy = `http://agent:${credential}@127.0.0.1:${gateway.proxyPort}`
      const ca = join(gateway.settings.keysDir, 'ca.pem')
      const shape = ['-sS', '-o', '/dev/null', '-w', '%{http_code} %{http_connect}']
      return (await run('curl', [...shape, '--cacert', ca, '-x', proxy, upstream.facts.api + path])).stdout
    },
    async stop() {
      await front.close()
      await gateway.stop()
      await Promise.all([upstream.stop(), idp.stop(), rm(dir, { recursive: true, force: true })])
    },
  }
}

/** The commands of docs/oauth.md, block by block; the first makes the agent's key. */
async function pageScripts(): Promise<string[]> {
  const text = await readFile(new URL('../../docs/oauth.md', import.meta.url), 'utf8')
  return [...text.matchAll(/^```sh.*\n([\s\S]*?)^```$/gm)].map(([, script = '']) => script)
}

function cryptoKey(key: KeyObject): Promise<CryptoKey> {
  const algorithm = { name: 'RSASSA-PKCS1-v1_5', hash: 'SHA-256' }
  const pkcs8 = key.export({ format: 'der', type: 'pkcs8' })
  return webcrypto.subtle.importKey('pkcs8', pkcs8, algorithm, true, ['sign']) as Promise<CryptoKey>
}

async function signed(key: KeyObject, alg: 'RS256' | 'ES256', claims: Record<string, unknown>): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT({ iat: now, exp: now + 60, jti: crypto.randomUUID(), ...claims })
    .setProtectedHeader({ alg, typ: 'JWT', ...(alg === 'ES256' && { kid: 'svid-1' }) })
    .sign(key)
}

/** Where clients find the gateway: its address is known before it is started, as that of a load balancer is. */
async function openFront() {
  const sockets = new Set<Socket>()
  let port = 0
  const server = createServer((client) => {
    const inner = connect(port, '127.0.0.1')
    for (const [one, other] of [
      [client, inner],
      [inner, client],
    ] as const) {
      sockets.add(one)
      one.pipe(other)
      one.on('error', () => other.destroy()).on('close', () => sockets.delete(one))
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    leadTo(control: number) {
      port = control
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await once(server.close(), 'close')
    },
  }
}
