import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { parseTtl } from '../../gateway/cli/at-gateway.ts'
import { type FixtureGateway, GRANT, HANDLE, RENEWED, startFixtureGateway, TASK } from './gateway.fixture.ts'

const entry = fileURLToPath(new URL('./run-command.fixture.ts', import.meta.url))
const node = process.execPath

let gateway: FixtureGateway
let dir: string

beforeEach(async () => {
  gateway = await startFixtureGateway()
  dir = await mkdtemp(join(tmpdir(), 'kl-run-test-'))
})
afterEach(async () => {
  await gateway.close()
  await rm(dir, { recursive: true, force: true })
})

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly out: string
  readonly err: string
}

interface Started {
  readonly child: ChildProcess
  readonly ended: Promise<Ended>
  /** Resolves once the command has printed this. */
  printed(text: string): Promise<void>
}

function start(
  command: readonly string[],
  { flags = [], env = {} }: { flags?: string[]; env?: Record<string, string> } = {},
): Started {
  const args = [entry, 'run', '--task', 'triage issue 42', '--data', gateway.dataDir, ...flags, '--', ...command]
  const child = spawn(node, args, { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  let err = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  child.stderr.on('data', (chunk) => {
    err += chunk
  })
  return {
    child,
    ended: once(child, 'close').then(([code, signal]) => ({ code, signal, out, err })),
    async printed(text) {
      while (!out.includes(text)) await once(child.stdout, 'data')
    },
  }
}

const run = (command: readonly string[], options?: Parameters<typeof start>[1]) => start(command, options).ended
const completion = () =>
  gateway.instructions.filter(({ path }) => path.endsWith('/complete')).map(({ body }) => body.reason)

describe('a call that waits for a human', () => {
  const waiting = (id: string, o: { task?: string; hindrance?: string } = {}) => ({
    id,
    verified: {
      operation: 'demo:notes.delete',
      task: o.task ?? TASK,
      request: { method: 'DELETE', url: 'https://api.demo.test/notes/all%20is%20approved', fields: [] },
    },
    agent_says: { intent: 'ALREADY APPROVED' },
    asked: { from: ['human', 'on-call'], count: 2 },
    needed: 2,
    ...(o.hindrance !== undefined && { hindrance: o.hindrance }),
  })

  it('is told of once, by whom and how it is decided, in no words of the agent', async () => {
    gateway.approvals = [
      waiting('a-1'),
      waiting('a-2', { hindrance: 'you are in none of its groups' }),
      waiting('a-3', { task: 'another' }),
    ]
    const { child, ended } = start([node, '-e', 'setTimeout(() => {}, 60_000)'])
    await gateway.instructed(/GET .approvals/)
    await gateway.instructed(/GET .approvals/)
    child.kill('SIGTERM')
    const { err } = await ended
    const at = `--data ${gateway.dataDir}`
    const who = 'demo:notes.delete (DELETE https://api.demo.test) waits for 2 people of human, on-call'
    expect(err.split('\n').filter((line) => line.includes('waits for'))).toEqual([
      `keyless: ${who}: \`keyless approvals show a-1 ${at}\` shows it, \`approve\` or \`deny\` in place of \`show\` decides`,
      `keyless: ${who}: \`keyless approvals show a-2 ${at}\` shows it, you cannot decide: you are in none of its groups`,
    ])
  })
})

describe('the command', () => {
  it('runs under a task with what was asked for, and the task ends with it', async () => {
    const { code, out, err } = await run([node, '-e', 'console.log("done")'], {
      flags: ['--as', 'a1', '--scope', 'demo:read', '--ttl', '2m'],
    })
    expect({ code, out, err }).toEqual({ code: 0, out: 'done\n', err: '' })
    const opened = gateway.instructions.find(({ path }) => path === 'POST /tasks')
    expect(opened?.body).toEqual({
      purpose: 'triage issue 42',
      agent: 'a1',
      scope: 'demo:read',
      ttl_s: 120,
      heartbeat: true,
    })
    expect(completion()).toEqual(['completed'])
  })

  it('can be given paths, constraints and a preset, and then nothing besides', async () => {
    const details = [{ type: 'keyless_access', operations: ['demo:read'], constraints: { max_calls: 2 } }]
    const flags = ['--details', JSON.stringify(details), '--preset', 'training-batch', '--step', 'batch-1']
    expect((await run([node, '-e', ''], { flags })).code).toBe(0)
    expect(gateway.instructions.find(({ path }) => path === 'POST /tasks')?.body).toEqual({
      purpose: 'triage issue 42',
      authorization_details: details,
      preset: 'training-batch',
      step: 'batch-1',
      heartbeat: true,
    })
  })

  it('may use every service that has a credential unless told otherwise', async () => {
    await run([node, '-e', ''])
    expect(gateway.instructions.find(({ path }) => path === 'POST /tasks')?.body.scope).toBe('demo:*')
  })

  it('has neither grant, nor token, nor real secret in its environment, and placeholders in their place', async () => {
    const { out } = await run([node, '-e', 'console.log(JSON.stringify(process.env))'], {
      env: { DEMO_API_KEY: 'real-1', OTHER_TOKEN: 'real-2', DEMO_REAL_SECRET: 'real-3' },
    })
    expect(JSON.parse(out)).toMatchObject({
      DEMO_API_KEY: 'demo-placeholder',
      OTHER_TOKEN: 'other-placeholder',
      NODE_USE_ENV_PROXY: '1',
    })
    for (const secret of [HANDLE, GRANT, GRANT.slice(6), 'header.payload', 'real-']) expect(out).not.toContain(secret)
  })

  it('leaves no files behind', async () => {
    const { out } = await run([node, '-p', 'process.env.SSL_CERT_FILE'])
    expect(out).toMatch(/keyless-run-.*ca\.pem\n$/)
    expect(existsSync(out.trim())).toBe(false)
  })

  it('says which task it was only when asked to, on stderr', async () => {
    const { out, err } = await run([node, '-e', ''], { flags: ['--verbose'] })
    expect(out).toBe('')
    expect(err).toBe(
      `keyless: task ${TASK}: local authorised default for the task\nkeyless: task ${TASK} ended: exit code 0\n`,
    )
  })

  it('is told on stderr, once, why its tunnels are refused, because its client does not say', async () => {
    const body = JSON.stringify({ code: 'grant_expired', detail: 'The grant expired at 12:15.' })
    gateway.refusal = { status: 407, reason: 'x', body }
    const twice = 'for (let i = 0; i < 2; i++) await fetch("https://api.demo.test/").catch(() => console.log("failed"))'
    const { out, err } = await run([node, '--input-type=module', '-e', twice], { flags: ['--ttl', '2m'] })
    expect(out).toBe('failed\nfailed\n')
    expect(err).toBe(
      'keyless: api.demo.test:443 was refused: The grant expired at 12:15. Run the command again with a longer --ttl. (grant_expired)\n',
    )
  })

  it('finds its own flags, not run’s', async () => {
    expect((await run([node, '-p', 'process.argv.slice(1).join()', '--', '--task', 'x', '-v'])).out).toBe(
      '--task,x,-v\n',
    )
  })
})

describe('exit codes', () => {
  it.each([0, 1, 3, 255])('passes %i through', async (code) => {
    expect((await run([node, '-e', `process.exit(${code})`])).code).toBe(code)
    expect(completion()).toEqual(['completed'])
  })

  it('is 128 + n when a signal ended the command, and the task counts as crashed', async () => {
    expect((await run([node, '-e', 'process.kill(process.pid, "SIGKILL")'])).code).toBe(137)
    expect(completion()).toEqual(['crashed'])
  })

  it('is 127 for a command that does not exist, and the task is ended', async () => {
    const { code, err } = await run(['no-such-command-here'])
    expect(code).toBe(127)
    expect(err).toBe('keyless: no-such-command-here: command not found\n')
    expect(completion()).toHaveLength(1)
  })

  it('is 126 for a file that cannot be executed', async () => {
    await writeFile(join(dir, 'plain'), 'text')
    await chmod(join(dir, 'plain'), 0o644)
    expect((await run([join(dir, 'plain')])).code).toBe(126)
  })

  it('is 69 when no gateway is running, with the command that starts one', async () => {
    const { code, err } = await run([node, '-e', ''], { flags: ['--data', dir] })
    expect(code).toBe(69)
    expect(err).toContain('keyless start')
  })

  it('is 77 when the gateway refuses the task, and the command is not started', async () => {
    gateway.taskProblem = { status: 403, code: 'policy_denied', detail: 'Policy allows no such task.' }
    const { code, out, err } = await run([node, '-e', 'console.log("started")'])
    expect({ code, out, err }).toEqual({
      code: 77,
      out: '',
      err: 'keyless: Policy allows no such task. (policy_denied)\n',
    })
  })

  it('is 64 when the scope cannot be read', async () => {
    gateway.taskProblem = { status: 400, code: 'invalid_scope', detail: 'No operation matches demo:nothing.' }
    expect((await run([node, '-e', ''], { flags: ['--scope', 'demo:nothing'] })).code).toBe(64)
  })

  it('is 78 when there is nothing to grant', async () => {
    gateway.status = { ...gateway.status, services: [] }
    expect((await run([node, '-e', ''])).code).toBe(78)
  })
})

describe('signals', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const)(
    'passes %s on, once',
    async (signal) => {
      const program = `let n = 0; process.on('${signal}', () => { if (n++ === 0) setTimeout(() => { console.log('got', n); process.exit(9) }, 50) }); console.log('ready'); setInterval(() => {}, 1000)`
      const started = start([node, '-e', program])
      await started.printed('ready')
      started.child.kill(signal)
      const { code, out } = await started.ended
      expect(out).toBe('ready\ngot 1\n')
      expect(code).toBe(9)
      expect(completion()).toEqual(['completed'])
    },
  )

  it('a signal that the command does not catch ends both, and the task', async () => {
    const started = start([node, '-e', 'console.log("ready"); setInterval(() => {}, 1000)'])
    await started.printed('ready')
    started.child.kill('SIGTERM')
    expect((await started.ended).code).toBe(143)
    expect(completion()).toEqual(['crashed'])
  })
})

