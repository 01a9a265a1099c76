import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { isOperationPattern, parseScope, patternCovers } from '../../gateway/protocol/authority.ts'
import type { Authority } from '../../gateway/protocol/grant.ts'
import { reach } from '../../gateway/protocol/reach.ts'
import type { Endpoint, Operation, Service } from '../../gateway/protocol/service.ts'
import { grantWith } from '../rig/authority.ts'

/** Whether a grant with this authority alone reaches the endpoint. */
function covers(authority: readonly Authority[], place: Endpoint): boolean {
  const { rawPath } = place
  const facts = { endpoint: place, method: 'GET', rawPath, sourceAddress: '10.0.0.1', nowMs: 0, regionsOf: () => [] }
  return reach(grantWith(authority), facts).isWithin
}

function endpoint(name: string, place: Partial<Endpoint> = {}): Endpoint {
  const operation: Operation = {
    id: name.split(':')[1] ?? '',
    name,
    access: 'read',
    sensitivity: 'internal',
    returnsSecret: false,
    irreversible: false,
    websocket: false,
    captures: [],
  }
  return {
    service: { name: 'github' } as Service,
    operation,
    scheme: 'https',
    host: 'api.github.com',
    port: 443,
    path: '/repos/acme/site',
    rawPath: '/repos/acme/site',
    params: {},
    ...place,
  }
}

const read = endpoint('github:issues.read')

describe('parseScope', () => {
  it('reads operation patterns, each once', () => {
    expect(parseScope('github:issues.read github:pulls.* demo:* github:issues.read')).toEqual([
      { operations: ['github:issues.read', 'github:pulls.*', 'demo:*'] },
    ])
  })

  it.each([
    ['', /empty/],
    [' github:*', /two spaces|begins/],
    ['github:*  demo:*', /two spaces/],
    ['github:* ', /ends/],
    ['github', /"github" names no service.*github:issues\.read/],
    ['*', /"\*"/],
    ['*:*', /star/],
    ['github:iss*', /"github:iss\*".*star/],
    ['github:*.read', /star/],
    ['github:issues.**', /star/],
    ['github:', /not an operation name/],
    ['github:issues.', /not an operation name/],
    ['GitHub:issues', /not an operation name/],
    ['github:is"sues', /characters/],
    ['github:is\\sues', /characters/],
    ['github:issué', /characters/],
    ['github:a\tb', /characters/],
    [Array.from({ length: 257 }, (_, n) => `a:b${n}`).join(' '), /257/],
  ])('refuses %j and says why', (scope, text) => {
    expect(() => parseScope(scope)).toThrow(
      expect.objectContaining({ code: 'invalid_scope', message: expect.stringMatching(text) }),
    )
  })
})

describe('patterns', () => {
  it.each([
    ['github:issues.read', 'github:issues.read', true],
    ['github:issues.*', 'github:issues.read', true],
    ['github:issues.*', 'github:issues.comments.read', true],
    ['github:issues.*', 'github:issues', false],
    ['github:issues.*', 'github:issues.', false],
    ['github:issues.*', 'github:issuesx.read', false],
    ['github:*', 'github:issues.read', true],
    ['github:*', 'github-enterprise:issues.read', false],
    ['github:issues', 'github:issues.read', false],
  ])('%s covers %s: %s', (pattern, name, expected) => {
    expect(patternCovers(pattern, name)).toBe(expected)
    expect(covers([{ operations: [pattern] }], endpoint(name))).toBe(expected)
  })

  it('cover a name exactly when it is theirs or begins with them at a dot or colon', () => {
    const part = fc.constantFrom('a', 'ab', 'b', 'read')
    const id = fc.array(part, { minLength: 1, maxLength: 3 }).map((parts) => `s:${parts.join('.')}`)
    fc.assert(
      fc.property(id, id, fc.integer({ min: 0, max: 3 }), (name, base, cut) => {
        const segments = base.slice(2).split('.')
        const pattern = `s:${[...segments.slice(0, cut), '*'].join('.')}`
        const expected =
          name.slice(2).split('.').length > Math.min(cut, segments.length) &&
          segments.slice(0, cut).every((segment, n) => name.slice(2).split('.')[n] === segment)
        expect(isOperationPattern(pattern)).toBe(true)
        expect(covers([{ operations: [pattern] }], endpoint(name))).toBe(expected)
      }),
    )
  })
})

