/** Tokens bound to a key that the gateway keeps, at a real authorization server and at an API that verifies every proof. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { calculateJwkThumbprint, createLocalJWKSet, decodeJwt } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { AnswerHead, Outbound } from '../../gateway/protocol/message.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { PROOF_KEY } from '../../gateway/provider/oauth/dpop.ts'
import type { Credential, Provider } from '../../gateway/provider/provider.ts'
import { createProvider, credentialSchema } from '../../gateway/provider/registry.ts'
import { providerConformance } from '../conformance/provider.ts'
import { field, grant, plain, service } from '../lease/lease.fixture.ts'
import { type DpopApi, startDpopApi } from '../rig/dpop-api.ts'
import { type FalseServer, json, startFalseServer } from './authorization-server.fixture.ts'
import { API, type Federation, LIFE_S, SECRET, startFederation } from './federation.fixture.ts'
import { providerTools } from './tools.fixture.ts'

const dir = mkdtempSync(join(tmpdir(), 'keyless-dpop-'))
const nobody = createLocalJWKSet({ keys: [] })
let federation: Federation
let other: FalseServer

beforeAll(async () => {
  writeFileSync(join(dir, 'secret'), SECRET)
  federation = await startFederation({ keys: nobody, assertedBy: 'nobody', wantsNonce: true })
  other = await startFalseServer()
})
beforeEach(() => {
  other.answer = (_request, response) => response.destroy()
})
afterAll(async () => {
  await Promise.all([federation.stop(), other.stop()])
  rmSync(dir, { recursive: true, force: true })
})

const bound = (o: Record<string, unknown> = {}): Provider =>
  createProvider(
    credentialSchema.parse({
      provider: 'oauth_client_credentials',
      ...{ token_url: federation.tokenUrl, addresses: ['127.0.0.1/32'], scope: 'read', resource: API, dpop: true },
      ...{ client_id: 'keyless', client_auth: 'client_secret_basic', client_secret: { file: 'secret' } },
      ...o,
    }),
    providerTools(dir, { fetchFor: federation.fetchFor }),
  )
const issue = (from: Provider): Promise<Credential> =>
  from.issue({ service: service(), grant: grant(), ttlS: 300, role: undefined }, new AbortController().signal)
const failure = (from: Provider): Promise<GatewayError> =>
  issue(from).then(
    () => Promise.reject(new Error('issued')),
    (cause) => cause,
  )

providerConformance(
  'oauth_client_credentials with DPoP',
  () => ({
    working: () => bound(),
    isEphemeral: true,
    lifeS: LIFE_S,
    wider: () => [['bearer tokens', bound({ dpop: false })]],
    failing: () => [['a server that hangs up', 'credential_unavailable', bound({ token_url: other.tokenUrl })]],
    hanging: () => {
      other.answer = () => undefined
      return bound({ token_url: other.tokenUrl })
    },
    secrets: () => [SECRET],
  }),
  [], // its own field, and one proof for each request
)

describe('at the token endpoint', () => {
  test('a fresh key is proved, with the nonce that the server wants, and the token is bound to it', async () => {
    const provider = bound()
    federation.asked.length = 0
    const [first, second] = [await issue(provider), await issue(provider)]
    expect(federation.asked).toHaveLength(3) // the nonce is asked for once, and known then
    const thumbprints = await Promise.all(
      [first, second].map(async ({ parts }) => thumbprint(parts?.[PROOF_KEY]?.reveal() ?? '')),
    )
    expect(thumbprints.map((jkt) => ({ jkt }))).toEqual(
      [first, second].map(({ secret }) => decodeJwt(secret.reveal()).cnf),
    )
    expect(new Set(thumbprints).size).toBe(2)
  })

  test('a server that goes on asking for nonces is asked twice, and no more', async () => {
    let n = 0
    other.answer = (_request, response) => {
      n += 1
      response.setHeader('DPoP-Nonce', `nonce-${n}`)
      json(response, 400, { error: 'use_dpop_nonce' })
    }
    expect(await failure(bound({ token_url: other.tokenUrl }))).toMatchObject({ code: 'credential_unavailable' })
    expect(n).toBe(2)
  })

  test.each([
    ['the same nonce again', 'seen'],
    ['a nonce that is none', 'a b'],
    ['a load', 'x'.repeat(600)],
    ['no nonce', undefined],
  ])('%s is not worth another request', async (_what, nonce) => {
    const provider = bound({ token_url: other.tokenUrl })
    let n = 0
    other.answer = (_request, response) => {
      n += 1
      if (nonce !== undefined) response.setHeader('DPoP-Nonce', nonce)
      json(response, 400, { error: 'use_dpop_nonce' })
    }
    await failure(provider)
    n = 0
    await failure(provider)
    expect(n).toBe(1)
  })

  test('every attempt proves the client anew, so that nothing is shown twice', async () => {
    const seen: string[] = []
    other.answer = (request, response) => {
      seen.push(String(request.headers.dpop))
      response.setHeader('DPoP-Nonce', `n-${seen.length}`)
      json(response, 400, { error: 'use_dpop_nonce' })
    }
    await failure(bound({ token_url: other.tokenUrl }))
    const ids = seen.map((proof) => decodeJwt(proof).jti)
    expect(new Set(ids).size).toBe(2)
    expect(decodeJwt(seen[1] as string).nonce).toBe('n-1')
  })

  test.each([
    ['a bearer token', { token_type: 'Bearer' }, 'not DPoP'],
    [
      'a token bound to another key',
      { token_type: 'DPoP', access_token: jwtWith({ cnf: { jkt: 'other' } }) },
      'a key that is not ours',
    ],
  ])('%s is refused', async (_what, answer, detail) => {
    other.answer = (_request, response) => json(response, 200, { access_token: 'canary', ...answer })
    const error = await failure(bound({ token_url: other.tokenUrl }))
    expect(error).toMatchObject({ code: 'credential_rejected', detail: expect.stringContaining(detail) })
  })
})

describe('at the service', () => {
  let api: DpopApi
  beforeAll(async () => {
    api = await startDpopApi()
  })
  afterAll(() => api.stop())

  const to = () => service({ hosts: ['127.0.0.1'], scheme: 'http', ports: [api.port] })
  const call = (o: Partial<Outbound> = {}) =>
    plain({ service: to(), scheme: 'http', host: '127.0.0.1', port: api.port, headers: [], ...o })

  /** As the gateway does: sent, and once more where the credential can give what the service wants. */
  async function send(provider: Provider, credential: Credential, asked: Outbound) {
    const first = await sent(await provider.attach(credential, asked))
    if (!provider.accommodates?.(credential, first)) return first
    return sent(await provider.attach(credential, asked))
  }

  test('each request carries token and proof, and the nonce once it is known', async () => {
    const provider = bound()
    const credential = await issue(provider)
    const before = api.seen.length
    expect((await send(provider, credential, call({ path: '/v1/notes?page=2' }))).status).toBe(200)
    expect((await send(provider, credential, call({ method: 'POST', path: '/v1/notes' }))).status).toBe(200)
    expect(api.seen.slice(before)).toEqual(['use_dpop_nonce', 'GET /v1/notes?page=2', 'POST /v1/notes'])
  })

  test('a proof that somebody copied is of no use, for the same request or another', async () => {
    const provider = bound()
    const credential = await issue(provider)
    await send(provider, credential, call())
    const attached = await provider.attach(credential, call())
    expect((await sent(attached)).status).toBe(200)
    expect((await sent(attached)).status).toBe(401)
    expect((await sent({ ...(await provider.attach(credential, call())), path: '/v1/other' })).status).toBe(401)
    expect((await sent({ ...(await provider.attach(credential, call())), method: 'DELETE' })).status).toBe(401)
    const [token] = [field(attached, 'authorization')]
    expect((await sent(call({ headers: ['Authorization', token ?? ''] }))).status).toBe(401)
  })

  test('the nonce of a service serves every token for it, and calls that learn of it at once', async () => {
    const provider = bound()
    const [one, two] = [await issue(provider), await issue(provider)]
    const attached = [await provider.attach(one, call()), await provider.attach(one, call())]
    const wants = await Promise.all(attached.map(sent))
    expect(wants.map((answer) => provider.accommodates?.(one, answer))).toEqual([true, true])
    expect((await sent(await provider.attach(two, call()))).status).toBe(200)
  })

  test('no other answer is taken for a wish for a nonce', async () => {
    const provider = bound()
    const credential = await issue(provider)
    await provider.attach(credential, call())
    const answer = (status: number, ...fields: string[]): AnswerHead => ({
      status,
      raw: fields.map((text) => Buffer.from(text)),
    })
    const asks = ['WWW-Authenticate', 'Bearer realm="a", DPoP algs="ES256", error="use_dpop_nonce"']
    const gives = ['DPoP-Nonce', 'one']
    expect(provider.accommodates?.(credential, answer(401, ...asks, ...gives))).toBe(true)
    for (const other of [
      answer(403, ...asks, ...gives),
      answer(401, ...gives),
      answer(401, ...asks),
      answer(401, 'WWW-Authenticate', 'Bearer error="invalid_token"', ...gives),
      answer(401, 'WWW-Authenticate', 'DPoP error="invalid_token"', ...gives),
      answer(401, ...asks, ...gives, 'DPoP-Nonce', 'two'),
      answer(401, ...asks, 'DPoP-Nonce', 'a b'),
      answer(401, ...asks, 'DPoP-Nonce', 'x'.repeat(600)),
    ])
      expect(provider.accommodates?.(credential, other)).toBe(false)
  })

  test('it goes to its own service alone, where that takes an Authorization field', async () => {
    const provider = bound()
    const credential = await issue(provider)
    expect(() => provider.attach(credential, call({ host: 'api.evil.test' }))).toThrow(/goes only to/)
    const query = service({ slots: [{ in: 'query', name: 'key' }] })
    expect(() => provider.attach(credential, plain({ service: query }))).toThrow(/first slot/)
  })

  test('two fields are added, and nothing else changes', async () => {
    const provider = bound()
    const credential = await issue(provider)
    const asked = call()
    const attached = await provider.attach(credential, asked)
    expect(attached.service).toBe(asked.service)
    expect(asked.headers).toEqual([])
    expect(attached.headers.filter((_, i) => i % 2 === 0)).toEqual(['DPoP', 'Authorization'])
  })
})

async function sent({ method, host, port, path, headers }: Outbound): Promise<AnswerHead> {
  const pairs = headers.flatMap((name, i) =>
    i % 2 === 0 ? [[name, headers[i + 1] as string] as [string, string]] : [],
  )
  const answer = await fetch(`http://${host}:${port}${path}`, { method, headers: pairs })
  return { status: answer.status, raw: [...answer.headers].flat().map((text) => Buffer.from(text)) }
}

function jwtWith(claims: object): string {
  return `${Buffer.from('{"alg":"ES256"}').toString('base64url')}.${Buffer.from(JSON.stringify(claims)).toString('base64url')}.c2ln`
}

const thumbprint = (jwk: string) => calculateJwkThumbprint(JSON.parse(jwk))