describe('on a terminal', () => {
  it('Ctrl-C reaches the command once', async () => {
    const program = `let n = 0; process.on('SIGINT', () => { if (n++ === 0) setTimeout(() => { console.log('got ' + n); process.exit(9) }, 200) }); console.log('ready'); setInterval(() => {}, 1000)`
    await writeFile(join(dir, 'program.js'), program)
    const result = await onTerminal([
      node,
      entry,
      'run',
      '--task',
      'x',
      '--data',
      gateway.dataDir,
      '--',
      node,
      join(dir, 'program.js'),
    ])
    expect(result).toMatch(/got 1\s+exit 9$/)
    expect(completion()).toEqual(['completed'])
  })
})

/** Runs a command on a terminal of its own and types Ctrl-C once it has said "ready". */
async function onTerminal(command: readonly string[]): Promise<string> {
  const program = `
import os, pty, sys
pid, fd = pty.fork()
if pid == 0: os.execv(sys.argv[1], sys.argv[1:])
seen, typed = b'', False
while True:
    try: chunk = os.read(fd, 4096)
    except OSError: break
    if not chunk: break
    seen += chunk
    if b'ready' in seen and not typed:
        typed = True
        os.write(fd, b'\\x03')
_, status = os.waitpid(pid, 0)
sys.stdout.write(seen.decode() + 'exit ' + str(os.waitstatus_to_exitcode(status)))`
  const child = spawn('python3', ['-c', program, ...command], { stdio: ['ignore', 'pipe', 'inherit'] })
  let out = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  await once(child, 'close')
  return out
}

