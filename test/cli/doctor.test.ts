import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { checkProxy } from '../../gateway/cli/doctor/clients.ts'
import { examine, report } from '../../gateway/cli/doctor/doctor.ts'
import {
  checkAuthority,
  checkClock,
  checkCredentials,
  checkExports,
  checkLog,
  checkRedis,
  checkSettings,
  checkWitnesses,
} from '../../gateway/cli/doctor/machine.ts'
import { type FixtureGateway, makeAuthority, startFixtureGateway, TASK } from './gateway.fixture.ts'

let gateway: FixtureGateway
beforeEach(async () => {
  gateway = await startFixtureGateway()
  gateway.status = { ...gateway.status, services: gateway.status.services.slice(0, 1) }
})
afterEach(async () => {
  vi.unstubAllEnvs()
  await gateway.close()
})

const states = async () =>
  Object.fromEntries((await examine({ data: gateway.dataDir })).map(({ name, state }) => [name, state]))

describe('a running gateway', () => {
  it('is well when everything is, with the clients on this machine', async () => {
    const checks = await examine({ data: gateway.dataDir })
    expect(checks.filter(({ state }) => state === 'failed')).toEqual([])
    const [isolation] = checks.splice(-1) // not everywhere possible, and no failure where it is not
    expect(isolation).toMatchObject({
      name: 'isolation',
      detail: expect.stringMatching(/^keyless run --isolate (?:works here$|does not work here: .*\S)/),
    })
    expect(checks.filter(({ state }) => state === 'ok').map(({ name }) => name)).toEqual([
      ...['control', 'data directory', 'proxy', 'CA certificate', 'TLS interception'],
      ...['curl under run', 'python3 under run', 'node under run', 'clock', 'file times', 'log', 'credentials'],
    ])
    expect(report(checks)).toMatch(/All is well\.\n$/)
  })

  it('is not well while somebody has blocked something, and says what and why', async () => {
    gateway.blocks = [{ id: 'o1', target: { service: 'billing' }, reason: 'a key leaked', until: null, since: 1 }]
    const text = report(await examine({ data: gateway.dataDir }))
    expect(text).toMatch(/✗ blocked +service billing: a key leaked\n +→ .*keyless revoke --lift/)
    expect(text).toMatch(/1 of \d+ checks failed\.\n$/)
  })

  it('is asked nothing that an upstream would see, under a short task that is ended', async () => {
    await examine({ data: gateway.dataDir })
    expect(new Set(gateway.seen.map(({ method }) => method))).toEqual(new Set(['CONNECT', 'TRACE']))
    const paths = gateway.instructions.map(({ path }) => path)
    expect(paths).toContain(`POST /tasks/${TASK}/complete`)
    expect(gateway.instructions.find(({ path }) => path === 'POST /tasks')?.body).toMatchObject({
      scope: 'demo:*',
      ttl_s: 60,
    })
  })

  it('fails when its proxy door is closed', async () => {
    await gateway.stopProxy()
    expect(await states()).toMatchObject({
      control: 'ok',
      proxy: 'failed',
      'TLS interception': 'failed',
      'curl under run': 'failed',
    })
    await gateway.startProxy()
  })

  it('fails when its proxy door wants more of this machine than a launcher can give, and says which settings', async () => {
    const door = createServer().on('connect', (_, socket) => {
      socket.end('HTTP/1.1 400 Bad Request\r\nkeyless-error: request_malformed\r\nContent-Length: 0\r\n\r\n')
    })
    await once(door.listen(0, '127.0.0.1'), 'listening')
    const check = await checkProxy(`http://127.0.0.1:${(door.address() as AddressInfo).port}`)
    expect(check).toMatchObject({ state: 'failed', detail: expect.stringContaining('request_malformed') })
    expect(check.remedy).toContain('listen.proxy_protocol.from')
    door.close()
  })

  it('fails when it signs with another CA than it shows', async () => {
    gateway.status = { ...gateway.status, ca_pem: (await makeAuthority()).caPem }
    expect(await states()).toMatchObject({
      proxy: 'ok',
      'CA certificate': 'ok',
      'TLS interception': 'failed',
      'curl under run': 'failed',
      'python3 under run': 'failed',
      'node under run': 'failed',
    })
  })

  it('fails when no task can be opened, and says why', async () => {
    gateway.taskProblem = { status: 403, code: 'policy_denied', detail: 'Policy allows no such task.' }
    expect(await examine({ data: gateway.dataDir })).toContainEqual(
      expect.objectContaining({
        name: 'CA trusted',
        state: 'failed',
        detail: expect.stringContaining('Policy allows no such task.'),
      }),
    )
  })

  it('skips a client that is not on PATH', async () => {
    vi.stubEnv('PATH', '/nonexistent')
    expect(await states()).toMatchObject({
      'curl under run': 'skipped',
      'python3 under run': 'skipped',
      'node under run': 'skipped',
    })
  })

  it('fails when others can read its directory or keys', async () => {
    await mkdir(join(gateway.dataDir, 'keys'))
    await writeFile(join(gateway.dataDir, 'keys', 'grant.key'), '')
    await chmod(join(gateway.dataDir, 'keys', 'grant.key'), 0o644)
    await chmod(gateway.dataDir, 0o755)
    const found = (await examine({ data: gateway.dataDir })).filter(
      ({ name, state }) => name === 'data directory' && state === 'failed',
    )
    expect(found.map(({ remedy }) => remedy)).toEqual([
      `chmod 700 ${gateway.dataDir}`,
      `chmod 600 ${join(gateway.dataDir, 'keys', 'grant.key')}`,
    ])
  })
})

