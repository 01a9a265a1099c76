/** SECURITY.md 7: an error in policy, provider, store or certificate means a refusal with a reason, never a bare forward. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { openGateway } from '../../gateway/main.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { loadSettings } from '../../gateway/settings.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { startGateway } from '../rig/gateway.ts'
import { freePort } from '../rig/ports.ts'
import { startRedis } from '../rig/redis.ts'
import { type Answer, codeOf, forward, reverse } from './agent.fixture.ts'
import { type LeakyUpstream, startLeaky } from './leaky.fixture.ts'
import { entriesOf, type OpenSite, type Operations, openSite, writeSite } from './services.fixture.ts'

const echo: Operations = { 'any.read': { match: ['GET /{rest**}'], access: 'read' } }
const token = (url: string) => ({
  provider: 'oauth_client_credentials',
  token_url: url,
  client_id: 'keyless',
  client_auth: 'client_secret_basic',
  client_secret: { exec: ['printf', 'a-client-secret-that-is-long'] },
  addresses: ['127.0.0.1/32'],
})

let upstream: EchoUpstream
let stranger: EchoUpstream
let issuer: LeakyUpstream
let site: OpenSite
let task: OpenedTask
let slow: Promise<Answer>

const SERVICES = ['good', 'garbage', 'down', 'broken', 'silent', 'absent', 'unreadable', 'errs', 'wrong'] as const

beforeAll(async () => {
  const names = SERVICES.filter((name) => name !== 'wrong').map((name) => `${name}.keyless.test`)
  upstream = await startEcho({ names })
  stranger = await startEcho({ names: ['stranger.keyless.test'] })
  issuer = await startLeaky(['issuer.keyless.test'])
  const mute = createServer().listen(0, '127.0.0.1')
  const at = (query: string) => `https://issuer.keyless.test:${issuer.port}/token${query}`
  const roots = await mkdtemp(join(tmpdir(), 'keyless-roots-'))
  await writeFile(join(roots, 'issuer.pem'), issuer.caPem)
  await writeFile(join(roots, 'upstream.pem'), upstream.caPem)
  const port = (mute.address() as { port: number }).port
  site = await openSite(
    { port: upstream.tlsPort, caPem: upstream.caPem },
    {
      services: [
        ...SERVICES.map((name) => ({ name, operations: echo })),
        { name: 'dead', operations: echo, ports: [await freePort()] },
        { name: 'stranger', operations: echo, ports: [stranger.tlsPort] },
        { name: 'loop', operations: echo, addresses: [] },
        { name: 'private', operations: echo, addresses: ['192.168.0.0/16'] },
        { name: 'metadata', operations: echo, addresses: ['169.254.0.0/16'] },
        { name: 'nowhere', operations: echo },
      ],
      credentials: {
        good: 'a-standing-key-of-some-length',
        errs: 'a-standing-key-of-some-length',
        wrong: 'a-standing-key-of-some-length',
        dead: 'a-standing-key-of-some-length',
        stranger: 'a-standing-key-of-some-length',
        loop: 'a-standing-key-of-some-length',
        private: 'a-standing-key-of-some-length',
        metadata: 'a-standing-key-of-some-length',
        nowhere: 'a-standing-key-of-some-length',
        garbage: token(at('?status=200&as=text')),
        down: token(`https://issuer.keyless.test:${await freePort()}/token`),
        broken: token(at('?status=500')),
        silent: token(`https://issuer.keyless.test:${port}/token`),
        unreadable: { provider: 'static', value: { file: '/nowhere/at/all' } },
      },
      settings: {
        upstream: {
          ca: [join(roots, 'issuer.pem'), join(roots, 'upstream.pem')],
          connect_timeout_ms: 4_000,
          hosts: {
            'issuer.keyless.test': '127.0.0.1',
            'private.keyless.test': '10.0.0.1',
            'metadata.keyless.test': '169.254.169.254',
          },
        },
      },
      policies: {
        text: `@id("overflows") @owner("test") forbid (principal, action in [Action::"errs:*"], resource) when { context.ttl_s * 9223372036854775807 > 0 };`,
      },
    },
  )
  task = await site.gateway.openTask(
    [...SERVICES, 'dead', 'stranger', 'loop', 'private', 'metadata'].map((name) => `${name}:*`).join(' '),
  )
  slow = call('silent')
  stopping.push(
    () => void mute.close(),
    () => rm(roots, { recursive: true, force: true }),
  )
})

const stopping: (() => unknown)[] = []
afterAll(async () => {
  await site.stop()
  await Promise.all([upstream.stop(), stranger.stop(), issuer.stop(), ...stopping.map((stop) => stop())])
})

const call = (name: string, path = '/echo') => reverse(site.gateway.proxyPort, task.handle, { path: `/${name}${path}` })

/** What the upstreams got that was meant for this service. */
const arrived = (name: string) =>
  [...upstream.requests, ...stranger.requests].filter(({ head }) => head.includes(`${name}.keyless.test`)).length

