/** Invariant: nobody is taken for somebody else, whatever is presented where, at whichever replica, by however many. */
import { createHmac, generateKeyPairSync, randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { proofsBy } from '../rig/dpop.ts'
import {
  type Answer,
  BROKER,
  type Claims,
  ELSEWHERE,
  EXCHANGE,
  HUGE,
  ISSUER,
  openPlace,
  PEOPLE,
  type Place,
  RESEARCH,
  SEARCH,
  SLOW,
} from './identity.fixture.ts'

let place: Place
beforeAll(async () => {
  place = await openPlace()
})
afterAll(() => place?.stop()) // verifies both logs

const URN = 'urn:ietf:params:oauth:token-type:'
const BEARER = 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer'
const SPIFFE = 'urn:ietf:params:oauth:client-assertion-type:jwt-spiffe'
const told = ({ status, body }: Answer) => [status, body.error, body.keyless_code]

/** Ana's authority for an agent that proves itself by `actor_token`. */
const forAna = async (form: Record<string, string> = {}): Promise<Record<string, string>> => ({
  grant_type: EXCHANGE,
  subject_token: await place.idToken(),
  subject_token_type: `${URN}id_token`,
  actor_token: await place.svid(SEARCH),
  actor_token_type: 'urn:keyless:token-type:jwt-svid',
  scope: 'demo:notes.list',
  purpose: 'look',
  ...form,
})
const ask = async (form: Record<string, string>) => place.post('/oauth/token', form)
const by = async (id: string) => ({ client_assertion_type: BEARER, client_assertion: await place.assertion(id) })

describe('a token in a place that it was not made for', () => {
  /** Everything that somebody could have picked up somewhere, all of it genuine. */
  const tokens: Readonly<Record<string, () => Promise<string>>> = {
    'id token': () => place.idToken(),
    'worker token': () => place.workerToken(),
    svid: () => place.svid(SEARCH),
    assertion: () => place.assertion(RESEARCH),
    grant: async () => (await place.grant(RESEARCH)).access_token ?? '',
    handle: async () => (await place.grant(RESEARCH)).handle ?? '',
  }
  const slots: Readonly<Record<string, (token: string) => Promise<Record<string, string>>>> = {
    'subject as id_token': (subject_token) => forAna({ subject_token }),
    'subject as jwt': (subject_token) => forAna({ subject_token, subject_token_type: `${URN}jwt` }),
    'subject as access_token': async (subject_token) => ({
      grant_type: EXCHANGE,
      subject_token,
      subject_token_type: `${URN}access_token`,
      requested_actor: SEARCH,
      scope: 'demo:notes.list',
    }),
    'subject as aat-chain': (token) =>
      forAna({ subject_token: JSON.stringify([token]), subject_token_type: 'urn:keyless:token-type:aat-chain' }),
    'actor as jwt': (actor_token) => forAna({ actor_token, actor_token_type: `${URN}jwt` }),
    'actor as jwt-svid': (actor_token) => forAna({ actor_token }),
    'actor as aws-iam': (actor_token) => forAna({ actor_token, actor_token_type: 'urn:keyless:token-type:aws-iam' }),
    'assertion as jwt-bearer': (client_assertion) => place.credentials(RESEARCH, { client_assertion }),
    'assertion as jwt-spiffe': (client_assertion) =>
      place.credentials(RESEARCH, { client_assertion, client_assertion_type: SPIFFE }),
  }
  const MEANT = new Set([
    'id token, subject as id_token',
    'id token, subject as jwt',
    'worker token, actor as jwt',
    'svid, actor as jwt',
    'svid, actor as jwt-svid',
    'svid, assertion as jwt-spiffe',
    'assertion, assertion as jwt-bearer',
    'grant, subject as access_token',
    'handle, subject as access_token',
  ])
  const cases = Object.keys(tokens).flatMap((token) => Object.keys(slots).map((slot) => [token, slot] as const))

  it.each(cases)('counts only where it is meant to: %s, %s', async (token, slot) => {
    const form = await slots[slot]?.((await tokens[token]?.()) ?? '')
    const answer = await ask(form ?? {})
    if (MEANT.has(`${token}, ${slot}`)) expect(answer.status, answer.text).toBe(200)
    else expect([400, 401], answer.text).toContain(answer.status)
  })
})

describe('a signature that says how it wants to be verified', () => {
  const parts = (header: Claims, claims: Claims) =>
    [header, claims].map((part) => Buffer.from(JSON.stringify(part)).toString('base64url')).join('.')
  const now = () => Math.floor(Date.now() / 1000)
  const claims = () => ({ iss: PEOPLE, aud: 'keyless-cli', sub: 'ana', iat: now(), exp: now() + 60 })
  const own = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = own.publicKey.export({ format: 'jwk' })

  it.each<[string, () => string | Promise<string>]>([
    ['none', () => `${parts({ alg: 'none', kid: 'k1' }, claims())}.`],
    ['none, with something where a signature belongs', () => `${parts({ alg: 'none', kid: 'k1' }, claims())}.AAAA`],
    [
      'an HMAC with the public key for its secret',
      () => {
        const input = parts({ alg: 'HS256', kid: 'k1' }, claims())
        return `${input}.${createHmac('sha256', place.peoplesPem).update(input).digest('base64url')}`
      },
    ],
    ['another algorithm', () => place.idToken({}, { alg: 'ES256', kid: 'k1', typ: 'at+jwt' })],
    ['a key of its own', () => place.idToken({}, { jwk })],
    ['an address of keys', () => place.idToken({}, { jku: `${place.forbidden}/jwks` })],
    ['an address of certificates', () => place.idToken({}, { x5u: `${place.forbidden}/x5u` })],
    ['certificates of its own', () => place.idToken({}, { x5c: ['AAAA'] })],
    ['a demand', () => place.idToken({}, { b64: true })],
    ['the key of another issuer', () => place.workerToken({ iss: PEOPLE, aud: 'keyless-cli', sub: 'ana' })],
    ['a key id that is a path', () => place.idToken({}, { kid: '../workers.json#k1' })],
    ['a key id that is an address', () => place.idToken({}, { kid: `${place.forbidden}/jwks` })],
    ['an issuer that is an address', () => place.idToken({ iss: place.forbidden })],
    ['an issuer with a slash more', () => place.idToken({ iss: `${PEOPLE}/` })],
    ['an issuer in capitals', () => place.idToken({ iss: PEOPLE.toUpperCase() })],
  ])('is refused: %s', async (_what, token) => {
    const answer = await ask(await forAna({ subject_token: await token() }))
    expect(told(answer)).toEqual([400, 'invalid_request', 'subject_invalid'])
    expect(place.trespasses()).toBe(0)
  })
})

describe('an audience', () => {
  it.each<[string, Claims]>([
    ['of another client', { aud: 'other-app' }],
    ['that also names another client', { aud: ['keyless-cli', 'other-app'] }],
    ['that is this gateway: what workloads have', { aud: ISSUER }],
    ['with a slash more', { aud: 'keyless-cli/' }],
    ['that is an object', { aud: { 'keyless-cli': true } }],
    ['that is empty', { aud: [] }],
    ['of this client, issued to another', { azp: 'other-app' }],
  ])('%s makes nobody of an ID token', async (_what, changes) => {
    const answer = await ask(await forAna({ subject_token: await place.idToken(changes) }))
    expect(told(answer)).toEqual([400, 'invalid_request', 'subject_invalid'])
  })

  it.each<[string, Claims]>([
    ['of two, one of them ours', { aud: [ISSUER, 'https://other.test'] }],
    ['of our token endpoint', { aud: `${ISSUER}/oauth/token` }],
    ['of somebody else', { aud: 'https://other.test' }],
  ])('%s makes nobody of a workload', async (_what, changes) => {
    const asActor = await ask(await forAna({ actor_token: await place.svid(SEARCH, changes) }))
    expect(told(asActor)).toEqual([400, 'invalid_request', 'actor_invalid'])
    const client_assertion = await place.assertion(RESEARCH, changes)
    expect(told(await ask(await place.credentials(RESEARCH, { client_assertion })))).toEqual([
      401,
      'invalid_client',
      'client_invalid',
    ])
  })

  it('that is asked for is this gateway, however it is smuggled in', async () => {
    const form = new URLSearchParams(await place.credentials(RESEARCH)).toString()
    for (const more of ['audience=https://other.test', `audience=${ISSUER}&audience=https://other.test`]) {
      const answer = await place.post('/oauth/token', `${form}&${more}`)
      expect(told(answer)).toEqual([400, 'invalid_target', 'invalid_target'])
    }
  })
})

describe('authority of one, exchanged by another', () => {
  it('takes the agent itself or a registered orchestrator, and nobody in between', async () => {
    const asSearch = async (id: string) => ask(await forAna(await by(id)))
    expect(told(await asSearch(RESEARCH))).toEqual([400, 'invalid_request', 'actor_invalid'])
    expect((await asSearch(BROKER)).status).toBe(200)
    const asResearch = await forAna({ ...(await by(BROKER)), actor_token: await place.svid(RESEARCH) })
    expect(told(await ask(asResearch))).toEqual([400, 'invalid_request', 'actor_invalid'])
  })

  it('is as little to be had with the grant of another, whoever the client is', async () => {
    const stolen = await place.grant(RESEARCH)
    const form = { grant_type: EXCHANGE, subject_token_type: `${URN}access_token`, scope: 'demo:notes.list' }
    for (const subject_token of [stolen.access_token ?? '', stolen.handle ?? '']) {
      const answer = await ask({ ...form, subject_token, requested_actor: BROKER, ...(await by(BROKER)) })
      expect(told(answer)).toEqual([400, 'invalid_request', 'actor_invalid'])
    }
  })

  it('goes to the agent that may_act names, and an orchestrator does not stand in for it', async () => {
    const granted = async (mayAct: unknown, form: Record<string, string> = {}) =>
      ask(await forAna({ subject_token: await place.idToken({ may_act: mayAct }), ...form }))
    expect((await granted({ sub: SEARCH })).status).toBe(200)
    expect((await granted({ sub: SEARCH, iss: ISSUER })).status).toBe(200)
    expect((await granted({ sub: SEARCH }, await by(BROKER))).status).toBe(200)
    for (const mayAct of [
      { sub: BROKER },
      { sub: RESEARCH },
      { sub: `${SEARCH}/` },
      { sub: SEARCH, iss: 'https://other.test' },
      { sub: SEARCH, aud: 'x' },
      [{ sub: SEARCH }],
      SEARCH,
      {},
      null,
    ]) {
      const answer = await granted(mayAct, await by(BROKER))
      expect(answer.status, JSON.stringify(mayAct)).toBe(400)
      expect(answer.body.error).toBe('invalid_request')
    }
  })

  it('is decided by no act that somebody nested into the subject token', async () => {
    const act = { sub: RESEARCH, act: { sub: BROKER } }
    const answer = await ask(await forAna({ subject_token: await place.idToken({ act }) }))
    expect(answer.body.lineage).toBe(`ana authorised ${SEARCH} for task “look”`)
  })

  it('names two agents in vain', async () => {
    const answer = await ask(await forAna({ requested_actor: RESEARCH }))
    expect(told(answer)).toEqual([400, 'invalid_request', 'actor_invalid'])
  })
})

describe('what is good once', () => {
  it('is good once at all replicas together: an assertion, and a proof', async () => {
    const form = await place.credentials(RESEARCH)
    const answers = await Promise.all(
      Array.from({ length: 12 }, (_, i) => place.post('/oauth/token', form, { at: (i % 2) as 0 | 1 })),
    )
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ body }) => body.keyless_code === 'client_invalid')).toHaveLength(11)

    const sign = proofsBy(generateKeyPairSync('ed25519').privateKey)
    const htu = `${ISSUER}/oauth/token`
    const first = await place.post('/oauth/token', await place.credentials(RESEARCH), {
      headers: { dpop: await sign({ htm: 'POST', htu }) },
    })
    expect(told(first)).toEqual([400, 'use_dpop_nonce', 'dpop_nonce_required'])
    const dpop = await sign({ htm: 'POST', htu, nonce: first.headers.get('dpop-nonce') ?? '' })
    const forms = await Promise.all(Array.from({ length: 12 }, () => place.credentials(RESEARCH)))
    const proved = await Promise.all(
      forms.map((one, i) => place.post('/oauth/token', one, { at: (i % 2) as 0 | 1, headers: { dpop } })),
    )
    expect(proved.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(proved.filter(({ body }) => body.keyless_code === 'dpop_invalid')).toHaveLength(11)
  })
})

