/** SECURITY.md 9: plain clients work, unmodified, under `keyless run`, and hold nothing that is worth stealing. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type OpenSite, openSite } from '../invariant/services.fixture.ts'
import { findCanary, newCanary } from '../rig/canary.ts'
import { startGateway, type TestGateway } from '../rig/gateway.ts'
import { type GitServer, startGit } from '../rig/git.ts'
import { type Ended, ROOT, run, runOk } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let gateway: TestGateway

beforeAll(async () => {
  upstream = await startUpstream()
  gateway = await startGateway(await upstream.settings())
})

afterAll(async () => {
  await gateway.stop()
  await upstream.stop()
})

/** A command as an agent's launcher starts it. */
function under(
  where: TestGateway,
  command: readonly string[],
  o: { scope?: string; cwd?: string } = {},
): Promise<Ended> {
  const scope = o.scope === undefined ? [] : ['--scope', o.scope]
  return run(
    process.execPath,
    [
      join(ROOT, 'gateway', 'keyless.ts'),
      ...['run', '--config', join(where.dir, 'keyless.yaml'), '--task', 'be a plain client', ...scope, '--'],
      ...command,
    ],
    { cwd: o.cwd ?? where.dir, timeoutMs: 40_000 },
  )
}

const NODE = `
  const get = await fetch(process.argv[1] + '/notes')
  const post = await fetch(process.argv[1] + '/notes', { method: 'POST', body: JSON.stringify({ text: 'from node' }) })
  const echo = await fetch(process.argv[1] + '/echo')
  console.log(get.status, post.status, await echo.text())`

const URLLIB = `
import json, sys, urllib.request as u
base = sys.argv[1]
get = u.urlopen(base + '/notes')
post = u.urlopen(u.Request(base + '/notes', json.dumps({'text': 'from urllib'}).encode()))
print(get.status, post.status, u.urlopen(base + '/echo').read().decode())`

const REQUESTS = `
import sys, requests
base = sys.argv[1]
with requests.Session() as s:
    get = s.get(base + '/notes')
    post = s.post(base + '/notes', json={'text': 'from requests'})
    print(get.status_code, post.status_code, s.get(base + '/echo').text)`

const CURL = `
curl -sS -o /dev/null -w '%{http_code} ' "$0/notes"
curl -sS -o /dev/null -w '%{http_code} ' -d '{"text": "from curl"}' "$0/notes"
curl -sS "$0/echo"`