it('forwards where nothing is wrong, so that the refusals below mean something', async () => {
  expect((await call('good')).status).toBe(200)
  expect(arrived('good')).toBe(1)
})

describe('a provider that gives no credential', () => {
  it.each([
    ['garbage', 502, 'credential_unavailable'],
    ['down', 502, 'credential_unavailable'],
    ['broken', 502, 'credential_unavailable'],
    ['unreadable', 502, 'credential_unconfigured'],
    ['absent', 502, 'credential_unconfigured'],
  ] as const)('%s: %i %s, and nothing is sent', async (name, status, code) => {
    const answer = await call(name)
    expect([answer.status, codeOf(answer)], answer.bytes.toString()).toEqual([status, code])
    expect(arrived(name)).toBe(0)
  })

  it('silent: refused when its time is over, and nothing is sent', { timeout: 30_000 }, async () => {
    const answer = await slow
    expect([answer.status, codeOf(answer)]).toEqual([502, 'credential_unavailable'])
    expect(arrived('silent')).toBe(0)
  })
})

describe('a policy that cannot be evaluated', () => {
  it('refuses although another one permits, and the record says why', async () => {
    const answer = await call('errs')
    expect([answer.status, codeOf(answer)]).toEqual([403, 'policy_denied'])
    expect(arrived('errs')).toBe(0)
    const entries = await entriesOf(site.gateway.settings.dataDir)
    const decision = entries.findLast((entry) => entry.target?.service === 'errs')?.decision
    expect(JSON.stringify(decision)).toContain('overflow')
    expect(answer.bytes.toString()).not.toContain('overflow')
  })
})

describe('an upstream that is not what it should be', () => {
  it.each([
    ['dead', 502, 'upstream_refused'],
    ['stranger', 502, 'upstream_tls'],
    ['wrong', 502, 'upstream_tls'],
  ] as const)('%s: %i %s', async (name, status, code) => {
    const answer = await call(name)
    expect([answer.status, codeOf(answer)]).toEqual([status, code])
    expect(arrived(name)).toBe(0)
  })

  it.each(['/reset', '/raw?bytes=nonsense', '/truncate', '/truncate-chunked'])(
    '%s: no complete answer',
    async (path) => {
      const answer = await call('good', path)
      const text = answer.bytes.toString('latin1')
      if (answer.status === 200) {
        const length = Number(/^content-length: *(\d+)/im.exec(text)?.[1] ?? Number.POSITIVE_INFINITY)
        expect(answer.bytes.length - text.indexOf('\r\n\r\n') - 4).toBeLessThan(length)
        expect(text.endsWith('0\r\n\r\n')).toBe(false)
      } else expect([answer.status, codeOf(answer)]).toEqual([502, 'upstream_broken'])
    },
  )
})

