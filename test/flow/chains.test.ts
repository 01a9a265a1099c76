/** Delegation chains of another kind at a running gateway: three hops of AAT become one grant, and a broken chain none. */
import { createPublicKey, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'
import { hashOf, inputOf, publicJwk, signJws, thumbprintOf } from '../../gateway/grant/chain/jws.ts'
import { proofsBy } from '../rig/dpop.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { run } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

const CHAINS = 'https://chains.acme.test'
const STRICT = 'https://strict.acme.test'
const AGENT = 'spiffe://acme.test/agents/research'
const URL_OF_GATEWAY = 'http://127.0.0.1:8081'
const TYPE = 'urn:keyless:token-type:aat-chain'

let dir: string
let upstream: TestUpstream
let gateway: TestGateway
const newKey = () => generateKeyPairSync('ed25519').privateKey
const rootKey = newKey()
const agentKey = newKey()
/** Holder of each token, root first. */
const holders = [newKey(), generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey, newKey()]
const leafKey = holders.at(-1) as KeyObject

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-chains-'))
  upstream = await startUpstream()
  const file = (name: string, text: string) => {
    writeFileSync(join(dir, name), text)
    return { file: join(dir, name) }
  }
  const set = { keys: [{ ...publicJwk(createPublicKey(rootKey)), kid: 'chains-1' }] }
  const trust = {
    chains: [
      { issuer: CHAINS, jwks: file('chains.json', JSON.stringify(set)) },
      { issuer: STRICT, jwks: file('strict.json', JSON.stringify(set)), algorithms: ['ES256'] },
    ],
    clients: [{ id: AGENT, key: file('agent.json', JSON.stringify(publicJwk(createPublicKey(agentKey)))) }],
  }
  const agents = [{ id: AGENT, owner: 'ana@acme.test', purpose: 'answer questions' }]
  gateway = await startGateway(
    stringify({ ...parse(await upstream.settings()), public_url: URL_OF_GATEWAY, agents, trust }),
  )
})
afterAll(async () => {
  await gateway?.stop() // verifies the whole log
  await upstream?.stop()
  rmSync(dir, { recursive: true, force: true })
})

const tools = (...names: string[]) => [
  { type: 'attenuating_agent_token', tools: Object.fromEntries(names.map((name) => [name, {}])) },
]
const GRANTED = [['demo:notes.list', 'demo:echo.read'], ['demo:notes.list', 'demo:echo.read'], ['demo:notes.list']]

interface Token {
  readonly claims?: Record<string, unknown>
  readonly signer?: KeyObject
}

/** As draft-niyikiza-oauth-attenuating-agent-tokens says: each signed by the key of the one above it. */
function chainOf(changes: Readonly<Record<number, Token>> = {}): string[] {
  const now = Math.floor(Date.now() / 1000)
  const chain: string[] = []
  for (const [i, holder] of holders.entries()) {
    const above = chain.at(-1)
    const own = i === 0 ? rootKey : (holders[i - 1] as KeyObject)
    const claims = {
      iss: i === 0 ? CHAINS : `urn:ietf:params:oauth:jwk-thumbprint:sha-256:${thumbprintOf(createPublicKey(own))}`,
      ...(i === 0 && { sub: 'ana', aud: URL_OF_GATEWAY }),
      jti: randomUUID(),
      iat: now,
      exp: now + 600 - i,
      aat_type: 'delegation',
      del_depth: i,
      del_max_depth: 4,
      ...(above !== undefined && { par_hash: hashOf(inputOf(above)) }),
      cnf: { jwk: publicJwk(createPublicKey(holder)) },
      authorization_details: tools(...(GRANTED[i] ?? [])),
      ...changes[i]?.claims,
    }
    const header = { typ: 'aat+jwt', ...(i === 0 && { kid: 'chains-1' }) }
    chain.push(signJws(header, claims, changes[i]?.signer ?? own))
  }
  return chain
}

async function assertion(): Promise<string> {
  const now = Math.floor(Date.now() / 1000)
  return new SignJWT({ iss: AGENT, sub: AGENT, aud: URL_OF_GATEWAY, iat: now, exp: now + 60, jti: randomUUID() })
    .setProtectedHeader({ alg: 'Ed25519' })
    .sign(agentKey)
}

