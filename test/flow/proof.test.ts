/** Grants that are bound to a key, at the proxy door: with a proof about this very request they count, and with nothing less. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { request as ask, type IncomingMessage } from 'node:http'
import { text } from 'node:stream/consumers'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type Proving, proofsBy } from '../rig/dpop.ts'
import { run } from '../rig/process.ts'
import { type OauthHouse, openOauthHouse } from './oauth.fixture.ts'

let house: OauthHouse
let key: KeyObject
let token: string
let nonce: string

const newKey = () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey

beforeAll(async () => {
  house = await openOauthHouse()
  key = newKey()
  token = await boundTo(key)
  const { headers } = await call({ authorization: `DPoP ${token}`, dpop: await proof({ nonce: undefined }) })
  nonce = String(headers['dpop-nonce'])
})
afterAll(() => house.stop()) // verifies the whole log

/** A grant by client credentials with a proof, the nonce fetched on the way. */
async function boundTo(own: KeyObject): Promise<string> {
  const sign = proofsBy(own)
  const htu = `${house.issuer}/oauth/token`
  const asked = async (given?: string) =>
    house.post(
      '/oauth/token',
      {
        grant_type: 'client_credentials',
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: await house.assertion(),
        scope: 'demo:notes.list demo:echo.read',
        purpose: 'answer a question',
      },
      { dpop: await sign({ htm: 'POST', htu, ...(given && { nonce: given }) }) },
    )
  const first = await asked()
  const answer = (await (await asked(first.headers.get('dpop-nonce') ?? '')).json()) as Record<string, string>
  expect(answer.token_type).toBe('DPoP')
  return answer.access_token ?? ''
}

const door = () => `http://127.0.0.1:${house.gateway.proxyPort}`
const route = (path = '/notes') => `${door()}/demo${path}`

/** For `GET` of the reverse route, unless something else is said. */
function proof(o: Partial<Omit<Proving, 'nonce'>> & { nonce?: string | undefined; by?: KeyObject } = {}) {
  const { by = key, ...rest } = o
  const given = 'nonce' in o ? o.nonce : nonce
  return proofsBy(by)({ htm: 'GET', htu: route(), token, ...rest, nonce: given } as Proving)
}

interface Answer {
  readonly status: number
  readonly headers: IncomingMessage['headers']
  readonly body: string
  readonly code: string | undefined
}

/** @param target what stands in the request line: a path, or a whole URL. */
async function call(
  headers: Record<string, string | string[]>,
  target = '/demo/notes',
  method = 'GET',
): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>()
  const own = { host: '127.0.0.1', port: house.gateway.proxyPort, path: target, method, agent: false as const }
  ask({ ...own, headers }, resolve)
    .on('error', reject)
    .end()
  const answer = await promise
  const { statusCode: status = 0, headers: got } = answer
  return { status, headers: got, body: await text(answer), code: got['keyless-error']?.toString() }
}

const withKey = async (o: Parameters<typeof proof>[0] = {}) =>
  call({ authorization: `DPoP ${token}`, dpop: await proof(o) })