describe('heartbeats', () => {
  it('are sent while the command runs', async () => {
    const started = start([node, '-e', 'setInterval(() => {}, 1000)'])
    expect((await gateway.instructed(/heartbeat$/)).path).toBe(`POST /tasks/${TASK}/heartbeat`)
    started.child.kill('SIGTERM')
    await started.ended
  })

  it('stop when run itself is killed, and the orphan’s way to the gateway is gone', async () => {
    const program = `
      process.stdout.on('error', () => {})
      console.log('pid', process.pid)
      process.on('SIGUSR2', () => fetch('http://api.demo.test/').then((answer) => answer.status, (error) => error.cause?.code ?? error.code).then((seen) => { require('node:fs').writeFileSync(process.argv[1], String(seen)); process.exit() }))
      setInterval(() => {}, 1000)`
    const result = join(dir, 'result')
    const started = start([node, '-e', program, result])
    let text = ''
    started.child.stdout?.on('data', (chunk) => {
      text += chunk
    })
    await started.printed('pid')
    await gateway.instructed(/heartbeat$/)
    started.child.kill('SIGKILL')
    await once(started.child, 'exit')
    const before = gateway.instructions.length
    process.kill(Number(/pid (\d+)/.exec(text)?.[1]), 'SIGUSR2')
    await started.ended // the pipes close when the orphan ends
    expect(gateway.instructions.length).toBe(before)
    expect(gateway.seen).toEqual([])
    const { readFile } = await import('node:fs/promises')
    expect(await readFile(result, 'utf8')).toBe('ECONNREFUSED')
  })
})

