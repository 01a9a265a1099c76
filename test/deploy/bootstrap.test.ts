/** The first command on a fresh clone, with an npm that only pretends: what is installed, when, and what is passed through. */
import { chmod, copyFile, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ROOT, run, start } from '../rig/process.ts'

let clone: string

const LOCK = {
  packages: { '': {}, 'node_modules/a': { version: '1.0.0' }, 'node_modules/b': { version: '2.0.0', dev: true } },
}

/** Installs what the lock file names; the runtime is the one that runs this test. */
const NPM = `#!/bin/sh
echo "$@" >> calls
[ -e broken ] && { echo "npm error: no network" >&2; exit 7; }
[ -e slow ] && sleep 0.3
rm -rf node_modules && mkdir -p node_modules/node/bin
ln -s "${process.execPath}" node_modules/node/bin/node
cp package-lock.json node_modules/.package-lock.json
`

const GATEWAY = `
const [command, ...rest] = process.argv.slice(2)
if (command === 'say') console.log(JSON.stringify({ rest, major: process.versions.node.split('.')[0], path: process.env.PATH }))
if (command === 'exit') process.exit(Number(rest[0]))
if (command === 'die') process.kill(process.pid, 'SIGKILL')
if (command === 'read') process.stdin.pipe(process.stdout)
if (command === 'stay') {
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => console.log('got', signal))
  process.on('SIGTERM', () => process.exit(5))
  setInterval(() => {}, 1000)
  console.log('ready')
}
`

/** Makes this Node look like one that is too old: another version, and no way to replace the process. */
const AS_OLD = `data:text/javascript,Object.defineProperty(process,'versions',{value:{...process.versions,node:'20.0.0'}});process.execve=undefined`

beforeEach(async () => {
  clone = await mkdtemp(join(tmpdir(), 'keyless-clone-'))
  for (const dir of ['bin', 'gateway', 'fake']) await mkdir(join(clone, dir))
  await copyFile(join(ROOT, 'bin/keyless.mjs'), join(clone, 'bin/keyless.mjs'))
  await writeFile(join(clone, 'package.json'), '{"type":"module"}')
  await writeFile(join(clone, 'package-lock.json'), JSON.stringify(LOCK))
  await writeFile(join(clone, 'gateway/keyless.ts'), GATEWAY)
  await writeFile(join(clone, 'fake/npm'), NPM)
  await chmod(join(clone, 'fake/npm'), 0o755)
})

afterEach(() => rm(clone, { recursive: true, force: true }))

const environment = (extra: NodeJS.ProcessEnv = {}) => ({
  PATH: `${join(clone, 'fake')}:${process.env.PATH}`,
  ...extra,
})
const npmCalls = async () => (await readFile(join(clone, 'calls'), 'utf8').catch(() => '')).split('\n').filter(Boolean)

