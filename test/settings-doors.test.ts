import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseSettings, SettingsError } from '../gateway/settings.ts'
import { trustDomain } from './identity/svid.fixture.ts'

const AGENT = 'spiffe://acme.test/agents/triage'
const AGENTS = [{ id: AGENT, owner: 'ana', purpose: 'triage' }]

let dir: string
beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'kl-doors-'))
  const acme = await trustDomain('acme.test', Date.now())
  const [door, other] = [await acme.issue('/door'), await acme.issue('/other')]
  for (const [name, text] of Object.entries({
    'door.pem': door.pem + acme.pem,
    'door.key': door.key,
    'other.key': other.key,
    'ca.pem': acme.pem,
    'note.txt': 'no certificate',
  }))
    writeFileSync(join(dir, name), text)
})
afterAll(() => rmSync(dir, { recursive: true }))

const parse = (written: object) => parseSettings(JSON.stringify({ agents: AGENTS, ...written }), dir)

function problemsOf(written: object) {
  try {
    parse(written)
  } catch (cause) {
    if (cause instanceof SettingsError)
      return cause.problems.map(({ path, got }) => `${path}: ${got.replaceAll(dir, '.')}`)
    throw cause
  }
  return []
}

describe('listen.control_tls', () => {
  const tls = (change: object = {}) => ({ listen: { control_tls: { cert: 'door.pem', key: 'door.key', ...change } } })

  it('has absolute files, and makes the public URL https', () => {
    const { listen, publicUrl } = parse(tls({ client_ca: ['ca.pem'] }))
    const at = (name: string) => join(dir, name)
    expect(listen.controlTls).toEqual({ cert: at('door.pem'), key: at('door.key'), clientCa: [at('ca.pem')] })
    expect(publicUrl).toBe('https://127.0.0.1:8081')
    expect(parse({ ...tls(), public_url: 'https://gw.acme.test' }).publicUrl).toBe('https://gw.acme.test')
    expect(parse({}).listen).not.toHaveProperty('controlTls')
  })

  it('takes away the warning about plain HTTP of that door alone', () => {
    const listen = { control: '0.0.0.0:8081', proxy: '0.0.0.0:8080' }
    const told = (written: object) =>
      parse(written)
        .warnings.filter((text) => text.includes('plain HTTP'))
        .join()
    expect(told({ listen })).toMatch(/listen\.control/)
    const over = told({ listen: { ...listen, ...tls().listen } })
    expect(over).toMatch(/listen\.proxy/)
    expect(over).not.toMatch(/listen\.control/)
  })

  it('that cannot be used is refused with everything that is wrong', () => {
    expect(problemsOf(tls({ cert: 'gone.pem', key: 'gone.key', client_ca: ['ca.pem', 'note.txt'] }))).toEqual([
      'listen.control_tls.cert: no readable file ./gone.pem',
      'listen.control_tls.client_ca.1: no certificate in ./note.txt',
      'listen.control_tls.key: no readable file ./gone.key',
    ])
    expect(problemsOf(tls({ key: 'other.key' }))).toEqual([
      'listen.control_tls.key: the key of another certificate in ./other.key',
    ])
    expect(problemsOf(tls({ key: 'ca.pem' }))).toEqual([
      'listen.control_tls.key: no private key that can be read in ./ca.pem',
    ])
  })
})

describe('listen.proxy_tls', () => {
  const tls = (change: object = {}, more: object = {}) => ({
    listen: { proxy_tls: { cert: 'door.pem', key: 'door.key', ...change } },
    ...more,
  })
  const x509 = { trust: { x509: [{ trust_domain: 'acme.test', bundle: { file: 'ca.pem' } }] } }

  it('has absolute files, and takes away the warning about plain HTTP of that door', () => {
    const at = (name: string) => join(dir, name)
    expect(parse(tls()).listen.proxyTls).toEqual({ cert: at('door.pem'), key: at('door.key'), clientCa: [] })
    const open = { proxy: '0.0.0.0:8080', proxy_tls: { cert: 'door.pem', key: 'door.key' } }
    expect(parse({ listen: open }).warnings.join()).not.toMatch(/listen\.proxy/)
    expect(parse({}).listen).not.toHaveProperty('proxyTls')
  })

  it('requires SVIDs only where some are trusted', () => {
    expect(parse(tls({ require: 'svid' }, x509)).listen.proxyTls).toMatchObject({ require: 'svid' })
    expect(problemsOf(tls({ require: 'svid' }))).toEqual([
      'listen.proxy_tls.require: svid, where no trust domain is configured',
    ])
    expect(problemsOf(tls({ require: 'certificate' }, x509))).toHaveLength(1)
  })

  it('that cannot be used is refused by its own name', () => {
    expect(problemsOf(tls({ cert: 'gone.pem', key: 'other.key' }))).toEqual([
      'listen.proxy_tls.cert: no readable file ./gone.pem',
    ])
    expect(problemsOf(tls({ key: 'other.key' }))).toEqual([
      'listen.proxy_tls.key: the key of another certificate in ./other.key',
    ])
  })
})

