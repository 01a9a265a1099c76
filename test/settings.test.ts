import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { nearest } from '../gateway/protocol/nearest.ts'
import { parseListen } from '../gateway/settings/listen.ts'
import { defaultDataDir, loadSettings, parseSettings, SettingsError, settingsJsonSchema } from '../gateway/settings.ts'

afterEach(() => vi.unstubAllEnvs())

function problemsOf(text: string, baseDir = '/base') {
  try {
    parseSettings(text, baseDir)
  } catch (cause) {
    if (cause instanceof SettingsError) return cause.problems
    throw cause
  }
  return []
}

describe('defaults', () => {
  it('serve one person on one machine, on loopback', () => {
    vi.stubEnv('KEYLESS_HOME', '/home/u/.keyless')
    const settings = parseSettings('', '/base')
    expect(settings).toMatchObject({
      tenant: 'default',
      dataDir: '/home/u/.keyless',
      keysDir: '/home/u/.keyless/keys',
      listen: {
        proxy: { host: '127.0.0.1', port: 8080 },
        control: { host: '127.0.0.1', port: 8081 },
        controlSocket: '/home/u/.keyless/control.sock',
      },
      publicUrl: 'http://127.0.0.1:8081',
      services: [],
      credentials: {},
      agents: [{ id: 'spiffe://keyless.local/agent/default', riskTier: 'low' }],
      redis: undefined,
      audit: { durability: 'fsync', origin: 'keyless.local/default' },
      grants: { ttl: { defaultS: 900, maxS: 3600 }, maxDepth: 3, heartbeatS: 15 },
      upstream: { connectTimeoutMs: 5000, headersTimeoutMs: 300_000, bodyTimeoutMs: 300_000, http2: true, ca: [] },
      secretEnv: [],
    })
    expect(settings.policies[0]).toMatch(/\/policies$/)
    expect(settings.agents[0].owner).not.toBe('')
  })

  it('put the data directory under the home directory when KEYLESS_HOME is empty', () => {
    vi.stubEnv('KEYLESS_HOME', '')
    expect(defaultDataDir()).toMatch(/\/\.keyless$/)
  })

  it('lower the default life of a grant with its maximum', () => {
    expect(parseSettings('grants: { max_ttl_s: 60 }', '/base').grants.ttl).toEqual({ defaultS: 60, maxS: 60 })
  })
})

describe('a file', () => {
  it('has its relative paths resolved against its own directory', () => {
    const settings = parseSettings(
      'data_dir: state\nkeys_dir: ../keys\nservices: [github, ./own.yaml, more/x.yaml, y.yml]\npolicies: [shipped, p]\nlisten: { control_socket: c.sock }',
      '/base/etc',
    )
    expect(settings).toMatchObject({
      dataDir: '/base/etc/state',
      keysDir: '/base/keys',
      services: ['github', '/base/etc/own.yaml', '/base/etc/more/x.yaml', '/base/etc/y.yml'],
      policies: [expect.stringMatching(/^(?!\/base).+\/policies$/), '/base/etc/p'],
      listen: { controlSocket: '/base/etc/c.sock' },
    })
  })

  it('is frozen all the way down', () => {
    const settings = parseSettings('credentials: { a: { provider: static, value: { env: A } } }', '/base')
    expect(() => Object.assign(settings.grants.ttl, { maxS: 9e9 })).toThrow(TypeError)
    expect(() => Object.assign(settings.credentials.a ?? {}, { value: 'x' })).toThrow(TypeError)
    expect(() => Object.assign(settings.agents[0], { id: 'x' })).toThrow(TypeError)
  })

  it('names every environment variable that a secret is read from', () => {
    vi.stubEnv('REDIS_URL', 'redis://localhost')
    const text = `
redis: { url: { env: REDIS_URL } }
credentials:
  github: { provider: static, value: { env: GITHUB_TOKEN } }
  billing: { provider: oauth_client_credentials, token_url: https://id.acme.test/token, client_id: { env: SHOWN }, client_auth: client_secret_basic, client_secret: { env: BILLING } }`
    expect(parseSettings(text.replace('{ env: SHOWN }', 'keyless'), '/base').secretEnv).toEqual([
      'BILLING',
      'GITHUB_TOKEN',
      'REDIS_URL',
    ])
  })

  it('reads what it says of a service beside its name', () => {
    const written =
      'services: [github, { use: jira, as: acme-jira, hosts: [acme.atlassian.net] }, { use: ./own.yaml, credential: x }]'
    expect(parseSettings(written, '/base').services).toEqual([
      'github',
      { use: 'jira', as: 'acme-jira', hosts: ['acme.atlassian.net'] },
      { use: '/base/own.yaml', credential: 'x' },
    ])
  })

  it('warns of doors that other machines reach, of relaxed durability, and of no services', () => {
    const { warnings } = parseSettings(
      'listen: { proxy: "0.0.0.0:8080", control: "localhost:1" }\naudit: { durability: relaxed }',
      '/base',
    )
    expect(warnings).toHaveLength(3)
    expect(warnings.join('\n')).toMatch(/listen\.proxy is 0\.0\.0\.0:8080/)
  })

  it('does not show the password of Redis when printed', () => {
    vi.stubEnv('REDIS_URL', 'rediss://:pa55-of-redis@redis.test:6380/1')
    const settings = parseSettings('redis: { url: { env: REDIS_URL } }', '/base')
    expect(settings.redis?.url).toBe('rediss://:pa55-of-redis@redis.test:6380/1')
    expect(inspect(settings, { depth: 9 }) + JSON.stringify(settings)).not.toContain('pa55-of-redis')
  })

  it('is read from disk, and a missing one says so', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'kl-settings-'))
    await writeFile(join(dir, 'keyless.yaml'), 'tenant: acme\ndata_dir: d\n')
    expect(await loadSettings(join(dir, 'keyless.yaml'))).toMatchObject({
      tenant: 'acme',
      dataDir: join(dir, 'd'),
      file: join(dir, 'keyless.yaml'),
      baseDir: dir,
    })
    await expect(loadSettings(join(dir, 'none.yaml'))).rejects.toThrow(
      /none\.yaml has 1 problem:[\s\S]*ENOENT[\s\S]*keyless init/,
    )
    await rm(dir, { recursive: true })
  })
})

