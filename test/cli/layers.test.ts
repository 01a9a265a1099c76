/** Clients that read no proxy variables, under the real `keyless run`: each layer leads those that it is for. */
import { execFileSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { chmod, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { onPath, pythonWith } from '../rig/cache.ts'
import { type Ended, ROOT, run as runProcess } from '../rig/process.ts'
import { type FixtureGateway, GRANT, startFixtureGateway } from './gateway.fixture.ts'

const entry = fileURLToPath(new URL('./run-command.fixture.ts', import.meta.url))
const program = (name: string) => fileURLToPath(new URL(`./programs/${name}`, import.meta.url))

let gateway: FixtureGateway
let dir: string

beforeAll(async () => {
  gateway = await startFixtureGateway()
})
afterAll(() => gateway.close())
beforeEach(async () => {
  gateway.seen.length = 0
  dir = await mkdtemp(join(tmpdir(), 'kl layers '))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

interface Under {
  readonly flags?: readonly string[]
  readonly env?: NodeJS.ProcessEnv
}

/** What a user's shell would have, and none of what npm or another run put there. */
function run(command: readonly string[], { flags = ['--no-java'], env = {} }: Under = {}): Promise<Ended> {
  const { NODE_OPTIONS: _, ...inherited } = process.env
  const args = [entry, 'run', '--task', 'x', '--data', gateway.dataDir, ...flags, '--', ...command]
  return runProcess(process.execPath, args, { env: { ...inherited, ...env } })
}

/** An older Node, as this machine has it beside ours. */
const oldNode = (process.env.PATH ?? '')
  .split(delimiter)
  .concat('/usr/bin', '/usr/local/bin')
  .map((place) => join(place, 'node'))
  .filter((file) => existsSync(file) && !file.startsWith(ROOT))
  .find((file) => Number.parseInt(execFileSync(file, ['--version'], { encoding: 'utf8' }).slice(1), 10) < 22)
const NODES: readonly (readonly [string, string])[] = [
  ['this Node', process.execPath],
  ...(oldNode === undefined ? [] : [['an old Node', oldNode] as const]),
]

/** Each is asked for under a path of its own. */
const URLS = ['https://api.demo.test', 'http://api.demo.test']
const CLIENTS = ['fetch', 'global', 'import', 'agent', 'none', 'subclass', 'child', 'worker']

/** Every request for the path, and that each came with the run's grant: on itself or on its tunnel. */
function askedFor(path: string) {
  const asked = gateway.seen.filter(({ via, url }) => via !== 'connect' && url.endsWith(path))
  for (const { via, proxyAuthorization } of asked) expect(proxyAuthorization).toBe(via === 'tunnel' ? undefined : GRANT)
  return asked
}

describe.each(NODES)('%s', (_, node) => {
  it(`goes through the gateway, once, with ${CLIENTS.join(', ')} and ws`, async () => {
    const { code, stdout, stderr } = await run([node, program('node-clients.mjs'), [...CLIENTS, 'ws'].join(), ...URLS])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const said = JSON.parse(stdout) as Record<string, string>
    for (const name of CLIENTS) {
      expect(askedFor(`/${name}`), name).toHaveLength(URLS.length)
      if (name !== 'worker') for (const url of URLS) expect(said[`${name} ${url}`], name).toContain('"method":"GET"')
    }
    const sockets = askedFor('/ws')
    expect(sockets).toHaveLength(URLS.length)
    for (const { rawHeaders } of sockets) expect(rawHeaders).toContain('Sec-WebSocket-Key')
    const tunnels = gateway.seen.filter(({ via }) => via === 'connect')
    expect(tunnels.every(({ proxyAuthorization }) => proxyAuthorization === GRANT)).toBe(true)
  })

  it('reads why it was refused in the error of an agent of its own', async () => {
    const detail = 'Policy says no to this host.'
    gateway.refusal = { status: 403, reason: 'x', body: JSON.stringify({ code: 'policy_denied', detail }) }
    const { stdout } = await run([node, program('node-clients.mjs'), 'agent', 'https://api.demo.test'])
    gateway.refusal = undefined
    expect(stdout).toContain(`${detail} (policy_denied)`)
  })

  it('reaches what is on this machine directly', async () => {
    const serve = `const s = require('http').createServer((q, a) => a.end('local')).listen(0, '127.0.0.1', () => {
      const { port } = s.address(); const own = new (require('http').Agent)()
      require('http').get({ host: '127.0.0.1', port, agent: own }, (a) => { a.on('data', (c) => process.stdout.write(c)); a.on('end', () => {
        fetch('http://localhost:' + port).then((r) => r.text(), (e) => e.cause.code).then((t) => { console.log('', t); process.exit() }) }) }) })`
    expect((await run([node, '-e', serve])).stdout).toMatch(/^local (?:local|ECONNREFUSED)\n$/) // localhost may be ::1 first
    expect(gateway.seen).toEqual([])
  })

  it('keeps its own NODE_OPTIONS, and starts where the environment names no proxy', async () => {
    await writeFile(join(dir, 'mine.cjs'), 'process.stdout.write("mine ")')
    const env = { NODE_OPTIONS: `--require "${join(dir, 'mine.cjs')}"` }
    expect((await run([node, '-p', '1'], { env })).stdout).toMatch(/mine 1\n$/) // the launcher is a Node, too
    const bare = ['env', '-u', 'HTTPS_PROXY', '-u', 'https_proxy', node, '-p', 'require("https").get.name']
    expect(await run(bare)).toMatchObject({ code: 0, stdout: 'get\n', stderr: '' })
  })
})

describe('Python', () => {
  let python: string
  beforeAll(async () => {
    python = await pythonWith(join(ROOT, 'test', 'matrix', 'requirements.txt'))
  }, 300_000)

  it('goes through the gateway with aiohttp and urllib3, unless a session was told not to look', async () => {
    const { code, stdout, stderr } = await run([python, program('python_clients.py'), ...URLS])
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    const said = JSON.parse(stdout) as Record<string, string | boolean>
    for (const name of ['aiohttp', 'pool', 'request']) {
      expect(askedFor(`/${name}`), name).toHaveLength(URLS.length)
      for (const url of URLS) expect(said[`${name} ${url}`], name).toContain('"method":"GET"')
    }
    expect(said[`pool ${URLS[0]}`]).toContain('"x-mine":"kept"')
    expect(said['trust_env=False']).toBe(false)
  })

  it('loads the sitecustomize that ours stands before, and shows its errors as without us', async () => {
    const own = join(dir, 'sitecustomize.py')
    const env = { PYTHONPATH: dir }
    const command = [python, '-c', 'import sys; print(sys.modules["sitecustomize"].__file__)']
    await writeFile(own, 'print("mine")')
    expect((await run(command, { env })).stdout).toBe(`mine\n${own}\n`)
    await writeFile(own, 'raise RuntimeError("broken")')
    const broken = await run([python, '-c', 'print("runs")'], { env })
    expect(broken.stdout).toBe('runs\n')
    expect(broken.stderr).toContain('RuntimeError: broken')
  })

  it('runs on when the modules that we would change are not what we know', async () => {
    await writeFile(join(dir, 'urllib3.py'), 'x = 1')
    await mkdir(join(dir, 'aiohttp'))
    await writeFile(join(dir, 'aiohttp', '__init__.py'), 'from . import client')
    await writeFile(join(dir, 'aiohttp', 'client.py'), 'y = 2')
    const command = [python, '-c', 'import urllib3, aiohttp; print(urllib3.x, aiohttp.client.y)']
    expect(await run(command, { env: { PYTHONPATH: dir } })).toMatchObject({ code: 0, stdout: '1 2\n', stderr: '' })
    const told = await run(command, { env: { PYTHONPATH: dir, KEYLESS_DEBUG: '1' } })
    expect(told.stderr).toContain('ClientSession')
  })
})

describe.runIf(onPath('java'))('Java', () => {
  it('goes through the gateway and trusts it, with HttpClient and HttpURLConnection', async () => {
    const { stdout, stderr } = await run(['java', program('Clients.java'), ...URLS], { flags: [] })
    expect(stdout.trim().split('\n'), stderr).toHaveLength(2 * URLS.length)
    for (const name of ['client', 'connection']) expect(askedFor(`/${name}`), name).toHaveLength(URLS.length)
  })
})

describe('a run without layers', () => {
  it('leaves the variables of the user alone', async () => {
    const mine = {
      NODE_OPTIONS: '--no-warnings',
      PYTHONPATH: '/mine',
      PATH: '/usr/bin:/bin',
      JAVA_TOOL_OPTIONS: '-Dx=y',
    }
    const flags = ['--no-preload', '--no-shims', '--no-java']
    const { stdout } = await run(['env'], { flags, env: mine })
    for (const [name, value] of Object.entries(mine)) expect(stdout.split('\n')).toContain(`${name}=${value}`)
  })
})

describe('a process whose environment was emptied', () => {
  const emptied = (command: readonly string[]) => [
    'sh',
    '-c',
    'exec env -i HOME="$HOME" PATH="$PATH" "$@"',
    '-',
    ...command,
  ]
  const path = `${dirname(process.execPath)}${delimiter}${process.env.PATH}`

  it('gets the run back when it is an interpreter, with what it was given besides', async () => {
    const ask =
      'fetch("https://api.demo.test/").then((r) => console.log(r.status, process.env.DEMO_API_KEY, process.env.MINE))'
    const { stdout } = await run(emptied(['MINE=1', 'node', '-e', ask]), { env: { PATH: path } })
    expect(stdout).toBe('200 demo-placeholder 1\n')
    expect(gateway.seen[0]?.proxyAuthorization).toBe(GRANT)
  })

  it('is an MCP server of the TypeScript SDK, and goes through the gateway', async () => {
    const command = ['node', program('mcp-host.mjs'), 'node', program('mcp-server.mjs')]
    const { stdout, stderr } = await run(command, { env: { PATH: path, KEYLESS_TEST_GIVEN: 'not passed on' } })
    expect(JSON.parse(stdout || 'null'), stderr).toEqual({ status: 200, given: null })
    const asked = gateway.seen.find(({ url }) => url === '/from-mcp')
    expect(asked?.authorization).toBe('Bearer demo-placeholder')
  })

  it('keeps another run’s way out when it has one', async () => {
    const command = ['env', 'HTTPS_PROXY=http://127.0.0.1:1', 'node', '-p', 'process.env.HTTPS_PROXY']
    expect((await run(command, { env: { PATH: path } })).stdout).toBe('http://127.0.0.1:1\n')
  })

  it('is found behind a version manager that looks for its own name again', async () => {
    const before = join(dir, 'manager')
    await mkdir(before)
    await writeFile(join(before, 'node'), '#!/bin/sh\nexec node "$@"\n')
    await chmod(join(before, 'node'), 0o755)
    const env = { PATH: `${before}${delimiter}${path}` }
    expect(await run(['node', '-p', '"found"'], { env })).toMatchObject({ code: 0, stdout: 'found\n' })
  })

  it('is refused, not started for ever, behind one that starts its own name as a child', async () => {
    const before = join(dir, 'manager')
    await mkdir(before)
    await writeFile(join(before, 'node'), '#!/bin/sh\nnode "$@"\nexit $?\n')
    await chmod(join(before, 'node'), 0o755)
    const ended = await run(['node', '-p', '1'], { env: { PATH: `${before}${delimiter}${path}` } })
    expect(ended.code).toBe(126)
    expect(ended.stderr).toContain('starts itself again and again')
  })

  it('has no shim for what is not there, and arguments arrive as they are', async () => {
    await writeFile(join(dir, 'python3'), '#!/bin/sh\nprintf "<%s>" "$@"\n')
    await chmod(join(dir, 'python3'), 0o755)
    const env = { PATH: `${dir}${delimiter}/usr/bin${delimiter}/bin` }
    const { stdout } = await run(['sh', '-c', `python3 "a b" '$x' '' "it's"; command -v bun || echo none`], { env })
    expect(stdout).toBe("<a b><$x><><it's>none\n")
  })
})
