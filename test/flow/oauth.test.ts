/** The gateway as an authorization server: clients written by others get grants, use them, pass them on and give them back. */
import { generateKeyPairSync, type webcrypto } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { calculateJwkThumbprint, decodeJwt, exportJWK } from 'jose'
import * as oauth from 'oauth4webapi'
import * as openid from 'openid-client'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { signAttestation } from '../../gateway/grant/holder.ts'
import {
  EXCHANGE,
  type Granted,
  insecure,
  type OauthHouse,
  openOauthHouse,
  RESEARCH,
  SEARCH,
  TYPES,
} from './oauth.fixture.ts'

let house: OauthHouse
beforeAll(async () => {
  house = await openOauthHouse()
})
afterAll(() => house.stop()) // verifies the whole log

const purpose = 'answer a question'
const root = (form: Record<string, string> = {}) =>
  house.ask('client_credentials', { scope: 'demo:notes.list demo:echo.read', purpose, ...form })
const child = (parent: Granted, form: Record<string, string> = {}) =>
  house.ask(EXCHANGE, {
    subject_token: parent.access_token,
    subject_token_type: TYPES.access,
    requested_actor: SEARCH,
    scope: 'demo:notes.list',
    ...form,
  })
const refusal = async (asked: Promise<unknown>) => {
  const error = await asked.then(
    () => undefined,
    (cause: unknown) => cause,
  )
  if (error instanceof oauth.WWWAuthenticateChallengeError)
    return [error.status, error.cause[0]?.parameters.error, ''] as const
  if (!(error instanceof oauth.ResponseBodyError)) throw error ?? new Error('it was granted')
  return [error.status, error.error, error.error_description] as const
}

describe('discovery', () => {
  it('leads two independent clients to every endpoint', async () => {
    const config = await house.config()
    for (const metadata of [house.as, config.serverMetadata()]) {
      expect(metadata).toMatchObject({
        issuer: house.issuer,
        token_endpoint: `${house.issuer}/oauth/token`,
        revocation_endpoint: `${house.issuer}/oauth/revoke`,
        introspection_endpoint: `${house.issuer}/oauth/introspect`,
        authorization_details_types_supported: ['keyless_access'],
      })
    }
  })
})

describe('an agent that acts by itself', () => {
  it('gets a grant by private_key_jwt, and calls an API with it', async () => {
    const granted = await root()
    expect(granted).toMatchObject({
      token_type: 'bearer',
      issued_token_type: TYPES.access,
      scope: 'demo:notes.list demo:echo.read',
      handle: expect.stringMatching(/^kh_/),
      lineage: `ana@acme.test authorised ${RESEARCH} for task “${purpose}”`,
    })
    expect(await house.call(granted.access_token)).toBe('200 200')
    expect(await house.call(granted.handle ?? '', '/echo')).toBe('200 200')
    expect(await house.call(granted.access_token, '/files/a')).toBe('403 200')
  })

  it('gets one through openid-client as well', async () => {
    const granted = await openid.clientCredentialsGrant(await house.config(), { scope: 'demo:notes.list', purpose })
    expect(await house.call(granted.access_token)).toBe('200 200')
  })

  it('holds a token that anyone can verify as RFC 9068 says', async () => {
    const { access_token } = await root()
    const request = new Request(house.issuer, { headers: { authorization: `Bearer ${access_token}` } })
    const claims = await oauth.validateJwtAccessToken(house.as, request, house.issuer, {
      signingAlgorithms: ['Ed25519'],
      ...insecure,
    })
    expect(claims).toMatchObject({ client_id: RESEARCH, sub: 'ana@acme.test' })
  })

  it('proves itself by JWT-SVID too', async () => {
    const answer = await house.post('/oauth/token', {
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe',
      client_assertion: await house.svid(SEARCH),
      scope: 'demo:notes.list',
      purpose,
    })
    expect(await answer.json()).toMatchObject({ lineage: expect.stringContaining(SEARCH) })
  })
})