describe('no gateway', () => {
  let dir: string
  beforeEach(async () => {
    dir = await mkdtemp(join(tmpdir(), 'kl-doctor-'))
  })
  afterEach(() => rm(dir, { recursive: true, force: true }))

  it('fails with the command that starts one, and still looks at what is there', async () => {
    const checks = await examine({ data: dir })
    expect(checks[0]).toMatchObject({
      name: 'control',
      state: 'failed',
      remedy: expect.stringContaining('keyless start'),
    })
    expect(checks).toContainEqual(expect.objectContaining({ name: 'data directory', state: 'ok' }))
    expect(report(checks)).toContain('✗ control')
  })

  it('names the errors of the settings, and the variables that are not set', async () => {
    const file = join(dir, 'keyless.yaml')
    await writeFile(file, 'grants: { ttl_s: 15m }\n')
    expect(await checkSettings(file)).toEqual([
      expect.objectContaining({ state: 'failed', detail: expect.stringContaining('grants.ttl_s') }),
    ])
    await writeFile(file, 'credentials: { github: { provider: static, value: { env: KEYLESS_TEST_TOKEN } } }\n')
    expect(await checkSettings(file)).toEqual([
      expect.objectContaining({ state: 'failed', detail: 'KEYLESS_TEST_TOKEN is not set here' }),
    ])
    vi.stubEnv('KEYLESS_TEST_TOKEN', 'x')
    expect(await checkSettings(file)).toEqual([expect.objectContaining({ state: 'ok' })])
  })
})

describe('the CA certificate', () => {
  it.each([
    [365, 0, 'ok'],
    [1, 0, 'ok'],
    [365, 336, 'failed'], // within the month of notice
    [90, 75, 'ok'], // its successor takes over at this moment
    [90, 80, 'failed'],
    [365, 366, 'failed'], // expired
    [365, -1, 'failed'], // not yet valid
  ])('made for %i days is, %i days later, %s', async (days, later, state) => {
    const { caPem } = await makeAuthority(days)
    expect(checkAuthority(caPem, Date.now() + later * 86_400_000 + 60_000).state).toBe(state)
  })

  it('that is none fails', () => expect(checkAuthority('no', Date.now()).state).toBe('failed'))
})

