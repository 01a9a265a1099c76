/** The OAuth endpoints as clients and attackers meet them: forms, evidence, DPoP, errors. Grants and record are played. */
import { generateKeyPairSync, randomUUID } from 'node:crypto'
import { connect } from 'node:net'
import { Validator } from '@seriousme/openapi-schema-validator'
import fc from 'fast-check'
import { calculateJwkThumbprint, exportJWK, SignJWT } from 'jose'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { parseForm } from '../../gateway/control/oauth/form.ts'
import { GatewayError, type ProblemCode, problems } from '../../gateway/protocol/problem.ts'
import { ask } from './door.fixture.ts'
import { grant, type OauthRig, openOauthRig, PUBLIC_URL, workload } from './oauth.fixture.ts'

let rig: OauthRig
beforeAll(async () => {
  rig = await openOauthRig()
})
beforeEach(() => rig.reset())
afterAll(() => rig.close())

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange'
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token'
const ID_TOKEN = 'urn:ietf:params:oauth:token-type:id_token'
const JWT_BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const good = { client_assertion: 'good', client_assertion_type: JWT_BEARER }
const credentials = { grant_type: 'client_credentials', scope: 'github:issues.read', ...good }
const exchange = { grant_type: EXCHANGE, subject_token: 'eyJ.parent', subject_token_type: ACCESS_TOKEN, ...good }

interface ProofChanges {
  readonly htm?: string
  readonly htu?: string
  readonly jti?: string
  readonly nonce?: string
  readonly ath?: string
  readonly key?: ReturnType<typeof newKey>
}
const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' })
const key = newKey()
async function proof(changes: ProofChanges = {}): Promise<string> {
  const { publicKey, privateKey } = changes.key ?? key
  const claims = {
    htm: changes.htm ?? 'POST',
    htu: changes.htu ?? `${PUBLIC_URL}/oauth/token`,
    jti: changes.jti ?? randomUUID(),
    iat: Math.floor(rig.clock.nowMs() / 1000),
    nonce: changes.nonce ?? rig.nonce(),
    ...(changes.ath !== undefined && { ath: changes.ath }),
  }
  return new SignJWT(claims)
    .setProtectedHeader({ alg: 'ES256', typ: 'dpop+jwt', jwk: await exportJWK(publicKey) })
    .sign(privateKey)
}
const jktOf = async ({ publicKey } = key) => calculateJwkThumbprint(await exportJWK(publicKey))

