/** `keyless log export`: the files of a log, in any format, without a gateway. */
import { mkdir, mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, expect, it } from 'vitest'
import { loadKeys } from '../../gateway/settings/keys.ts'
import { call, linesOf, openTestLog, testAudit } from '../audit/log.fixture.ts'
import { ROOT, run, start } from '../rig/process.ts'

let home: string
let lines: string[]

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'keyless-home-'))
  const dir = join(home, 'audit')
  await mkdir(dir)
  const log = await openTestLog(dir)
  await call(testAudit(log))
  await log.close()
  lines = await linesOf(dir)
})

const args = (...more: string[]) => [join(ROOT, 'gateway', 'keyless.ts'), 'log', 'export', '--data', home, ...more]
const exported = (...more: string[]) => run(process.execPath, args(...more))

it('writes the entries as they are, or those of a kind in another format', async () => {
  expect((await exported('--format', 'jsonl')).stdout).toBe(lines.map((line) => `${line}\n`).join(''))
  const { stdout } = await exported('--format', 'ocsf', '--kind', 'call.*', '--since', '2026-11-21')
  expect(
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).class_uid),
  ).toEqual([6003, 6003])
})

it('masks with the key of the gateway, and not at all without it', async () => {
  const without = await exported('--format', 'jsonl', '--mask', 'human,purpose')
  expect(without).toMatchObject({ code: 1, stdout: '' })
  expect(without.stderr).toMatch(/--mask needs the key of the gateway, and there is none in/)
  await loadKeys(join(home, 'keys'))
  const { stdout } = await exported('--format', 'jsonl', '--mask', 'human,purpose')
  expect(stdout).toContain('masked:')
  expect(stdout).not.toMatch(/"ana"|workstation#ana|triage issue 42/)
})

it('follows until it is told to stop', async () => {
  const following = start(process.execPath, args('--format', 'cef', '--follow'))
  await following.says(/log\.sealed/)
  following.kill('SIGINT')
  expect((await following.ended).code).toBe(0)
})
