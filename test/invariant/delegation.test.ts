/** SECURITY.md 3: a child can only lose. Any narrowing, held against any request through the running proxy. */
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Constraints } from '../../gateway/protocol/grant.ts'
import type { GatewayError } from '../../gateway/protocol/problem.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { basic, codeOf, forward, reverse, say } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

const IDS = ['issues.read', 'issues.write', 'pulls.read'] as const
const AGENTS = ['lead', 'mid', 'leaf'].map((name) => ({
  id: `spiffe://test/agent/${name}`,
  owner: 'ana',
  purpose: 'p',
}))

let echo: EchoUpstream
let site: OpenSite
let port: number

beforeAll(async () => {
  echo = await startEcho({ names: ['hub.keyless.test'] })
  const operations = Object.fromEntries(
    IDS.map((id) => [id, { match: [`GET /echo/${id}/{owner}`, `POST /echo/${id}/{owner}`], access: 'write' as const }]),
  )
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [{ name: 'hub', operations }],
      credentials: { hub: 'a-standing-key-of-some-length' },
      settings: { agents: AGENTS },
    },
  )
  port = site.gateway.proxyPort
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

const someAuthority = fc.record(
  {
    operations: fc.uniqueArray(fc.constantFrom('hub:*', 'hub:issues.*', ...IDS.map((id) => `hub:${id}`)), {
      minLength: 1,
      maxLength: 3,
    }),
    actions: fc.constantFrom(['GET'], ['POST'], ['GET', 'POST']),
    paths: fc.constantFrom(
      ['/echo/*/acme'],
      ['/echo/**'],
      ['/echo/issues.read/*'],
      ['/echo/*/acme', '/echo/*/umbrella'],
    ),
    constraints: fc
      .record(
        {
          source: fc.constantFrom(['127.0.0.0/8'], ['127.0.0.1/32'], ['10.0.0.0/8']),
          params: fc.constantFrom<Required<Constraints>['params']>(
            { 'query.state': { one_of: ['open', 'shut'] } },
            { 'query.state': { equals: 'open' } },
            { 'query.state': { prefix: 'o' } },
          ),
          sensitivity_max: fc.constantFrom('internal' as const, 'restricted' as const),
        },
        { requiredKeys: [] },
      )
      .filter((all) => Object.keys(all).length > 0), // a list of no constraints is refused
  },
  { requiredKeys: ['operations'] },
)

const someAsk = fc.record({
  id: fc.constantFrom(...IDS),
  owner: fc.constantFrom('acme', 'umbrella'),
  method: fc.constantFrom('GET', 'POST'),
  state: fc.constantFrom('open', 'shut', ''),
})

const detailsOf = (authority: object) => [{ type: 'keyless_access', ...authority }]

type Holder = { readonly grant: string; readonly handle?: string }

/** One grant a level, root first; undefined where the gateway refused to make one. */
async function delegated(levels: readonly object[], allowNarrowing: boolean): Promise<Holder[] | undefined> {
  const { control } = site.gateway
  const [root, ...below] = levels.map((one) => detailsOf(one))
  const chain: Holder[] = [await control.openTask({ purpose: 'lose', authorization_details: root ?? [] })]
  for (const [i, details] of below.entries()) {
    const body = { parent: chain.at(-1)?.grant ?? '', agent: AGENTS[i + 1]?.id ?? '' }
    try {
      chain.push(await control.delegate({ ...body, authorization_details: details, allow_narrowing: allowNarrowing }))
    } catch (cause) {
      expect((cause as GatewayError).code).toBe('invalid_scope')
      return undefined
    }
  }
  return chain
}

/** On the reverse route and in absolute form: the door makes no difference. */
async function call(handle: string, method: string, path: string) {
  const fields = `Proxy-Authorization: ${basic(handle)}\r\nContent-Length: 0\r\n`
  const host = `hub.keyless.test:${echo.tlsPort}`
  const url = `https://${host}${path.slice('/hub'.length)}`
  const [one, other] = await Promise.all([
    reverse(port, handle, { method, path, fields }),
    forward(port, handle, { method, url, host, fields: 'Content-Length: 0\r\n' }),
  ])
  expect([other.status, codeOf(other)], `${method} ${path}`).toEqual([one.status, codeOf(one)])
  return one
}

