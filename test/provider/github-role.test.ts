import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import type { Catalogue } from '../../gateway/policy/catalogue/catalogue.ts'
import type { Authority, Grant } from '../../gateway/protocol/grant.ts'
import type { Inbound } from '../../gateway/protocol/message.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { reach } from '../../gateway/protocol/reach.ts'
import type { Endpoint } from '../../gateway/protocol/service.ts'
import { type GithubPermissions, isWithin, union } from '../../gateway/provider/github/permissions.ts'
import { githubRole, parseRole, type RoleTerms } from '../../gateway/provider/github/role.ts'
import { catalogueOf, grant, inbound } from '../policy/policy.fixture.ts'

const CALL: RoleTerms = { per: 'call' }
const GRANT: RoleTerms = { per: 'grant' }

let catalogue: Catalogue

beforeAll(async () => {
  catalogue = await catalogueOf('github')
})

function at(method: string, url: string): Endpoint {
  const { host, pathname, search } = new URL(url)
  // As the agent sent it: `URL` would resolve dot segments and leave the rest.
  const rawPath = pathname + search
  return catalogue.locate(inbound({ method: method as Inbound['method'], host, rawPath, hostHeader: host }))
}

const api = (method: string, path: string) => at(method, `https://api.github.com${path}`)
const allowing = (...authority: Authority[]): Grant => grant({ authority })
const roleOf = (endpoint: Endpoint, on = allowing({ operations: ['github:*'] }), terms = CALL) =>
  parseRole(githubRole(endpoint, on, terms))

describe('a call asks for', () => {
  test.each([
    ['GET', '/repos/acme/site/contents/README.md', { contents: 'read' }],
    ['PUT', '/repos/acme/site/contents/README.md', { contents: 'write' }],
    ['GET', '/repos/acme/site/issues/7', { issues: 'read' }],
    ['POST', '/repos/acme/site/issues', { issues: 'write' }],
    ['PUT', '/repos/acme/site/pulls/7/merge', { contents: 'write' }],
    ['GET', '/repos/acme/site', { metadata: 'read' }],
    ['DELETE', '/repos/acme/site', { administration: 'write' }],
  ])('%s %s: the permission of its operation in its repository', (method, path, permissions) => {
    expect(roleOf(api(method, path))).toEqual({ owner: 'acme', repository: 'site', permissions })
  })

  test('git: contents of the repository, whether its URL ends in .git or not', () => {
    const fetch = roleOf(at('GET', 'https://github.com/acme/site.git/info/refs?service=git-upload-pack'))
    expect(fetch).toEqual({ owner: 'acme', repository: 'site', permissions: { contents: 'read' } })
    expect(roleOf(at('POST', 'https://github.com/acme/site/git-upload-pack'))).toEqual(fetch)
    const push = roleOf(at('POST', 'https://github.com/acme/site.git/git-receive-pack'))
    expect(push).toEqual({ ...fetch, permissions: { contents: 'write' } })
  })

  test('an organisation: its permissions there, and no repository', () => {
    expect(roleOf(api('GET', '/orgs/acme/members'))).toEqual({ owner: 'acme', permissions: { members: 'read' } })
  })

  test('a search: nobody in particular', () => {
    expect(roleOf(api('GET', '/search/issues?q=a'))).toEqual({ permissions: { metadata: 'read' } })
  })

  test('GraphQL and what needs a user: nothing, unless settings say how much', () => {
    for (const endpoint of [api('POST', '/graphql'), api('GET', '/gists'), api('GET', '/nobody/knows')]) {
      expect(() => roleOf(endpoint)).toThrow(expect.objectContaining({ code: 'credential_unconfigured' }))
      expect(roleOf(endpoint, undefined, { per: 'call', otherwise: { issues: 'read' } }).permissions).toEqual({
        issues: 'read',
      })
    }
  })
})