describe('an address that may not be dialled', () => {
  it.each(['loop', 'private', 'metadata'])('%s: 403 address_forbidden', async (name) => {
    const answer = await call(name)
    expect([answer.status, codeOf(answer)]).toEqual([403, 'address_forbidden'])
    expect(arrived(name)).toBe(0)
  })

  it('is refused when it is written into the request itself', async () => {
    for (const host of ['127.0.0.1', '[::1]', '169.254.169.254', '[::ffff:169.254.169.254]', '0.0.0.0']) {
      const answer = await forward(site.gateway.proxyPort, task.handle, {
        url: `http://${host}:${upstream.cleartextPort}/`,
      })
      expect(answer.status, host).toBe(403)
    }
    for (const host of ['2130706433', '0x7f.1', '0177.0.0.1', '127.1']) {
      const answer = await forward(site.gateway.proxyPort, task.handle, { url: `http://${host}/`, host })
      expect(answer.status, host).toBe(400)
    }
    expect(upstream.requests.filter(({ isTls }) => !isTls)).toEqual([])
  })

  it('is refused when it is the control door, whatever ranges a service names', async () => {
    const control = Number(new URL(site.gateway.gateway.control).port)
    const inner = await openSite(
      { port: control, caPem: upstream.caPem },
      { services: [{ name: 'sneaky', operations: echo, slots: [], unsafe_cleartext: true }] },
    )
    try {
      // Reached from a gateway that has another control door: the service itself is sound.
      const other = await inner.gateway.openTask('sneaky:*')
      const reached = await reverse(inner.gateway.proxyPort, other.handle, { path: '/sneaky/health/live' })
      expect([reached.status, codeOf(reached)]).not.toEqual([403, 'address_forbidden'])
    } finally {
      await inner.stop()
    }
    const port = await freePort()
    const own = await writeSite(
      { port, caPem: upstream.caPem },
      { services: [{ name: 'sneaky', operations: echo, slots: [], unsafe_cleartext: true }] },
    )
    const file = join(own.dir, 'keyless.yaml')
    await writeFile(
      file,
      `data_dir: ${own.dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:${port}" }\n${own.yaml}`,
    )
    const settings = await loadSettings(file)
    const gateway = await openGateway(settings)
    try {
      const opened = await controlClient(settings.listen.controlSocket).openTask({
        scope: 'sneaky:*',
        purpose: 'sneak',
      })
      const proxyPort = Number(new URL(gateway.proxy).port)
      const answer = await reverse(proxyPort, opened.handle, { path: '/sneaky/health/live' })
      expect([answer.status, codeOf(answer)], answer.bytes.toString()).toEqual([403, 'address_forbidden'])
    } finally {
      await gateway.stop()
      await own.remove()
    }
  })
})

