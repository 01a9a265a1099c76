/** `keyless policy explain` on settings, as an operator runs it. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ROOT, run } from '../rig/process.ts'

let dir: string

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-explain-'))
})

afterAll(() => rm(dir, { recursive: true, force: true }))

it('says of an allowed call that engines outside were not asked and can still say no', async () => {
  const engine = '{ name: team, kind: opa, url: "https://pdp.example/v1/data/a" }'
  await writeFile(join(dir, 'keyless.yaml'), `services: [github]\npolicy: { engines: [${engine}] }\n`)
  const args = [join(ROOT, 'gateway', 'keyless.ts'), 'policy', 'explain', 'github:issues.read']
  const { stdout, stderr } = await run(process.execPath, args, { cwd: dir })
  expect(stdout).toContain('github:issues.read: allowed')
  expect(stderr).toContain('not asked: team of policy.engines')
})
