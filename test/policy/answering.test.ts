/** Names in obligations that nobody answers to: said at start and by `keyless policy check`, once each, with what to write. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { startGateway } from '../rig/gateway.ts'
import { ROOT, run } from '../rig/process.ts'

const POLICY = `
@id("asks") @owner("test") @approval("on-cal,human") @notify("security")
permit (principal is Agent, action, resource);
@id("asks-again") @owner("test") @approval("on-cal") @notify("audit")
permit (principal is Agent, action, resource);
`
const answered = (file: string) => `
policies: ["${file}"]
approvals: { groups: { on-call: [me] }, approvers: [{ name: me, local: root }] }
webhooks: { team: { url: "https://hooks.example.com/x", keys: [{ env: KEYLESS_TEST_HOOK }], notify: [security] } }
`
const UNANSWERED = [
  'asks has @approval("on-cal"), and approvals.groups of the settings has nobody in such a group',
  'asks-again has @notify("audit"), and no webhook of the settings has that name',
]

let dir: string
let yaml: string

beforeAll(async () => {
  process.env.KEYLESS_TEST_HOOK = `whsec_${Buffer.alloc(32, 1).toString('base64')}`
  dir = await mkdtemp(join(tmpdir(), 'keyless-answering-'))
  const policy = join(dir, 'policy.cedar')
  await writeFile(policy, POLICY)
  yaml = answered(policy)
})

afterAll(async () => {
  delete process.env.KEYLESS_TEST_HOOK
  await rm(dir, { recursive: true, force: true })
})

it('a gateway says so when it starts, and nothing of names that somebody answers to', async () => {
  const gateway = await startGateway(yaml)
  try {
    const said = gateway.gateway.warnings.filter((line) => line.includes('policy.cedar'))
    expect(said).toHaveLength(2)
    for (const [n, words] of UNANSWERED.entries()) expect(said[n]).toContain(words)
    expect(said[0]).toContain('or write "on-call" in the policy')
  } finally {
    await gateway.stop()
  }
})

it('keyless policy check remarks on it, and --strict fails', async () => {
  const file = join(dir, 'keyless.yaml')
  await writeFile(file, yaml)
  const { code, stderr } = await run(process.execPath, [
    join(ROOT, 'gateway', 'keyless.ts'),
    ...['policy', 'check', '--strict', '--config', file],
  ])
  expect(code, stderr).toBe(1)
  for (const words of UNANSWERED) expect(stderr).toContain(words)
  expect(stderr).not.toContain('@notify("security")')
  expect(stderr).not.toContain('@approval("human")')
})
