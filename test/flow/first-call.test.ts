/** `npm start` on nothing but a clone: a first governed call, readable, and a clean end. */
import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest'
import { ROOT, type Running, run, start } from '../rig/process.ts'

let home: string
let env: NodeJS.ProcessEnv
let gateway: Running | undefined

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'keyless-home-'))
  env = { ...process.env, KEYLESS_HOME: join(home, 'data') }
})

afterEach(() => gateway?.stop())

afterAll(() => rm(home, { recursive: true, force: true }))

const keyless = (...args: string[]) =>
  run(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), ...args], { env, cwd: home })

it('starts, makes a governed call, says who authorised it, serves, and stops cleanly on Ctrl-C', {
  timeout: 60_000,
}, async () => {
  gateway = start(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), 'start'], { env, cwd: home })
  await gateway.says(/Ctrl-C stops it/)
  expect(gateway.stdout).toMatch(/authorised .+ for task “list my notes”.+called GET api\.keyless\.test/)
  expect(gateway.stdout).toMatch(/ 200 /)
  expect(gateway.stdout).not.toMatch(/eyJ|Bearer/)

  const verified = await keyless('log', 'verify')
  expect(verified.code, verified.stderr).toBe(0)
  const [, api] = (await gateway.says(/(https:\/\/api\.keyless\.test:\d+)\/echo/)) as unknown as [string, string]
  const echoed = await keyless('run', '--task', 'look at myself', '--', 'curl', '-sS', `${api}/echo`)
  expect(echoed.stdout + echoed.stderr).toContain('Bearer ***')

  for (const entry of await readdir(join(home, 'data'), { recursive: true, withFileTypes: true })) {
    if (!entry.isFile() || entry.name.endsWith('.pub')) continue
    expect((await stat(join(entry.parentPath, entry.name))).mode & 0o777, entry.name).toBe(0o600)
  }

  gateway.kill('SIGINT')
  expect((await gateway.ended).code).toBe(0)
})

it('stops quietly on Ctrl-C while the first call is still being made', { timeout: 60_000 }, async () => {
  gateway = start(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), 'start'], { env, cwd: home })
  await gateway.says(/Keyless is up/)
  gateway.kill('SIGINT')
  const ended = await gateway.ended
  expect(ended.code).toBe(0)
  expect(ended.stderr.trim()).toBe('keyless: stopping; calls in flight are finished first')
})

it('takes its demo along when a second Ctrl-C cuts the stop short', { timeout: 60_000 }, async () => {
  gateway = start(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), 'start'], { env, cwd: home })
  const [, api] = (await gateway.says(/demo +(https:\S+),[\s\S]+Ctrl-C stops it/)) as unknown as [string, string]
  gateway.kill('SIGINT')
  gateway.kill('SIGTERM') // two of the same kind may arrive as one
  expect([0, 130]).toContain((await gateway.ended).code)
  await vi.waitFor(() => expect(isOpen(Number(new URL(api).port))).resolves.toBe(false), 5_000)
})

function isOpen(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => resolve(true))
    socket.once('error', () => resolve(false)).once('connect', () => socket.destroy())
  })
}

it('says at the start which settings it serves, and which keys are missing or belong to nothing', async () => {
  const settings = join(home, 'own.yaml')
  await writeFile(
    settings,
    `listen: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }
services: [github, slack, openai]
credentials:
  github: { provider: static, value: { env: KEYLESS_TEST_UNSET } }
  opanai: { provider: static, value: { file: ./openai.key } }
`,
  )
  gateway = start(process.execPath, [join(ROOT, 'bin', 'keyless.mjs'), 'start', '--config', settings], {
    env,
    cwd: home,
  })
  await gateway.says(/calls to openai.+\n/)
  expect(gateway.stdout).toContain(`settings ${settings}\n  services github, slack, openai\n`)
  expect(gateway.stderr).toContain(
    'calls to github are refused: the secret could not be read: environment variable KEYLESS_TEST_UNSET is not set.',
  )
  expect(gateway.stderr).toContain('calls to slack are refused: there is no entry for it under credentials.')
  expect(gateway.stderr).toContain('credentials.opanai belongs to none of the services. Did you mean openai?')
  const checked = await keyless('doctor', '--config', settings)
  expect(checked.stdout).toMatch(/✗ credentials .+KEYLESS_TEST_UNSET is not set/)
})

it('says how to start a gateway when none is running', async () => {
  const answer = await keyless('run', '--task', 'nobody home', '--', 'true')
  expect(answer.code).toBe(69)
  expect(answer.stderr).toContain('keyless start')
})