describe('a certificate', () => {
  it('in a header is no certificate, under whichever name', async () => {
    const pem = encodeURIComponent('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----')
    const form = { grant_type: 'client_credentials', client_id: RESEARCH, scope: 'demo:notes.list', purpose: 'look' }
    for (const headers of [
      { 'x-forwarded-client-cert': `By=spiffe://acme.test/x;URI=${RESEARCH};Cert="${pem}"` },
      { 'client-cert': ':AAAA:', 'client-cert-chain': ':AAAA:' }, // RFC 9440
      { 'x-ssl-client-cert': pem, 'ssl-client-verify': 'SUCCESS', 'x-ssl-client-s-dn': 'CN=research' },
      { 'x-client-cert': pem, 'x-amzn-mtls-clientcert': pem, 'x-spiffe-id': RESEARCH },
      { 'x-forwarded-user': 'ana', 'x-remote-user': 'ana', forwarded: 'for=127.0.0.1;by=ana' },
    ]) {
      const answer = await place.post('/oauth/token', form, { headers })
      expect(told(answer), Object.keys(headers).join()).toEqual([401, 'invalid_client', 'client_invalid'])
    }
  })
})

describe('a token that somebody asks about', () => {
  it('is told apart from one that never was by nobody who may not know it', async () => {
    const [alive, dead] = [await place.grant(RESEARCH), await place.grant(RESEARCH)]
    await place.post('/oauth/revoke', { token: dead.access_token ?? '' })
    const forged = `${alive.access_token?.slice(0, -4)}AAAA`
    const all = [alive.access_token, alive.handle, alive.grant, dead.access_token, dead.handle, forged, 'kh_x', 'a.b.c']
    const seen = new Set<string>()
    for (const token of all) {
      const answer = await place.post('/oauth/introspect', { token: token ?? '', ...(await by(BROKER)) })
      seen.add(`${answer.status} ${answer.text} ${answer.headers.get('content-length')}`)
    }
    expect([...seen]).toEqual(['200 {"active":false} 16'])
    const revoked = new Set<string>()
    for (const token of [dead.access_token, dead.handle, alive.grant, forged, 'kh_x', 'a.b.c']) {
      const answer = await place.post('/oauth/revoke', { token: token ?? '' })
      revoked.add(`${answer.status} ${answer.text} ${answer.headers.get('keyless-error')}`)
    }
    expect([...revoked]).toEqual(['200  null'])
  })
})

