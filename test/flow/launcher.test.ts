/** `keyless run` before a real gateway: what the command sees, how it ends, and what is left of its task. */
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { entriesOf, type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { type EchoUpstream, startEcho } from '../rig/echo.ts'
import { type Ended, ROOT, run, start } from '../rig/process.ts'

const REAL = {
  OPENAI_API_KEY: newCanary(),
  ECHO_API_KEY: newCanary(),
  KEYLESS_ECHO_SECRET: newCanary(),
}
const PLACEHOLDER = 'sk-keyless-placeholder-000000000000'

let echo: EchoUpstream
let site: OpenSite

beforeAll(async () => {
  echo = await startEcho({ names: ['echo.keyless.test'] })
  process.env.KEYLESS_ECHO_SECRET = REAL.KEYLESS_ECHO_SECRET
  site = await openSite(
    { port: echo.tlsPort, caPem: echo.caPem },
    {
      services: [
        {
          name: 'echo',
          operations: { read: { match: ['GET /echo'], access: 'read' } },
          placeholders: { ECHO_API_KEY: PLACEHOLDER, OPENAI_API_KEY: PLACEHOLDER },
        },
      ],
      credentials: { echo: { provider: 'static', value: { env: 'KEYLESS_ECHO_SECRET' } } },
      settings: { grants: { heartbeat_s: 3 } },
    },
  )
})

afterAll(async () => {
  delete process.env.KEYLESS_ECHO_SECRET
  await site.stop()
  await echo.stop()
})

const args = (command: readonly string[], flags: readonly string[] = []) => [
  join(ROOT, 'gateway', 'keyless.ts'),
  ...['run', '--config', join(site.gateway.dir, 'keyless.yaml'), '--task', 'look around', ...flags, '--'],
  ...command,
]
const under = (command: readonly string[], flags?: readonly string[]): Promise<Ended> =>
  run(process.execPath, args(command, flags), { env: { ...process.env, ...REAL } })
const url = () => `https://echo.keyless.test:${echo.tlsPort}/echo`

async function lastEnd(): Promise<Entry | undefined> {
  return (await entriesOf(site.gateway.settings.dataDir)).findLast(({ kind }) => kind.startsWith('grant.'))
}

describe('the environment of the command', () => {
  it('holds no grant, no key of a configured service, and none that the gateway reads its own from', async () => {
    const { stdout, code } = await under(['env'])
    expect(code).toBe(0)
    for (const secret of Object.values(REAL)) expect(findCanary(stdout, secret)).toEqual([])
    expect(stdout).not.toMatch(/kh_[\w-]{43}/)
    expect(stdout).not.toMatch(/eyJ[\w-]+\./)
    expect(stdout).not.toContain('KEYLESS_ECHO_SECRET')
    expect(stdout).toContain(`OPENAI_API_KEY=${PLACEHOLDER}`)
    expect(stdout).toContain(`ECHO_API_KEY=${PLACEHOLDER}`)
    expect(stdout).toMatch(/^HTTPS_PROXY=http:\/\/\S*127\.0\.0\.1:\d+\/?$/m)
  })

  it('leads to the API with the real key, whatever the command puts where the key goes', async () => {
    const before = echo.requests.length
    const { stdout, code, stderr } = await under([
      'sh',
      '-c',
      `curl -sS -o /dev/null -w '%{http_code}' -H "Authorization: Bearer $ECHO_API_KEY" ${url()}`,
    ])
    expect([code, stdout], stderr).toEqual([0, '200'])
    const head = echo.requests[before]?.head.toString() ?? ''
    expect(head).toContain(`Bearer ${REAL.KEYLESS_ECHO_SECRET}`)
    expect(head).not.toContain(PLACEHOLDER)
  })

  it('is no use to another process once the command has ended', async () => {
    const { stdout } = await under(['sh', '-c', 'echo "$HTTPS_PROXY"'])
    const later = await run('curl', ['-sS', '-k', '-x', stdout.trim(), url()])
    expect(later.code).not.toBe(0)
    expect(later.stdout).toBe('')
  })

  it('does not open the way for whoever does not have it', async () => {
    const child = start(process.execPath, args(['sh', '-c', 'echo "at $HTTPS_PROXY"; exec sleep 30']))
    try {
      const [, proxy = ''] = await child.says(/at (http:\S+)/)
      const bare = new URL(proxy)
      bare.username = ''
      bare.password = ''
      const before = echo.requests.length
      const answer = await run('curl', ['-sS', '-k', '-x', bare.href, url()])
      expect(answer.code).not.toBe(0)
      expect(echo.requests.length).toBe(before)
    } finally {
      await child.stop()
    }
  })
})

describe('the end of the command', () => {
  it.each([0, 1, 42])('passes exit code %i on, and ends the task as completed', async (wanted) => {
    expect((await under(['sh', '-c', `exit ${wanted}`])).code).toBe(wanted)
    expect(await site.gateway.control.tasks()).toEqual([])
    expect(JSON.stringify(await lastEnd())).toContain('completed')
  })

  it('by a signal ends the task as crashed', async () => {
    expect((await under(['sh', '-c', 'kill -9 $$'])).code).toBe(137)
    expect(await site.gateway.control.tasks()).toEqual([])
    expect(JSON.stringify(await lastEnd())).toContain('crashed')
  })

  // Several times: the signal may come while the launcher is still busy with starting the command.
  it.each([1, 2, 3, 4, 5])('by a signal to the launcher ends both, time %i', async () => {
    const child = start(process.execPath, args(['sh', '-c', 'echo ready; exec sleep 30']))
    await child.says(/ready/)
    expect(await site.gateway.control.tasks()).toHaveLength(1)
    child.kill('SIGTERM')
    expect((await child.ended).code).toBe(143)
    expect(await site.gateway.control.tasks()).toEqual([])
  })
})

describe('what is asked for', () => {
  it('is what the task gets, and not more', async () => {
    const { stdout } = await under(['sh', '-c', `curl -sS ${url()}/other`], ['--scope', 'echo:read', '--ttl', '30s'])
    expect(stdout).toContain('scope_exceeded')
  })

  it.each([
    ['an unknown operation', ['--scope', 'echo:nothing'], 64, 'invalid_scope'],
    ['a life that is too long', ['--ttl', '2h'], 64, 'instruction_invalid'],
    ['an unknown agent', ['--as', 'spiffe://nobody'], 77, 'agent_unknown'],
  ] as const)('with %s is refused before the command starts', async (_, flags, code, word) => {
    const ended = await under(['sh', '-c', 'echo started'], flags)
    expect([ended.code, ended.stdout]).toEqual([code, ''])
    expect(ended.stderr).toContain(word)
  })
})

describe('a command that outlasts its grant', () => {
  /** Asks over one kept connection as long as there is one, and prints each answer's status. */
  const asking = `const { Agent, get } = require('node:https'); const agent = new Agent({ keepAlive: true })
    const ask = () => get('URL', { agent }, (r) => { r.resume(); r.on('end', () => { console.log('got ' + r.statusCode); setTimeout(ask, 50) }) })
      .on('error', (e) => { console.log('cut', e.code); setTimeout(ask, 50) })
    ask()`
  const startAsking = async () => {
    const child = start(process.execPath, args([process.execPath, '-e', asking.replace('URL', url())]))
    await child.says(/got 200/)
    const [task] = await site.gateway.control.tasks()
    if (task === undefined) throw new Error('the run has no task')
    return { child, task: task.task }
  }
  const grants = async () =>
    (await entriesOf(site.gateway.settings.dataDir)).filter(({ kind }) => kind === 'grant.replaced')

  it('goes on under a fresh grant when somebody gives its task another intent', async () => {
    const { child, task } = await startAsking()
    await site.gateway.control.changeIntent(task, { purpose: 'look elsewhere' })
    const from = child.stdout.length
    await expect.poll(() => child.stdout.slice(from), { timeout: 15_000 }).toMatch(/(?:got 4|cut).*got 200/s)
    expect((await site.gateway.control.tasks())[0]).toMatchObject({ purpose: 'look elsewhere' })
    expect(await grants()).toMatchObject([{ facts: { reason: 'intent_changed' } }, { facts: { reason: 'renewed' } }])
    await child.stop()
  })

  it('is refused while its task is suspended, and goes on when it is resumed', async () => {
    const { child, task } = await startAsking()
    await site.gateway.control.suspendTask(task)
    await child.says(/got 4\d\d|cut/)
    await site.gateway.control.resumeTask(task)
    const from = child.stdout.length
    await expect.poll(() => child.stdout.slice(from), { timeout: 15_000 }).toContain('got 200')
    await child.stop()
  })
})