describe.each([
  ['a Node that is new enough', []],
  ['an old Node', ['--import', AS_OLD]],
])('under %s', (_name, flags) => {
  const args = (...command: string[]) => [...flags, join(clone, 'bin/keyless.mjs'), ...command]
  const keyless = (...command: string[]) => run(process.execPath, args(...command), { cwd: clone, env: environment() })

  it('installs the first time, says so, and never again', async () => {
    const first = await keyless('say', 'a', '--b')
    expect(first.stderr).toContain('npm ci')
    expect(JSON.parse(first.stdout)).toMatchObject({ rest: ['a', '--b'], major: process.versions.node.split('.')[0] })
    expect((await keyless('say')).stderr).toBe('')
    expect(await npmCalls()).toEqual([expect.stringMatching(/^ci --include=dev /)])
  })

  it('installs once when two start at once', async () => {
    await writeFile(join(clone, 'slow'), '')
    const both = await Promise.all([keyless('say'), keyless('say')])
    expect(both.map((ended) => ended.code)).toEqual([0, 0])
    expect(await npmCalls()).toHaveLength(1)
  })

  it('installs again when the lock file names something else', async () => {
    await keyless('say')
    await writeFile(
      join(clone, 'package-lock.json'),
      JSON.stringify({ packages: { 'node_modules/a': { version: '1.0.1' } } }),
    )
    await keyless('say')
    expect(await npmCalls()).toHaveLength(2)
  })

  it('passes exit codes, signals and standard input through', async () => {
    expect((await keyless('exit', '3')).code).toBe(3)
    expect((await keyless('die')).signal).toBe('SIGKILL')
    expect(
      (await run(process.execPath, args('read'), { cwd: clone, env: environment(), input: 'in and out' })).stdout,
    ).toBe('in and out')
  })

  it('hands a signal on once', async () => {
    const child = start(process.execPath, args('stay'), { cwd: clone, env: environment() })
    await child.says(/ready/)
    child.kill('SIGINT')
    await child.says(/got SIGINT/)
    child.kill('SIGTERM')
    expect(await child.ended).toMatchObject({ code: 5, stdout: 'ready\ngot SIGINT\ngot SIGTERM\n' })
  })

  it('says why when npm fails, and leaves no lock behind', async () => {
    await writeFile(join(clone, 'broken'), '')
    const failed = await keyless('say')
    expect([failed.code, failed.stderr]).toEqual([
      1,
      expect.stringMatching(/no network[\s\S]*npm ci failed with code 7/),
    ])
    await rm(join(clone, 'broken'))
    expect((await keyless('say')).code).toBe(0)
  })

  it('does not wait for an installation that died', async () => {
    const dead = start(process.execPath, ['-e', ''])
    await dead.ended
    await mkdir(join(clone, '.keyless'))
    await writeFile(join(clone, '.keyless/install.lock'), String(dead.pid))
    expect((await keyless('say')).code).toBe(0)
    expect(await npmCalls()).toHaveLength(1)
  })

  it('runs any file under the same runtime', async () => {
    await writeFile(join(clone, 'tool.ts'), 'const shown: string = process.argv.slice(2).join()\nconsole.log(shown)')
    expect((await keyless('--runtime', 'tool.ts', '--x', 'y')).stdout).toBe('--x,y\n')
  })
})

it('`npm start` stops the gateway when npm is told to stop, not only the shell between them', async () => {
  const { scripts } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
  const child = start('sh', ['-c', scripts.start.replace(/start$/, 'stay')], { cwd: clone, env: environment() })
  await child.says(/ready/)
  child.kill('SIGTERM')
  expect(await child.ended).toMatchObject({ code: 5, stdout: 'ready\ngot SIGTERM\n' })
})

it('asks only for what runs where the development tools were left out', async () => {
  await mkdir(join(clone, 'node_modules'))
  const { 'node_modules/b': _tool, ...without } = LOCK.packages
  await writeFile(join(clone, 'node_modules/.package-lock.json'), JSON.stringify({ packages: without }))
  const bin = join(clone, 'bin/keyless.mjs')
  expect((await run(process.execPath, [bin, 'say'], { cwd: clone, env: environment() })).code).toBe(0)
  expect(await npmCalls()).toEqual([])
  await writeFile(join(clone, 'tool.ts'), '')
  expect((await run(process.execPath, [bin, '--runtime', 'tool.ts'], { cwd: clone, env: environment() })).code).toBe(0)
  expect(await npmCalls()).toHaveLength(1)
})

it('keeps the tools that npm puts on PATH from the commands that agents run', async () => {
  const tools = join(clone, 'node_modules/.bin')
  const env = { PATH: `${tools}:${join(clone, 'fake')}:${process.env.PATH}`, npm_command: 'exec' }
  const said = await run(process.execPath, [join(clone, 'bin/keyless.mjs'), 'say'], { cwd: clone, env })
  expect(JSON.parse(said.stdout).path.split(':')).not.toContain(tools)
})
