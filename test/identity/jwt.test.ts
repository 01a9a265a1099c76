/** What holds for every token that others sign: RFC 8725, standards.md H27. The generic OIDC issuer stands for all of them. */
import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import {
  GATEWAY,
  type Issuer,
  LOOPBACK,
  NOW_S,
  openRoom,
  publicJwk,
  type Room,
  sign,
  signingKey,
  startIssuer,
} from './issuer.fixture.ts'

const AGENT = 'spiffe://acme.test/agents/triage'
const ec = signingKey('ES256', 'ec')
const rsa = signingKey('RS256', 'rsa')
const stranger = signingKey('ES256', 'ec')

let issuer: Issuer
let room: Room
beforeAll(async () => {
  issuer = await startIssuer(ec, rsa)
})
afterAll(() => issuer.stop())
beforeEach(async () => {
  room = openRoom(
    {
      issuers: [
        {
          kind: 'oidc',
          issuer: issuer.url,
          audience: GATEWAY,
          jwks: { uri: issuer.jwksUri },
          addresses: LOOPBACK,
          agents: [{ match: { sub: 'worker' }, agent: AGENT }],
        },
      ],
    },
    [issuer.ca],
  )
  return room.stop
})

const claims = (change: object = {}) => ({
  iss: issuer.url,
  sub: 'worker',
  aud: GATEWAY,
  iat: NOW_S - 5,
  exp: NOW_S + 300,
  ...change,
})

const verify = (token: string) => room.identities.workload({ token, type: 'jwt' })
const refusal = (why: RegExp | string) => ({ code: 'actor_invalid', message: expect.stringMatching(why) })

const encode = (value: unknown) =>
  Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)).toString('base64url')

it('is believed when everything fits', async () => {
  for (const key of [ec, rsa]) {
    expect(await verify(await sign(key, claims()))).toEqual({
      id: AGENT,
      kind: 'oidc',
      issuer: issuer.url,
      attributes: { sub: 'worker' },
      expiresAt: NOW_S + 300,
    })
  }
})

describe('a signature', () => {
  it('that is absent, or made with a public key as a shared secret, is none', async () => {
    const body = encode(claims())
    const none = `${encode({ alg: 'none', kid: 'ec' })}.${body}.AA`
    await expect(verify(none)).rejects.toMatchObject(refusal('algorithm is "none"'))
    await expect(verify(`${encode({ alg: 'ES256', kid: 'ec' })}.${body}.`)).rejects.toMatchObject(refusal('base64url'))
    for (const key of [ec, rsa]) {
      const secret = key.publicKey.export({ type: 'spki', format: 'pem' })
      const input = `${encode({ alg: 'HS256', kid: key.kid })}.${body}`
      const mac = createHmac('sha256', secret).update(input).digest('base64url')
      await expect(verify(`${input}.${mac}`)).rejects.toMatchObject(refusal('algorithm is "HS256"'))
    }
  })

  it('of another key or algorithm than the set has under this name is none', async () => {
    await expect(verify(await sign(stranger, claims()))).rejects.toMatchObject(refusal('signature does not verify'))
    const confused = `${encode({ alg: 'RS256', kid: 'ec' })}.${encode(claims())}.${encode('x')}`
    await expect(verify(confused)).rejects.toMatchObject(refusal('publishes no RS256 key "ec"'))
    await expect(verify(await sign(ec, claims(), { kid: 'gone' }))).rejects.toMatchObject(
      refusal('no ES256 key "gone"'),
    )
    await expect(verify(await sign(ec, claims(), { kid: undefined }))).resolves.toMatchObject({ id: AGENT })
  })

  it('is looked for under no name that leads elsewhere', async () => {
    for (const kid of ['../../etc/passwd', "' OR 1=1", '__proto__', 'https://evil.test/jwks'])
      await expect(verify(await sign(ec, claims(), { kid }))).rejects.toMatchObject(refusal('publishes no ES256 key'))
  })
})

