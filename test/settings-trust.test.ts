import { generateKeyPairSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseSettings, SettingsError } from '../gateway/settings.ts'
import { makeAuthority } from './upstream/certificate.fixture.ts'

let dir: string
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-trust-'))
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const jwk = { ...publicKey.export({ format: 'jwk' }), kid: 'a' }
  writeFileSync(join(dir, 'acme-bundle.pem'), (await makeAuthority()).pem)
  writeFileSync(join(dir, 'client.pem'), publicKey.export({ type: 'spki', format: 'pem' }))
  writeFileSync(join(dir, 'private.pem'), privateKey.export({ type: 'pkcs8', format: 'pem' }))
  writeFileSync(join(dir, 'bundle.json'), JSON.stringify({ keys: [{ ...jwk, use: 'jwt-svid' }] }))
  writeFileSync(join(dir, 'jwks.json'), JSON.stringify({ keys: [jwk] }))
})
afterAll(() => rmSync(dir, { recursive: true }))

const AGENT = 'spiffe://acme.test/agents/triage'
const BASE = `public_url: https://keyless.acme.test\nagents: [{ id: ${AGENT}, owner: ana, purpose: triage }]\n`

function parse(trust: object) {
  return parseSettings(`${BASE}trust: ${JSON.stringify(trust)}`, dir).trust
}

function problemsOf(trust: object) {
  try {
    parse(trust)
  } catch (cause) {
    if (cause instanceof SettingsError) return cause.problems
    throw cause
  }
  return []
}

const uri = 'https://id.acme.test/jwks'
const human = { kind: 'human', issuer: 'https://id.acme.test', audience: 'cli', jwks: { uri } }
const agents = [{ match: { sub: 'worker' }, agent: AGENT }]
const oidc = { kind: 'oidc', issuer: 'https://id.acme.test', jwks: { uri }, agents }
const pins = { repository_id: '7', repository_owner_id: '8' }
const github = (match: object) => ({ kind: 'github-actions', jwks: { uri }, agents: [{ match, agent: AGENT }] })