describe('an agent that acts for a person', () => {
  const forAna = async (form: Record<string, string> = {}) =>
    house.ask(EXCHANGE, {
      subject_token: await house.idp.signIn('ana'),
      subject_token_type: TYPES.id,
      scope: 'demo:notes.list',
      purpose: 'triage issue 42',
      ...form,
    })

  it('gets a grant that names her, how she signed in, and the task', async () => {
    const granted = await forAna()
    expect(granted.lineage).toBe(`ana authorised ${RESEARCH} for task “triage issue 42”`)
    const claims = decodeJwt(granted.access_token)
    expect(claims).toMatchObject({ sub: 'ana', client_id: RESEARCH })
    expect(JSON.stringify(claims)).toMatch(/"amr":\["pwd","otp"\]/)
    expect(await house.call(granted.access_token)).toBe('200 200')
  })

  it('may be another one than the client when its identity is presented and registered for it', async () => {
    const asked = forAna({ actor_token: await house.svid(SEARCH), actor_token_type: TYPES.svid })
    expect(await refusal(asked)).toEqual([400, 'invalid_request', expect.stringContaining('orchestrators')])
  })

  it('passes on less, and no more: what was too wide is named', async () => {
    const parent = await forAna({ scope: 'demo:notes.list demo:notes.read' })
    const passed = await child(parent)
    expect(passed.lineage).toContain(`delegated to ${SEARCH}`)
    expect(await house.call(passed.access_token)).toBe('200 200')
    const [status, error, description] = await refusal(child(parent, { scope: 'demo:notes.list demo:files.read' }))
    expect([status, error]).toEqual([400, 'invalid_scope'])
    expect(description).toContain('demo:files.read')
    const narrowed = await child(parent, { scope: 'demo:notes.list demo:files.read', allow_narrowing: 'true' })
    expect(narrowed).toMatchObject({ scope: 'demo:notes.list', narrowed: [expect.stringContaining('operations')] })
    expect(await house.call(narrowed.access_token, '/files/a')).toBe('403 200')
  })
})

it('the page for platform teams does what it says', async () => {
  const [own, human, passed, asked] = await house.followPage(await house.idp.signIn('ana'))
  expect(JSON.parse(own ?? '')).toMatchObject({ token_type: 'Bearer', scope: 'demo:notes.list' })
  expect(JSON.parse(human ?? '').lineage).toBe(`ana authorised ${RESEARCH} for task “triage issue 42”`)
  expect(JSON.parse(passed ?? '')).toMatchObject({
    expires_in: expect.closeTo(60, -1),
    authorization_details: [{ type: 'keyless_access', constraints: { max_calls: 5 } }],
    lineage: expect.stringContaining(`delegated to ${SEARCH}`),
  })
  expect(asked).toMatch(/^\{"active":true,.*\}200\n/)
})

