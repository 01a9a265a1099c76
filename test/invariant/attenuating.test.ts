/** SECURITY.md 3: a grant authorises what it names and nothing else. Compared with what the upstream really received. */
import { userInfo } from 'node:os'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { type EchoRequest, type EchoUpstream, startEcho } from '../rig/echo.ts'
import { type Answer, basic, codeOf, forward, openTunnel, reverse, say } from './agent.fixture.ts'
import { type OpenSite, openSite } from './services.fixture.ts'

/** Names that contain, continue or resemble one another. */
const IDS = [
  'issues',
  'issues.read',
  'issues.read.all',
  'issues.comments.read',
  'issuesx.read',
  'pulls.read',
  'a',
  'a.b',
]
const SERVICES = ['hub', 'hub-two'] as const

let echo: EchoUpstream
let site: OpenSite
let port: number
let ca: string

const pathOf = (id: string) => `/ops/${id.replaceAll('.', '/')}`

beforeAll(async () => {
  echo = await startEcho({ names: ['hub.keyless.test', 'hub-two.keyless.test', 'forge.keyless.test'] })
  const operations = Object.fromEntries(
    IDS.map((id) => [id, { match: [`GET ${pathOf(id)}`], access: 'read' as const }]),
  )
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        ...SERVICES.map((name) => ({ name, operations })),
        {
          name: 'forge',
          slots: [
            { in: 'header' as const, name: 'x-api-key' },
            { in: 'header' as const, name: 'authorization', prefix: 'Bearer ' },
            { in: 'query' as const, name: 'api_key' },
            { in: 'cookie' as const, name: 'session' },
          ],
          operations: {
            'repos.read': { match: ['GET /repos/{owner}/{repo}'], access: 'read' },
            'repos.touch': { match: ['POST /repos/{owner}/{repo}'], access: 'write' },
            'repos.delete': { match: ['DELETE /repos/{owner}/{repo}'], access: 'write' },
            'repos.keys': { match: ['GET /repos/{owner}/{repo}/keys'], access: 'read' },
            'admin.read': { match: ['GET /admin', 'GET /admin/{rest**}'], access: 'read' },
            'calls.list': { match: ['GET /call?method=list'], access: 'read' },
            'calls.wipe': { match: ['GET /call?method=wipe'], access: 'write' },
          },
        },
      ],
      credentials: Object.fromEntries([...SERVICES, 'forge'].map((name) => [name, 'a-standing-key-of-some-length'])),
      policies: {
        text: `@id("acme-only") @owner("test")
          forbid (principal, action in [Action::"forge:repos.*"], resource)
          unless { resource.hasTag("owner") && resource.getTag("owner") == "acme" };`,
      },
    },
  )
  port = site.gateway.proxyPort
  ca = (await site.gateway.control.status()).ca_pem
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

/** What arrives because of `work`. */
async function arrivedBy<T>(work: () => Promise<T>): Promise<[T, EchoRequest[]]> {
  const before = echo.requests.length
  const result = await work()
  return [result, echo.requests.slice(before)]
}

describe('the operations of a grant', () => {
  /** The rule in words of this test: a star stands for one part or more below what precedes it. */
  const allows = (scope: readonly string[], name: string) =>
    scope.some((one) => {
      const below = one.endsWith('*') ? one.slice(0, -1) : undefined
      return below === undefined ? one === name : name.length > below.length && name.slice(0, below.length) === below
    })

  const patterns = SERVICES.flatMap((service) => [
    `${service}:*`,
    ...IDS.map((id) => `${service}:${id}`),
    ...['issues.*', 'issues.read.*', 'issues.comments.*', 'pulls.*', 'a.*'].map((part) => `${service}:${part}`),
  ])

  it('are all that passes, for any scope, and all of it arrives where it belongs', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.uniqueArray(fc.constantFrom(...patterns), { minLength: 1, maxLength: 4 }), async (scope) => {
        const task = await site.gateway.openTask(scope.join(' '))
        expect(task.scope.split(' ').toSorted()).toEqual([...scope].toSorted())
        const asks = SERVICES.flatMap((service) => IDS.map((id) => ({ service, id })))
        const [answers, arrived] = await arrivedBy(() =>
          Promise.all(asks.map(({ service, id }) => reverse(port, task.handle, { path: `/${service}${pathOf(id)}` }))),
        )
        const may = asks.filter(({ service, id }) => allows(scope, `${service}:${id}`))
        for (const [n, { service, id }] of asks.entries()) {
          const isAllowed = allows(scope, `${service}:${id}`)
          expect([answers[n]?.status, codeOf(answers[n] as Answer)], `${scope} ${service}:${id}`).toEqual(
            isAllowed ? [200, undefined] : [403, 'scope_exceeded'],
          )
        }
        const places = arrived.map(({ head, path }) => `${/^host: *([\w-]+)\./im.exec(head.toString())?.[1]} ${path}`)
        expect(places.toSorted()).toEqual(may.map(({ service, id }) => `${service} ${pathOf(id)}`).toSorted())
      }),
      { numRuns: 25 },
    )
  })

  it.each([
    '*',
    '*:*',
    'hub',
    'hub:',
    ':issues',
    'hub:iss*',
    'hub:*.read',
    'hub:**',
    'HUB:issues',
    'hub:issues ',
    'hub:issues  a',
    'hub:unknown',
    'other:*',
    'hub:issues\tx',
    'hub:../x',
  ])('cannot be opened with the scope %j', async (scope) => {
    await expect(site.gateway.openTask(scope)).rejects.toMatchObject({
      code: expect.stringMatching(/^(invalid_scope|instruction_invalid)$/),
    })
  })
})