describe('names', () => {
  test('have no case at GitHub: other spellings get the same token', () => {
    fc.assert(
      fc.property(fc.mixedCase(fc.constant('acme')), fc.mixedCase(fc.constant('site.js')), (owner, repository) => {
        const role = githubRole(api('GET', `/repos/${owner}/${repository}/issues`), allowing(), CALL)
        expect(role).toBe(githubRole(api('GET', '/repos/acme/site.js/issues'), allowing(), CALL))
      }),
    )
  })

  test.each([
    '/repos/acme/site.git/issues',
    '/repos/acme/site.GIT/issues',
    '/repos/acme/si%20te/issues',
    '/repos/acme/s%C3%AFte/issues',
    '/repos/-acme/site/issues',
    '/repos/acme/site%3Fa/issues',
    '/repos/acme%2Fother/site/issues',
    '/repos/acme/other%2Fsite/issues',
    '/repos/acme/..%2Fsite/issues',
    '/repos/acme/%2e%2e/issues',
  ])('that GitHub does not give, or could read as another, get none: %s', (path) => {
    expect(() => roleOf(api('GET', path))).toThrow(GatewayError)
  })

  test('never leave the form of a path, whatever the agent sends', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary', minLength: 1 }), fc.string({ minLength: 1 }), (owner, repository) => {
        let role: string
        try {
          role = githubRole(
            api('GET', `/repos/${encodeURIComponent(owner)}/${encodeURIComponent(repository)}/issues`),
            allowing(),
            { per: 'call', otherwise: { issues: 'read' } },
          )
        } catch (cause) {
          expect(cause instanceof GatewayError || cause instanceof URIError || cause instanceof TypeError).toBe(true)
          return
        }
        const parsed = parseRole(role)
        for (const name of [parsed.owner, parsed.repository]) expect(name ?? 'a').toMatch(/^[a-z0-9._-]+$/)
      }),
    )
  })
})

/** Requests in the repository that the model below tries: for each operation and method some of them. */
const TRIED: readonly (readonly [method: string, path: string])[] = [
  ['GET', ''],
  ['PATCH', ''],
  ['DELETE', ''],
  ['GET', '/issues'],
  ['GET', '/issues/7'],
  ['POST', '/issues'],
  ['PATCH', '/issues/7'],
  ['GET', '/contents'],
  ['GET', '/contents/docs/a.md'],
  ['PUT', '/contents/docs/a.md'],
  ['GET', '/pulls'],
  ['POST', '/pulls'],
  ['GET', '/pulls/7'],
  ['PUT', '/pulls/7/merge'],
  ['GET', '/hooks'],
  ['POST', '/hooks'],
  ['GET', '/actions/runs'],
  ['POST', '/actions/runs/7/rerun'],
  ['GET', '/releases'],
  ['GET', '/commits'],
]

const operations = [
  'github:*',
  'github:issues.*',
  'github:issues.read',
  'github:contents.read',
  'github:contents.*',
  'github:pulls.*',
  'github:repos.*',
  'github:hooks.*',
  'github:actions.read',
]
const paths = [
  '/repos/acme/site/**',
  '/repos/acme/**',
  '/repos/acme/site',
  '/repos/acme/site/issues/*',
  '/repos/acme/site/contents/**',
  '/repos/acme/other/**',
  '/repos/*/site/**',
  '/repos/acme/site/pulls/7',
]

const authority: fc.Arbitrary<Authority> = fc.record(
  {
    operations: fc.uniqueArray(fc.constantFrom(...operations), { minLength: 1, maxLength: 3 }),
    paths: fc.uniqueArray(fc.constantFrom(...paths), { minLength: 1, maxLength: 3 }),
    actions: fc.uniqueArray(fc.constantFrom('GET', 'POST', 'PUT', 'PATCH', 'DELETE'), { minLength: 1 }),
    locations: fc.constantFrom(['https://api.github.com'], ['https://github.com'], ['https://evil.test']),
    constraints: fc.constantFrom(
      { sensitivity_max: 'public' as const },
      { sensitivity_max: 'internal' as const },
      { approval: 'single' as const },
      {},
    ),
  },
  { requiredKeys: ['operations'] },
)

const chain = fc.tuple(
  fc.array(authority, { minLength: 1, maxLength: 3 }),
  fc.array(fc.array(authority, { minLength: 1, maxLength: 2 }), { maxLength: 2 }),
)

function chained([own, above]: readonly [Authority[], Authority[][]]): Grant {
  return grant({
    authority: own,
    ancestry: above.map((entries, i) => ({ id: `g${i}`, authority: entries })),
    depth: above.length,
  })
}

function isReachable(on: Grant, method: string, endpoint: Endpoint): boolean {
  const facts = { endpoint, method, nowMs: 0, rawPath: endpoint.rawPath, sourceAddress: '127.0.0.1', body: undefined }
  const reached = reach(on, { ...facts, regionsOf: () => [] } as unknown as Parameters<typeof reach>[1])
  // What somebody has to approve first gets its permissions with that call.
  return reached.isWithin && reached.approval !== 'single' && reached.approval !== 'quorum'
}

