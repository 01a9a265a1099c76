import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { canonicalPath, formatAuthority, parseAuthority } from '../../gateway/protocol/target.ts'

function codeOf(run: () => unknown): string {
  try {
    run()
  } catch (cause) {
    if (cause instanceof GatewayError) return cause.code
    throw cause
  }
  return 'accepted'
}

describe('formatAuthority', () => {
  it('writes what parseAuthority reads back', () => {
    const host = fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6()).map((text) => {
      try {
        return parseAuthority(text.includes(':') ? `[${text}]` : text, 443).host
      } catch {
        return 'api.github.com' // no host that a request can go to
      }
    })
    fc.assert(
      fc.property(host, fc.integer({ min: 1, max: 65535 }), (name, port) => {
        const place = { host: name, port }
        expect(parseAuthority(formatAuthority(place), 1)).toEqual(place)
        expect(parseAuthority(formatAuthority(place, 443), 443)).toEqual(place)
      }),
    )
  })

  it('leaves out the default port alone', () => {
    expect(formatAuthority({ host: '::1', port: 443 }, 443)).toBe('[::1]')
    expect(formatAuthority({ host: '::1', port: 80 }, 443)).toBe('[::1]:80')
    expect(formatAuthority({ host: 'a.test', port: 443 })).toBe('a.test:443')
  })
})

describe('parseAuthority', () => {
  it.each([
    ['api.github.com', 443, { host: 'api.github.com', port: 443 }],
    ['API.GitHub.com.:8443', 443, { host: 'api.github.com', port: 8443 }],
    ['localhost:1', 80, { host: 'localhost', port: 1 }],
    ['127.0.0.1:65535', 80, { host: '127.0.0.1', port: 65535 }],
    ['[::1]', 443, { host: '::1', port: 443 }],
    ['[2001:DB8:0:0:0:0:0:1]:8080', 443, { host: '2001:db8::1', port: 8080 }],
    ['xn--bcher-kva.example', 443, { host: 'xn--bcher-kva.example', port: 443 }],
    ['r3---sn.example.com', 443, { host: 'r3---sn.example.com', port: 443 }], // inner hyphens are fine
  ])('reads %s', (text, defaultPort, expected) => {
    expect(parseAuthority(text, defaultPort)).toEqual(expected)
  })

  it.each([
    '',
    '.',
    'a..b',
    '-a.com',
    'a-.com',
    'a_b.com',
    'a b.com',
    'user@host',
    'user:pw@host:1',
    'host:',
    'host:0',
    'host:65536',
    'host:080',
    'host:12a',
    'host:-1',
    'host:1:2',
    '::1',
    '[::1',
    '[::1]x',
    '[::1]:',
    '[fe80::1%25eth0]',
    '[1.2.3.4]',
    '[::g]',
    '2130706433',
    '0x7f.1',
    '0177.0.0.1',
    '127.1',
    '1.2.3.256',
    '1.2.3.4.5', // what only some resolvers take for an address
    'bücher.example',
    'ａpi.github.com',
    'host/path',
    'host?x',
    'host#x',
    'host\\x',
    'ho\0st',
    'host\n',
    `${'a'.repeat(64)}.com`,
    `${'a.'.repeat(127)}ab`,
  ])('refuses %j', (text) => {
    expect(codeOf(() => parseAuthority(text, 443))).toBe('request_malformed')
  })

  it('never shows userinfo in the refusal', () => {
    expect(() => parseAuthority('user:hunter2@host', 443)).toThrow(/^(?!.*hunter2)/)
  })

  it('agrees with a URL parser on everything it accepts', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string({ unit: 'binary-ascii' }),
          fc.domain(),
          fc.ipV4(),
          fc.ipV6().map((ip) => `[${ip}]`),
        ),
        fc.option(fc.integer({ min: 1, max: 65535 })),
        (name, port) => {
          const text = port === null ? name : `${name}:${port}`
          let parsed: { host: string; port: number }
          try {
            parsed = parseAuthority(text, 443)
          } catch {
            return
          }
          const url = new URL(`https://${text}/`)
          expect(parsed.host).toBe(url.hostname.replace(/^\[|\]$/g, '').replace(/\.$/, ''))
          expect(String(parsed.port)).toBe(url.port === '' ? '443' : url.port)
          expect(url.username + url.password + url.search + url.hash).toBe('')
        },
      ),
      { numRuns: 2000 },
    )
  })

  it('is idempotent', () => {
    fc.assert(
      fc.property(fc.domain(), (domain) => {
        const { host } = parseAuthority(domain.toUpperCase(), 443)
        expect(parseAuthority(`${host}.`, 443).host).toBe(host)
      }),
    )
  })
})