describe('on a reverse route', () => {
  it('counts with a proof, and neither it nor the proof goes on to the API', async () => {
    const answer = await call(
      { authorization: `DPoP ${token}`, dpop: await proof({ htu: route('/echo') }) },
      '/demo/echo',
    )
    expect([answer.status, answer.code]).toEqual([200, undefined])
    expect(answer.headers['dpop-nonce']).toMatch(/^[\w-]{24}$/)
    expect(answer.body.toLowerCase()).not.toContain('dpop')
    expect(answer.body).not.toContain(token)
  })

  it('is asked for a nonce first, in words that clients of RFC 9449 understand', async () => {
    for (const given of [undefined, 'AAAAAAAAAAAAAAAAAAAAAAAA']) {
      const answer = await withKey({ nonce: given })
      expect([answer.status, answer.code]).toEqual([401, 'dpop_nonce_required'])
      expect(answer.headers['www-authenticate']).toMatch(/^DPoP realm="keyless", error="use_dpop_nonce", algs="ES256 /)
      expect(answer.headers['dpop-nonce']).toMatch(/^[\w-]{24}$/)
    }
  })

  it('stays on the path of the proof; its query is free, its Host is not believed', async () => {
    const headers = async () => ({ authorization: `DPoP ${token}`, dpop: await proof() })
    expect((await call(await headers(), '/demo/notes?page=2')).status).toBe(200)
    const foreign = { authorization: `DPoP ${token}`, dpop: await proof({ htu: 'http://gateway.test/demo/notes' }) }
    expect((await call({ ...foreign, host: 'gateway.test' })).code).toBe('dpop_invalid')
    expect((await call({ ...(await headers()), host: 'gateway.test' })).status).toBe(200)
  })

  it('is the same through the proxy setting that leads to the same door', async () => {
    const headers = { 'proxy-authorization': `DPoP ${token}`, dpop: await proof() }
    expect((await call(headers, route())).status).toBe(200)
  })
})

describe('a request in absolute form', () => {
  it('counts with a proof about the place that it goes to', async () => {
    const target = `${house.upstream.facts.api}/notes`
    const shown = async (htu: string) =>
      call(
        { host: new URL(target).host, 'proxy-authorization': `DPoP ${token}`, dpop: await proof({ htu }) },
        `${target}?page=2`,
      )
    expect((await shown(target)).status).toBe(200)
    const wrong = await shown(route())
    expect([wrong.status, wrong.code]).toEqual([407, 'dpop_invalid'])
    expect(wrong.headers['proxy-authenticate']).toMatch(/^DPoP .*error="invalid_dpop_proof"/)
  })
})

describe('a stolen grant', () => {
  it.each<[string, () => Promise<Record<string, string | string[]>>, string]>([
    ['as Bearer', async () => ({ authorization: `Bearer ${token}` }), 'grant_invalid'],
    [
      'as Bearer with a proof',
      async () => ({ authorization: `Bearer ${token}`, dpop: await proof() }),
      'grant_invalid',
    ],
    ['without a proof', async () => ({ authorization: `DPoP ${token}` }), 'grant_invalid'],
    [
      'without a proof, on the proxy’s own field',
      async () => ({ 'proxy-authorization': `DPoP ${token}` }),
      'dpop_invalid',
    ],
    [
      'with the proof of another key',
      async () => ({ authorization: `DPoP ${token}`, dpop: await proof({ by: newKey() }) }),
      'grant_invalid',
    ],
    [
      'with two proofs',
      async () => ({ authorization: `DPoP ${token}`, dpop: [await proof(), await proof()] }),
      'dpop_invalid',
    ],
  ])('is worth nothing %s', async (_how, headers, code) => {
    const answer = await call(await headers())
    expect([answer.status, answer.code]).toEqual([401, code])
  })

  it('is worth nothing with a proof that was seen before, however many try it at once', async () => {
    const dpop = await proof()
    const answers = await Promise.all(Array.from({ length: 8 }, () => call({ authorization: `DPoP ${token}`, dpop })))
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(1)
    expect(answers.filter(({ code }) => code === 'dpop_invalid')).toHaveLength(7)
  })

  it.each<[string, () => Parameters<typeof proof>[0]]>([
    ['another method', () => ({ htm: 'POST' })],
    ['another path', () => ({ htu: route('/echo') })],
    ['another port', () => ({ htu: 'http://127.0.0.1/demo/notes' })],
    ['another scheme', () => ({ htu: route().replace('http:', 'https:') })],
    ['the place that the route leads to', () => ({ htu: `${house.upstream.facts.api}/notes` })],
    ['nothing', () => ({ claims: { htu: undefined } })],
    ['another token', () => ({ token: 'kh_other' })],
    ['no token', () => ({ token: undefined })],
    ['an hour ago', () => ({ claims: { iat: Math.floor(Date.now() / 1000) - 3600 } })],
    ['the next hour', () => ({ claims: { iat: Math.floor(Date.now() / 1000) + 3600 } })],
    ['itself without a jti', () => ({ claims: { jti: undefined } })],
  ])('is worth nothing with a proof about %s', async (_what, o) => {
    const answer = await withKey(o())
    expect([answer.status, answer.code]).toEqual([401, 'dpop_invalid'])
  })
})

describe('a tunnel', () => {
  it('is not opened under a bound grant, and says what to do instead', async () => {
    const { facts } = house.upstream
    const shown = await proof({ htm: 'CONNECT', htu: facts.api })
    const fields = ['--proxy-header', `Proxy-Authorization: DPoP ${token}`, '--proxy-header', `DPoP: ${shown}`]
    const { stdout } = await run('curl', ['-sS', '-v', '-x', door(), ...fields, `${facts.api}/notes`, '--stderr', '-'])
    expect(stdout).toMatch(/HTTP\/1\.1 407 .*dpop_invalid/)
    expect(stdout).toContain('Proxy-Authenticate: Basic')
  })

  it('carries a proof that is meant for the API no further than its Authorization', async () => {
    const { handle = '' } = await house.ask('client_credentials', { scope: 'demo:echo.read', purpose: 'look' })
    const answer = await call({ authorization: `Bearer ${handle}`, dpop: 'eyJ.for.others' }, '/demo/echo')
    expect(answer.status).toBe(200)
    expect(answer.body).not.toContain('eyJ.for.others')
  })
})