describe('per grant a token has', () => {
  test('at least what each call within the grant needs, whatever the grant', () => {
    fc.assert(
      fc.property(chain, (levels) => {
        const on = chained(levels)
        const { permissions } = roleOf(api('GET', '/repos/acme/site'), on, GRANT)
        for (const [method, path] of TRIED) {
          const endpoint = api(method, `/repos/acme/site${path}`)
          if (!isReachable(on, method, endpoint)) continue
          for (const [name, level] of Object.entries(endpoint.operation.permissions ?? {}))
            expect(isWithin(level, permissions[name]), `${method} ${path}`).toBe(true)
        }
      }),
      { numRuns: 25 },
    )
  })

  test('nothing that no level of its chain covers, operation by operation', () => {
    fc.assert(
      fc.property(chain, (levels) => {
        const on = chained(levels)
        const { permissions } = roleOf(api('GET', '/repos/acme/site'), on, GRANT)
        const each = [on.authority, ...on.ancestry.map((above) => above.authority)].map((entries) =>
          union({ metadata: 'read' }, ...entries.map((entry) => mostOf(entry))),
        )
        for (const [name, level] of Object.entries(permissions))
          for (const most of each) expect(isWithin(level, most[name]), name).toBe(true)
      }),
      { numRuns: 25 },
    )
  })

  test('never more when a level is added to its chain', () => {
    fc.assert(
      fc.property(chain, fc.array(authority, { minLength: 1, maxLength: 2 }), ([own, above], further) => {
        const before = roleOf(api('GET', '/repos/acme/site'), chained([own, above]), GRANT).permissions
        const after = roleOf(api('GET', '/repos/acme/site'), chained([own, [...above, further]]), GRANT).permissions
        for (const [name, level] of Object.entries(after)) expect(isWithin(level, before[name])).toBe(true)
      }),
      { numRuns: 20 },
    )
  })

  test('for a grant over the documents alone, reading of contents alone', () => {
    const on = allowing({ operations: ['github:*'], paths: ['/repos/acme/site/contents/docs/**'], actions: ['GET'] })
    expect(roleOf(api('GET', '/repos/acme/site/contents/docs/a.md'), on, GRANT).permissions).toEqual({
      contents: 'read',
    })
  })

  test('for a grant over another repository, what the call needs and no more', () => {
    const on = allowing({ operations: ['github:*'], paths: ['/repos/acme/other/**'] })
    expect(roleOf(api('GET', '/repos/acme/site/issues'), on, GRANT).permissions).toEqual({ issues: 'read' })
  })

  test('the same key for every call in the repository within the grant', () => {
    const on = allowing({ operations: ['github:issues.*', 'github:contents.read'] })
    const keys = [
      ['GET', '/issues'],
      ['POST', '/issues'],
      ['GET', '/contents/a'],
    ].map(([method = '', path]) => githubRole(api(method, `/repos/acme/site${path}`), on, GRANT))
    expect(new Set(keys).size).toBe(1)
  })
})

test('equal roles are equal text, however the service file orders permissions', () => {
  const endpoint = api('GET', '/repos/acme/site')
  const written = (permissions: GithubPermissions): string =>
    githubRole({ ...endpoint, operation: { ...endpoint.operation, permissions } }, allowing(), CALL)
  expect(written({ issues: 'read', contents: 'write' })).toBe(written({ contents: 'write', issues: 'read' }))
})

test('an operation that only reads asks for reading, in the whole service file', () => {
  for (const { name, access, permissions = {} } of catalogue.service('github')?.operations ?? []) {
    const levels = Object.values(permissions)
    expect({ name, levels }).toEqual({ name, levels: access === 'read' ? levels.map(() => 'read') : levels })
  }
})

/** All permissions of the operations that an entry covers, wherever. */
function mostOf({ operations: covered }: Authority): GithubPermissions {
  const all = catalogue.service('github')?.operations ?? []
  const held = all.filter(({ name }) =>
    covered.some((one) => one === name || (one.endsWith('*') && name.startsWith(one.slice(0, -1)))),
  )
  return union(...held.map(({ permissions = {} }) => permissions as GithubPermissions))
}