describe('the gateway’s own account', () => {
  it('of a clock that is off fails', async () => {
    const now = Math.floor(Date.now() / 1000)
    const [far, files] = await checkClock(now - 60, gateway.dataDir)
    expect(far).toMatchObject({ state: 'failed', detail: expect.stringMatching(/60 s apart|61 s apart/) })
    expect(files?.state).toBe('ok')
  })

  it('of a log that cannot be written fails', () => {
    expect(
      checkLog({ ...gateway.status, audit: { ok: false, size: 3, origin: 'x', witnesses: [], exports: [] } }).state,
    ).toBe('failed')
  })

  it('of its witnesses is one finding each, and a conflict is the worst of them', () => {
    const seen = { url: 'http://w.test', size: 5, cosigned_at: 1 }
    const found = checkWitnesses({
      ...gateway.status,
      audit: {
        ...gateway.status.audit,
        witnesses: [
          { ...seen, name: 'a', state: 'cosigning' },
          { ...seen, name: 'b', state: 'waiting' },
          { ...seen, name: 'c', state: 'useless', trouble: 'it does not answer in time' },
          { ...seen, name: 'd', state: 'conflict', trouble: 'fork: witness d has cosigned others' },
        ],
      },
    })
    expect(found.map(({ name, state }) => [name, state])).toEqual([
      ['witness a', 'ok'],
      ['witness b', 'skipped'],
      ['witness c', 'failed'],
      ['witness d', 'failed'],
    ])
    expect(found[3]?.detail).toContain('fork')
  })

  it('of an export fails while it waits, and when entries were set aside', () => {
    const seen = { lag_entries: 3, lag_seconds: 1, refused: 0 }
    const found = checkExports({
      ...gateway.status,
      audit: {
        ...gateway.status.audit,
        exports: [
          { ...seen, name: 'a' },
          { ...seen, name: 'b', trouble: 'HTTP 503' },
          { ...seen, name: 'c', refused: 1 },
        ],
      },
    })
    expect(found.map(({ name, state }) => [name, state])).toEqual([
      ['export a', 'ok'],
      ['export b', 'failed'],
      ['export c', 'failed'],
    ])
    expect(found[1]?.detail).toBe('3 entries wait: HTTP 503')
  })

  it.each([
    [{ configured: false, ok: false }, 'skipped'],
    [{ configured: true, ok: true }, 'ok'],
    [{ configured: true, ok: false }, 'failed'],
  ] as const)('of Redis %j is %s', (redis, state) => expect(checkRedis({ ...gateway.status, redis }).state).toBe(state))

  it('of Redis names revocations that it did not take', () => {
    const redis = { configured: true, ok: true }
    const { state, detail } = checkRedis({ ...gateway.status, redis, unstored_revocations: 2 })
    expect([state, detail]).toEqual(['failed', expect.stringContaining('did not take 2 revocations')])
  })

  it('of a credential that is configured and not there fails, and says what is missing', () => {
    const [demo] = gateway.status.services
    if (demo === undefined) throw new Error('the fixture has a service')
    const broken = { ...demo, credential_problem: 'environment variable DEMO_KEY is not set.' }
    expect(checkCredentials({ ...gateway.status, services: [broken] })).toEqual([
      expect.objectContaining({ state: 'failed', detail: expect.stringContaining('DEMO_KEY is not set') }),
    ])
  })

  it('of a service without a credential fails, unless its tools need none', () => {
    const [demo] = gateway.status.services
    if (demo === undefined) throw new Error('the fixture has a service')
    const bare = { ...demo, credential_configured: false }
    expect(checkCredentials({ ...gateway.status, services: [demo, bare] }).map(({ state }) => state)).toEqual([
      'ok',
      'failed',
    ])
    expect(checkCredentials({ ...gateway.status, services: [{ ...bare, placeholders: {} }] })).toEqual([])
    expect(checkCredentials({ ...gateway.status, services: [] })).toEqual([
      expect.objectContaining({ state: 'failed' }),
    ])
  })
})