describe('a gateway that cannot be sound', () => {
  const start = async (yaml: string, before: (dir: string) => Promise<void> = async () => {}) => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-unsound-'))
    try {
      await before(dir)
      const gateway = await startGateway(yaml, { dir })
      await gateway.stop()
      return 'it started'
    } catch (cause) {
      return (cause as Error).message
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  }

  it('names every mistake in the shape of its settings at once, and repeats no secret', async () => {
    const message = await start(
      'tenant: "Not A Name"\ngrants: { ttl_s: 7200, heartbeat_s: 0 }\nunknown_key: 1\ncredentials: { github: { provider: static, value: ghp_inline } }\npublic_url: nonsense\n',
    )
    const paths = [
      'tenant',
      'public_url',
      'grants.ttl_s',
      'grants.heartbeat_s',
      'unknown_key',
      'credentials.github.value',
    ]
    for (const part of [...paths, 'got', 'allowed', 'fix', '3600']) expect(message).toContain(part)
    expect(message).not.toContain('ghp_inline')
  })

  it('names every mistake in what its settings lead to at once', async () => {
    const message = await start(
      `upstream: { ca: [/nowhere.pem] }\ngrants: { ttl_s: 900, max_ttl_s: 60 }\nagents:\n${'  - { id: a, owner: me, purpose: x }\n'.repeat(2)}`,
    )
    for (const part of ['upstream.ca', '/nowhere.pem', 'grants.ttl_s', 'agents.1.id']) expect(message).toContain(part)
  })

  it('names every service that does not exist at once', async () => {
    const message = await start('services: [githup, ./absent.yaml]\n')
    for (const part of ['githup', 'github', 'absent.yaml', 'ENOENT']) expect(message).toContain(part)
  })

  it.each([
    ['ca.pem', 'not a certificate'],
    ['ca.key', 'not a key'],
    ['grant.key', 'not a key'],
    ['lease.key', 'short'],
  ])('does not start with a damaged %s, and names the file', async (name, text) => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-keys-'))
    try {
      await (await startGateway('', { dir })).stop()
      await writeFile(join(dir, 'data', 'keys', name), text)
      await expect(startGateway('', { dir })).rejects.toThrow(name)
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })

  it('does not start with a policy that names what no service has', async () => {
    const message = await start('policies: [./p.cedar]\n', (dir) =>
      writeFile(
        join(dir, 'p.cedar'),
        '@id("x") @owner("test") permit (principal, action == Action::"demo:nothing", resource);',
      ),
    )
    expect(message).toMatch(/p\.cedar:1[\s\S]*demo:nothing/)
  })

  it('does not start without the Redis it was given, and says which setting', async () => {
    const port = await freePort()
    expect(await start(`redis: { url: "redis://127.0.0.1:${port}" }\n`)).toMatch(/Redis at .*ECONNREFUSED.*redis\.url/)
  })

  it('lets go of what it had opened, so that the next start finds everything free', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'keyless-half-'))
    try {
      const port = await freePort()
      await expect(startGateway(`redis: { url: "redis://127.0.0.1:${port}" }\n`, { dir })).rejects.toThrow('Redis')
      await mkdir(join(dir, 'data', 'state.sqlite'))
      await expect(startGateway('', { dir })).rejects.toThrow('EISDIR')
      await rm(join(dir, 'data', 'state.sqlite'), { recursive: true })
      await (await startGateway('', { dir })).stop()
    } finally {
      await rm(dir, { recursive: true, force: true })
    }
  })
})

describe('a store that is away', () => {
  it('refuses everything with 503, known tokens after a second, unknown ones at once', {
    timeout: 30_000,
  }, async () => {
    const redis = await startRedis()
    const shared = await openSite(
      { port: upstream.tlsPort, caPem: upstream.caPem },
      {
        services: [{ name: 'good', operations: echo }],
        credentials: { good: 'a-standing-key-of-some-length' },
        settings: { redis: { url: redis.url } },
      },
    )
    try {
      const opened = await shared.gateway.openTask('good:*')
      const later = await shared.gateway.openTask('good:*')
      const ask = (handle: string) => reverse(shared.gateway.proxyPort, handle, { path: '/good/echo' })
      expect((await ask(opened.handle)).status).toBe(200)
      const before = arrived('good')
      redis.pause?.()
      const unknown = await ask(later.handle)
      expect([unknown.status, codeOf(unknown)]).toEqual([503, 'store_unavailable'])
      await expect.poll(async () => codeOf(await ask(opened.handle)), { timeout: 5_000 }).toBe('store_unavailable')
      const settled = arrived('good')
      expect((await ask(opened.handle)).status).toBe(503)
      expect(arrived('good')).toBe(settled)
      expect(settled).toBeGreaterThanOrEqual(before)
      redis.resume?.()
      await expect.poll(async () => (await ask(opened.handle)).status, { timeout: 5_000 }).toBe(200)
    } finally {
      redis.resume?.()
      await shared.stop()
      await redis.stop()
    }
  })
})
