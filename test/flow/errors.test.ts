/** Bad input everywhere: a stable code, a status and a remedy as `docs/errors.md` has them, in the words of each API's clients. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { controlClient } from '../../gateway/cli/control-client.ts'
import type { OpenedTask } from '../../gateway/protocol/control.ts'
import { DIALECTS } from '../../gateway/protocol/service.ts'
import { type Answer, forward, openTunnel, reverse } from '../invariant/agent.fixture.ts'
import { entriesOf, type OpenSite, openSite, type Site, writeSite } from '../invariant/services.fixture.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { freePort } from '../rig/ports.ts'
import { ROOT, run, start } from '../rig/process.ts'

const KEY = 'a-standing-key-of-some-length'

let echo: EchoUpstream
let site: OpenSite
let task: OpenedTask
let documented: Map<string, { status: number; proxyError: string; remedy: string; title: string }>

beforeAll(async () => {
  echo = await startEcho({ names: [...DIALECTS.map((name) => `${name}.keyless.test`), 'dead.keyless.test'] })
  const operations = {
    read: { match: ['GET /echo', 'GET /reset'], access: 'read' as const },
    erase: { match: ['DELETE /echo'], access: 'write' as const, irreversible: true },
  }
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        ...DIALECTS.map((dialect) => ({ name: dialect, dialect, operations })),
        { name: 'dead', ports: [await freePort()], operations },
        { name: 'keyless-one', operations },
      ],
      credentials: Object.fromEntries([...DIALECTS, 'dead'].map((name) => [name, KEY])),
    },
  )
  task = await site.gateway.openTask([...DIALECTS, 'dead', 'keyless-one'].map((name) => `${name}:*`).join(' '))
  documented = await readTable()
})

afterAll(async () => {
  await site.stop()
  await echo.stop()
})

/** Rows of the tables in docs/errors.md, which is what users go by. */
async function readTable() {
  const text = await readFile(new URL('../../docs/errors.md', import.meta.url), 'utf8')
  const rows = text.matchAll(/^\| `(\w+)` \| (\d{3}) \| `(\w+)` \| `(\w+)` \| ([^|]+) \|/gm)
  return new Map(
    [...rows].map(([, code = '', status, proxyError = '', remedy = '', title = '']) => [
      code,
      { status: Number(status), proxyError, remedy, title: title.trim() },
    ]),
  )
}

const port = () => site.gateway.proxyPort
const bodyOf = ({ bytes }: Answer) => bytes.toString().slice(bytes.indexOf('\r\n\r\n') + 4)
const fieldOf = ({ bytes }: Answer, name: string) =>
  new RegExp(`^${name}: *(.*?)\r$`, 'im').exec(bytes.subarray(0, bytes.indexOf('\r\n\r\n') + 2).toString())?.[1]

/** The answer is what the documentation says of this code. */
function expectDocumented(answer: Answer, code: string, status = documented.get(code)?.status): void {
  const row = documented.get(code)
  expect(row, `${code} is not in docs/errors.md`).toBeDefined()
  expect([answer.status, fieldOf(answer, 'keyless-error')], answer.bytes.toString()).toEqual([status, code])
  expect(fieldOf(answer, 'proxy-status')).toBe(`keyless; error=${row?.proxyError}; details="${code}"`)
  expect(fieldOf(answer, 'x-should-retry')).toBe(row?.remedy === 'retry' ? undefined : 'false')
  expect(fieldOf(answer, 'cache-control')).toBe('no-store')
}

/** The members of the problem, wherever the dialect put them. */
function problemIn(body: string): Record<string, unknown> {
  const found: Record<string, unknown>[] = []
  JSON.parse(body, (_, value) => {
    if (value !== null && typeof value === 'object' && 'remedy' in value) found.push(value)
    return value
  })
  return found.at(-1) ?? {}
}

