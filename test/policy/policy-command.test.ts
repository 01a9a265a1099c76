import { afterEach, describe, expect, it, vi } from 'vitest'
import { policyCommand } from '../../gateway/cli/policy/policy.ts'
import { permit, policyDir } from './policy.fixture.ts'

afterEach(() => {
  vi.restoreAllMocks()
  process.exitCode = undefined
})

async function check(...args: string[]) {
  const written = { stdout: '', stderr: '' }
  for (const name of ['stdout', 'stderr'] as const) {
    vi.spyOn(process[name], 'write').mockImplementation((text) => {
      written[name] += String(text)
      return true
    })
  }
  await policyCommand().parseAsync(['check', ...args], { from: 'user' })
  const code = process.exitCode
  vi.restoreAllMocks()
  return { code, ...written }
}

describe('keyless policy check', () => {
  it('counts what it found, and exits with 0', async () => {
    const answer = await check('--services', 'demo')
    expect(answer).toMatchObject({ code: 0, stderr: '' })
    expect(answer.stdout).toMatch(/^\d+ policies in \d+ files, 1 service, 9 operations\nsha256:[0-9a-f]{64}\n$/)
  })

  it('shows every problem of services and policies, and exits with 1', async () => {
    const dir = await policyDir({ 'own.cedar': permit('x', 'principal, action == Action::"demo:note.list", resource') })
    const answer = await check('--services', 'demo', '--policies', dir)
    expect(answer).toMatchObject({ code: 1, stdout: '' })
    expect(answer.stderr).toMatch(/own\.cedar:1\n {4}got: .*demo:note\.list.*\n {4}allowed: .*\n {4}fix: did you mean/)
  })

  it('reads a settings file for what the options leave open', async () => {
    const dir = await policyDir({
      'keyless.yaml': 'services: [demo, github]\npolicies: [own.cedar]\n',
      'own.cedar': permit('x', 'principal, action in Action::"read", resource'),
    })
    const answer = await check('--config', `${dir}/keyless.yaml`)
    expect(answer.stdout).toMatch(/^1 policy in 1 file, 2 services/)
  })

  it('says what is wrong with the settings themselves', async () => {
    const dir = await policyDir({ 'keyless.yaml': 'servces: [demo]\n' })
    expect(await check('--config', `${dir}/keyless.yaml`)).toMatchObject({
      code: 1,
      stderr: expect.stringContaining('servces'),
    })
  })
})
