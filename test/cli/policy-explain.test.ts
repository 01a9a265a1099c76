/** `keyless policy explain` on settings, as an operator runs it. */
import { generateKeyPairSync } from 'node:crypto'
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
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

it('reads the directory of a signed bundle, and asks for one where the bundle comes from elsewhere', async () => {
  const explain = [join(ROOT, 'gateway', 'keyless.ts'), 'policy', 'explain', 'github:issues.read']
  const { publicKey } = generateKeyPairSync('ed25519')
  await writeFile(join(dir, 'k.pub'), publicKey.export({ type: 'spki', format: 'pem' }))
  await mkdir(join(dir, 'prod'))
  await writeFile(join(dir, 'prod', 'a.cedar'), '@id("all") @owner("tests") permit (principal, action, resource);\n')
  const from = (source: string) =>
    writeFile(join(dir, 'keyless.yaml'), `services: [github]\npolicy: { source: ${source}, keys: [./k.pub] }\n`)
  await from('{ dir: ./prod }')
  expect((await run(process.execPath, explain, { cwd: dir })).stdout).toContain('prod/a#all')
  await from('{ url: "https://policies.example" }')
  expect((await run(process.execPath, explain, { cwd: dir })).stderr).toContain('--policies DIRECTORY')
})

it('says of a host that belongs to no service that a service is what is missing', async () => {
  await writeFile(join(dir, 'keyless.yaml'), 'services: [github]\n')
  const args = [join(ROOT, 'gateway', 'keyless.ts'), 'policy', 'explain', 'GET', 'https://api.stripe.com/v1/charges']
  const { stdout } = await run(process.execPath, args, { cwd: dir })
  expect(stdout).toMatch(
    /denied \(host_unmanaged\)\n {2}api\.stripe\.com belongs to no service of this gateway\. Add a service/,
  )
})