describe('an issuer that does not behave', () => {
  const actor = async (iss: string, kid = 'k1') =>
    forAna({ actor_token: await place.workerToken({ iss }, { kid }), actor_token_type: `${URN}jwt` })

  it('leads nobody elsewhere, and fills no memory', async () => {
    for (const iss of [ELSEWHERE, HUGE]) {
      const answer = await ask(await actor(iss))
      expect(told(answer), iss).toEqual([400, 'invalid_request', 'actor_invalid'])
      expect(answer.body.error_description).toMatch(/cannot be had/)
    }
    expect(place.trespasses()).toBe(0)
  })

  it('that never finishes its answer holds up neither others nor, for long, those who name it', {
    timeout: 30_000,
  }, async () => {
    const before = Date.now()
    const crowd = Array.from({ length: 200 }, async (_, i) => ask(await actor(SLOW, `k${i}`)))
    await expect.poll(() => place.slowQuestions()).toBe(1)
    const others = await Promise.all(Array.from({ length: 8 }, async () => ask(await place.credentials(RESEARCH))))
    expect(others.map(({ status }) => status)).toEqual(Array(8).fill(200))
    const ended = await Promise.all(crowd)
    expect(Date.now() - before).toBeLessThan(15_000)
    for (const answer of ended) expect([400, 503]).toContain(answer.status)
    expect(place.slowQuestions()).toBe(1)
  })
})