/** Where careless servers could take a path to lead: decoded again and again, folded, merged, cut, in any case. */
function readings(path: string): Set<string> {
  const seen = new Set<string>()
  const queue = [path.split(/[?#]/, 1)[0] ?? '']
  for (let next = queue.pop(); next !== undefined && seen.size < 400; next = queue.pop()) {
    if (seen.has(next)) continue
    seen.add(next)
    queue.push(
      next.replaceAll(/%([0-9a-f]{2})/gi, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
      next.replaceAll('\\', '/'),
      next.replaceAll(/\/{2,}/g, '/'),
      next.replaceAll(/;[^/]*/g, ''),
      next.split('\0', 1)[0] ?? '',
      withoutDots(next),
      Buffer.from(next, 'latin1').toString('utf8'),
      next.normalize('NFKC'),
      next.toLowerCase(),
    )
  }
  return seen
}

function withoutDots(path: string): string {
  const kept: string[] = []
  for (const segment of path.split('/')) {
    if (segment === '..') kept.pop()
    else if (segment !== '.') kept.push(segment)
  }
  return `/${kept.filter((segment, n) => segment !== '' || n === kept.length - 1).join('/')}`
}

/** Every reading of what arrived is a repository of acme itself. */
function expectOnlyAcme(arrived: readonly EchoRequest[], sent: string): void {
  for (const { method, path, head } of arrived) {
    expect(method, sent).toBe('GET')
    for (const reading of readings(path))
      expect(reading, `${sent} arrived as ${path}`).toMatch(/^\/repos\/acme\/(?!\.\.?(?:\/|$))[^/\\]+\/?$/)
    expect(head.toString('latin1'), sent).toMatch(/^host: forge\.keyless\.test:\d+\r$/im)
  }
}

describe('a grant for one operation on one owner', () => {
  let task: OpenedTask
  let origin: string
  beforeAll(async () => {
    task = await site.gateway.openTask('forge:repos.read')
    origin = `https://forge.keyless.test:${echo.tlsPort}`
  })

  const doors: Readonly<Record<string, (path: string) => Promise<Answer>>> = {
    reverse: (path) => reverse(port, task.handle, { path: `/forge${path}` }),
    forward: (path) => forward(port, task.handle, { url: `${origin}${path}`, host: new URL(origin).host }),
    tunnel: async (path) => {
      const tunnel = await openTunnel(port, { handle: task.handle, authority: new URL(origin).host, ca })
      return tunnel.sayLast(`GET ${path} HTTP/1.1\r\nHost: ${new URL(origin).host}\r\nConnection: close\r\n\r\n`)
    },
  }

  it.each(Object.keys(doors))('lets that one through the %s door, byte for byte', async (door) => {
    for (const path of [
      '/repos/acme/site',
      '/repos/acme/site/',
      '/repos/acme/s%C3%A9?q=%2e%2e/&a=%2Fadmin',
      '/repos/acme/a.b',
    ]) {
      const [answer, arrived] = await arrivedBy(() => doors[door]?.(path) as Promise<Answer>)
      expect(answer.status, path).toBe(200)
      expect(arrived.map((one) => one.path)).toEqual([path])
    }
  })

  const TRICKS = [
    '/repos/acme/../umbrella/site',
    '/repos/acme/%2e%2e/umbrella/site',
    '/repos/acme/%2E./umbrella/x',
    '/repos/acme/..',
    '/repos/acme/%2e%2e',
    '/repos/acme/..%2fumbrella',
    '/repos/acme/..%5cumbrella',
    '/repos/acme/%252e%252e',
    '/repos/acme/%c0%ae%c0%ae',
    '/repos/acme/%u002e%u002e',
    '/repos/acme/．．',
    '/repos/acme/%ef%bc%8e%ef%bc%8e',
    '/repos/acme/%E2%80%A5',
    '/repos/acme/x%2fkeys',
    '/repos/acme/x%2Fkeys',
    '/repos/acme/x/keys',
    '/repos/acme/x//keys',
    '/repos//acme/x',
    '//repos/acme/x',
    '/repos/acme//x',
    '/repos/acme/x/.',
    '/./repos/acme/x',
    '/repos/acme/x;/../../admin',
    '/repos/acme/x;jsessionid=1',
    '/repos/acme/x%3b',
    '/repos/acme/x%00',
    '/repos/acme/x%0d%0aX-Injected:%201',
    '/repos/acme/x\\..\\..\\..\\admin',
    '/repos/acme/x#/../../../admin',
    '/REPOS/acme/x',
    '/Repos/acme/x',
    '/repos/ACME/x',
    '/repos/Acme/x',
    '/repos/umbrella/x',
    '/repos/%75mbrella/x',
    '/repos/umbrella%2f..%2facme/x',
    '/admin',
    '/admin/',
    '/admin/x',
    '/%61dmin',
    '/call?method=list',
    '/call?method=list&method=wipe',
    '/unlisted',
    '/',
    '*',
    '',
  ]

  it.each(Object.keys(doors))('lets no spelling of another place through the %s door', async (door) => {
    for (const path of TRICKS) {
      const [answer, arrived] = await arrivedBy(() => doors[door]?.(path) as Promise<Answer>)
      expectOnlyAcme(arrived, path)
      if (arrived.length === 0) expect(answer.status, path).toBeGreaterThanOrEqual(400)
    }
  })

  it('lets no path made of such pieces through', { timeout: 60_000 }, async () => {
    let passed = 0
    const piece = fc.constantFrom(
      ...[
        '/',
        '//',
        '.',
        '..',
        '/../',
        '%2e',
        '%2E',
        '%2f',
        '%2F',
        '%5c',
        '\\',
        ';',
        ';a=b',
        '%3b',
        '%00',
        '%25',
        '%252e',
      ],
      ...[
        'repos',
        'acme',
        'umbrella',
        'admin',
        'keys',
        'x',
        'ACME',
        '%61cme',
        '%E2%88%95',
        '%EF%BC%8F',
        '?',
        '&',
        '#',
        '+',
      ],
    )
    const path = fc.oneof(
      fc.array(piece, { maxLength: 8 }).map((parts) => `/${parts.join('')}`),
      fc.array(piece, { maxLength: 5 }).map((parts) => `/repos/acme/${parts.join('')}`),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(path, { minLength: 8, maxLength: 8 }), async (paths) => {
        const [, arrived] = await arrivedBy(() => Promise.all(paths.map((one) => doors.reverse?.(one))))
        expectOnlyAcme(arrived, JSON.stringify(paths))
        passed += arrived.length
      }),
      { numRuns: 80 },
    )
    expect(passed).toBeGreaterThan(0)
  })

  it.each([
    ['X-HTTP-Method-Override: DELETE'],
    ['x-http-method-override: delete'],
    ['X-HTTP-Method: DELETE'],
    ['X-Method-Override: DELETE'],
    ['X_HTTP_METHOD_OVERRIDE: DELETE'],
    ['X-Original-URL: /admin'],
    ['X-Rewrite-URL: /admin'],
    ['X_Original_Url: /admin'],
  ])('forwards no header that would make it another one: %s', async (field) => {
    const fields = `Authorization: Bearer ${task.handle}\r\n${field}\r\n`
    const [, arrived] = await arrivedBy(() => reverse(port, task.handle, { path: '/forge/repos/acme/x', fields }))
    const name = field.split(':')[0]?.toLowerCase() ?? ''
    expect(arrived).toHaveLength(1)
    for (const { head } of arrived) expect(head.toString().toLowerCase()).not.toContain(`${name}:`)
  })

  it.each(['POST', 'DELETE', 'PUT', 'PATCH', 'OPTIONS', 'PURGE', 'get', 'HEAD'])('%s is not GET', async (method) => {
    const [answer, arrived] = await arrivedBy(() => reverse(port, task.handle, { method, path: '/forge/repos/acme/x' }))
    // RFC 9110 §9.3.2: HEAD is GET without the body.
    if (method === 'HEAD') expect(arrived.map((one) => one.method)).toEqual(['HEAD'])
    else {
      expect(arrived).toEqual([])
      expect(answer.status).toBeGreaterThanOrEqual(400)
    }
  })

  it('agrees with the upstream on which of two parameters counts', async () => {
    const lister = await site.gateway.openTask('forge:calls.list')
    const ask = (query: string) => reverse(port, lister.handle, { path: `/forge/call?${query}` })
    expect((await ask('method=list')).status).toBe(200)
    // 400 where two readers could differ on which operation it is, 403 where it is certain, and not this one.
    for (const [query, status] of [
      ['method=wipe', 403],
      ['method=list&method=wipe', 400],
      ['method=wipe&method=list', 400],
      ['method=list&%6dethod=wipe', 400],
      ['method=list;method=wipe', 400],
      ['method=list%26method=wipe', 403],
      ['method=list%00', 403],
      ['', 403],
    ] as const) {
      const [answer, arrived] = await arrivedBy(() => ask(query))
      expect(
        arrived.map((one) => one.path),
        query,
      ).toEqual([])
      expect(answer.status, query).toBe(status)
    }
  })

  it.each([
    ['a trailing dot', (host: string) => host.replace(':', '.:'), 200],
    ['capitals', (host: string) => host.toUpperCase(), 200],
    ['another port', () => 'forge.keyless.test:1', 403],
    ['no port', () => 'forge.keyless.test', 403],
    ['a user', (host: string) => `hub.keyless.test@${host}`, 400],
    ['a suffix', (host: string) => host.replace(':', '.evil.example:'), 403],
    ['another service', (host: string) => host.replace('forge', 'hub'), 403],
  ] as const)('reads a host with %s in one way', async (_, change, status) => {
    const host = change(new URL(origin).host)
    const [answer, arrived] = await arrivedBy(() =>
      forward(port, task.handle, { url: `https://${host}/repos/acme/x`, host }),
    )
    expect(answer.status).toBe(status)
    expectOnlyAcme(arrived, host)
    expect(arrived).toHaveLength(status === 200 ? 1 : 0)
  })

  it('refuses every request that names two places', async () => {
    const { host } = new URL(origin)
    const other = host.replace('forge', 'hub')
    const proxy = `Proxy-Authorization: ${basic(task.handle)}\r\nConnection: close\r\n\r\n`
    const [answers, arrived] = await arrivedBy(async () => {
      const inTunnel = async (text: string, servername?: string) => {
        const o = { handle: task.handle, authority: host, ca, ...(servername === undefined ? {} : { servername }) }
        return (await openTunnel(port, o)).sayLast(text)
      }
      return [
        await say(port, `GET https://${other}/repos/acme/x HTTP/1.1\r\nHost: ${host}\r\n${proxy}`),
        await say(port, `GET https://${host}/repos/acme/x HTTP/1.1\r\nHost: ${other}\r\n${proxy}`),
        await say(port, `GET https://${host}/repos/acme/x HTTP/1.1\r\nHost: ${host}\r\nHost: ${other}\r\n${proxy}`),
        await say(port, `GET https://${host}/repos/acme/x HTTP/1.1\r\nHost: ${host}, ${other}\r\n${proxy}`),
        await inTunnel(`GET /repos/acme/x HTTP/1.1\r\nHost: ${other}\r\nConnection: close\r\n\r\n`),
        await inTunnel(`GET https://${other}/repos/acme/x HTTP/1.1\r\nHost: ${other}\r\nConnection: close\r\n\r\n`),
        await inTunnel(`GET https://${other}/repos/acme/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`),
        await inTunnel(
          `GET /repos/acme/x HTTP/1.1\r\nHost: ${host}\r\nConnection: close\r\n\r\n`,
          'hub.keyless.test',
        ).catch((cause: Error) => ({ status: 421, bytes: Buffer.from(cause.message) })),
      ]
    })
    expect(answers.map(({ status }) => status)).toEqual([421, 421, 400, 400, 421, 421, 421, 421])
    expect(arrived).toEqual([])
  })

  it('hides no second request in the first', async () => {
    const { host } = new URL(origin)
    const hidden = `DELETE /repos/acme/x HTTP/1.1\r\nHost: ${host}\r\n\r\n`
    const start = (framing: string) =>
      `POST https://${host}/repos/acme/x HTTP/1.1\r\nHost: ${host}\r\nProxy-Authorization: ${basic(toucher.handle)}\r\nConnection: close\r\n${framing}`
    const toucher = await site.gateway.openTask('forge:repos.touch')
    const [, arrived] = await arrivedBy(async () => {
      for (const framing of [
        `Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`,
        `Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${hidden}`,
        `Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`,
        `Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n${hidden}`,
        `Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n${hidden}`,
        `Transfer-Encoding:\tchunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n${hidden}`,
        `Content-Length: 0\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
        `Content-Length: +0\r\n\r\n${hidden}`,
        `Content_Length: ${hidden.length}\r\nContent-Length: 0\r\n\r\n${hidden}`,
        `Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n${hidden}`,
        `Content-Length: 0\r\nX: y\n\r\n${hidden}`,
        `Content-Length: 0\r\n X: folded\r\n\r\n${hidden}`,
        `Connection: content-length\r\nContent-Length: ${hidden.length}\r\n\r\n${hidden}`,
      ])
        await say(port, start(framing))
    })
    expect(arrived.filter(({ method }) => method !== 'POST')).toEqual([])
    for (const { head } of arrived) {
      const text = head.toString('latin1')
      expect(text.match(/^(?:content-length|transfer-encoding) *:/gim) ?? [], text).toHaveLength(1)
      expect(text).not.toMatch(/content_length|transfer_encoding/i)
    }
  })

  it('takes no credential of the agent along, in any slot that the service knows', async () => {
    const own = 'the-agents-own-key'
    const fields = [
      `Proxy-Authorization: ${basic(task.handle)}`,
      `X-Api-Key: ${own}`,
      `x-api-key: ${own}`,
      `X_Api_Key: ${own}`,
      `Authorization: Bearer ${own}`,
      `Cookie: a=1; session=${own}; b=2`,
    ].join('\r\n')
    const path = `/forge/repos/acme/x?api_key=${own}&a=1&api%5fkey=${own}`
    const [answer, arrived] = await arrivedBy(() => reverse(port, task.handle, { path, fields: `${fields}\r\n` }))
    expect(answer.status).toBe(200)
    expect(arrived).toHaveLength(1)
    expect(arrived[0]?.head.toString()).not.toContain(own)
    expect(arrived[0]?.head.toString()).toContain('a-standing-key-of-some-length')
    expect(arrived[0]?.path).toBe('/repos/acme/x?a=1')
  })
})

it('gives nobody the task of another one', async () => {
  const [mine, other] = [await site.gateway.openTask('hub:a'), await site.gateway.openTask('hub:pulls.read')]
  expect(mine.human).toBe(userInfo().username)
  const path = '/hub/ops/pulls/read'
  for (const fields of [
    `Authorization: Bearer ${mine.handle}\r\nX-Task: ${other.task}\r\nX-Grant: ${other.grant}\r\n`,
    `Proxy-Authorization: Basic ${Buffer.from(`${other.task}:${mine.handle}`).toString('base64')}\r\n`,
    `Proxy-Authorization: ${basic(mine.handle)}\r\nAuthorization: Bearer ${other.handle}\r\n`,
    `Authorization: Bearer ${mine.handle.slice(0, -1)}\r\n`,
    `Authorization: Bearer ${tampered(mine.token, { jti: other.grant })}\r\n`,
    `Authorization: Bearer ${tampered(mine.token, {}, { alg: 'none' })}\r\n`,
    `Authorization: Bearer ${tampered(mine.token, {}, { alg: 'HS256' })}\r\n`,
  ]) {
    const [answer, arrived] = await arrivedBy(() => reverse(port, mine.handle, { path, fields }))
    expect(arrived, fields).toEqual([])
    expect(['scope_exceeded', 'grant_invalid']).toContain(codeOf(answer))
  }
})

/** The token with other claims or header, and the signature it had. */
function tampered(token: string, claims: object, header: object = {}): string {
  const [head = '', body = '', signature = ''] = token.split('.')
  const change = (part: string, by: object) =>
    Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(part, 'base64url').toString()), ...by })).toString(
      'base64url',
    )
  return `${change(head, header)}.${change(body, claims)}.${signature}`
}