describe('a header', () => {
  it.each<[string, object]>([
    ['jku', { jku: 'https://evil.test/jwks' }],
    ['x5u', { x5u: 'https://evil.test/chain' }],
    ['jwk', { jwk: publicJwk(stranger) }],
    ['x5c', { x5c: ['MIIB'] }],
    ['crit', { crit: ['exp'], exp: 1 }],
    ['b64', { b64: true }],
    ['zip', { zip: 'DEF' }],
    ['cty', { cty: 'JWT' }],
    ['url', { url: 'https://evil.test' }],
    ['nonce', { nonce: 'x' }],
  ])('with %s is refused before anything is fetched or verified', async (_name, more) => {
    const token = `${encode({ alg: 'ES256', kid: 'ec', typ: 'JWT', ...more })}.${encode(claims())}.${encode('x')}`
    const before = issuer.requests()
    await expect(verify(token)).rejects.toMatchObject(refusal(/its header has "\w+"; only alg, kid, typ/))
    expect(issuer.requests()).toBe(before)
  })

  it.each(['at+jwt', 'dpop+jwt', 'logout+jwt', 'wit+jwt', 'JWTX', '', 7, null])(
    'of the type %j belongs to another class of token',
    async (typ) => {
      const token = `${encode({ alg: 'ES256', kid: 'ec', typ })}.${encode(claims())}.${encode('x')}`
      await expect(verify(token)).rejects.toMatchObject(refusal('its type is'))
    },
  )

  it('may leave its type out, and write it in any case', async () => {
    for (const typ of [undefined, 'jwt', 'JWT', 'application/JWT'])
      await expect(verify(await sign(ec, claims(), { typ }))).resolves.toMatchObject({ id: AGENT })
  })
})

describe('the form', () => {
  it.each<[string, (token: string) => string, string]>([
    ['of five parts', (token) => `${token}.a.b`, 'it has 5 parts'],
    ['of two parts', (token) => token.slice(0, token.lastIndexOf('.')), 'it has 2 parts'],
    ['of nothing', () => '', 'it has 1 parts'],
    ['with padding', (token) => token.replace('.', '=.'), 'base64url'],
    ['with a line break', (token) => `${token}\n`, 'base64url'],
    ['of JSON serialisation', (token) => JSON.stringify({ payload: token }), 'parts|base64url'],
    ['that is endless', (token) => `${token}${'A'.repeat(16 * 1024)}`, 'longer than 16384'],
  ])('%s is refused', async (_what, change, why) => {
    await expect(verify(change(await sign(ec, claims())))).rejects.toMatchObject(refusal(why))
  })

  it('of claims that two readers take for two things is refused, although it is signed', async () => {
    const twice = JSON.stringify(claims()).replace('{', '{"sub":"admin",')
    await expect(verify(await sign(ec, twice))).rejects.toMatchObject(refusal('one way only'))
    for (const body of ['[]', '"text"', 'null', '7'])
      await expect(verify(await sign(ec, body))).rejects.toMatchObject(refusal('not an object'))
    await expect(verify(await sign(ec, '{'))).rejects.toMatchObject(refusal('one way only'))
  })
})