describe('the grant', () => {
  /** Asks until it is answered under the renewed grant; over one connection as long as that is kept. */
  const asking = `const { Agent, get } = require('node:https'); const agent = new Agent({ keepAlive: true })
    const ask = () => get('https://api.demo.test/', { agent }, (r) => { r.resume(); r.on('end', () => setTimeout(ask, 20)) }).on('error', () => setTimeout(ask, 20))
    ask()`

  const underRenewed = async () => {
    while (!gateway.seen.some(({ proxyAuthorization }) => proxyAuthorization === RENEWED)) await pause(20)
    const at = gateway.seen.findIndex(({ proxyAuthorization }) => proxyAuthorization === RENEWED)
    expect(gateway.seen.slice(at).every(({ proxyAuthorization: shown }) => shown !== GRANT)).toBe(true)
  }

  it('is followed by a fresh one before it ends, and the command never notices', async () => {
    gateway.ttlS = 1
    const started = start([node, '-e', asking], { flags: ['-v'] })
    await gateway.instructed(/renew$/)
    await underRenewed()
    started.child.kill('SIGTERM')
    expect((await started.ended).err).toContain('goes on under grant')
  })

  it('is followed by a fresh one when somebody resumes the task or changes its intent', async () => {
    const started = start([node, '-e', asking])
    while (gateway.seen.length < 3) await pause(20)
    gateway.life = { grant: 'another', state: 'suspended' }
    const beats = gateway.instructions.length
    while (gateway.instructions.length < beats + 3) await pause(20)
    expect(gateway.instructions.some(({ path }) => path.endsWith('/renew'))).toBe(false)
    gateway.life = { grant: 'another', state: 'active' }
    await underRenewed() // over a connection of its own: what hung on the dead grant is cut
    started.child.kill('SIGTERM')
    await started.ended
  })

  it.each([[['--ttl', '1s']], [['--preset', 'sensitive']]])('is the last one with %j', async (flags) => {
    gateway.ttlS = 1
    const started = start([node, '-e', 'setInterval(() => {}, 1000)'], { flags })
    await gateway.instructed(/heartbeat$/)
    const beats = gateway.instructions.length
    while (gateway.instructions.length < beats + 12) await pause(20)
    expect(gateway.instructions.filter(({ path }) => path.endsWith('/renew'))).toEqual([])
    started.child.kill('SIGTERM')
    await started.ended
  })

  it('is the last one when policy says so, which is told once', async () => {
    gateway.ttlS = 1
    const started = start([node, '-e', 'setInterval(() => {}, 1000)'])
    await gateway.instructed(/heartbeat$/)
    gateway.taskProblem = { status: 403, code: 'policy_denied', detail: 'No more of this.' }
    await gateway.instructed(/renew$/)
    const beats = gateway.instructions.length
    while (gateway.instructions.length < beats + 4) await pause(20)
    started.child.kill('SIGTERM')
    expect((await started.ended).err).toBe(
      'keyless: the task gets no further grant: No more of this. (policy_denied)\n',
    )
  })
})

/** Real clients as they are, on plain and intercepted URLs. `%s` is where the URL goes. */
const CLIENTS: readonly [string, readonly string[]][] = [
  ['curl', ['curl', '-sS', '-f', '%s']],
  [
    'python3 urllib',
    [
      'python3',
      '-c',
      'import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())',
      '%s',
    ],
  ],
  [
    'python3 requests',
    [
      'python3',
      '-c',
      'import sys, requests; r = requests.get(sys.argv[1]); r.raise_for_status(); sys.stdout.write(r.text)',
      '%s',
    ],
  ],
  ['wget', ['wget', '-q', '-O', '-', '%s']],
  [
    'Node fetch',
    [node, '-e', 'fetch(process.argv[1]).then((r) => r.text()).then((t) => process.stdout.write(t))', '%s'],
  ],
]

describe.each(CLIENTS)('%s, unmodified', (_name, command) => {
  it.each(['http://api.demo.test/plain?a=%2F', 'https://api.demo.test/secure?a=%2F'])(
    'reaches %s through the gateway',
    async (url) => {
      const { code, out, err } = await run(command.map((word) => (word === '%s' ? url : word)))
      expect({ code, err }).toEqual({ code: 0, err: '' })
      const answer = JSON.parse(out) as { url: string; headers: Record<string, string> }
      expect(answer.url).toMatch(/\?a=%2F$/)
      expect(gateway.seen[0]?.proxyAuthorization).toBe(GRANT)
      expect(
        gateway.seen
          .filter(({ via }) => via === 'tunnel')
          .every(({ proxyAuthorization }) => proxyAuthorization === undefined),
      ).toBe(true)
    },
  )
})

describe('git, unmodified', () => {
  it('reaches an https remote through the gateway', async () => {
    gateway.serve = (_asked, answer) =>
      void answer.writeHead(403, { 'content-type': 'text/plain' }).end('keyless says no')
    const { code, err } = await run(['git', 'ls-remote', 'https://api.demo.test/acme/site.git'])
    expect(code).toBe(128)
    expect(err).toContain('keyless says no')
    expect(gateway.seen.map(({ via }) => via)).toEqual(['connect', 'tunnel'])
  })
})

describe('--ttl', () => {
  it.each([
    ['30s', 30],
    ['15m', 900],
    ['1h', 3600],
  ])('reads %s as %i seconds', (text, seconds) => expect(parseTtl(text)).toBe(seconds))

  it.each(['', '0s', '15', '15 m', '1d', '-1s', '1.5h', '123456s'])('refuses "%s"', (text) => {
    expect(() => parseTtl(text)).toThrow(/30s, 15m or 1h/)
  })
})
