/** Who signs in is who the provider says, just now, to us, in answer to this very request; anything else proves nobody. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { exportJWK, generateKeyPair, type JWTPayload, SignJWT } from 'jose'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { asGatewayError, GatewayError } from '../../gateway/protocol/problem.ts'
import { Secret } from '../../gateway/protocol/secret.ts'
import { createSignIn, type SignIn } from '../../gateway/provider/oauth/sign-in.ts'
import { type SignInConfig, signInSchema } from '../../gateway/provider/oauth/sign-in-schema.ts'
import { manualClock } from '../rig/clock.ts'

const REDIRECT = 'https://keyless.test/approve/signed-in'
const clock = manualClock(Date.now())
const nowS = () => Math.floor(clock.nowMs() / 1000)

let server: Server
let issuer: string
let keys: { readonly own: CryptoKey; readonly other: CryptoKey; readonly jwk: object }
/** What the provider does otherwise this time. */
let odd: {
  claims?: JWTPayload
  signer?: 'other'
  none?: boolean
  metadata?: object
  status?: number
  leaveOut?: readonly string[]
}
let nonce = ''
let asked: { authorization: string | undefined; form: URLSearchParams } | undefined

beforeAll(async () => {
  const [own, other] = await Promise.all([generateKeyPair('ES256'), generateKeyPair('ES256')])
  keys = {
    own: own.privateKey,
    other: other.privateKey,
    jwk: { ...(await exportJWK(own.publicKey)), alg: 'ES256', kid: '1' },
  }
  server = createServer(async (request, response) => {
    const json = (body: object, status = 200) =>
      response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
    if (request.url === '/jwks') return json({ keys: [keys.jwk] })
    if (request.url?.startsWith('/.well-known')) return json({ ...metadata(), ...odd.metadata })
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    asked = {
      authorization: request.headers.authorization,
      form: new URLSearchParams(Buffer.concat(chunks).toString()),
    }
    if (odd.status !== undefined) return json({ error: 'invalid_grant', error_description: '<b>no</b>' }, odd.status)
    return json({ access_token: 'at', token_type: 'Bearer', ...(odd.none ? {} : { id_token: await idToken() }) })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  issuer = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => void server.close())
beforeEach(() => {
  odd = {}
})

const metadata = () => ({
  issuer,
  authorization_endpoint: `${issuer}/auth`,
  token_endpoint: `${issuer}/token`,
  jwks_uri: `${issuer}/jwks`,
  id_token_signing_alg_values_supported: ['ES256'],
  authorization_response_iss_parameter_supported: true,
})

function idToken(): Promise<string> {
  const now = nowS()
  const claims: JWTPayload = {
    iss: issuer,
    sub: 'ana',
    aud: 'keyless',
    iat: now,
    exp: now + 60,
    auth_time: now,
    nonce,
    ...odd.claims,
  }
  for (const name of odd.leaveOut ?? []) delete claims[name]
  return new SignJWT(claims).setProtectedHeader({ alg: 'ES256', kid: '1' }).sign(odd.signer ? keys.other : keys.own)
}

function signIn(more: Partial<SignInConfig> = {}): SignIn {
  const config = { issuer, client_id: 'keyless', client_secret: { env: 'X' }, addresses: ['127.0.0.1/32'], ...more }
  return createSignIn(signInSchema.parse(config), {
    fetchFor: () => (url, init) => fetch(url, init as RequestInit),
    readSecret: async () => new Secret('the-client-secret'),
    clock,
  })
}

/** The person comes back with what the provider would send, changed. */
async function arrive(at: SignIn, change: Record<string, string | null> = {}) {
  const { url, leaving } = await at.leave(REDIRECT)
  nonce = leaving.nonce
  const parameters = new URLSearchParams({ code: 'c', state: leaving.state, iss: issuer })
  for (const [name, value] of Object.entries(change))
    value === null ? parameters.delete(name) : parameters.set(name, value)
  return { url: new URL(url), human: await at.arrive(parameters, leaving, REDIRECT) }
}

const refusal = (work: Promise<unknown>) => work.then(() => undefined, asGatewayError)

it('asks for a code with PKCE, state, nonce and an age, and believes a good answer', async () => {
  odd = { claims: { amr: ['pwd', 'otp'], acr: 'phr' } }
  const { url, human } = await arrive(signIn())
  const said = Object.fromEntries(url.searchParams)
  expect(said).toMatchObject({ response_type: 'code', scope: 'openid', max_age: '900', code_challenge_method: 'S256' })
  expect(said.state).not.toBe(said.nonce)
  expect(human).toEqual({ iss: issuer, sub: 'ana', authTime: nowS(), amr: ['pwd', 'otp'], acr: 'phr' })
  expect(asked?.form.get('code_verifier')).toMatch(/^[\w-]{43,}$/)
  expect(asked?.authorization).toMatch(/^Basic /)
})

it.each<[string, typeof odd]>([
  ['signed by somebody else', { signer: 'other' }],
  ['missing', { none: true }],
  ['in answer to another request', { claims: { nonce: 'another' } }],
  ['without a nonce', { leaveOut: ['nonce'] }],
  ['for another client', { claims: { aud: 'other' } }],
  ['of another issuer', { claims: { iss: 'https://evil.test' } }],
  ['expired', { claims: { exp: 1 } }],
  ['of a sign-in that is too old', { claims: { auth_time: 1 } }],
  ['that says no time of signing in', { leaveOut: ['auth_time'] }],
  ['with a name of a novel', { claims: { sub: 'x'.repeat(256) } }],
])('an ID token %s proves nobody', async (_name, how) => {
  odd = how
  expect((await refusal(arrive(signIn())))?.code).toBe('subject_invalid')
})

it.each<[string, Record<string, string | null>]>([
  ['of another request', { state: 'another' }],
  ['without a state', { state: null }],
  ['of another server', { iss: 'https://evil.test' }],
  ['that does not say of whom it is', { iss: null }],
  ['that says no', { error: 'access_denied', code: null }],
])('an answer %s proves nobody', async (_name, change) => {
  expect((await refusal(arrive(signIn(), change)))?.code).toBe('subject_invalid')
})

it('repeats nothing of what the provider or the browser said', async () => {
  odd = { status: 400 }
  const refused = await refusal(arrive(signIn(), { error_description: '<i>x</i>' }))
  expect(refused?.detail).not.toMatch(/<|the-client-secret|code_verifier/)
})

it('takes only the ways of signing in that settings name', async () => {
  expect((await refusal(arrive(signIn({ acr: ['phr'] }))))?.detail).toContain('stronger')
  odd = { claims: { acr: 'phr' } }
  expect((await arrive(signIn({ acr: ['phr'] }))).url.searchParams.get('acr_values')).toBe('phr')
})

it('sends nobody, and no secret, where the metadata leads into the clear', async () => {
  for (const name of ['authorization_endpoint', 'token_endpoint', 'jwks_uri']) {
    odd = { metadata: { [name]: 'http://evil.test/x' } }
    expect((await refusal(signIn().leave(REDIRECT)))?.code).toBe('upstream_broken')
  }
  odd = { metadata: { issuer: 'https://evil.test' } }
  expect((await refusal(signIn().leave(REDIRECT)))?.code).toBe('upstream_broken')
})

it('is not set up with an issuer in the clear', () => {
  const written = { issuer: 'http://id.test', client_id: 'keyless' }
  expect(signInSchema.safeParse(written).success).toBe(false)
})

it('says what to write when the dial refuses the address of the provider', async () => {
  const refuse = () => Promise.reject(new GatewayError('address_forbidden', 'List its range under `addresses`.'))
  const at = createSignIn(signInSchema.parse({ issuer: 'https://id.test', client_id: 'keyless' }), {
    fetchFor: () => () => refuse().catch((cause) => Promise.reject(new TypeError('fetch failed', { cause }))),
    readSecret: async () => new Secret('the-client-secret'),
    clock,
  })
  expect((await refusal(at.leave(REDIRECT)))?.detail).toContain(
    'had (address_forbidden: List its range under `addresses`)',
  )
})