async function importing(chain: readonly string[], key: KeyObject = leafKey, form: Record<string, string> = {}) {
  const url = `${gateway.gateway.control}/oauth/token`
  const sign = proofsBy(key)
  const ask = async (nonce?: string) =>
    fetch(url, {
      method: 'POST',
      headers: { dpop: await sign({ htm: 'POST', htu: `${URL_OF_GATEWAY}/oauth/token`, ...(nonce && { nonce }) }) },
      body: new URLSearchParams({
        grant_type: 'urn:ietf:params:oauth:grant-type:token-exchange',
        subject_token: JSON.stringify(chain),
        subject_token_type: TYPE,
        client_assertion_type: 'urn:ietf:params:oauth:client-assertion-type:jwt-bearer',
        client_assertion: await assertion(),
        purpose: 'go on where the chain ends',
        scope: 'demo:notes.list',
        ...form,
      }),
    })
  const first = await ask()
  const answer = await ask(first.headers.get('dpop-nonce') ?? '')
  return { status: answer.status, body: (await answer.json()) as Record<string, string> }
}

describe('a chain of three hops', () => {
  it('is announced where its issuer is trusted', async () => {
    const metadata = await (await fetch(`${gateway.gateway.control}/.well-known/oauth-authorization-server`)).json()
    expect((metadata as Record<string, string[]>).subject_token_types_supported).toContain(TYPE)
  })

  it('becomes a grant of its subject, with which its holder calls', async () => {
    const { status, body } = await importing(chainOf())
    expect(body).toMatchObject({ token_type: 'DPoP', scope: 'demo:notes.list' })
    expect([status, body.lineage]).toEqual([200, `ana authorised ${AGENT} for task “go on where the chain ends”`])
    const route = `${gateway.gateway.proxy}/demo/notes`
    const sign = proofsBy(leafKey)
    const call = async (nonce?: string) =>
      fetch(route, {
        headers: {
          authorization: `DPoP ${body.access_token}`,
          dpop: await sign({ htm: 'GET', htu: route, token: body.access_token, ...(nonce && { nonce }) }),
        },
      })
    const asked = await call()
    expect((await call(asked.headers.get('dpop-nonce') ?? '')).status).toBe(200)
    const proxy = ['-x', `http://agent:${body.access_token}@127.0.0.1:${gateway.proxyPort}`]
    const bare = await run('curl', ['-sS', '-o', '/dev/null', '-w', '%{http_connect}', ...proxy, upstream.facts.api])
    expect(bare.stdout).toBe('407')
  })

  it('gives nothing beyond its newest token', async () => {
    const asked = await importing(chainOf(), leafKey, { scope: 'demo:echo.read' })
    expect([asked.status, asked.body.error]).toEqual([400, 'invalid_scope'])
  })

  it.each<[string, () => readonly string[], RegExp]>([
    ['widened', () => chainOf({ 2: { claims: { authorization_details: tools('demo:files.read') } } }), /I4/],
    ['outliving', () => chainOf({ 1: { claims: { exp: Math.floor(Date.now() / 1000) + 900 } } }), /I3/],
    ['spliced under another root', () => [chainOf()[0] ?? '', ...chainOf().slice(1)], /I5/],
    ['signed by somebody else', () => chainOf({ 1: { signer: newKey() } }), /I1/],
    ['without its middle', () => [chainOf()[0] ?? '', chainOf()[2] ?? ''], /I1|iss/],
    ['from an issuer that nobody trusts', () => chainOf({ 0: { claims: { iss: 'https://evil.test' } } }), /trusts/],
    [
      'signed by an algorithm that its issuer does not use',
      () => chainOf({ 0: { claims: { iss: STRICT } } }),
      /trusts/,
    ],
    ['with a root that its issuer did not sign', () => chainOf({ 0: { signer: newKey() } }), /I1/],
    ['meant for somebody else', () => chainOf({ 0: { claims: { aud: 'https://other.test' } } }), /aud/],
  ])('that is %s is refused', async (_what, make, why) => {
    const { status, body } = await importing(make())
    expect([status, body.error, body.keyless_code]).toEqual([400, 'invalid_request', 'subject_invalid'])
    expect(body.error_description).toMatch(why)
  })

  it('is worth nothing to whoever has it without its key', async () => {
    const { status, body } = await importing(chainOf(), newKey())
    expect([status, body.keyless_code]).toEqual([400, 'subject_invalid'])
    expect(body.error_description).toMatch(/I6/)
  })

  it('for execution is delegated no further', async () => {
    const { body } = await importing(chainOf({ 2: { claims: { aat_type: 'execution' } } }))
    const claims = JSON.parse(Buffer.from(body.access_token?.split('.')[1] ?? '', 'base64url').toString())
    expect(claims).toMatchObject({ delegable: false })
  })
})
