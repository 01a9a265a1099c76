/** The shipped example, `keyless grant`, and what the pages show of them, as a user runs them beside `npm start`. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ROOT, type Running, run, runOk, start } from '../rig/process.ts'

const agent = (name: string) => `spiffe://keyless.local/agent/${name}`

let home: string
let env: NodeJS.ProcessEnv
let gateway: Running

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'keyless-home-'))
  env = { ...process.env, KEYLESS_HOME: join(home, 'data') }
  gateway = start(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), 'start'], { env, cwd: home })
  await gateway.says(/Ctrl-C stops it/)
}, 60_000)

afterAll(async () => {
  await gateway?.stop()
  await rm(home, { recursive: true, force: true })
})

const keyless = (...args: string[]) =>
  run(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), ...args], { env, cwd: home })

async function newKey(name: string): Promise<string> {
  await writeFile(join(home, name), generateKeyPairSync('ed25519').privateKey.export({ format: 'pem', type: 'pkcs8' }))
  return join(home, name)
}

/** Status of the answer and of the tunnel, of a call through the proxy. */
async function call(credential: string, path: string): Promise<string> {
  const [, proxy] = /proxy +http:\/\/(\S+)/.exec(gateway.stdout) ?? []
  const [api] = /https:\/\/api\.keyless\.test:\d+/.exec(gateway.stdout) ?? []
  const shape = ['-s', '-o', '/dev/null', '-w', '%{http_code} %{http_connect}']
  const ca = join(home, 'data', 'keys', 'ca.pem')
  return (await run('curl', [...shape, '--cacert', ca, '-x', `http://agent:${credential}@${proxy}`, `${api}${path}`]))
    .stdout
}

/** @returns what the command printed as JSON. */
async function json(...args: string[]): Promise<Record<string, string>> {
  const ended = await keyless(...args, '--json')
  expect(ended.code, ended.stderr).toBe(0)
  return JSON.parse(ended.stdout) as Record<string, string>
}

it('four agents, each with less than the one before; the wider request is refused', { timeout: 60_000 }, async () => {
  const ended = await run(process.execPath, [join(ROOT, 'examples', 'four-hops.ts')], { env, cwd: home })
  expect(ended.code, ended.stderr).toBe(0)
  for (const line of [
    `authorised ${agent('research')} for task “find out what the notes say”`,
    `${agent('research')} delegated to ${agent('search')}`,
    `${agent('search')} delegated to ${agent('extract')}`,
    `${agent('extract')} delegated to ${agent('call')}`,
    'GET /notes/1 → 200',
    'GET /notes/2 → 403 scope_exceeded',
    '"error": "invalid_scope"',
    'got demo:notes.create, allowed demo:notes.read',
    'GET /notes/1 → 407 grant_revoked',
  ])
    expect(ended.stdout).toContain(line)

  const verified = await keyless('log', 'verify')
  expect(verified.code, verified.stdout).toBe(0)
  const told = await keyless('log', 'tail')
  const [, call] = /ALLOW .*\/notes\/1.*\[([0-9a-f-]{36})\]/.exec(told.stdout) ?? []
  const lineage = await keyless('log', 'lineage', call ?? '')
  for (const name of ['research', 'search', 'extract', 'call']) expect(lineage.stdout).toContain(agent(name))
})