describe('a token request', () => {
  it('becomes one instruction with all that was asked, and is answered whole', async () => {
    const answer = await rig.post('/oauth/token', {
      ...credentials,
      client_id: workload.id,
      authorization_details: '[{"type":"keyless_access","operations":["github:*"]}]',
      resource: PUBLIC_URL,
      audience: `${PUBLIC_URL}/`,
      purpose: 'triage “issue” 42',
      preset: 'per-prompt',
      trace: '0af7651916cd43dd8448eb211c80319c',
      step: 'read',
      delegable: 'false',
      max_depth: '2',
      allow_narrowing: 'true',
      requested_expires_in: '60',
    })
    expect(answer.status).toBe(200)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers['content-type']).toContain('application/json')
    expect(answer.headers).not.toHaveProperty('dpop-nonce')
    expect(answer.json).toEqual({
      access_token: 'eyJ.grant',
      issued_token_type: ACCESS_TOKEN,
      token_type: 'Bearer',
      expires_in: grant.expiresAt - rig.clock.nowMs() / 1000,
      scope: 'github:issues.read github:pulls.*',
      authorization_details: [{ type: 'keyless_access', operations: ['github:issues.read', 'github:pulls.*'] }],
      task: grant.task.id,
      grant: grant.id,
      handle: 'kh_x',
      lineage: `ana authorised ${workload.id} for task “triage issue 42”`,
    })
    expect(rig.served).toEqual([
      {
        kind: 'grant.request',
        id: expect.stringMatching(/^[0-9a-f-]{36}$/),
        tenant: 'acme',
        grantType: 'client_credentials',
        client: { clientId: workload.id, assertion: { type: 'jwt-bearer', token: 'good' } },
        purpose: 'triage “issue” 42',
        request: {
          scope: 'github:issues.read',
          details: [{ type: 'keyless_access', operations: ['github:*'] }],
          ttlS: 60,
          allowNarrowing: true,
          preset: 'per-prompt',
          trace: '0af7651916cd43dd8448eb211c80319c',
          delegable: false,
          maxDepth: 2,
          step: 'read',
        },
      },
    ])
  })

  it('carries subject, actor, attestation and the actor to delegate to in an exchange', async () => {
    await rig.post('/oauth/token', {
      ...exchange,
      actor_token: 'eyJ.svid',
      actor_token_type: 'urn:keyless:token-type:jwt-svid',
      actor_proof: 'eyJ.hop',
      requested_actor: 'spiffe://acme.test/agents/search',
      requested_token_type: ACCESS_TOKEN,
      dpop_jkt: 'A'.repeat(43),
    })
    expect(rig.served).toMatchObject([
      {
        grantType: 'token-exchange',
        subject: { token: 'eyJ.parent', type: 'access_token' },
        actor: { token: 'eyJ.svid', type: 'jwt-svid' },
        attestation: 'eyJ.hop',
        requestedActor: 'spiffe://acme.test/agents/search',
        request: { cnf: { jkt: 'A'.repeat(43) } },
      },
    ])
  })

  it('is answered with what was cut, no scope for entries that say more, no handle for a bound grant', async () => {
    rig.next = () => ({
      grant: {
        ...grant,
        cnf: { jkt: 'k' },
        authority: [{ operations: ['github:issues.read'], constraints: { max_calls: 5 } }],
      },
      token: 'eyJ.bound',
      narrowed: ['authorization_details[0].constraints.max_calls: 50 became 5'],
    })
    const { json } = await rig.post('/oauth/token', credentials)
    expect(json).toMatchObject({ token_type: 'DPoP', narrowed: [expect.stringContaining('max_calls')] })
    expect(json).not.toHaveProperty('handle')
    expect(json).not.toHaveProperty('scope')
    expect(json.authorization_details).toEqual([
      { type: 'keyless_access', operations: ['github:issues.read'], constraints: { max_calls: 5 } },
    ])
  })

  it('works on the unix socket as over TCP', async () => {
    const answer = await ask(
      { socketPath: rig.socketPath },
      {
        method: 'POST',
        path: '/oauth/token',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: new URLSearchParams(credentials).toString(),
      },
    )
    expect([answer.status, answer.json.access_token]).toEqual([200, 'eyJ.grant'])
  })

  const malformed: readonly (readonly [string, string | Record<string, string>, string, string])[] = [
    ['no grant type', { ...good }, 'invalid_request', 'grant_type'],
    ['another grant type', { ...good, grant_type: 'password' }, 'unsupported_grant_type', 'client_credentials'],
    ['the name of a prototype member', { ...good, grant_type: 'constructor' }, 'unsupported_grant_type', ''],
    ['a parameter twice', 'grant_type=client_credentials&scope=a%3Ab&scope=a%3Ac', 'invalid_request', "'scope'"],
    ['a parameter twice, once empty', 'grant_type=client_credentials&scope=&scope=a%3Ac', 'invalid_request', "'scope'"],
    [
      'a parameter twice, once escaped',
      'grant_type=client_credentials&%67rant_type=x',
      'invalid_request',
      'grant_type',
    ],
    ['an unknown parameter twice', 'grant_type=client_credentials&x=1&x=2', 'invalid_request', "'x'"],
    ['a broken escape', 'grant_type=client_credentials&scope=%zz', 'invalid_request', 'percent-encoding'],
    ['an escape that is not UTF-8', 'grant_type=client_credentials&scope=%ff', 'invalid_request', 'UTF-8'],
    ['an overlong escape', 'grant_type=client_credentials&scope=%c0%af', 'invalid_request', 'UTF-8'],
    ['raw bytes', 'grant_type=client_credentials&scope=é', 'invalid_request', 'ASCII'],
    ['a line break', 'grant_type=client_credentials\r\n&scope=a', 'invalid_request', 'ASCII'],
    ['65 parameters', `grant_type=x${'&a'.repeat(64)}`, 'invalid_request', '64'],
    [
      'a subject token in client credentials',
      { ...credentials, subject_token: 'x' },
      'invalid_request',
      'subject_token',
    ],
    ['an actor in client credentials', { ...credentials, requested_actor: 'x' }, 'invalid_request', 'requested_actor'],
    ['no subject token', { ...good, grant_type: EXCHANGE }, 'invalid_request', 'subject_token'],
    [
      'no subject token type',
      { ...good, grant_type: EXCHANGE, subject_token: 'x' },
      'invalid_request',
      'subject_token_type',
    ],
    ['another subject token type', { ...exchange, subject_token_type: 'urn:x' }, 'invalid_request', 'not read here'],
    [
      'a prototype member as type',
      { ...exchange, subject_token_type: '__proto__' },
      'invalid_request',
      'not read here',
    ],
    ['an actor token without type', { ...exchange, actor_token: 'x' }, 'invalid_request', 'actor_token_type'],
    ['an actor type without token', { ...exchange, actor_token_type: ID_TOKEN }, 'invalid_request', 'actor_token_type'],
    [
      'another kind of token',
      { ...exchange, requested_token_type: ID_TOKEN },
      'invalid_request',
      'requested_token_type',
    ],
    ['a resource that is not ours', { ...exchange, resource: 'https://api.github.com' }, 'invalid_target', PUBLIC_URL],
    ['an audience that is not ours', { ...exchange, audience: 'https://evil.test' }, 'invalid_target', PUBLIC_URL],
    [
      'one audience of two',
      `${new URLSearchParams({ ...exchange, audience: PUBLIC_URL })}&audience=x`,
      'invalid_target',
      '',
    ],
    [
      'details that are not JSON',
      { ...credentials, authorization_details: '{' },
      'invalid_authorization_details',
      'JSON',
    ],
    [
      'details with a key twice',
      { ...credentials, authorization_details: '[{"type":"keyless_access","type":"x"}]' },
      'invalid_authorization_details',
      'one way only',
    ],
    ['a lifetime of zero', { ...credentials, requested_expires_in: '0' }, 'invalid_request', 'requested_expires_in'],
    ['a lifetime in words', { ...credentials, requested_expires_in: '1e3' }, 'invalid_request', 'seconds'],
    ['a flag that is neither', { ...credentials, delegable: 'yes' }, 'invalid_request', 'true or false'],
    ['an unknown preset', { ...credentials, preset: 'forever' }, 'invalid_request', 'per-task'],
    ['a trace in capitals', { ...credentials, trace: 'A'.repeat(32) }, 'invalid_request', 'trace'],
    ['a token of 17 KiB', { ...exchange, actor_proof: 'a'.repeat(17 * 1024) }, 'invalid_request', '16 KiB'],
    ['a thumbprint that is none', { ...exchange, dpop_jkt: 'short' }, 'invalid_request', 'RFC 7638'],
  ]
  it.each(malformed)('with %s is refused', async (_what, form, error, hint) => {
    const answer = await rig.post('/oauth/token', form)
    expect([answer.status, answer.json.error]).toEqual([400, error])
    expect(answer.json.error_description).toContain(hint)
    expect(answer.json.error_description).toMatch(/^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/)
    expect(answer.json.instance).toMatch(/^[0-9a-f-]{36}$/)
    expect(rig.served).toEqual([])
  })

  it('ignores what it does not know, and takes an empty value for none', async () => {
    expect((await rig.post('/oauth/token', { ...credentials, foo: 'bar', purpose: '', __proto__x: '1' })).status).toBe(
      200,
    )
    expect(
      (await rig.post('/oauth/token', `${new URLSearchParams(credentials)}&__proto__=x&constructor=y`)).status,
    ).toBe(200)
    expect(rig.served.every((one) => !('purpose' in one))).toBe(true)
  })

  it('is in the log when it is refused before the flow could be asked', async () => {
    await rig.post('/oauth/token', { ...credentials, audience: 'https://evil.test' })
    await rig.post('/oauth/token', credentials, { authorization: 'Basic eDp5' })
    await rig.post('/oauth/token', credentials, { dpop: 'x.y.z' })
    expect(rig.refused).toEqual([
      'grant.request invalid_target',
      'grant.request instruction_invalid',
      'grant.request dpop_invalid',
    ])
  })
})