describe('canonicalPath', () => {
  it.each([
    ['/', '/'],
    ['', '/'],
    ['?x=1', '/'],
    ['/repos/acme/site?per_page=1#no', '/repos/acme/site'], // what follows the question mark is not the path
    ['/repos/acme/site/', '/repos/acme/site'],
    ['/%41%7Eb', '/A~b'],
    ['/caf%C3%A9', '/café'],
    ['/a%20b', '/a b'],
    ['/projects/acme%2fsite/issues', '/projects/acme%2Fsite/issues'],
    ['/100%25', '/100%'],
    ['/a//b', '/a//b'], // the catalogue decides where an empty segment may stand
    ['/v1/models/ft:gpt-4o:acme', '/v1/models/ft:gpt-4o:acme'],
    ['/..a/b..', '/..a/b..'],
    ['/...', '/...'],
    ['/.well-known/x', '/.well-known/x'],
    ['/a%3Fb%23c', '/a?b#c'],
  ])('reads %s as %s', (raw, expected) => {
    expect(canonicalPath(raw)).toBe(expected)
  })

  it.each([
    '/a/../b',
    '/a/./b',
    '/..',
    '/.',
    '/a/..',
    '/a/.',
    '/../',
    '/%2e%2e/b',
    '/a/%2E',
    '/.%2e/',
    '/a%2F..%2Fb',
    '/..%2Fa',
    '/a%2f.', // dot segments
    '/a\\b',
    '/a%5Cb',
    '/..\\a',
    '/..%5ca', // backslash
    '/a;b',
    '/a;x=1/b',
    '/..;/b',
    '/a%3Bb', // path parameters
    '/%252e%252e/',
    '/%2541',
    '/a%25%32%46b',
    '/%25%35%43', // encoded twice
    '/a%00b',
    '/a\0b',
    '/a%0ab',
    '/a\tb',
    '/a%7f',
    '/a%C2%85', // control characters
    '/%',
    '/%2',
    '/%zz',
    '/%80',
    '/%C0%AF',
    '/%E0%80%AF',
    '/%ED%A0%80',
    '/%F5%80%80%80',
    '/%FF', // broken or overlong UTF-8
    '/caf\u00e9',
    '/a b',
    '/a#b',
    'a/b',
    '*',
    'http://h/', // not a path as RFC 3986 has it
    '/%EF%BC%8F',
    '/a/%E2%80%A4%E2%80%A4/b',
    '/%E2%80%A5',
    '/%EF%BC%BC',
    '/%E2%84%80',
    '/%EF%BC%852e', // NFKC makes separators of these
  ])('refuses %j', (raw) => {
    expect(codeOf(() => canonicalPath(raw))).toBe('path_ambiguous')
  })

  const nasty = fc.array(
    fc.constantFrom(
      '/',
      '.',
      '..',
      '%2e',
      '%2F',
      '%5c',
      '\\',
      ';',
      '%25',
      '%',
      '?',
      '#',
      'a',
      'B',
      '%41',
      '%C3%A9',
      '%c0%af',
      '//',
      '\0',
      ' ',
      '~',
      ':',
      '%3f',
      'é',
    ),
    { maxLength: 12 },
  )

  it('names the same segments as a URL parser, for every path it accepts', () => {
    fc.assert(
      fc.property(nasty, (parts) => {
        const raw = `/${parts.join('')}`
        let path: string
        try {
          path = canonicalPath(raw)
        } catch {
          return
        }
        // The second reader resolves dot segments, backslashes and tabs: if it sees another place, ours was ambiguous.
        const second = new URL(`https://h${raw.startsWith('//') ? `/.${raw}` : raw}`).pathname
        const segments = second.split('/').map((segment) => segment.split(/%2f/i).map(decodeURIComponent).join('%2F'))
        const joined = segments.join('/')
        const withoutTrailing =
          joined.length > 1 && joined.endsWith('/') && !joined.endsWith('//') ? joined.slice(0, -1) : joined
        expect(path).toBe(withoutTrailing)
      }),
      { numRuns: 5000 },
    )
  })

  it('leaves nothing that a further decoding would change into a separator or dot segment', () => {
    fc.assert(
      fc.property(nasty, (parts) => {
        let path: string
        try {
          path = canonicalPath(`/${parts.join('')}`)
        } catch {
          return
        }
        for (const reading of [path, path.replaceAll('%2F', '/')]) {
          expect(reading.split('/')).not.toContain('..')
          expect(reading.split('/')).not.toContain('.')
          expect(reading).not.toMatch(/[\\;]/)
        }
        expect(path.replaceAll('%2F', '/')).not.toMatch(/%[0-9a-f]{2}/i)
      }),
      { numRuns: 5000 },
    )
  })

  it('gives the same answer for every way of encoding the same plain segments', () => {
    const segment = fc.stringMatching(/^[A-Za-z0-9_~-]{1,8}$/)
    fc.assert(
      fc.property(
        fc.array(segment, { minLength: 1, maxLength: 5 }),
        fc.infiniteStream(fc.boolean()),
        (segments, coins) => {
          const encode = (text: string) =>
            [...text].map((c) => (coins.next().value ? `%${c.charCodeAt(0).toString(16)}` : c)).join('')
          expect(canonicalPath(`/${segments.map(encode).join('/')}`)).toBe(`/${segments.join('/')}`)
        },
      ),
    )
  })
})