describe('claims', () => {
  it.each<[string, object, string]>([
    ['without an issuer', { iss: undefined }, 'no issuer nothing'],
    ['of an issuer with another spelling', { iss: 'https://ID.acme.test' }, 'no issuer'],
    ['without an audience', { aud: undefined }, 'names no audience'],
    ['with an empty audience', { aud: [] }, 'names no audience'],
    ['for somebody else', { aud: 'https://other.test' }, 'its audience is "https://other.test"'],
    ['for us and somebody else', { aud: [GATEWAY, 'https://other.test'] }, 'its audience is "https://other.test"'],
    ['for us twice', { aud: [GATEWAY, GATEWAY] }, 'several audiences'],
    ['for no string', { aud: [[GATEWAY]] }, 'its audience is'],
    ['bound to a key', { cnf: { jkt: 'x' } }, 'bound to a key'],
    ['without an expiry', { exp: undefined }, 'never expires'],
    ['with an expiry in words', { exp: 'tomorrow' }, 'its exp is not a time'],
    ['that expired just beyond the skew', { exp: NOW_S - 30 }, 'it expired 30 s ago'],
    ['with a start just beyond the skew', { nbf: NOW_S + 31 }, 'valid only in 31 s'],
    ['issued in the future', { iat: NOW_S + 31 }, 'issued 31 s from now'],
    ['without a time of issue', { iat: undefined }, 'no iat'],
    ['with a long life', { iat: NOW_S, exp: NOW_S + 3601 }, 'it lives 3601 s, longer than the 3600 s'],
    ['of nobody', { sub: 'stranger' }, 'no row under `agents`'],
    ['of an object', { sub: { toString: 'worker' } }, 'no row under `agents`'],
  ])('%s are refused', async (_what, change, why) => {
    await expect(verify(await sign(ec, claims(change)))).rejects.toMatchObject(refusal(why))
  })

  it.each<[string, object]>([
    ['at the edge of the skew', { exp: NOW_S - 29, iat: NOW_S - 300 }],
    ['started at the edge of the skew', { nbf: NOW_S + 30, iat: NOW_S + 30 }],
    ['with their one audience in a list', { aud: [GATEWAY] }],
    ['with fractions of a second', { exp: NOW_S + 10.5, iat: NOW_S - 0.5 }],
    ['as long-lived as is accepted', { iat: NOW_S, exp: NOW_S + 3600 }],
  ])('%s are believed', async (_what, change) => {
    await expect(verify(await sign(ec, claims(change)))).resolves.toMatchObject({ id: AGENT })
  })
})

describe('no altered token', () => {
  it('verifies: any byte changed, added or removed', async () => {
    const tokens = [await sign(ec, claims()), await sign(rsa, claims())]
    const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n'
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...tokens),
        fc.nat(),
        fc.constantFrom('change', 'insert', 'remove'),
        fc.constantFrom(...alphabet),
        async (token, at, how, letter) => {
          const place = at % token.length
          const rest = token.slice(how === 'insert' ? place : place + 1)
          const altered = token.slice(0, place) + (how === 'remove' ? '' : letter) + rest
          fc.pre(altered !== token)
          await expect(verify(altered)).rejects.toMatchObject({ code: 'actor_invalid' })
        },
      ),
      { numRuns: 1000 },
    )
  })

  it('verifies: any claim or header member put in, with the signature kept', async () => {
    const token = await sign(ec, claims())
    const [head = '', body = '', signature = ''] = token.split('.')
    const name = fc.oneof(fc.constantFrom('sub', 'exp', 'aud', 'alg', 'kid', 'typ', '__proto__'), fc.string())
    await fc.assert(
      fc.asyncProperty(name, fc.jsonValue(), fc.boolean(), async (key, value, inHeader) => {
        const part = JSON.parse(Buffer.from(inHeader ? head : body, 'base64url').toString())
        const text = JSON.stringify({ ...part, [key]: value })
        fc.pre(encode(text) !== (inHeader ? head : body))
        const altered = inHeader ? `${encode(text)}.${body}.${signature}` : `${head}.${encode(text)}.${signature}`
        await expect(verify(altered)).rejects.toMatchObject({ code: 'actor_invalid' })
      }),
      { numRuns: 500 },
    )
  })
})

it('is never repeated in a refusal, nor is anything that could end a line of a log', async () => {
  const token = await sign(stranger, claims({ sub: 'line\nbreak' }))
  const refusals = [
    token,
    `${token}x`,
    await sign(ec, claims({ aud: 'a\nb' })),
    await sign(ec, claims({ iss: 'a\nb' })),
  ]
  for (const one of refusals) {
    const error: Error = await verify(one).then(
      () => new Error('believed'),
      (cause: Error) => cause,
    )
    expect(error.message).toMatch(/^The actor token is refused: .+\.$/)
    for (const part of one.split('.')) expect(error.message).not.toContain(part)
  }
})

it('refuses with the reason when the keys of an issuer cannot be had', async () => {
  issuer.answer = (_request, response) => response.writeHead(503).end()
  const token = await sign(ec, claims())
  await expect(verify(token)).rejects.toMatchObject(refusal(/keys of its issuer cannot be had \(it answered 503\)/))
  issuer.answer = undefined
})