describe('keyless grant', () => {
  it('issues, delegates, shows, exports, verifies and revokes', { timeout: 60_000 }, async () => {
    const root = await json('grant', 'issue', '-t', 'read it all', '--as', agent('research'), '--scope', 'demo:notes.*')
    const child = await json(
      ...['grant', 'delegate', '--from', root.handle ?? '', '--to', agent('search')],
      ...['--details', '[{"type":"keyless_access","operations":["demo:notes.read"],"constraints":{"max_calls":3}}]'],
    )
    const shown = await keyless('grant', 'show', child.grant ?? '')
    expect(shown.stdout).toContain(`${agent('research')} delegated to ${agent('search')}`)
    expect(shown.stdout).toContain('"max_calls": 3')
    expect(shown.stdout).not.toContain(child.token)

    const bundle = await keyless('grant', 'show', child.grant ?? '', '--bundle')
    await writeFile(join(home, 'bundle.json'), bundle.stdout)
    const verified = await keyless('grant', 'verify', join(home, 'bundle.json'))
    expect(verified.code, verified.stdout + verified.stderr).toBe(0)
    expect(verified.stdout).toContain('Verified')
    const altered = JSON.parse(bundle.stdout) as { actor_proofs: string[] }
    await writeFile(join(home, 'altered.json'), JSON.stringify({ ...altered, actor_proofs: [] }))
    const refused = await keyless('grant', 'verify', join(home, 'altered.json'))
    expect(refused.code).toBe(1)
    expect(refused.stdout).toContain('lineage_truncated')

    expect((await keyless('grant', 'revoke', root.grant ?? '')).code).toBe(0)
    const dead = await keyless('grant', 'show', child.grant ?? '')
    expect(dead.code).toBe(77)
    expect(dead.stderr).toContain('grant_revoked')
  })

  it('says what was too wide, and cuts it only when told to', { timeout: 60_000 }, async () => {
    const root = await json('grant', 'issue', '-t', 'read', '--as', agent('research'), '--scope', 'demo:notes.read')
    const wider = ['grant', 'delegate', '--from', root.handle ?? '', '--to', agent('search')]
    const scope = ['--scope', 'demo:notes.read demo:files.read']
    const refused = await keyless(...wider, ...scope)
    expect(refused.code).toBe(64)
    expect(refused.stderr).toContain('got demo:files.read, allowed demo:notes.read')
    expect(refused.stderr).toContain('`--narrow`')
    const cut = await json(...wider, ...scope, '--narrow')
    expect(cut.scope).toBe('demo:notes.read')
    expect(cut.narrowed?.[0]).toContain('demo:files.read')
  })

  it('lets the holder of a key sign a child without the gateway, which decides about it at first use', {
    timeout: 60_000,
  }, async () => {
    const key = await newKey('lead.pem')
    const bound = [...['grant', 'issue', '-t', 'read one note', '--as', agent('research')], '--bind', key]
    const root = await keyless(...bound, '--scope', 'demo:notes.*', '--json')
    await writeFile(join(home, 'root.json'), root.stdout)
    const holder = ['grant', 'sign', '--parent', join(home, 'root.json'), '--key', key, '--to', agent('search')]
    const signed = await keyless(...holder, '--scope', 'demo:notes.read', '--ttl', '1m')
    const [, id = ''] = /as grant ([0-9a-f-]{36})/.exec(signed.stderr) ?? []
    expect((await keyless('grant', 'show', id)).stderr).toContain('grant_invalid') // not seen yet

    expect(await call(JSON.parse(root.stdout).token, '/notes/1')).toBe('000 407') // no proof of the key
    expect(await call(signed.stdout.trim(), '/notes/1')).toBe('200 200')
    expect(await call(signed.stdout.trim(), '/notes')).toBe('403 200')
    await writeFile(join(home, 'offline.json'), (await keyless('grant', 'show', id, '--bundle')).stdout)
    const verified = await keyless('grant', 'verify', join(home, 'offline.json'))
    expect(verified.stdout).toContain(`${agent('search')}, attested by its delegator`)
    await keyless('grant', 'revoke', JSON.parse(root.stdout).grant)
    expect(await call(signed.stdout.trim(), '/notes/1')).toBe('000 407')
  })

  it('refuses options that mean nothing', async () => {
    const issue = ['grant', 'issue', '-t', 'x']
    for (const [option, said] of [
      [['--details', '{"type":"keyless_access"}'], 'must be a JSON array'],
      [['--details', '[{"type":"a","type":"b"}]'], 'not JSON'],
      [['--details', '@/nowhere.json'], 'cannot be read'],
      [['--preset', 'forever'], 'Allowed choices'],
      [['--ttl', '15'], '30s, 15m or 1h'],
      [['--max-depth', '-1'], '0 to 8'],
    ] as const) {
      const ended = await keyless(...issue, ...option)
      expect(ended.code, option.join(' ')).not.toBe(0)
      expect(ended.stderr).toContain(said)
    }
  }, 60_000)
})

it('the page about grants does what it says', { timeout: 60_000 }, async () => {
  const page = await readFile(join(ROOT, 'docs', 'grants.md'), 'utf8')
  const blocks = [...page.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].map(([, script = '']) => script)
  const command = `keyless() { "${process.execPath}" "${join(ROOT, 'bin', 'keyless.mjs')}" "$@"; }\n`
  const script = command + blocks.join('echo ----\n').replace('keyless grant revoke', 'echo "$CHILD"\necho ----\n$&')
  const printed = await runOk('bash', ['-euc', script], { env, cwd: home, timeoutMs: 50_000 })
  const [shown, , verified, child, revoked] = printed.split('----\n')
  expect(shown).toContain(`${agent('research')} delegated to ${agent('search')}`)
  expect(verified).toMatch(/^Verified: /)
  expect(await call(child?.trim() ?? '', '/notes/1')).toBe('200 200')
  expect(revoked).toMatch(/has ended, and everything derived from it/)
})

it('a client of RFC 9449 calls under a bound grant as the page about OAuth shows', async () => {
  const page = await readFile(join(ROOT, 'docs', 'oauth.md'), 'utf8')
  const [, script = ''] = /```js\n([\s\S]*?)```/.exec(page) ?? []
  const [, proxy = ''] = /proxy +(http:\S+)/.exec(gateway.stdout) ?? []
  await newKey('agent.pem')
  const bound = await keyless(...'grant issue -t list --scope demo:notes.list --bind agent.pem --json'.split(' '))
  await writeFile(join(home, 'bound.json'), bound.stdout)
  await writeFile(join(home, 'call.mjs'), script.replace('http://127.0.0.1:8080', proxy))
  await symlink(join(ROOT, 'node_modules'), join(home, 'node_modules'))
  expect(await runOk(process.execPath, ['call.mjs'], { cwd: home })).toMatch(/^200 \[/)
}, 60_000)

it('keyless task changes intent, suspends and resumes; what was issued before is dead', {
  timeout: 60_000,
}, async () => {
  const opened = await json('task', 'open', '-t', 'list', '--scope', 'demo:notes.list')
  const task = opened.task ?? ''
  const changed = await keyless('task', 'intent', task, '-t', 'read one', '--scope', 'demo:notes.read')
  expect(changed.stdout).toContain('for task “read one”')
  expect(changed.stdout).toMatch(/kh_/)
  expect((await keyless('grant', 'show', opened.grant ?? '')).stderr).toContain('grant_revoked')
  expect((await keyless('task', 'suspend', task)).code).toBe(0)
  expect((await keyless('task', 'list')).stdout).toMatch(new RegExp(`${task} .*suspended`))
  const resumed = await keyless('task', 'resume', task)
  expect(resumed.stdout).toContain('for task “read one”')
  expect((await keyless('task', 'step-done', task, 'none')).stderr).toContain('step_unknown')
  expect((await keyless('task', 'end', task)).code).toBe(0)
})