describe('DPoP', () => {
  const newPair = () => oauth.generateKeyPair('ES256', { extractable: true })

  it('binds a grant to a key, after the nonce that both clients fetch by themselves', async () => {
    const pair = await newPair()
    const DPoP = oauth.DPoP({}, pair)
    const form = { scope: 'demo:notes.list', purpose }
    const first = await house.ask('client_credentials', form, { DPoP }).catch((cause: unknown) => cause)
    expect(oauth.isDPoPNonceError(first)).toBe(true)
    const granted = await house.ask('client_credentials', form, { DPoP })
    expect(granted).toMatchObject({ token_type: 'dpop' })
    expect(granted).not.toHaveProperty('handle')
    const jkt = await calculateJwkThumbprint(await exportJWK(pair.publicKey))
    expect(decodeJwt(granted.access_token)).toMatchObject({ cnf: { jkt } })
    expect(await house.call(granted.access_token)).toMatch(/407/) // a bare copy of it is worth nothing

    const config = await house.config()
    const handle = openid.getDPoPHandle(config, await newPair())
    const again = await openid.clientCredentialsGrant(config, form, { DPoP: handle })
    expect(again.token_type).toBe('dpop')
  })

  it('makes a stolen grant worthless: neither as Bearer nor under a key of its own does a thief get anything for it', async () => {
    const again = async <T>(asked: () => Promise<T>) =>
      asked().catch((cause: unknown) => (oauth.isDPoPNonceError(cause) ? asked() : Promise.reject(cause)))
    const mine = { DPoP: oauth.DPoP({}, await newPair()) }
    const bound = await again(() => house.ask('client_credentials', { scope: 'demo:notes.list', purpose }, mine))
    const thief = { DPoP: oauth.DPoP({}, await newPair()) }
    const form = {
      subject_token: bound.access_token,
      subject_token_type: TYPES.access,
      requested_actor: SEARCH,
      scope: 'demo:notes.list',
    }
    for (const o of [thief, {}]) {
      const refused = await refusal(again(() => house.ask(EXCHANGE, form, o)))
      expect(refused.slice(0, 2)).toEqual([400, 'invalid_request'])
    }
    const token = bound.access_token
    const asked = await house.post('/oauth/introspect', { token }, { authorization: `Bearer ${token}` })
    expect([asked.status, asked.headers.get('www-authenticate')]).toEqual([
      401,
      `Bearer realm="${house.issuer}", error="invalid_token"`,
    ])
    const revoked = await house.post('/oauth/revoke', { token })
    expect(revoked.status).toBe(401)
    expect(await openid.tokenIntrospection(await house.config(), token)).toMatchObject({ active: true })
  })

  it('lets the holder of the key delegate by its own signature, and nobody without it', async () => {
    const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const web = {
      publicKey: await importKey(pair.publicKey.export({ format: 'jwk' }), 'verify'),
      privateKey: await importKey(pair.privateKey.export({ format: 'jwk' }), 'sign'),
    }
    const DPoP = oauth.DPoP({}, web)
    const ask = async (grantType: string, form: Record<string, string>) => {
      const asked = () => house.ask(grantType, form, { DPoP })
      return asked().catch((cause: unknown) => (oauth.isDPoPNonceError(cause) ? asked() : Promise.reject(cause)))
    }
    const parent = await ask('client_credentials', { scope: 'demo:notes.list', purpose })
    const form = {
      subject_token: parent.access_token,
      subject_token_type: TYPES.access,
      requested_actor: SEARCH,
      scope: 'demo:notes.list',
      requested_expires_in: '60',
    }
    const now = Math.floor(Date.now() / 1000)
    const actor_proof = signAttestation({
      parent: parent.access_token,
      key: pair.privateKey,
      agent: SEARCH,
      authority: [{ operations: ['demo:notes.list'] }],
      issuedAt: now,
      expiresAt: now + 600,
    })
    const passed = await ask(EXCHANGE, { ...form, actor_proof })
    expect(passed.lineage).toContain(`${RESEARCH} delegated to ${SEARCH}`)
    expect(await house.call(passed.access_token)).toBe('200 200')
    expect((await refusal(ask(EXCHANGE, form))).slice(0, 2)).toEqual([400, 'invalid_request'])
    expect((await refusal(house.ask(EXCHANGE, { ...form, actor_proof }))).slice(0, 2)).toEqual([400, 'invalid_request'])
  })
})

describe('giving back', () => {
  it('revokes a grant and everything below it, and tells so to whoever may ask', async () => {
    const parent = await root()
    const passed = await child(parent)
    const config = await house.config()
    const seen = async (token: string) => openid.tokenIntrospection(config, token)
    expect(await seen(passed.access_token)).toMatchObject({
      active: true,
      sub: 'ana@acme.test',
      client_id: SEARCH,
      scope: 'demo:notes.list',
      iss: house.issuer,
      aud: house.issuer,
      act: { sub: SEARCH },
      authorization_details: [{ type: 'keyless_access', operations: ['demo:notes.list'] }],
    })
    await openid.tokenRevocation(config, parent.access_token)
    expect(await seen(parent.access_token)).toEqual({ active: false })
    expect(await seen(passed.access_token)).toEqual({ active: false })
    expect(await house.call(passed.access_token)).toMatch(/407/)
    await openid.tokenRevocation(config, parent.access_token) // again, and what never was
    await openid.tokenRevocation(config, 'kh_never')
  })

  it('lets a holder ask about its own subtree, and learn nothing of others', async () => {
    const [parent, stranger] = await Promise.all([root(), root()])
    const passed = await child(parent)
    const asked = async (holder: Granted, token: string) => {
      const headers = { authorization: `Bearer ${holder.access_token}` }
      return (await house.post('/oauth/introspect', { token }, headers)).json()
    }
    expect(await asked(parent, passed.access_token)).toMatchObject({ active: true, jti: passed.grant })
    expect(await asked(parent, passed.handle ?? '')).toMatchObject({ active: true, jti: passed.grant })
    expect(await asked(passed, parent.access_token)).toEqual({ active: false })
    expect(await asked(stranger, passed.access_token)).toEqual({ active: false })
    const revoked = await house.post('/oauth/revoke', { token: parent.handle ?? '' })
    expect(revoked.status).toBe(200)
    expect(
      (await house.post('/oauth/introspect', { token: 'x' }, { authorization: `Bearer ${parent.access_token}` }))
        .status,
    ).toBe(401)
  })
})

