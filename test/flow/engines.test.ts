/**
 * Engines outside the gateway have to agree: a call goes out, and a grant is made, only when grant, Cedar and every engine have said yes.
 * Whatever is not a clear yes in time is a no.
 */
import { hash } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { stringify } from 'yaml'
import { Recording } from '../../gateway/cli/policy/recording.ts'
import { codeOf, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'
import { type Engine, startEngine } from './engines.fixture.ts'

const KEY = 'a-standing-key-of-some-length'
const POLICIES = `@id("all") @owner("tests") permit (principal, action, resource);
@id("no-closed") @owner("tests") forbid (principal, action == Action::"echo:closed", resource);
`
const AGENTS = [
  { id: 'spiffe://test/agent/calm', owner: 'ana', purpose: 'test', risk_tier: 'low' },
  { id: 'spiffe://test/agent/risky', owner: 'ana', purpose: 'test', risk_tier: 'high' },
]
const BUNDLE = new URL('../vectors/opa/bundle.tar.gz', import.meta.url).pathname

let echo: EchoUpstream
let site: Site
let authzen: Engine
let opa: Engine
let gateway: TestGateway

beforeAll(async () => {
  ;[echo, authzen, opa] = await Promise.all([
    startEcho(),
    startEngine({ decision: true }),
    startEngine({ result: true }),
  ])
  const operations = {
    get: { match: ['GET /thing/{name}'], access: 'read' },
    post: { match: ['POST /thing/{name}'], access: 'write' },
    closed: { match: ['GET /closed'], access: 'read' },
    free: { match: ['GET /free'], access: 'read' },
  } as never
  site = await writeSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [{ name: 'echo', operations }],
      credentials: { echo: KEY },
      policies: { text: POLICIES, only: true },
      settings: { agents: AGENTS },
    },
  )
  const addresses = ['127.0.0.1/32']
  const engines = [
    {
      ...{ name: 'risk', kind: 'authzen', url: `${authzen.url}/access/v1/evaluation`, addresses, timeout_ms: 1_000 },
      ...{ for: ['echo:get', 'echo:post', 'echo:closed'], headers: { authorization: { env: 'ENGINE_TOKEN' } } },
    },
    {
      ...{ name: 'team', kind: 'opa', url: `${opa.url}/v1/data/keyless/allow`, addresses, timeout_ms: 1_000 },
      for: ['echo:get', 'echo:post'],
    },
    {
      name: 'limits',
      kind: 'opa_wasm',
      file: BUNDLE,
      entrypoint: 'keyless/decision',
      for: ['echo:post'],
      timeout_ms: 2000,
    },
  ]
  process.env.ENGINE_TOKEN = 'Bearer of-the-gateway'
  gateway = await startGateway(`${site.yaml}${stringify({ policy: { engines } })}`)
})

beforeEach(() => {
  for (const engine of [authzen, opa]) Object.assign(engine, { status: 200, delayMs: 0 })
  authzen.answer = { decision: true }
  opa.answer = { result: true }
  forget()
})

afterEach(() => echo.requests.splice(0))

afterAll(async () => {
  delete process.env.ENGINE_TOKEN
  await gateway?.stop()
  await Promise.all([echo.stop(), authzen.stop(), opa.stop(), site.remove()])
})

const forget = () => {
  for (const { asked } of [authzen, opa]) asked.splice(0)
}
/** Of the last call. */
const decided = async () =>
  (await entriesOf(gateway.settings.dataDir)).findLast(({ kind }) => kind === 'call.decision')?.decision
const call = (handle: string, path = '/thing/a', method = 'GET') =>
  reverse(gateway.proxyPort, handle, { method, path: `/echo${path}` })

async function opened(scope = 'echo:*', agent = 'spiffe://test/agent/calm'): Promise<string> {
  const { handle = '' } = await gateway.control.openTask({ agent, scope, purpose: 'test', ttl_s: 300 })
  forget()
  return handle
}