describe('listen.proxy_protocol', () => {
  const from = (...ranges: unknown[]) => ({ listen: { proxy_protocol: { from: ranges } } })

  it('names ranges, and is off by default', () => {
    expect(parse(from('10.0.0.7/32', '2001:db8::/32')).listen.announcedBy).toEqual(['10.0.0.7/32', '2001:db8::/32'])
    expect(parse({}).listen).not.toHaveProperty('announcedBy')
    for (const range of ['10.0.0.7', '10.0.0.0/33', 'balancer.acme.test', ''])
      expect(problemsOf(from(range)), range).toHaveLength(1)
    expect(() => parse(from())).toThrow(/got {6}an empty list\n {4}allowed {2}a list with an entry or more/)
  })
})

describe('upstream.proxy', () => {
  const proxy = (url: unknown, more: object = {}) => ({ upstream: { proxy: { url, ...more } } })
  const of = (url: unknown, more: object = {}) => parse(proxy(url, more)).upstream.proxy

  it('is where the URL says, at the port that goes with its scheme', () => {
    expect(of('http://proxy.corp.test:3128')).toMatchObject({ scheme: 'http', host: 'proxy.corp.test', port: 3128 })
    expect(of('https://[2001:db8::1]/')).toMatchObject({ scheme: 'https', host: '2001:db8::1', port: 443 })
    expect(parse({}).upstream.proxy).toBeUndefined()
  })

  it('has credentials by reference only, and never shows them', () => {
    writeFileSync(join(dir, 'proxy-url'), 'http://gate%40way:p%3Ass-canary@proxy.corp.test:3128\n')
    const found = of({ file: 'proxy-url' })
    expect(found?.authorization).toBe(`Basic ${Buffer.from('gate@way:p:ss-canary').toString('base64')}`)
    expect(JSON.stringify(found)).not.toMatch(/canary|Basic/)
    const [refused] = problemsOf(proxy('http://user:canary@proxy.corp.test:3128'))
    expect(refused).not.toContain('canary')
  })

  it('keeps its variable from the commands of keyless run', () => {
    process.env.KEYLESS_TEST_WAY_OUT = 'http://u:p@proxy.corp.test:1'
    expect(parse(proxy({ env: 'KEYLESS_TEST_WAY_OUT' })).secretEnv).toContain('KEYLESS_TEST_WAY_OUT')
    delete process.env.KEYLESS_TEST_WAY_OUT
    expect(problemsOf(proxy({ env: 'KEYLESS_TEST_WAY_OUT' }))).toEqual([
      'upstream.proxy.url: nothing in the environment variable KEYLESS_TEST_WAY_OUT',
    ])
  })

  it('is refused when it is no proxy, or what needs none is no place', () => {
    for (const url of ['proxy.corp.test:3128', 'socks5://proxy:1', 'http://proxy/path', 'http://proxy?x', ''])
      expect(problemsOf(proxy(url)), url).toHaveLength(1)
    expect(() => parse(proxy('socks5://proxy:1'))).toThrow(/fix {6}write "http:\/\/proxy\.corp\.example:3128"; .*env/)
    for (const place of ['*', 'http://x', '10.0.0.0/33', 'a b', ''])
      expect(problemsOf(proxy('http://proxy:1', { no_proxy: [place] })), place).toHaveLength(1)
    expect(problemsOf(proxy('http://proxy:1', { ca: ['note.txt'] }))).toEqual([
      'upstream.proxy.ca.0: no certificate in ./note.txt',
    ])
    expect(of('http://proxy:1', { no_proxy: ['.Corp.test', 'x', '10.0.0.0/8', '::1'] })?.noProxy).toEqual([
      '.corp.test',
      'x',
      '10.0.0.0/8',
      '::1',
    ])
  })
})