describe('each dialect', () => {
  it('is spoken to a caller without a valid grant, too', async () => {
    const answer = await reverse(port(), 'kh_nobody', { path: '/openai/echo' })
    expect(answer.status).toBe(401)
    expect(answer.bytes.toString()).toMatch(/"error":\{[^}]*"code":"grant_invalid"/)
  })

  it.each(['aws-xml', 'aws-query', 'git'] as const)(
    '%s tells code, detail and the id of the record',
    async (dialect) => {
      const answer = await reverse(port(), task.handle, { method: 'DELETE', path: `/${dialect}/echo` })
      expectDocumented(answer, 'policy_denied')
      const [, instance] = /\(keyless policy_denied, ([\w-]+)\)/.exec(bodyOf(answer)) ?? []
      expect(bodyOf(answer)).toContain(`${dialect}:erase`)
      const entries = await entriesOf(site.gateway.settings.dataDir)
      expect(entries.find((entry) => entry.req === instance)?.decision?.code).toBe('policy_denied')
    },
  )

  it.each(DIALECTS.filter((one) => !['aws-xml', 'aws-query', 'git'].includes(one)))(
    '%s carries code, remedy, detail and the id of the record',
    async (dialect) => {
      const answer = await reverse(port(), task.handle, { method: 'DELETE', path: `/${dialect}/echo` })
      expectDocumented(answer, 'policy_denied', dialect === 'slack' ? 200 : 403)
      const body = problemIn(bodyOf(answer))
      expect(body).toMatchObject({ remedy: 'ask_grantor', title: documented.get('policy_denied')?.title })
      expect(body.detail).toContain('`DELETE /echo`')
      expect(body.detail).toContain(`${dialect}:erase`)
      const entries = await entriesOf(site.gateway.settings.dataDir)
      expect(entries.find((entry) => entry.req === body.instance)?.decision?.code).toBe('policy_denied')
    },
  )

  it('github: what its clients print', async () => {
    const answer = await reverse(port(), task.handle, { method: 'DELETE', path: '/github/echo' })
    expect(fieldOf(answer, 'content-type')).toBe('application/json')
    expect(JSON.parse(bodyOf(answer))).toMatchObject({
      message: expect.stringContaining('(keyless policy_denied, '),
      documentation_url: 'urn:keyless:error:policy_denied',
      status: 403,
    })
  })

  it('openai: what its clients print', async () => {
    const answer = await reverse(port(), task.handle, { method: 'DELETE', path: '/openai/echo' })
    expect(JSON.parse(bodyOf(answer))).toEqual({
      error: expect.objectContaining({
        message: expect.stringContaining('(keyless policy_denied, '),
        type: 'permission_error',
        code: 'policy_denied',
        param: null,
      }),
    })
  })

  it('git: one line of text', async () => {
    const answer = await reverse(port(), task.handle, { method: 'DELETE', path: '/git/echo' })
    expect(fieldOf(answer, 'content-type')).toMatch(/^text\/plain/)
    expect(bodyOf(answer)).toMatch(/^[^\n]*\(keyless policy_denied, [0-9a-f-]{36}\)\n$/)
  })
})

describe('bad input', () => {
  it('a host of no service', async () => {
    const answer = await forward(port(), task.handle, { url: 'https://api.elsewhere.example/v1' })
    expectDocumented(answer, 'host_unmanaged')
    expect(problemIn(bodyOf(answer))).toMatchObject({
      remedy: 'fix_configuration',
      detail: expect.stringContaining('api.elsewhere.example'),
    })
  })

  it('an operation that the grant does not name', async () => {
    const narrow = await site.gateway.openTask('github:read')
    const answer = await reverse(port(), narrow.handle, { path: '/openai/echo' })
    expectDocumented(answer, 'scope_exceeded')
    expect(problemIn(bodyOf(answer)).detail).toMatch(/openai:read.*github:read/)
  })

  it('an operation that no policy allows', async () => {
    expectDocumented(await reverse(port(), task.handle, { path: '/problem/nothing' }), 'policy_denied')
  })

  it('a handle that has expired, on every door', async () => {
    const brief = await site.gateway.control.openTask({ scope: 'problem:*', purpose: 'end soon', ttl_s: 1 })
    const authority = `problem.keyless.test:${echo.tlsPort}`
    const ca = (await site.gateway.control.status()).ca_pem
    const tunnel = await openTunnel(port(), { handle: brief.handle, authority, ca })
    const ask = () => reverse(port(), brief.handle, { path: '/problem/echo' })
    await expect.poll(async () => fieldOf(await ask(), 'keyless-error'), { timeout: 5_000 }).toBe('grant_expired')
    const slot = await ask()
    expectDocumented(slot, 'grant_expired', 401)
    expect(fieldOf(slot, 'www-authenticate')).toMatch(/^Basic realm=/)
    const absolute = await forward(port(), brief.handle, { url: `https://${authority}/echo` })
    expectDocumented(absolute, 'grant_expired', 407)
    expect(fieldOf(absolute, 'proxy-authenticate')).toMatch(/^Basic realm=/)
    expectDocumented(await tunnel.ask('GET', '/echo'), 'grant_expired', 403)
    await expect(openTunnel(port(), { handle: brief.handle, authority, ca })).rejects.toThrow(
      'HTTP/1.1 407 The grant has expired (keyless grant_expired)',
    )
    tunnel.close()
  })

  it.each([
    ['an upstream that is dead', 'dead', '/echo', 'upstream_refused'],
    ['an upstream that cuts the connection', 'problem', '/reset', 'upstream_broken'],
    ['a service without a credential', 'keyless-one', '/echo', 'credential_unconfigured'],
    ['a path of two meanings', 'problem', '/echo/%2e%2e/x', 'path_ambiguous'],
    ['a route that does not exist', 'nobody', '/echo', 'route_unknown'],
  ] as const)('%s', async (_, service, path, code) => {
    const answer = await reverse(port(), task.handle, { path: `/${service}${path}` })
    expectDocumented(answer, code)
  })

  it('a method that would repeat the credential', async () => {
    const answer = await reverse(port(), task.handle, { method: 'TRACE', path: '/problem/echo' })
    expectDocumented(answer, 'method_refused')
    expect(fieldOf(answer, 'allow')).toContain('GET')
  })

  it('a WebSocket', async () => {
    const fields = `Authorization: Bearer ${task.handle}\r\nUpgrade: websocket\r\n`
    expectDocumented(await reverse(port(), task.handle, { path: '/problem/echo', fields }), 'upgrade_refused')
  })
})