describe('a call', () => {
  it('goes out when every engine says yes, and the log says which were asked', async () => {
    const handle = await opened()
    expect((await call(handle)).status).toBe(200)
    expect([authzen.asked.length, opa.asked.length]).toEqual([1, 1])
    expect(await decided()).toMatchObject({ effect: 'allow', policy_ids: ['engine:risk', 'engine:team', 'test#all'] })
  })

  it('is refused when one engine says no, by whichever it is', async () => {
    const handle = await opened()
    authzen.answer = { decision: false, context: { reason: 'the sky' } }
    const answer = await call(handle)
    expect([answer.status, codeOf(answer)]).toEqual([403, 'policy_denied'])
    expect(answer.bytes.toString()).not.toContain('the sky')
    authzen.answer = { decision: true }
    opa.answer = { result: false }
    expect(codeOf(await call(handle))).toBe('policy_denied')
    opa.answer = {} // undefined: how Rego says no
    expect(codeOf(await call(handle))).toBe('policy_denied')
    expect(echo.requests).toEqual([])
    expect(await decided()).toMatchObject({ effect: 'deny', policy_ids: ['engine:team'] })
  })

  it('is asked about nowhere when the grant or Cedar says no, or when no engine is for it', async () => {
    const handle = await opened()
    expect(codeOf(await call(handle, '/closed'))).toBe('policy_denied')
    expect((await call(handle, '/free')).status).toBe(200)
    const narrow = await opened('echo:free')
    expect(codeOf(await call(narrow))).toBe('scope_exceeded')
    expect([...authzen.asked, ...opa.asked]).toEqual([])
  })

  it('is told to engines without body, query, fields or any credential', async () => {
    const handle = await opened()
    await reverse(gateway.proxyPort, handle, {
      path: '/echo/thing/a?secret=in-the-query',
      fields: `Authorization: Bearer ${handle}\r\nX-Note: in-a-field\r\n`,
    })
    const [{ body, headers } = { body: {}, headers: {} }] = authzen.asked
    expect(headers).toMatchObject({ authorization: 'Bearer of-the-gateway', 'content-type': 'application/json' })
    expect(opa.asked[0]?.body).toEqual({
      input: {
        ...body,
        context: {
          ...(body as never as { context: object }).context,
          now: expect.any(Number),
          ttl_s: expect.any(Number),
        },
      },
    })
    expect(body).toMatchObject({
      subject: { type: 'agent', properties: { risk_tier: expect.any(String) } },
      action: { name: 'echo:get' },
      resource: {
        type: 'operation',
        id: 'echo:get',
        properties: { path: '/thing/a', access: 'read', tags: { name: 'a' } },
      },
      context: { method: 'GET', lineage_depth: 0, proof: ['bearer'] },
    })
    const sent = JSON.stringify([authzen.asked, opa.asked])
    for (const secret of [handle, KEY, 'in-the-query', 'in-a-field']) expect(sent).not.toContain(secret)
  })

  it.each([
    ['an error', { status: 500 }],
    ['a redirect', { status: 302 }],
    ['no JSON', { answer: 'yes' }],
    ['a text in place of a boolean', { answer: { decision: 'true' } }],
    ['a number in place of a boolean', { answer: { decision: 1 } }],
    ['no and yes at once', { answer: '{"decision":false,"decision":true}' }],
    ['a list', { answer: [{ decision: true }] }],
    ['nothing about the decision', { answer: { result: true } }],
    ['an obligation that nobody knows', { answer: obliging({ type: 'mfa', value: 'true' }) }],
    ['an obligation out of bounds', { answer: obliging({ type: 'ttl', value: 999_999 }) }],
    ['an obligation twice', { answer: obliging({ type: 'ttl', value: 9 }, { type: 'ttl', value: 900 }) }],
    ['obligations that are no list', { answer: { decision: true, context: { obligations: {} } } }],
    ['more than it may', { answer: { decision: true, context: { pad: 'x'.repeat(70_000) } } }],
    ['too late', { delayMs: undefined }],
  ])('is refused when an engine answers %s', async (_, spoilt) => {
    const handle = await opened()
    Object.assign(authzen, spoilt)
    const answer = await call(handle)
    expect([answer.status, codeOf(answer)]).toEqual([503, 'policy_unavailable'])
    expect(echo.requests).toEqual([])
    expect(await decided()).toMatchObject({
      effect: 'deny',
      code: 'policy_unavailable',
      errors: [expect.stringMatching(/^engine risk: /)],
    })
  })

  it('carries out what engines oblige to, strictest first with what Cedar obliges to', async () => {
    const handle = await opened()
    authzen.answer = obliging({ type: 'ttl', value: 300 }, { type: 'notify', value: ['security'] })
    opa.answer = { result: { allow: true, obligations: [{ type: 'ttl', value: '60' }] } }
    expect((await call(handle)).status).toBe(200)
    opa.answer = { result: true }
    expect(await decided()).toMatchObject({ obligations: { ttl_s: 60, notify: ['security'] } })
    authzen.answer = obliging({ type: 'read_only' })
    expect(codeOf(await call(handle, '/thing/a', 'POST'))).toBe('policy_denied')
    authzen.answer = obliging({ type: 'rate', value: '1/60' })
    expect((await call(handle)).status).toBe(200)
    expect(codeOf(await call(handle))).toBe('limit_exceeded')
  })

  it('is decided by Rego in wasm: allowed once, as it obliges, and refused where it says so', async () => {
    const handle = await opened()
    expect((await call(handle, '/thing/a', 'POST')).status).toBe(200)
    expect(await decided()).toMatchObject({ obligations: { single_use: true, ttl_s: 60 } })
    expect(codeOf(await call(handle, '/thing/a', 'POST'))).toBe('use_spent')
    const risky = await opened('echo:post', 'spiffe://test/agent/risky')
    expect((await call(risky, '/thing/a', 'POST')).status).toBe(403)
    expect(await decided()).toMatchObject({ effect: 'deny', policy_ids: ['engine:limits'] })
  })
})