describe('a refusal', () => {
  it('is in the log under the id that was told, and takes no more room there than it is worth', async () => {
    const sizeOf = async () => JSON.stringify(await place.entries()).length
    const long = (length: number) => 'x'.repeat(length)
    const details = JSON.stringify(
      Array.from({ length: 40 }, () => ({ type: 'keyless_access', operations: Array(40).fill('demo:notes.list') })),
    )
    const refused: Answer[] = []
    for (const form of [
      { grant_type: 'client_credentials', scope: 'demo:notes.list' },
      await forAna({ subject_token: await place.idToken({ iss: long(3000), sub: long(3000) }) }),
      await place.credentials(RESEARCH, { client_assertion: await place.assertion(RESEARCH, { iss: long(9000) }) }),
      await place.credentials(RESEARCH, { client_assertion: 'x.y.z', scope: long(4096), purpose: long(1000) }),
      await place.credentials(RESEARCH, { client_assertion: 'x.y.z', authorization_details: details }),
      await place.credentials(RESEARCH, { client_assertion: 'x.y.z', client_id: long(2048) }),
    ]) {
      const before = await sizeOf()
      const answer = await ask(form)
      expect([400, 401]).toContain(answer.status)
      refused.push(answer)
      expect((await sizeOf()) - before, JSON.stringify(form).slice(0, 300)).toBeLessThan(8192)
      expect(answer.text.length).toBeLessThan(2048)
    }
    const ids = new Set((await place.entries()).map(({ req }) => req))
    expect(refused.filter(({ body }) => !ids.has(body.instance)).map(({ body }) => body)).toEqual([])
  })

  it('of an instruction about a task is there too, whoever did not say who it is', async () => {
    const [replica] = place.replicas
    const { task } = await replica.openTask('demo:*')
    const stranger = await place.grant(RESEARCH)
    const instruct = async (path: string, body: object, authorization?: string) => {
      const headers = { 'content-type': 'application/json', ...(authorization && { authorization }) }
      const url = `${replica.gateway.control}/tasks/${task}/${path}`
      const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) })
      return { status: answer.status, ...((await answer.json()) as { code: string; instance: string }) }
    }
    const asked: readonly (readonly [string, object])[] = [
      ['complete', { reason: 'completed' }],
      ['suspend', {}],
      ['steps/one/complete', {}],
      ['intent', { purpose: 'something else' }],
      ['resume', {}],
    ]
    const shown = [undefined, 'Bearer kh_unknown', `Bearer ${stranger.handle}`, 'DPoP x.y.z', 'Basic eDp5']
    const refused = []
    for (const [path, body] of asked)
      for (const authorization of shown) refused.push({ path, ...(await instruct(path, body, authorization)) })
    for (const { status, path, code } of refused) expect([401, 404], `${path} ${code}`).toContain(status)
    const entries = new Map((await place.entries()).map((entry) => [entry.req, entry]))
    for (const { instance, code } of refused)
      expect(entries.get(instance)).toMatchObject({ kind: 'grant.denied', decision: { code }, facts: { task } })
    expect(await replica.control.tasks()).toContainEqual(expect.objectContaining({ task, state: 'active' }))
  })

  it('says nothing of what was presented beyond its first words, and nothing that could begin a line', async () => {
    const nasty = `ana\r\nset-cookie: a=b\u202e${randomUUID()}`
    const answer = await ask(await forAna({ subject_token: await place.idToken({ iss: nasty }) }))
    expect(answer.body.error_description).not.toMatch(/[^\x20-\x7e]/)
    expect(answer.headers.get('set-cookie')).toBeNull()
  })
})