describe('a child of a child', () => {
  it('gets nothing that any grant above it does not get, however it was asked for', { timeout: 120_000 }, async () => {
    let [made, refused, passed] = [0, 0, 0]
    await fc.assert(
      fc.asyncProperty(
        fc.tuple(someAuthority, someAuthority, someAuthority),
        fc.boolean(),
        fc.array(someAsk, { minLength: 6, maxLength: 6 }),
        async (levels, allowNarrowing, asks) => {
          const chain = await delegated(levels, allowNarrowing)
          if (chain === undefined) {
            refused += 1
            return
          }
          made += 1
          for (const { id, owner, method, state } of asks) {
            const path = `/hub/echo/${id}/${owner}${state && `?state=${state}`}`
            const answers = await Promise.all(chain.map(({ handle = '' }) => call(handle, method, path)))
            const may = answers.map(({ status }) => status === 200)
            passed += may.filter(Boolean).length
            // Once somebody may not, nobody below may.
            expect(may, `${method} ${path}`).toEqual(may.toSorted((a, b) => Number(b) - Number(a)))
          }
        },
      ),
      { numRuns: 300 },
    )
    // All three happen, or the property says nothing.
    expect(Math.min(made, refused, passed)).toBeGreaterThan(5)
  })
})

describe('a body that is read two ways', () => {
  const json = '{"model":"small"}'
  const large = '{"model":"large"}'
  const chunked = (...parts: string[]) =>
    `${parts.map((part) => `${Buffer.byteLength(part).toString(16)}\r\n${part}\r\n`).join('')}0\r\n\r\n`
  const sized = (body: string, type = 'application/json', more = '') =>
    `Content-Type: ${type}\r\n${more}Content-Length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

  it.each<[string, string]>([
    ['two equal keys', sized('{"model":"small","model":"large"}')],
    ['two equal keys, the other first', sized('{"model":"large","model":"small"}')],
    ['two keys that a careless reader takes for one', sized('{"model":"small","MODEL":"large"}')],
    ['an escaped key', sized('{"model":"small","\\u006dodel":"large"}')],
    ['a second document', sized(`${json}${large}`)],
    ['a second document on a line of its own', sized(`${json}\n${large}`)],
    ['another charset', sized(json, 'application/json; charset=utf-7')],
    ['a claim to be compressed', sized(json, 'application/json', 'Content-Encoding: gzip\r\n')],
    [
      'a form that claims JSON',
      sized('--x\r\n\r\n{"model":"small"}\r\n--x--', 'multipart/form-data; boundary=x; application/json'),
    ],
    ['a form in JSON clothes', sized('model=large', 'application/json')],
    ['two types', sized(json, 'application/json', 'Content-Type: application/x-www-form-urlencoded\r\n')],
    ['no type', `Content-Length: ${json.length}\r\n\r\n${json}`],
    [
      'chunks with two equal keys',
      `Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunked('{"model":"small",', '"model":"large"}')}`,
    ],
    [
      'chunks of another value',
      `Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunked(large)}`,
    ],
    ['a byte order mark', sized(`\ufeff${json}`)],
    ['nothing', sized('')],
    ['no body at all', '\r\n'],
  ])('never arrives: %s', async (_, rest) => {
    const task = await openSmall()
    const before = echo.requests.length
    const answer = await say(port, `${head(task.handle)}${rest}`)
    expect([answer.status, codeOf(answer)]).toEqual([403, 'constraint_unmet'])
    expect(echo.requests.length).toBe(before)
  })

  it('while what reads one way arrives, byte for byte, in whatever framing', async () => {
    const task = await openSmall()
    const parts = ['{"mod', 'el" : "sma', 'll"}']
    for (const rest of [
      sized(json),
      sized(json, 'application/json; charset=utf-8'),
      `Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n${chunked(...parts)}`,
    ]) {
      expect((await say(port, `${head(task.handle)}${rest}`)).status).toBe(200)
    }
    expect(echo.requests.slice(-3).map(({ body }) => body.toString())).toEqual([json, json, parts.join('')])
    for (const { head: arrived } of echo.requests.slice(-3))
      expect(arrived.toString()).not.toMatch(/transfer-encoding/i)
  })

  const openSmall = () =>
    site.gateway.control.openTask({
      purpose: 'say small',
      authorization_details: detailsOf({
        operations: ['hub:*'],
        constraints: { params: { 'body./model': { equals: 'small' } } },
      }),
    })
  const head = (handle: string) =>
    `POST /hub/echo/issues.write/acme HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nProxy-Authorization: ${basic(handle)}\r\nConnection: close\r\n`
})