describe('the process', () => {
  let dir: string
  let own: Site
  const config = () => join(dir, 'keyless.yaml')
  const keyless = (...args: string[]) => [join(ROOT, 'gateway', 'keyless.ts'), ...args, '--config', config()]

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'keyless-errors-'))
    own = await writeSite(
      { port: echo.tlsPort, caPem: echo.caPem },
      {
        services: [{ name: 'problem', operations: { read: { match: ['GET /echo', 'GET /hang'], access: 'read' } } }],
        credentials: { problem: KEY },
      },
    )
  })
  afterAll(async () => {
    await own.remove()
    await rm(dir, { recursive: true, force: true })
  })
  const write = (more = '') =>
    writeFile(
      config(),
      `data_dir: ${dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\n${own.yaml}${more}`,
    )

  it('does not start with wrong settings, and lists all of them by line', async () => {
    await write('grants: { ttl_s: 0, heartbeat_s: 9999 }\ncolour: blue\n')
    const { code, stdout, stderr } = await run(process.execPath, keyless('start'))
    expect([code, stdout]).toEqual([1, ''])
    expect(stderr).toMatch(/^keyless: .*3 problems/)
    for (const path of ['grants.ttl_s', 'grants.heartbeat_s', 'colour'])
      expect(stderr).toMatch(new RegExp(`keyless\\.yaml:\\d+ +${path}\\n +got .*\\n +allowed .*\\n +fix `))
    expect(stderr).not.toMatch(/\n +at /)
  })

  it('that was killed leaves nothing behind: the next one recovers, and knows the task', {
    timeout: 60_000,
  }, async () => {
    await write()
    const up = async () => {
      const gateway = start(process.execPath, keyless('start'))
      const [, proxy = ''] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
      await gateway.says(/Ctrl-C/)
      return { gateway, proxyPort: Number(new URL(proxy).port) }
    }
    const first = await up()
    const opened = await controlClient(join(dir, 'data', 'control.sock')).openTask({
      scope: 'problem:*',
      purpose: 'survive',
    })
    expect((await reverse(first.proxyPort, opened.handle, { path: '/problem/echo' })).status).toBe(200)
    const hanging = reverse(first.proxyPort, opened.handle, { path: '/problem/hang' })
    await expect.poll(() => echo.requests.some(({ path }) => path === '/hang')).toBe(true)
    first.gateway.kill('SIGKILL')
    expect((await hanging).bytes.length).toBe(0) // cut, not completed
    await first.gateway.ended
    const away = await run(process.execPath, keyless('run', '--task', 'nobody home').concat('--', 'true'))
    expect(away.code).toBe(69)
    expect(away.stderr).toContain('keyless start')
    const second = await up()
    expect((await reverse(second.proxyPort, opened.handle, { path: '/problem/echo' })).status).toBe(200)
    second.gateway.kill('SIGTERM')
    expect((await second.gateway.ended).code).toBe(0)
    const verified = await run(process.execPath, keyless('log', 'verify'))
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
    expect(verified.stdout).toContain('1 allowed calls have no outcome')
  })

  it('whose log is full says so, with what to do, and goes on when there is room', { timeout: 60_000 }, async () => {
    await write()
    const gateway = start('bash', ['-c', 'trap "" XFSZ; exec "$0" "$@"', process.execPath, ...keyless('start')])
    const [, proxy = ''] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
    await gateway.says(/Ctrl-C/)
    const opened = await controlClient(join(dir, 'data', 'control.sock')).openTask({
      scope: 'problem:*',
      purpose: 'fill',
    })
    const ask = () => reverse(Number(new URL(proxy).port), opened.handle, { path: '/problem/echo' })
    expect((await ask()).status).toBe(200)
    // RLIMIT_FSIZE is a full disk for this process alone.
    const size = (await readFile(join(dir, 'data', 'audit', 'entries.jsonl'))).length
    await run('prlimit', ['--pid', String(gateway.pid), `--fsize=${size + 2_048}:unlimited`])
    await expect.poll(async () => (await ask()).status, { timeout: 10_000, interval: 1 }).toBe(503)
    const before = echo.requests.length
    const full = await ask()
    expectDocumented(full, 'audit_unavailable')
    expect(problemIn(bodyOf(full))).toMatchObject({ remedy: 'retry', detail: expect.stringContaining('log') })
    expect(echo.requests.length).toBe(before)
    await run('prlimit', ['--pid', String(gateway.pid), '--fsize=unlimited:unlimited'])
    await expect.poll(async () => (await ask()).status, { timeout: 15_000 }).toBe(200)
    gateway.kill('SIGTERM')
    await gateway.ended
    expect((await run(process.execPath, keyless('log', 'verify'))).code).toBe(0)
  })
})