describe('limits', () => {
  it('are a thousand calls of an agent, as many that wait for ten seconds, and ten thousand connections', () => {
    expect(parse({}).limits).toEqual({ concurrency: 1024, queue: 1024, queueTimeoutMs: 10_000, connections: 10_000 })
    expect(parse({ limits: { agent_concurrency: 1, agent_queue: 0 } }).limits).toMatchObject({
      concurrency: 1,
      queue: 0,
    })
    for (const limits of [{ agent_concurrency: 0 }, { queue_timeout_ms: 0 }, { connections: 1 }, { agents: 1 }])
      expect(problemsOf({ limits })).toHaveLength(1)
  })
})

describe('listen.proxy_url', () => {
  const proxyUrl = (url: string) => parse({ listen: { proxy_url: url } }).listen.proxyUrl

  it('is a prefix without a trailing slash, and left to the address that is listened on by default', () => {
    expect(proxyUrl('https://proxy.acme.test/agents/')).toBe('https://proxy.acme.test/agents')
    expect(parse({}).listen).not.toHaveProperty('proxyUrl')
  })

  it('is nothing that a request could not be about', () => {
    for (const url of ['proxy.acme.test', 'ftp://acme.test', 'https://a:b@acme.test', 'https://acme.test/?a', 'x'])
      expect(problemsOf({ listen: { proxy_url: url } }), url).toHaveLength(1)
  })
})

describe('trust.x509', () => {
  const x509 = (...rows: object[]) => ({
    trust: { x509: rows.map((row) => ({ trust_domain: 'acme.test', bundle: { file: 'ca.pem' }, ...row })) },
  })

  it('has absolute bundles, and thirty seconds of skew', () => {
    expect(parse(x509({})).trust.x509).toEqual([
      { trust_domain: 'acme.test', bundle: { file: join(dir, 'ca.pem') }, clock_skew_s: 30 },
    ])
    expect(parse({}).trust.x509).toEqual([])
  })

  it('is refused with a broken bundle, a second row, or an agent that nobody registered', () => {
    expect(problemsOf(x509({ bundle: { file: 'gone.pem' } }))).toEqual([
      'trust.x509.0.bundle.file: no readable file ./gone.pem',
    ])
    expect(problemsOf(x509({ bundle: { file: 'door.key' } }))).toEqual([
      'trust.x509.0.bundle.file: ./door.key: it holds no certificate',
    ])
    expect(problemsOf(x509({}, {}))).toEqual(['trust.x509.1.trust_domain: acme.test a second time'])
    const agents = [{ match: { spiffe_id: AGENT }, agent: `${AGENT}x` }]
    expect(problemsOf(x509({ agents }))).toEqual([`trust.x509.0.agents.0.agent: "${AGENT}x"`])
    expect(problemsOf(x509({ agents: [{ match: { spiffe_id: 'acme.test/a' }, agent: AGENT }] }))).toHaveLength(1)
    expect(problemsOf(x509({ clock_skew_s: 61 }))).toHaveLength(1)
  })
})

describe('trust.aws', () => {
  const ROLE = 'arn:aws:iam::123456789012:role/triage'
  const aws = (change: object = {}) => ({
    trust: { aws: { hosts: ['sts.eu-central-1.amazonaws.com'], accounts: ['123456789012'], ...change } },
  })

  it('names hosts and accounts exactly', () => {
    expect(parse(aws()).trust.aws).toMatchObject({ accounts: ['123456789012'], addresses: [] })
    expect(parse(aws({ agents: [{ match: { arn: ROLE }, agent: AGENT }] })).trust.aws?.agents).toHaveLength(1)
    for (const change of [
      { hosts: [] },
      { hosts: ['https://sts.amazonaws.com'] },
      { hosts: ['*.amazonaws.com'] },
      { accounts: [] },
      { accounts: [123456789012] },
      { addresses: ['10.0.0.1'] },
      { agents: [{ match: { arn: ROLE.replace('role/triage', 'role/') }, agent: AGENT }] },
      { agents: [{ match: { arn: ROLE }, agent: 'nobody' }] },
    ])
      expect(problemsOf(aws(change)), JSON.stringify(change)).toHaveLength(1)
  })
})