describe('refusals by the whole gateway', () => {
  const credentials = async (changes: Record<string, unknown> = {}, form: Record<string, string> = {}) => {
    const answer = await house.post('/oauth/token', {
      grant_type: 'client_credentials',
      client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
      client_assertion: await house.assertion(changes),
      scope: 'demo:notes.list',
      purpose,
      ...form,
    })
    const { error, keyless_code } = (await answer.json()) as { error?: string; keyless_code?: string }
    return [answer.status, error, keyless_code]
  }
  const past = Math.floor(Date.now() / 1000) - 3600

  it.each([
    ['an assertion for another server', { aud: 'https://evil.test' }, {}],
    ['an assertion for the token endpoint instead of the issuer', { aud: 'ISSUER/oauth/token' }, {}],
    ['an assertion for several servers', { aud: ['ISSUER', 'https://evil.test'] }, {}],
    ['an expired assertion', { iat: past, exp: past + 60 }, {}],
    ['an assertion without jti', { jti: undefined }, {}],
    ['an assertion of somebody else', { iss: SEARCH, sub: SEARCH }, {}],
    ['another client_id', {}, { client_id: SEARCH }],
    [
      'an SVID where a signature of the client is said to be',
      {},
      { client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe' },
    ],
    ['nothing', {}, { client_assertion: '', client_assertion_type: '' }],
  ])('say invalid_client to %s', async (_what, changes, form) => {
    const ours = JSON.parse(JSON.stringify(changes).replaceAll('ISSUER', house.issuer))
    if ('jti' in changes) ours.jti = undefined
    expect(await credentials(ours, form)).toEqual([401, 'invalid_client', 'client_invalid'])
  })

  it.each([
    ['no purpose', { purpose: '' }, 'invalid_request'],
    ['no scope', { scope: '' }, 'invalid_scope'],
    ['a scope that is none', { scope: 'everything' }, 'invalid_scope'],
    ['an operation that is not in the catalogue', { scope: 'demo:nothing.here' }, 'invalid_scope'],
    ['an unknown type of details', { authorization_details: '[{"type":"payment"}]' }, 'invalid_authorization_details'],
    [
      'an unknown member',
      { authorization_details: '[{"type":"keyless_access","operations":["demo:*"],"x":1}]' },
      'invalid_authorization_details',
    ],
    [
      'details that are no array',
      { authorization_details: '{"type":"keyless_access"}' },
      'invalid_authorization_details',
    ],
    ['a lifetime beyond the ceiling', { requested_expires_in: '7200' }, 'invalid_request'],
    ['another grant type', { grant_type: 'authorization_code' }, 'unsupported_grant_type'],
    ['an audience that is not ours', { audience: 'https://api.keyless.test' }, 'invalid_target'],
  ])('name the fault of %s', async (_what, form, error) => {
    expect((await credentials({}, form)).slice(0, 2)).toEqual([400, error])
  })

  it('say invalid_request to subject and actor tokens that are not acceptable', async () => {
    const parent = await root()
    for (const form of [
      { subject_token: 'eyJ', subject_token_type: TYPES.access },
      { subject_token: `${parent.access_token}x`, subject_token_type: TYPES.access },
      { subject_token: parent.access_token, subject_token_type: TYPES.id },
      { subject_token: await house.svid(SEARCH), subject_token_type: TYPES.id, purpose },
      {
        subject_token: parent.access_token,
        subject_token_type: TYPES.access,
        actor_token: 'x',
        actor_token_type: TYPES.svid,
      },
      {
        subject_token: parent.access_token,
        subject_token_type: TYPES.access,
        requested_actor: 'spiffe://acme.test/nobody',
      },
      {
        subject_token: parent.access_token,
        subject_token_type: TYPES.access,
        actor_proof: 'eyJ.x.y',
        requested_actor: SEARCH,
      },
    ]) {
      const asked = house.ask(EXCHANGE, { requested_actor: SEARCH, scope: 'demo:notes.list', ...form } as Record<
        string,
        string
      >)
      expect((await refusal(asked)).slice(0, 2), JSON.stringify(Object.keys(form))).toEqual([400, 'invalid_request'])
    }
  })

  it('say invalid_request to a grant that cannot be delegated, and to one that is dead', async () => {
    const [last, dead] = await Promise.all([root({ delegable: 'false' }), root()])
    expect(await refusal(child(last))).toMatchObject([400, 'invalid_request', expect.stringContaining('not delegable')])
    await house.post('/oauth/revoke', { token: dead.access_token })
    expect((await refusal(child(dead))).slice(0, 2)).toEqual([400, 'invalid_request'])
  })

  it('never are a surprise, whatever is put into a form', { timeout: 60_000 }, async () => {
    const parent = await root()
    const values = fc.constantFrom(
      ...[
        '',
        'x',
        'true',
        '0',
        '-1',
        '1e9',
        '[]',
        '{}',
        'null',
        '[{"type":"keyless_access"}]',
        'a b',
        'demo:*',
        'é“”',
        '\u0000',
      ],
      ...[
        SEARCH,
        RESEARCH,
        house.issuer,
        ...Object.values(TYPES),
        EXCHANGE,
        'client_credentials',
        'per-prompt',
        'sensitive',
      ],
      ...[
        parent.access_token,
        parent.handle ?? '',
        parent.grant,
        `${parent.access_token}~x`,
        'a.b.c',
        '~',
        'kh_',
        'eyJ.e30.',
      ],
    )
    const names = (house.as.token_request_parameters_supported as string[]).concat(
      'token',
      '__proto__',
      'client_secret',
    )
    const forms = fc.dictionary(fc.constantFrom(...names), values, { maxKeys: 12 })
    const path = fc.constantFrom('/oauth/token', '/oauth/token', '/oauth/revoke', '/oauth/introspect')
    await fc.assert(
      fc.asyncProperty(path, forms, fc.boolean(), async (to, form, isExchange) => {
        const likely = isExchange
          ? { grant_type: EXCHANGE, subject_token: parent.access_token, subject_token_type: TYPES.access }
          : {}
        const answer = await house.post(to, { ...likely, ...form })
        expect([200, 400, 401]).toContain(answer.status)
        const text = await answer.text()
        if (answer.status !== 200) expect(JSON.parse(text).error).toMatch(/^[a-z_]+$/)
      }),
      { numRuns: 400 },
    )
  })

  it('let an assertion be used once, however many try it at once', async () => {
    const client_assertion = await house.assertion()
    const answers = await Promise.all(Array.from({ length: 20 }, () => credentials({}, { client_assertion })))
    expect(answers.filter(([status]) => status === 200)).toHaveLength(1)
    expect(answers.filter(([, error]) => error === 'invalid_client')).toHaveLength(19)
  })

  it('are in the log with their code, and no token of anybody is', async () => {
    const marker = await house.assertion({
      sub: 'spiffe://acme.test/agents/marker',
      iss: 'spiffe://acme.test/agents/marker',
    })
    await credentials({}, { client_assertion: marker })
    const log = await readFile(join(house.gateway.settings.dataDir, 'audit', 'entries.jsonl'), 'utf8')
    expect(log).toContain('"grant.denied"')
    expect(log).toContain('client_invalid')
    expect(log).not.toContain(marker)
    expect(log).not.toMatch(/eyJ[\w-]{20,}\.[\w-]+\.[\w-]{20,}/)
  })
})

async function importKey(jwk: object, use: 'sign' | 'verify'): Promise<CryptoKey> {
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  return crypto.subtle.importKey('jwk', jwk as webcrypto.JsonWebKey, algorithm, true, [use])
}