describe('covers', () => {
  it('asks one entry for everything: two never add up', () => {
    const authority: Authority[] = [
      { operations: ['github:issues.read'], paths: ['/repos/acme/other/**'] },
      { operations: ['github:pulls.read'], paths: ['/repos/acme/site/**'] },
    ]
    expect(covers(authority, read)).toBe(false)
    expect(covers(authority, endpoint('github:pulls.read'))).toBe(true)
  })

  it.each([
    ['https://api.github.com', true],
    ['https://api.github.com:443', true],
    ['https://API.github.com/', true],
    ['http://api.github.com', false],
    ['https://api.github.com:8443', false],
    ['https://github.com', false],
    ['https://api.github.com/repos', false], // a path is no origin
    ['https://user@api.github.com', false],
    ['api.github.com', false],
    ['not a url', false],
  ])('location %s: %s', (location, expected) => {
    expect(covers([{ operations: ['github:*'], locations: [location] }], read)).toBe(expected)
  })

  it('compares the port of an origin', () => {
    const there = endpoint('github:a', { host: '::1', port: 9443 })
    expect(covers([{ operations: ['github:*'], locations: ['https://[::1]:9443'] }], there)).toBe(true)
    expect(covers([{ operations: ['github:*'], locations: ['https://[::1]'] }], there)).toBe(false)
  })

  it.each([
    ['/repos/acme/site', '/repos/acme/site', true],
    ['/repos/acme/site', '/repos/acme/site/issues', false],
    ['/repos/acme/site/**', '/repos/acme/site', true], // the place itself and everything below it
    ['/repos/acme/site/**', '/repos/acme/site/issues/7', true],
    ['/repos/acme/site/**', '/repos/acme/site2/issues', false],
    ['/repos/*/site', '/repos/acme/site', true],
    ['/repos/*/site', '/repos/acme/x/site', false],
    ['/repos/*/site', '/repos//site', false],
    ['/repos/acme/*', '/repos/acme', false],
    ['/**', '/', true],
    ['/repos/ac*/site', '/repos/acme/site', false], // outside the grammar: covers nothing
    ['/repos/**/site', '/repos/acme/site', false],
    ['repos/acme/**', '/repos/acme/site', false],
    ['/projects/acme%2Fsite', '/projects/acme%2Fsite', true],
    ['/projects/*', '/projects/acme%2Fsite', true],
  ])('path %s at %s: %s', (pattern, path, expected) => {
    expect(covers([{ operations: ['github:*'], paths: [pattern] }], endpoint('github:a', { path }))).toBe(expected)
  })

  it('covers nothing with an empty list', () => {
    expect(covers([], read)).toBe(false)
    expect(covers([{ operations: [] }], read)).toBe(false)
    expect(covers([{ operations: ['github:*'], paths: [] }], read)).toBe(false)
    expect(covers([{ operations: ['github:*'], locations: [] }], read)).toBe(false)
    expect(covers([{ operations: ['*', 'git*', 'github:**'] }], read)).toBe(false)
  })

  it('never widens when an entry gains a location or a path', () => {
    const paths = fc.array(fc.constantFrom('/a', '/a/*', '/a/**', '/b/c', '/**'), { minLength: 1, maxLength: 3 })
    const locations = fc.array(fc.constantFrom('https://api.github.com', 'https://github.com'), {
      minLength: 1,
      maxLength: 2,
    })
    fc.assert(
      fc.property(paths, locations, fc.constantFrom('/a', '/a/b', '/b/c', '/x'), (somePaths, someLocations, path) => {
        const place = endpoint('github:issues.read', { path })
        const plain: Authority = { operations: ['github:issues.*'] }
        const narrow = covers([{ ...plain, paths: somePaths, locations: someLocations }], place)
        expect(
          !narrow ||
            (covers([{ ...plain, paths: somePaths }], place) &&
              covers([{ ...plain, locations: someLocations }], place)),
        ).toBe(true)
        expect(covers([plain], place)).toBe(true)
      }),
    )
  })
})