it('says in the log which engines have to agree, and which file decides', async () => {
  const loaded = (await entriesOf(gateway.settings.dataDir)).find(({ kind }) => kind === 'policy.loaded')
  expect((loaded as never as { facts: object }).facts).toMatchObject({
    engines: [
      `risk authzen ${authzen.url}/access/v1/evaluation`,
      `team opa ${opa.url}/v1/data/keyless/allow`,
      `limits opa_wasm sha256:${hash('sha256', await readFile(BUNDLE))}`,
    ],
  })
})

it('is never its own engine: the way to the control door is closed', async () => {
  const controlPort = await freePort()
  const url = `http://127.0.0.1:${controlPort}/access/v1/evaluation`
  const engines = [{ name: 'itself', kind: 'authzen', url, addresses: ['127.0.0.1/32'] }]
  const at = await startGateway(`${site.yaml}${stringify({ policy: { engines } })}`, { controlPort })
  await expect(at.openTask('echo:get')).rejects.toMatchObject({ code: 'policy_unavailable' })
  const entries = await entriesOf(at.settings.dataDir)
  expect(entries.filter(({ kind }) => kind === 'policy.evaluated')).toEqual([])
  await at.stop()
})

describe('what is replayed', () => {
  it('takes a no of an engine for the yes that policies had said', async () => {
    const handle = await opened()
    authzen.answer = { decision: false }
    await call(handle)
    const entry = (await entriesOf(gateway.settings.dataDir)).findLast(({ kind }) => kind === 'call.decision')
    expect(entry && new Recording().read(entry)).toMatchObject({ effect: 'allow', obligations: undefined })
  })
})

describe('settings', () => {
  it.each([
    ['an operation that no service has', { for: ['echo:nothing'] }, 'no service here has an operation echo:nothing'],
    ['a pattern that is none', { for: ['echo'] }, 'service:group.*'],
    ['a fact that is none', { facts: ['context.nothing'] }, 'context.human'],
    ['a fact that is not told', { facts: ['context.params'] }, 'are for Cedar policies'],
    ['a secret in plain sight', { headers: { authorization: 'Bearer x' } }, 'never written into settings'],
    ['a query in the address', { url: 'https://pdp.example.com/?key=1' }, 'without user, query'],
    ['a bundle that is not there', { kind: 'opa_wasm', file: 'none.tar.gz', url: undefined }, 'none.tar.gz'],
    [
      'an entrypoint that is not there',
      { kind: 'opa_wasm', file: BUNDLE, entrypoint: 'keyless/none', url: undefined },
      'no entrypoint keyless/none',
    ],
  ])('with %s stop the start, and say what to write', async (_, wrong, said) => {
    const engine = { name: 'one', kind: 'authzen', url: 'https://pdp.example.com/access/v1/evaluation', ...wrong }
    const started = startGateway(`${site.yaml}${stringify({ policy: { engines: [engine] } })}`)
    await expect(started).rejects.toThrow(said)
  })
})

describe('a grant', () => {
  it('is made only when every engine that is for something in it agrees', async () => {
    const open = (scope: string) => gateway.control.openTask({ scope, purpose: 'test', ttl_s: 300 })
    authzen.answer = { decision: false }
    await expect(open('echo:*')).rejects.toMatchObject({ code: 'policy_denied' })
    await expect(open('echo:get')).rejects.toMatchObject({ code: 'policy_denied' })
    await gateway.control.openTask({ scope: 'echo:free', purpose: 'test' })
    expect(authzen.asked.map(({ body }) => body)).toMatchObject([
      { action: { name: 'mint' }, resource: { type: 'service', id: 'echo' }, context: { operations: ['echo:*'] } },
      { context: { operations: ['echo:get'] } },
    ])
    authzen.status = 503
    await expect(open('echo:get')).rejects.toMatchObject({ code: 'policy_unavailable' })
  })

  it('is delegated only when engines agree to that', async () => {
    const { grant, agent } = await gateway.control.openTask({ scope: 'echo:get', purpose: 'test', ttl_s: 300 })
    forget()
    authzen.answer = ({ action }: { action: { name: string } }) => ({ decision: action.name !== 'delegate' })
    const delegated = gateway.control.delegate({ parent: grant, agent, scope: 'echo:get' })
    await expect(delegated).rejects.toMatchObject({ code: 'policy_denied' })
    expect(authzen.asked.map(({ body }) => body.action)).toEqual([{ name: 'delegate' }])
  })

  it('is no longer than an engine obliges it to be', async () => {
    const ask = (ttl_s: number) => gateway.control.openTask({ scope: 'echo:get', purpose: 'test', ttl_s })
    authzen.answer = obliging({ type: 'ttl', value: 120 })
    await expect(ask(600)).rejects.toMatchObject({ code: 'policy_denied', message: expect.stringContaining('120 s') })
    await ask(120)
  })
})

function obliging(...obligations: readonly object[]) {
  return { decision: true, context: { obligations } }
}
