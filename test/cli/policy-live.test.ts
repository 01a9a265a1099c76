/** `keyless policy keygen | sign | status` and SIGHUP, as an operator uses them: on files, and on a gateway that runs by itself. */
import { mkdir, mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ROOT, run, start } from '../rig/process.ts'

const keyless = (...args: string[]) => [join(ROOT, 'gateway', 'keyless.ts'), ...args]
const ALLOW = '@id("all") @owner("tests") permit (principal, action, resource);\n'
let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-policy-'))
  await mkdir(join(dir, 'prod'))
  await writeFile(join(dir, 'prod', 'a.cedar'), ALLOW)
  await writeFile(
    join(dir, 'keyless.yaml'),
    `data_dir: ./data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\npolicy:\n  source: { dir: ./prod }\n  keys: [./k.pub]\n  poll_s: 3600\n`,
  )
})

afterAll(() => rm(dir, { recursive: true, force: true }))

it('a signed directory decides, and a newer one after SIGHUP', async () => {
  const say = (...args: string[]) => run(process.execPath, keyless('policy', ...args), { cwd: dir })
  expect((await say('keygen', 'k')).stdout).toMatch(/^sha256:[0-9a-f]{16}\n/)
  expect((await stat(join(dir, 'k'))).mode & 0o777).toBe(0o600)
  expect((await say('sign', 'prod', '--key', 'k', '--version', '1', '--valid', '1h')).stdout).toMatch(
    /^prod version 1: 1 file, signed by sha256:\w+, until /,
  )
  const gateway = start(process.execPath, keyless('start'), { cwd: dir })
  try {
    await gateway.says(/Ctrl-C stops it/)
    await writeFile(join(dir, 'prod', 'b.cedar'), ALLOW.replace('all', 'more'))
    await say('sign', 'prod', '--key', 'k', '--version', '2')
    gateway.kill('SIGHUP')
    await gateway.says(/2 policies decide/)
    for (const faulty of ['permit (principal', 'permit (principal, action, resource);', ALLOW.repeat(2)]) {
      await writeFile(join(dir, 'prod', 'c.cedar'), faulty)
      const refused = await say('sign', 'prod', '--key', 'k', '--version', '3')
      expect(refused.code).toBe(1)
      expect(refused.stderr).toContain('prod/c.cedar:1')
    }
    await rm(join(dir, 'prod', 'c.cedar'))
    expect((await say('status')).stdout).toMatch(/from dir .*prod[\s\S]*prod version 2, signed /)
  } finally {
    gateway.kill('SIGTERM')
    await gateway.ended
  }
}, 60_000)