describe('a client of an OAuth-protected API', () => {
  it.each([
    ['curl', ['sh', '-c', CURL]],
    ['python3 urllib', ['python3', '-c', URLLIB]],
    ['python3 requests', ['python3', '-c', REQUESTS]],
    ['Node fetch', [process.execPath, '--input-type=module', '-e', NODE]],
  ] as const)('%s reads, writes, and never sees the token', { timeout: 45_000 }, async (_, command) => {
    const before = upstream.counts.get('POST /notes') ?? 0
    const { stdout, stderr, code } = await under(gateway, [...command, upstream.facts.api])
    expect(code, stderr).toBe(0)
    expect(stdout).toMatch(/^200 201 \{/)
    expect(stdout).toContain('Bearer ***')
    expect(stdout + stderr).not.toMatch(/eyJ[\w-]+\./)
    expect(upstream.counts.get('POST /notes')).toBe(before + 1)
  })

  it.each([
    ['curl', ['sh', '-c', 'curl -sS -w " %{http_code}" -X DELETE "$0/notes/1"']],
    [
      'python3 requests',
      [
        'python3',
        '-c',
        'import sys, requests; r = requests.delete(sys.argv[1] + "/notes/1"); print(r.text, r.status_code)',
      ],
    ],
    [
      'Node fetch',
      [
        process.execPath,
        '--input-type=module',
        '-e',
        'const r = await fetch(process.argv[1] + "/notes/1", { method: "DELETE" }); console.log(await r.text(), r.status)',
      ],
    ],
  ] as const)('%s is told why it may not, in words', { timeout: 45_000 }, async (_, command) => {
    const { stdout, code } = await under(gateway, [...command, upstream.facts.api], { scope: 'demo:notes.list' })
    expect(code).toBe(0)
    expect(stdout.trim()).toMatch(/"code":"scope_exceeded".*403$/s)
    expect(stdout).toContain('ask_grantor')
  })
})

describe('git over https, behind Basic', () => {
  let git: GitServer
  let site: OpenSite
  let work: string
  const password = newCanary().replaceAll(/[^\w+=]/g, '')

  beforeAll(async () => {
    git = await startGit({ password })
    const at = (operation: string) => [
      `GET /{owner}/{repo}.git/info/refs?service=${operation}`,
      `POST /{owner}/{repo}.git/${operation}`,
    ]
    site = await openSite(
      { port: git.port, caPem: git.caPem },
      {
        services: [
          {
            name: 'git',
            dialect: 'git',
            slots: [{ in: 'basic', username: git.username }],
            operations: {
              fetch: { match: at('git-upload-pack'), access: 'read' },
              push: { match: at('git-receive-pack'), access: 'write' },
            },
          },
        ],
        credentials: { git: password },
      },
    )
    work = await mkdtemp(join(tmpdir(), 'keyless-work-'))
  })

  afterAll(async () => {
    await site.stop()
    await git.stop()
    await rm(work, { recursive: true, force: true })
  })

  const url = () => `https://git.keyless.test:${git.port}${git.path}`
  const identity = ['-c', 'user.name=agent', '-c', 'user.email=agent@keyless.test']

  it('clones, commits, pushes, and clones again what it pushed', { timeout: 90_000 }, async () => {
    const cloned = await under(site.gateway, ['git', 'clone', '--quiet', url(), 'one'], { cwd: work })
    expect(cloned.code, cloned.stderr).toBe(0)
    const one = join(work, 'one')
    await writeFile(join(one, 'note.txt'), `${'a line of a note\n'.repeat(20_000)}${crypto.randomUUID()}\n`)
    await runOk('git', ['-C', one, 'checkout', '--quiet', '-B', 'main'])
    await runOk('git', ['-C', one, 'add', '.'])
    await runOk('git', ['-C', one, ...identity, 'commit', '--quiet', '--message', 'add a note'])
    const pushed = await under(site.gateway, ['git', '-C', one, 'push', '--quiet', 'origin', 'main'])
    expect(pushed.code, pushed.stderr).toBe(0)
    const again = await under(site.gateway, ['git', 'clone', '--quiet', url(), 'two'], { cwd: work })
    expect(again.code, again.stderr).toBe(0)
    expect(await readFile(join(work, 'two', 'note.txt'))).toEqual(await readFile(join(one, 'note.txt')))
    expect(findCanary(JSON.stringify([cloned, pushed, again]), password)).toEqual([])
    expect(await readFile(join(work, 'two', '.git', 'config'), 'utf8')).not.toContain(password)
    // The server saw ours with every request, and never another one.
    expect([...git.authorizations.keys()]).toEqual([
      `Basic ${Buffer.from(`${git.username}:${password}`).toString('base64')}`,
    ])
  })

  it('may not push under a task that only fetches, and says so', { timeout: 45_000 }, async () => {
    const one = join(work, 'one')
    await runOk('git', ['-C', one, ...identity, 'commit', '--quiet', '--allow-empty', '--message', 'one more'])
    const before = await runOk('git', ['-C', git.repository, 'rev-parse', 'main'])
    const pushed = await under(site.gateway, ['git', '-C', one, 'push', 'origin', 'main'], { scope: 'git:fetch' })
    expect(pushed.code).not.toBe(0)
    expect(pushed.stderr).toContain('scope_exceeded')
    expect(pushed.stderr).toContain('git:push')
    expect(await runOk('git', ['-C', git.repository, 'rev-parse', 'main'])).toBe(before)
  })
})