describe('errors', () => {
  it('are listed all at once, in the order of the file, each with line, got, allowed and fix', () => {
    const text = `
tenant: Foo Bar
listn: {}
grants: { ttl_s: "15m", max_ttls: 4 }
listen: { proxy: nonsense }
agents:
  - { id: "a b", owner: ana, purpose: x }
upstream: { connect_timeout_ms: 5s, hosts: { api.x.test: nope } }
audit: 7
`
    expect(problemsOf(text).map(({ line, path, got, fix }) => [line, path, got, fix])).toEqual([
      [2, 'tenant', '"Foo Bar"', expect.stringContaining('write an allowed value')],
      [3, 'listn', 'an unknown key', 'did you mean `listen`?'],
      [4, 'grants.ttl_s', '"15m"', 'write 900 without quotes or unit'],
      [4, 'grants.max_ttls', 'an unknown key', 'did you mean `max_ttl_s`?'],
      [5, 'listen.proxy', '"nonsense"', 'write "127.0.0.1:8080"'],
      [7, 'agents.0.id', '"a b"', expect.any(String)],
      [8, 'upstream.connect_timeout_ms', '"5s"', 'write 5000 without quotes or unit'],
      [8, 'upstream.hosts.api.x.test', '"nope"', 'write the address itself, like 192.0.2.7'],
      [9, 'audit', '7', expect.any(String)],
    ])
  })

  it('read well on a terminal', () => {
    expect(() => parseSettings('grants:\n  ttl_s: 15m\n', '/base')).toThrow(
      new SettingsError('keyless.yaml', [
        {
          path: 'grants.ttl_s',
          line: 2,
          got: '"15m"',
          allowed: 'a whole number from 1 to 3600',
          fix: 'write 900 without quotes or unit',
        },
      ]).message,
    )
  })

  it.each([
    [
      'a secret written into a credential',
      'credentials: { github: { provider: static, value: sk-canary } }',
      /write \{ env: NAME \}/,
    ],
    ['a password in the URL of Redis', 'redis: { url: "redis://:sk-canary@h" }', /write url: \{ env: REDIS_URL \}/],
    ['one behind it', 'redis: { url: "redis://h?password=sk-canary" }', /write url: \{ env: REDIS_URL \}/],
    ['one for Postgres', 'postgres: { url: "postgres://k:sk-canary@h/k" }', /write url: \{ env: POSTGRES_URL \}/],
    ['one behind it', 'postgres: { url: "postgres://h/k?password=sk-canary" }', /write url: \{ env: POSTGRES_URL \}/],
    ['a secret in the place of a provider’s mapping', 'credentials: { github: sk-canary }', /./],
    [
      'a secret in a field that is none',
      'credentials: { github: { provider: static, value: { env: "sk-canary!" } } }',
      /./,
    ],
  ])('never repeat %s', (_what, text, fix) => {
    const [problem, ...others] = problemsOf(text)
    expect(others).toEqual([])
    expect(problem?.fix).toMatch(fix)
    expect(JSON.stringify(problem)).not.toContain('canary')
  })

  it.each([
    [
      'an unknown provider',
      'credentials: { x: { provider: statik, value: { env: A } } }',
      'credentials.x.provider',
      /oauth_client_credentials, .*static/,
    ],
    ['a missing field', 'agents: [{ id: a, owner: b }]', 'agents.0.purpose', /string/],
    [
      'an agent twice',
      'agents: [{ id: a, owner: b, purpose: c }, { id: a, owner: b, purpose: c }]',
      'agents.1.id',
      /once/,
    ],
    ['a default above the maximum', 'grants: { ttl_s: 100, max_ttl_s: 99 }', 'grants.ttl_s', /at most/],
    ['a maximum above the ceiling', 'grants: { max_ttl_s: 3601 }', 'grants.max_ttl_s', /3600/],
    [
      'a socket path that no system takes',
      `listen: { control_socket: ${'x'.repeat(110)} }`,
      'listen.control_socket',
      /103 bytes/,
    ],
    ['a variable that is not set', 'redis: { url: { env: KEYLESS_TEST_UNSET } }', 'redis.url', /redis:\/\//],
    ['a root file that is not there', 'upstream: { ca: [none.pem] }', 'upstream.ca.0', /PEM/],
    [
      'a host with a scheme',
      'services: [{ use: jira, hosts: ["https://x.test"] }]',
      'services.0.hosts.0',
      /exact host/,
    ],
    ['a wildcard', 'services: [{ use: jira, hosts: ["*.x.test"] }]', 'services.0.hosts.0', /exact host/],
    ['a misspelt key of a service', 'services: [{ use: jira, host: [x.test] }]', 'services.0.host', /use, as, hosts/],
    ['a public URL with a user', 'public_url: https://u@h', 'public_url', /without user/],
  ])('name %s', (_what, text, path, allowed) => {
    expect(problemsOf(text)).toEqual([expect.objectContaining({ path, allowed: expect.stringMatching(allowed) })])
  })

  it.each([
    ['a reference without a name', 'value: { sealed: }', [['value.sealed', 'an empty value', /./]]],
    ['a misspelt reference', 'value: { seal: a }', [['value.seal', 'an unknown key', /mean `sealed`/]]],
    [
      'two references at once',
      'value: { env: A, file: b }',
      [['value.file', 'a key too many beside the others', /^remove it/]],
    ],
    ['a field too many', 'value: { vault: a/b, feeld: c }', [['value.feeld', 'an unknown key', /mean `field`/]]],
  ])('say of %s only what is wrong', (_what, value, told) => {
    const problems = problemsOf(`credentials: { x: { provider: static, ${value} } }`)
    expect(problems.map(({ path, got, fix }) => [path, got, fix])).toEqual(
      told.map(([path, got, fix]) => [`credentials.x.${path}`, got, expect.stringMatching(fix ?? '')]),
    )
  })

  it.each([
    ['provider: github-app', 'did you mean github_app?'],
    ['provider: oauth_refresh', 'did you mean oauth_refresh_token?'],
    [
      'provider: oauth_client_credentials, client_auth: client_secret_basic, scope: [a, b]',
      'write one text, not a list, with spaces between the scopes',
    ],
    [
      'provider: oauth_client_credentials, client_auth: client_secret_basic, dpop: "yes"',
      'write true or false, without quotes',
    ],
  ])('say what is meant by { %s }', (credential, fix) => {
    expect(problemsOf(`credentials: { x: { ${credential} } }`).map((problem) => problem.fix)).toContain(fix)
  })

  it.each(['a: [', 'tenant: a\ntenant: b', '- list', 'just text'])('name what is not a settings file: %j', (text) => {
    expect(problemsOf(text)[0]).toMatchObject({ line: expect.any(Number), path: '' })
  })

  it('never fail in another way, whatever the file holds', () => {
    const key = fc.constantFrom(
      'tenant',
      'listen',
      'services',
      'credentials',
      'agents',
      'redis',
      'audit',
      'grants',
      'upstream',
      'url',
      'provider',
      'value',
      'x',
    )
    const { tree } = fc.letrec((tie) => ({
      leaf: fc.oneof(fc.string(), fc.integer(), fc.boolean(), fc.constant(null)),
      tree: fc.oneof(
        { maxDepth: 4 },
        tie('leaf'),
        fc.array(tie('tree'), { maxLength: 3 }),
        fc.dictionary(key, tie('tree'), { maxKeys: 4 }),
      ),
    }))
    fc.assert(
      fc.property(fc.dictionary(key, tree, { maxKeys: 5 }), (written) => {
        for (const problem of problemsOf(JSON.stringify(written))) {
          expect(problem.allowed).not.toBe('')
          expect(problem.fix).not.toBe('')
        }
      }),
      { numRuns: 300 },
    )
  })
})

describe('a listen address', () => {
  it.each([
    ['127.0.0.1:80', '127.0.0.1', 80],
    ['[::1]:8080', '::1', 8080],
    ['localhost:0', 'localhost', 0],
    [':9000', '127.0.0.1', 9000], // loopback unless written out
    ['9000', '127.0.0.1', 9000],
    ['0.0.0.0:65535', '0.0.0.0', 65535],
  ])('%s is %s port %i', (text, host, port) => expect(parseListen(text)).toEqual({ host, port }))

  it.each(['', 'a', '::1:80', '[::1]', '[zz]:1', 'a:65536', 'a b:1', '-1', '[127.0.0.1]:1', 'http://a:1'])(
    '%j is none',
    (text) => {
      expect(parseListen(text)).toBeNull()
    },
  )
})

describe('a credential that stands in for another', () => {
  const credential = (name: string, fallback?: string) =>
    `  ${name}: { provider: static, value: { env: A }${fallback === undefined ? '' : `, fallback: ${fallback}`} }\n`

  it('is there, and the chain of those who stand in ends', () => {
    const chain = credential('one', 'two') + credential('two', 'three') + credential('three')
    expect(problemsOf(`credentials:\n${chain}`)).toEqual([])
  })

  it('is looked for at the start, with the name that is probably meant', () => {
    const [problem] = problemsOf(`credentials:\n${credential('one', 'spere')}${credential('spare')}`)
    expect(problem).toMatchObject({
      path: 'credentials.one.fallback',
      line: 2,
      got: 'spere',
      fix: 'write spare, if that is meant',
    })
  })

  it.each([
    ['itself', credential('one', 'one'), 'one → one'],
    ['the one before', credential('two', 'one') + credential('one', 'two'), 'one → two → one'],
    ['one in the middle', credential('start', 'b') + credential('b', 'c') + credential('c', 'b'), 'b → c → b'],
  ])('stands in for %s in no chain', (_what, credentials, told) => {
    const problems = problemsOf(`credentials:\n${credentials}`)
    expect(problems.map(({ got }) => got)).toEqual([`${told}, a circle`])
  })
})

describe('did you mean', () => {
  it.each([
    ['credential', 'credentials'],
    ['ttl', 'ttl_s'],
    ['durabilty', 'durability'],
    ['cred', undefined],
    ['crede', 'credentials'],
    ['quux', undefined],
  ])('%s → %s', (word, meant) => expect(nearest(word, ['credentials', 'ttl_s', 'durability'])).toBe(meant))
})

describe('the schema for editors', () => {
  it('describes every field and forbids unknown ones', () => {
    const schema = settingsJsonSchema() as {
      additionalProperties: boolean
      properties: Record<string, { description?: string }>
    }
    expect(schema.additionalProperties).toBe(false)
    expect(Object.keys(schema.properties).sort()).toEqual(
      [
        'agents',
        'approvals',
        'audit',
        'break_glass',
        'ca',
        'credentials',
        'data_dir',
        'grants',
        'keys_dir',
        'leaks',
        'listen',
        'limits',
        'policies',
        'policy',
        'postgres',
        'public_url',
        'redis',
        'regions',
        'revocation',
        'services',
        'signals',
        'tenant',
        'trust',
        'upstream',
        'vault',
        'webhooks',
      ].sort(),
    )
    for (const property of Object.values(schema.properties)) expect(property.description).toMatch(/\.$/)
  })

  it('names the same settings as docs/settings.md', async () => {
    type Node = { properties?: Record<string, Node> }
    const leaves = (node: Node, path: string[]): string[] =>
      Object.entries(node.properties ?? {}).flatMap(([key, inner]) =>
        inner.properties ? leaves(inner, [...path, key]) : [[...path, key].join('.')],
      )
    const page = await readFile(new URL('../docs/settings.md', import.meta.url), 'utf8')
    const documented = [...page.matchAll(/^\| `([a-z0-9_.]+)` \|/gm)].map((match) => match[1])
    expect(documented).toEqual(leaves(settingsJsonSchema() as Node, []))
  })
})