describe('client authentication', () => {
  const cases: readonly (readonly [string, Record<string, string>, Record<string, string>, number, string])[] = [
    ['HTTP Basic', { grant_type: 'client_credentials' }, { authorization: 'Basic eDp5' }, 401, 'invalid_client'],
    ['a bearer token', { grant_type: 'client_credentials' }, { authorization: 'Bearer x' }, 401, 'invalid_client'],
    [
      'a client secret',
      { grant_type: 'client_credentials', client_id: 'a', client_secret: 'b' },
      {},
      401,
      'invalid_client',
    ],
    ['Basic and an assertion', credentials, { authorization: 'Basic eDp5' }, 400, 'invalid_request'],
    ['a secret and an assertion', { ...credentials, client_secret: 'b' }, {}, 400, 'invalid_request'],
    [
      'a type without assertion',
      { grant_type: 'client_credentials', client_assertion_type: JWT_BEARER },
      {},
      400,
      'invalid_request',
    ],
    [
      'an assertion without type',
      { grant_type: 'client_credentials', client_assertion: 'good' },
      {},
      400,
      'invalid_request',
    ],
    ['an unknown assertion type', { ...credentials, client_assertion_type: 'urn:saml' }, {}, 401, 'invalid_client'],
    ['the type of a prototype', { ...credentials, client_assertion_type: 'toString' }, {}, 401, 'invalid_client'],
  ]
  it.each(cases)('by %s is refused', async (_what, form, headers, status, error) => {
    for (const path of ['/oauth/token', '/oauth/revoke']) {
      const answer = await rig.post(path, path.endsWith('revoke') ? { ...form, token: 'x' } : form, headers)
      expect([answer.status, answer.json.error], path).toEqual([status, error])
      if (status === 401) expect(answer.headers['www-authenticate']).toMatch(/^(Basic|Bearer) realm="https:/)
      if (headers.authorization?.startsWith('Basic') && status === 401)
        expect(answer.headers['www-authenticate']).toBe(`Basic realm="${PUBLIC_URL}"`)
    }
    expect(rig.served).toEqual([])
  })

  it('by two Authorization or two DPoP fields is refused, whatever Node makes of them', async () => {
    const body = new URLSearchParams({ grant_type: 'client_credentials' }).toString()
    const send = (fields: string) =>
      raw(
        `POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n${fields}\r\n${body}`,
      )
    expect(await send('Authorization: Bearer a\r\nAuthorization: Basic b\r\n')).toContain('"invalid_request"')
    const one = await proof()
    expect(await send(`DPoP: ${one}\r\nDPoP: ${one}\r\n`)).toContain('"invalid_dpop_proof"')
  })
})

describe('DPoP at the token endpoint', () => {
  it('binds the grant to the proved key and gives the next nonce', async () => {
    const answer = await rig.post('/oauth/token', credentials, { dpop: await proof() })
    expect(answer.status).toBe(200)
    expect(answer.headers['dpop-nonce']).toBe(rig.nonce())
    expect(rig.served).toMatchObject([{ jkt: await jktOf() }])
  })

  it('asks for a nonce with the nonce to use, and that is no refusal in the log', async () => {
    const answer = await rig.post('/oauth/token', credentials, { dpop: await proof({ nonce: 'old' }) })
    expect([answer.status, answer.json.error]).toEqual([400, 'use_dpop_nonce'])
    expect(answer.headers['dpop-nonce']).toBe(rig.nonce())
    expect(rig.refused).toEqual([])
    expect((await rig.post('/oauth/token', credentials, { dpop: await proof() })).status).toBe(200)
  })

  it('takes a proof once', async () => {
    const dpop = await proof()
    expect((await rig.post('/oauth/token', credentials, { dpop })).status).toBe(200)
    const again = await rig.post('/oauth/token', credentials, { dpop })
    expect([again.status, again.json.error]).toEqual([400, 'invalid_dpop_proof'])
    expect(rig.served).toHaveLength(1)
  })

  it('knows its own URL from settings: neither Host nor forwarding fields choose it', async () => {
    const dpop = await proof({ htu: `http://127.0.0.1:${rig.door.port}/oauth/token` })
    const answer = await rig.post('/oauth/token', credentials, { dpop, 'x-forwarded-host': 'evil.test' })
    expect(answer.json.error).toBe('invalid_dpop_proof')
    for (const [path, htu] of [
      ['/oauth/token', `${PUBLIC_URL}/oauth/revoke`],
      ['/oauth/revoke', `${PUBLIC_URL}/oauth/token`],
    ] as const) {
      const crossed = await rig.post(path, { ...credentials, token: 'x' }, { dpop: await proof({ htu }) })
      expect(crossed.json.error).toBe('invalid_dpop_proof')
    }
  })

  it('refuses a dpop_jkt of another key except where a child gets its own', async () => {
    const other = await jktOf(newKey())
    const wrong = await rig.post('/oauth/token', { ...credentials, dpop_jkt: other }, { dpop: await proof() })
    expect(wrong.json).toMatchObject({
      error: 'invalid_request',
      error_description: expect.stringContaining('dpop_jkt'),
    })
    await rig.post('/oauth/token', { ...exchange, dpop_jkt: other }, { dpop: await proof() })
    expect(rig.served).toMatchObject([{ jkt: await jktOf(), request: { cnf: { jkt: other } } }])
  })
})

describe('a refusal of the flow', () => {
  const expected: Partial<Record<ProblemCode, readonly [number, string]>> = {
    client_invalid: [401, 'invalid_client'],
    agent_unknown: [400, 'unauthorized_client'],
    grant_type_unsupported: [400, 'unsupported_grant_type'],
    invalid_scope: [400, 'invalid_scope'],
    scope_exceeded: [400, 'invalid_scope'],
    invalid_details: [400, 'invalid_authorization_details'],
    invalid_target: [400, 'invalid_target'],
    dpop_invalid: [400, 'invalid_dpop_proof'],
    dpop_nonce_required: [400, 'use_dpop_nonce'],
    policy_denied: [400, 'access_denied'],
    approval_required: [400, 'access_denied'],
    approval_denied: [400, 'access_denied'],
    approval_expired: [400, 'access_denied'],
    access_blocked: [400, 'access_denied'],
    limit_exceeded: [400, 'access_denied'],
    use_spent: [400, 'access_denied'],
    method_refused: [405, 'invalid_request'],
    target_mismatch: [421, 'invalid_request'],
    internal: [500, 'server_error'],
  }
  it.each(Object.keys(problems) as ProblemCode[])('%s has its OAuth error', async (code) => {
    rig.next = () => {
      throw new GatewayError(code, 'It “was” so…\\ "never" mind ☂.')
    }
    const answer = await rig.post('/oauth/token', credentials)
    const { status, remedy } = problems[code]
    const fallback = status >= 500 ? [status, 'temporarily_unavailable'] : [400, 'invalid_request']
    expect([answer.status, answer.json.error]).toEqual(expected[code] ?? fallback)
    expect(answer.json).toEqual({
      error: expect.any(String),
      error_description: "It 'was' so.../ 'never' mind ?.",
      keyless_code: code,
      remedy,
      instance: expect.stringMatching(/^[0-9a-f-]{36}$/),
    })
    expect(answer.headers['keyless-error']).toBe(code)
    expect(answer.headers['cache-control']).toBe('no-store')
    expect(answer.headers['retry-after']).toBe(answer.status === 503 ? '1' : undefined)
    expect(answer.headers['www-authenticate']).toBe(
      answer.status === 401 ? `Bearer realm="${PUBLIC_URL}", error="invalid_client"` : undefined,
    )
  })

  it('about the actor of an exchange makes the request invalid (RFC 8693 §2.2.2)', async () => {
    rig.next = () => {
      throw new GatewayError('agent_unknown', 'Not registered.')
    }
    expect((await rig.post('/oauth/token', exchange)).json.error).toBe('invalid_request')
  })

  it('that is a bug says nothing of it, and is reported with the id that the caller has', async () => {
    rig.next = () => {
      throw new TypeError('sekret')
    }
    const answer = await rig.post('/oauth/token', credentials)
    expect([answer.status, answer.json.error]).toEqual([500, 'server_error'])
    expect(answer.text).not.toContain('sekret')
    expect(rig.reported).toHaveLength(1)
  })
})

describe('revocation', () => {
  const revoke = (form: Record<string, string>, headers?: Record<string, string>) =>
    rig.post('/oauth/revoke', { token: 'eyJ.mine', ...form }, headers)

  it('gives the instruction with the evidence of the client', async () => {
    rig.next = () => null
    const answer = await revoke({ ...good, token_type_hint: 'refresh_token' })
    expect([answer.status, answer.text, answer.headers['cache-control']]).toEqual([200, '', 'no-store'])
    expect(rig.served).toMatchObject([
      { kind: 'grant.revoke', token: 'eyJ.mine', by: { client: { assertion: { type: 'jwt-bearer', token: 'good' } } } },
    ])
  })

  it.each(['grant_missing', 'grant_invalid', 'grant_expired', 'grant_revoked'] as const)(
    'answers 200 to %s: what is not alive is as good as revoked (RFC 7009 §2.2)',
    async (code) => {
      rig.next = () => {
        throw new GatewayError(code, 'gone')
      }
      expect((await revoke(good)).status).toBe(200)
    },
  )

  it('tells a client that it may not, and when the store is away', async () => {
    for (const [code, status, error] of [
      ['client_invalid', 401, 'invalid_client'],
      ['policy_denied', 400, 'access_denied'],
      ['store_unavailable', 503, 'temporarily_unavailable'],
      ['audit_unavailable', 503, 'temporarily_unavailable'],
    ] as const) {
      rig.next = () => {
        throw new GatewayError(code, 'no')
      }
      const answer = await revoke(good)
      expect([answer.status, answer.json.error]).toEqual([status, error])
    }
  })

  it('is done by the owner of the socket without further proof, and by nobody like that over TCP', async () => {
    rig.next = () => null
    await ask(
      { socketPath: rig.socketPath },
      {
        method: 'POST',
        path: '/oauth/revoke',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: 'token=eyJ.mine',
      },
    )
    await revoke({})
    expect(rig.served).toMatchObject([{ by: { human: { iss: 'local:test', sub: 'ana' } } }, { by: { client: {} } }])
  })

  it('needs a token', async () => {
    expect((await rig.post('/oauth/revoke', good)).json.error).toBe('invalid_request')
  })
})

describe('introspection', () => {
  const introspect = (form: Record<string, string>, headers?: Record<string, string>) =>
    rig.post('/oauth/introspect', { token: 'eyJ.mine', ...form }, headers)

  it('tells an authenticated client, and the holder of a grant', async () => {
    expect((await introspect(good)).json).toEqual({ active: true, sub: 'ana' })
    expect((await introspect({}, { authorization: 'Bearer eyJ.mine' })).json).toEqual({ active: true, sub: 'ana' })
    expect(rig.asked.map(({ by }) => by)).toEqual([{ client: workload }, { holder: grant }])
  })

  it('says {"active":false} and nothing else of what is dead, unknown or not theirs', async () => {
    const answer = await introspect({ ...good, token: 'other' })
    expect([answer.status, answer.json, answer.headers['cache-control']]).toEqual([200, { active: false }, 'no-store'])
  })

  it.each([
    ['nobody', {}, {}, 401, 'invalid_client'],
    ['a bad assertion', { ...good, client_assertion: 'bad' }, {}, 401, 'invalid_client'],
    ['a secret', { client_id: 'a', client_secret: 'b' }, {}, 401, 'invalid_client'],
    ['Basic', {}, { authorization: 'Basic eDp5' }, 401, 'invalid_client'],
    ['an unknown grant', {}, { authorization: 'Bearer nope' }, 401, 'invalid_token'],
    ['a scheme without a grant', {}, { authorization: 'Bearer' }, 401, 'invalid_client'],
    ['a grant and an assertion', good, { authorization: 'Bearer eyJ.mine' }, 400, 'invalid_request'],
  ] as const)('asked by %s is refused', async (_who, form, headers, status, error) => {
    const answer = await introspect(form, headers)
    expect([answer.status, answer.json.error]).toEqual([status, error])
    expect(answer.headers['www-authenticate'] !== undefined).toBe(status === 401)
    expect(rig.asked).toEqual([])
  })

  it('asked under a bound grant takes it as DPoP with a proof of its key and of the grant, and not as Bearer', async () => {
    rig.held = { ...grant, cnf: { jkt: await jktOf() } }
    const ath = await import('node:crypto').then(({ hash }) => hash('sha256', 'eyJ.mine', 'base64url'))
    const htu = `${PUBLIC_URL}/oauth/introspect`
    const as = async (scheme: string, changes?: ProofChanges) =>
      introspect({}, { authorization: `${scheme} eyJ.mine`, ...(changes && { dpop: await proof(changes) }) })
    expect((await as('DPoP', { htu, ath })).json).toEqual({ active: true, sub: 'ana' })
    for (const [scheme, changes, error] of [
      ['Bearer', undefined, 'invalid_token'],
      ['Bearer', { htu, ath }, 'invalid_token'],
      ['DPoP', undefined, 'invalid_token'],
      ['DPoP', { htu, ath, key: newKey() }, 'invalid_token'],
      ['DPoP', { htu }, 'invalid_dpop_proof'],
      ['DPoP', { htu, ath, nonce: 'old' }, 'use_dpop_nonce'],
    ] as const) {
      const answer = await as(scheme, changes)
      expect([answer.status, answer.json.error]).toEqual([401, error])
      expect(answer.headers['www-authenticate']).toContain(`${scheme} realm="${PUBLIC_URL}", error="${error}"`)
      if (scheme === 'DPoP') expect(answer.headers['www-authenticate']).toContain('algs="ES256 ')
    }
    expect(rig.asked).toHaveLength(1)
  })

  it('is bounded for one caller, and others are not kept waiting', async () => {
    for (let sent = 0; sent < 600; sent += 100) await Promise.all(Array.from({ length: 100 }, () => introspect(good)))
    const over = await introspect(good)
    expect([over.status, over.json.error, over.json.keyless_code]).toEqual([
      503,
      'temporarily_unavailable',
      'too_many_requests',
    ])
    expect((await introspect({}, { authorization: 'Bearer eyJ.mine' })).status).toBe(200)
    rig.clock.advance(10_000)
    expect((await introspect(good)).status).toBe(200)
  })

  it('on the socket is open to its owner', async () => {
    const answer = await ask(
      { socketPath: rig.socketPath },
      {
        method: 'POST',
        path: '/oauth/introspect',
        headers: { 'content-type': 'application/x-www-form-urlencoded' },
        body: 'token=eyJ.mine',
      },
    )
    expect(answer.json.active).toBe(true)
    expect(rig.asked.map(({ by }) => by)).toEqual([{ human: { iss: 'local:test', sub: 'ana' } }])
  })
})

describe('what is not a form by POST', () => {
  const paths = ['/oauth/token', '/oauth/revoke', '/oauth/introspect']

  it.each(['GET', 'HEAD', 'PUT', 'PATCH', 'DELETE'])('is 405 with %s', async (method) => {
    for (const path of paths) {
      const answer = await ask({ port: rig.door.port }, { method, path })
      expect([answer.status, answer.headers.allow]).toEqual([405, 'POST'])
    }
  })

  it('is refused with parameters in the URL, also as GET', async () => {
    for (const method of ['GET', 'POST']) {
      const answer = await ask(
        { port: rig.door.port },
        {
          method,
          path: '/oauth/token?grant_type=client_credentials',
          headers: { 'content-type': 'application/x-www-form-urlencoded' },
          body: method === 'POST' ? new URLSearchParams(credentials).toString() : '',
        },
      )
      expect([answer.status, answer.json.error]).toEqual([400, 'invalid_request'])
    }
    expect(rig.served).toEqual([])
  })

  it.each([
    'application/json',
    'text/plain',
    'multipart/form-data; boundary=x',
    'application/x-www-form-urlencodedx',
    'application/x-www-form-urlencoded, application/json',
    '',
  ])('is refused as %j', async (type) => {
    for (const path of paths) {
      const answer = await rig.post(path, JSON.stringify(credentials), { 'content-type': type })
      expect([answer.status, answer.json.error]).toEqual([400, 'invalid_request'])
      expect(answer.json.error_description).not.toContain('JSON of at most')
    }
    expect(rig.served).toEqual([])
  })

  it('takes the charset that everyone sends along', async () => {
    const answer = await rig.post('/oauth/token', credentials, {
      'content-type': 'application/x-www-form-urlencoded; charset=UTF-8',
    })
    expect(answer.status).toBe(200)
  })

  it('is refused from web pages', async () => {
    for (const headers of [{ origin: 'https://evil.test' }, { 'sec-fetch-site': 'cross-site' }]) {
      const answer = await rig.post('/oauth/token', credentials, headers as Record<string, string>)
      expect(answer.json).toMatchObject({ error: 'access_denied', keyless_code: 'policy_denied' })
    }
  })

  it('is refused under a name that is not ours', async () => {
    const answer = await rig.post('/oauth/token', credentials, { host: 'evil.test' })
    expect([answer.status, answer.json.keyless_code]).toEqual([421, 'target_mismatch'])
    expect((await rig.post('/oauth/token', credentials, { host: 'keyless.test' })).status).toBe(200)
  })

  it('is refused at 1 MB before it is read, on every path', async () => {
    for (const path of paths) {
      const answer = await rig.post(path, `token=${'a'.repeat(1 << 20)}`).catch((cause) => cause as { code: string })
      // Node may cut the connection while the rest is still being sent; no answer is an answer too.
      if ('json' in answer) expect(answer.json).toMatchObject({ error: 'invalid_request' })
      else expect(answer.code).toMatch(/ECONNRESET|EPIPE/)
    }
    const chunked = await raw(
      `POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nTransfer-Encoding: chunked\r\n\r\n10001\r\n${'a'.repeat(0x10001)}\r\n0\r\n\r\n`,
    )
    expect(chunked).toContain('"invalid_request"')
    expect(rig.served).toEqual([])
  })

  it('is refused without a body', async () => {
    for (const path of paths) expect((await rig.post(path, '')).json.error).toBe('invalid_request')
  })

  it('is refused with two lengths or a second request in its body', async () => {
    const body = new URLSearchParams(credentials).toString()
    const head = 'POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\n'
    const both = await raw(`${head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${body}`)
    expect(both).toMatch(/^HTTP\/1\.1 400 /)
    const two = await raw(`${head}Content-Length: 4\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    expect(two).toMatch(/^HTTP\/1\.1 400 /)
    expect(rig.served).toEqual([])
  })
})

describe('many at once', () => {
  it('count until their work is done, also when the caller has gone away', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    rig.next = () => promise.then(() => ({ grant, token: 't' }))
    const body = new URLSearchParams(credentials).toString()
    const head = `POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n`
    const sockets = Array.from({ length: 128 }, () => {
      const socket = connect(rig.door.port, '127.0.0.1', () => socket.write(head + body))
      return socket.on('error', () => undefined)
    })
    await expect.poll(() => rig.served).toHaveLength(128)
    for (const socket of sockets) socket.resetAndDestroy()
    expect((await rig.post('/oauth/token', credentials)).status).toBe(503)
    resolve()
    await expect.poll(async () => (await rig.post('/oauth/token', credentials)).status).toBe(200)
  })

  it('are bounded on one connection too', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    rig.next = () => promise.then(() => ({ grant, token: 't' }))
    const body = new URLSearchParams(credentials).toString()
    const one = `POST /oauth/token HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: ${body.length}\r\n\r\n${body}`
    const socket = connect(rig.door.port, '127.0.0.1', () => socket.write(one.repeat(300)))
    socket.on('error', () => undefined).resume()
    await expect.poll(() => rig.served.length).toBeGreaterThan(0)
    expect(rig.served.length).toBeLessThanOrEqual(128)
    resolve()
    socket.destroy()
    await expect.poll(async () => (await rig.post('/oauth/token', credentials)).status).toBe(200)
  })

  it('are served up to a bound, and the rest is told to come again', async () => {
    const { promise, resolve } = Promise.withResolvers<void>()
    rig.next = () => promise.then(() => ({ grant, token: 't' }))
    let refused = 0
    const answers = Array.from({ length: 200 }, async () => {
      const answer = await rig.post('/oauth/token', credentials)
      if (answer.status === 503) refused += 1
      if (refused === 200 - 128) resolve()
      return answer
    })
    const statuses = (await Promise.all(answers)).map(({ status }) => status)
    expect(statuses.filter((status) => status === 200)).toHaveLength(128)
    rig.next = () => ({ grant, token: 't' })
    expect((await rig.post('/oauth/token', credentials)).status).toBe(200)
  })
})

describe('metadata', () => {
  it('is at the place that RFC 8414 §3 gives an issuer with a path, and at the root', async () => {
    const [inserted, root] = await Promise.all(
      ['/.well-known/oauth-authorization-server/gw', '/.well-known/oauth-authorization-server'].map((path) =>
        ask({ port: rig.door.port }, { path }),
      ),
    )
    expect(inserted?.json).toEqual(root?.json)
    expect(inserted?.json).toMatchObject({
      issuer: PUBLIC_URL,
      token_endpoint: `${PUBLIC_URL}/oauth/token`,
      revocation_endpoint: `${PUBLIC_URL}/oauth/revoke`,
      introspection_endpoint: `${PUBLIC_URL}/oauth/introspect`,
      jwks_uri: `${PUBLIC_URL}/.well-known/jwks.json`,
      grant_types_supported: ['client_credentials', EXCHANGE],
      response_types_supported: [],
      token_endpoint_auth_methods_supported: ['private_key_jwt', 'spiffe_jwt'],
      authorization_details_types_supported: ['keyless_access'],
      dpop_signing_alg_values_supported: expect.arrayContaining(['ES256', 'Ed25519']),
      token_request_parameters_supported: expect.arrayContaining(['purpose', 'preset', 'requested_expires_in']),
    })
    expect(JSON.stringify(inserted?.json)).not.toMatch(/HS256|"none"|client_secret/)
  })
})

describe('the description of the API', () => {
  it('is valid OpenAPI and has the forms of the endpoints', async () => {
    const local = await ask({ socketPath: rig.socketPath }, { path: '/openapi.json' })
    expect((await new Validator().validate(local.json)).errors ?? []).toEqual([])
    const { json } = await ask({ port: rig.door.port }, { path: '/openapi.json' })
    const verdict = await new Validator().validate(structuredClone(json))
    expect(verdict.errors ?? []).toEqual([])
    expect(verdict.valid).toBe(true)
    const paths = json.paths as Record<string, { post?: { requestBody: { content: Record<string, unknown> } } }>
    for (const path of ['/oauth/token', '/oauth/revoke', '/oauth/introspect']) {
      const { content } = paths[path]?.post?.requestBody ?? { content: {} }
      expect(Object.keys(content)).toEqual(['application/x-www-form-urlencoded'])
    }
    const form = paths['/oauth/token']?.post?.requestBody.content['application/x-www-form-urlencoded']
    expect(form).toMatchObject({
      schema: { required: ['grant_type'], properties: { requested_expires_in: {}, allow_narrowing: {}, dpop_jkt: {} } },
    })
    expect(paths).toHaveProperty('/.well-known/oauth-authorization-server')
  })
})

describe('parseForm', () => {
  it('reads what URLSearchParams writes', () => {
    fc.assert(
      fc.property(
        fc.uniqueArray(
          fc.tuple(fc.string({ minLength: 1, unit: 'grapheme' }), fc.string({ minLength: 1, unit: 'grapheme' })),
          {
            selector: ([name]) => name,
            maxLength: 20,
          },
        ),
        (pairs) => {
          const kept = pairs.filter(([name]) => name !== 'resource' && name !== 'audience')
          const form = parseForm(Buffer.from(new URLSearchParams(kept as [string, string][]).toString()))
          expect(Object.entries(form)).toEqual(expect.arrayContaining(kept))
          expect(Object.keys(form)).toHaveLength(kept.length)
        },
      ),
    )
  })

  it('answers to any bytes with a form or a refusal, and never with a prototype', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.uint8Array({ maxLength: 200 }),
          fc.string().map((text) => Buffer.from(text)),
        ),
        (bytes) => {
          try {
            expect(Object.getPrototypeOf(parseForm(Buffer.from(bytes)))).toBeNull()
          } catch (cause) {
            expect(cause).toBeInstanceOf(GatewayError)
          }
        },
      ),
    )
  })

  it('keeps every resource and audience in order', () => {
    expect(parseForm(Buffer.from('resource=b&audience=x&resource=a'))).toEqual({
      resource: ['b', 'a'],
      audience: ['x'],
    })
  })
})

/** Bytes as they are, over TCP, until the other side closes. */
function raw(text: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>()
  let got = ''
  const socket = connect(rig.door.port, '127.0.0.1', () => socket.end(text))
  socket.setEncoding('utf8').on('data', (chunk) => {
    got += chunk
  })
  socket.on('error', () => undefined).on('close', () => resolve(got))
  return promise
}