describe('trust', () => {
  it('is nobody’s unless it is written down', () => {
    expect(parseSettings('', dir).trust).toMatchObject({ issuers: [], clients: [] })
  })

  it('has its audiences, files and limits complete, and is frozen', () => {
    const trust = parse({
      issuers: [
        human,
        oidc,
        { kind: 'jwt-svid', trust_domain: 'acme.test', jwks: { file: 'bundle.json' } },
        {
          kind: 'kubernetes',
          issuer: 'https://kubernetes.default.svc',
          jwks: { file: 'jwks.json' },
          agents: [{ match: { namespace: 'a', service_account: 'b' }, agent: AGENT }],
        },
        github({ ...pins, environment: 'production' }),
      ],
      clients: [{ id: 'bot', agent: AGENT, key: { file: 'client.pem' } }],
    })
    const own = ['https://keyless.acme.test']
    expect(trust.issuers).toMatchObject([
      { audience: ['cli'], max_lifetime_s: 3600, clock_skew_s: 30, addresses: [], jwks: { uri } },
      { audience: own, max_lifetime_s: 3600, typ: 'JWT' },
      { audience: own, max_lifetime_s: 900, jwks: { file: join(dir, 'bundle.json') } },
      { audience: own, jwks: { file: join(dir, 'jwks.json') } },
      { issuer: 'https://token.actions.githubusercontent.com', algorithms: ['RS256'], max_lifetime_s: 900 },
    ])
    expect(trust.issuers[2]?.algorithms).not.toContain('Ed25519')
    expect(parse({ chains: [{ issuer: 'https://aat.acme.test', jwks: { file: 'jwks.json' } }] }).chains).toEqual([
      {
        issuer: 'https://aat.acme.test',
        jwks: { file: join(dir, 'jwks.json') },
        addresses: [],
        algorithms: ['Ed25519', 'ES256'],
      },
    ])
    expect(trust.clients).toMatchObject([{ id: 'bot', key: { file: join(dir, 'client.pem') } }])
    expect(() => Object.assign(trust.issuers[0] ?? {}, { issuer: 'x' })).toThrow(TypeError)
  })

  it.each<[string, object, string, RegExp]>([
    ['an unknown kind', { issuers: [{ ...human, kind: 'saml' }] }, 'trust.issuers.0.kind', /human|kind/],
    ['a key set in the clear', { issuers: [{ ...human, jwks: { uri: 'http://id.acme.test/jwks' } }] }, 'uri', /https/],
    ['a key set by its bare address', { issuers: [{ ...human, jwks: uri }] }, 'trust.issuers.0.jwks', /./],
    ['a row without keys', { issuers: [{ ...human, jwks: undefined }] }, 'trust.issuers.0.jwks', /./],
    ['people without an audience', { issuers: [{ ...human, audience: undefined }] }, 'audience', /./],
    ['a symmetric algorithm', { issuers: [{ ...human, algorithms: ['HS256'] }] }, 'algorithms.0', /RS256/],
    ['no algorithm', { issuers: [{ ...human, algorithms: ['none'] }] }, 'algorithms.0', /RS256/],
    [
      'an EdDSA JWT-SVID',
      { issuers: [{ kind: 'jwt-svid', trust_domain: 'a', jwks: { uri }, algorithms: ['Ed25519'] }] },
      'algorithms.0',
      /RS256/,
    ],
    ['a skew beyond a minute', { issuers: [{ ...human, clock_skew_s: 61 }] }, 'clock_skew_s', /60/],
    ['a life beyond a day', { issuers: [{ ...human, max_lifetime_s: 86_401 }] }, 'max_lifetime_s', /86400/],
    ['a range that is none', { issuers: [{ ...human, addresses: ['10.0.0.1'] }] }, 'addresses.0', /address range/],
    [
      'a trust domain in capitals',
      { issuers: [{ kind: 'jwt-svid', trust_domain: 'ACME', jwks: { uri } }] },
      'trust_domain',
      /./,
    ],
    ['a workload without a row', { issuers: [{ ...oidc, agents: [] }] }, 'trust.issuers.0.agents', /./],
    ['a row that fits everybody', { issuers: [{ ...oidc, agents: [{ match: {}, agent: AGENT }] }] }, 'match', /./],
    [
      'a repository by its name',
      { issuers: [github({ ...pins, ref: 'x', repository: 'octo/site' })] },
      'repository',
      /./,
    ],
    ['a repository by its number alone', { issuers: [github(pins)] }, 'trust.issuers.0.agents.0.match', /environment/],
    [
      'a number that is none',
      { issuers: [github({ ...pins, repository_id: 'octo', ref: 'x' })] },
      'repository_id',
      /./,
    ],
    [
      'an agent that nobody registered',
      { issuers: [{ ...human, agents: ['triage'] }] },
      'trust.issuers.0.agents.0',
      /registered/,
    ],
    [
      'a mapping to nobody',
      { issuers: [{ ...oidc, agents: [{ ...agents[0], agent: 'x' }] }] },
      'agents.0.agent',
      /registered/,
    ],
    [
      'a client that is nobody',
      { clients: [{ id: 'bot', key: { file: 'client.pem' } }] },
      'trust.clients.0.id',
      /registered/,
    ],
    ['an issuer twice', { issuers: [oidc, oidc] }, 'trust.issuers.1', /one row for people and one for workloads/],
    [
      'people and workloads of one audience',
      {
        issuers: [
          { ...human, audience: 'x' },
          { ...oidc, audience: ['y', 'x'] },
        ],
      },
      'trust.issuers.1.audience',
      /of its own/,
    ],
    [
      'a client twice',
      { clients: [1, 2].map(() => ({ id: AGENT, key: { file: 'client.pem' } })) },
      'trust.clients.1.id',
      /once/,
    ],
    [
      'a key file that is not there',
      { clients: [{ id: AGENT, key: { file: 'none' } }] },
      'trust.clients.0.key.file',
      /public keys/,
    ],
    [
      'a private key',
      { clients: [{ id: AGENT, key: { file: 'private.pem' } }] },
      'trust.clients.0.key.file',
      /public keys/,
    ],
    [
      'a bundle without JWT keys',
      { issuers: [{ kind: 'jwt-svid', trust_domain: 'a', jwks: { file: 'jwks.json' } }] },
      'trust.issuers.0.jwks.file',
      /SPIFFE bundle/,
    ],
    [
      'an issuer of chains twice',
      { chains: [1, 2].map(() => ({ issuer: 'https://aat.acme.test', jwks: { file: 'jwks.json' } })) },
      'trust.chains.1.issuer',
      /once/,
    ],
    [
      'chains without readable keys',
      { chains: [{ issuer: 'x', jwks: { file: 'none' } }] },
      'trust.chains.0.jwks.file',
      /public keys/,
    ],
    [
      'a chain signed with RSA',
      { chains: [{ issuer: 'x', jwks: { uri }, algorithms: ['RS256'] }] },
      'trust.chains.0.algorithms.0',
      /Ed25519/,
    ],
    ['an unknown key', { issuers: [{ ...human, jku: 'x' }] }, 'trust.issuers.0.jku', /jwks/],
  ])('names %s', (_what, trust, path, allowed) => {
    const problems = problemsOf(trust)
    expect(problems).toEqual([
      expect.objectContaining({ path: expect.stringContaining(path), allowed: expect.stringMatching(allowed) }),
    ])
    expect(problems[0]?.fix).not.toBe('')
  })

  it('says everything that is wrong at once', () => {
    const trust = {
      issuers: [{ ...human, agents: ['x'] }, { ...oidc, agents: [{ ...agents[0], agent: 'y' }] }, oidc],
      clients: [{ id: 'z', key: { file: 'none' } }],
    }
    expect(problemsOf(trust).map(({ path }) => path)).toEqual([
      'trust.issuers.2',
      'trust.issuers.0.agents.0',
      'trust.issuers.1.agents.0.agent',
      'trust.clients.0.id',
      'trust.clients.0.key.file',
    ])
  })

  it('is written in docs/identity.md as it may be written', async () => {
    const page = await readFile(new URL('../docs/identity.md', import.meta.url), 'utf8')
    const [, example = ''] = /```yaml\n(trust:[\s\S]+?)```/.exec(page) ?? []
    const named = new Set([...example.matchAll(/agent: (\S+)/g)].map(([, id]) => id))
    const registered = [...named].map((id) => `  - { id: ${id}, owner: ana, purpose: x }`).join('\n')
    const text = example.replace('billing-bot.pem', 'client.pem')
    const { trust } = parseSettings(`agents:\n${registered}\n${text}`, dir)
    expect(trust.issuers.map(({ kind }) => kind)).toEqual(['human', 'jwt-svid', 'kubernetes', 'github-actions', 'oidc'])
  })

  it('is written in docs/oauth.md as it may be written', async () => {
    const page = await readFile(new URL('../docs/oauth.md', import.meta.url), 'utf8')
    const [, example = ''] = /```yaml\n([\s\S]+?)```/.exec(page) ?? []
    const { trust, agents, publicUrl } = parseSettings(example.replace('research.pub.pem', 'client.pem'), dir)
    expect(publicUrl).toBe('https://keyless.acme.test')
    expect(trust.clients[0]?.id).toBe(agents[0]?.id)
  })

  it('does not repeat a password that someone wrote into the address of a key set', () => {
    const problems = problemsOf({ issuers: [{ ...human, jwks: { uri: 'https://ana:canary@id.acme.test/jwks' } }] })
    expect(problems).toHaveLength(1)
    expect(JSON.stringify(problems)).not.toContain('canary')
  })
})
