/** Whoever mistypes at the log is told what is allowed, and never takes it for a verdict or an answer. */
import { mkdir, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { call, openTestLog, testAudit } from '../audit/log.fixture.ts'
import { ROOT, run } from '../rig/process.ts'

let home: string
beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), 'keyless-home-'))
  await mkdir(join(home, 'audit'))
  const log = await openTestLog(join(home, 'audit'))
  await call(testAudit(log))
  await log.close()
})
afterAll(() => rm(home, { recursive: true, force: true }))

const keyless = (...args: string[]) =>
  run(process.execPath, [join(ROOT, 'gateway', 'keyless.ts'), ...args], { env: { ...process.env, KEYLESS_HOME: home } })

describe('a verdict is never said by accident: exit code 2, not 1, for', () => {
  it.concurrent.each([
    ['an unknown option', ['verify', '--nonsense'], '(keyless log verify --help lists what there is)'],
    ['a number that is none', ['verify', '--max-age', 'soon'], 'Write a whole number'],
    ['settings that are not there', ['verify', '--config', 'none.yaml'], 'the settings none.yaml cannot be read'],
    ['witnesses without their keys', ['verify', '--witnesses', '1'], 'Name the key of each with --witness-key'],
    ['the same of a proof', ['check-proof', '-', '--witnesses', '1'], 'Name the key of each with --witness-key'],
    ['an unknown option of check-proof', ['check-proof', 'a', '--nonsense'], '(keyless log check-proof --help'],
    ['a proof that is not there', ['check-proof', 'a.tlog-proof'], 'the proof a.tlog-proof cannot be read'],
  ])('%s', async (_, args, said) => {
    const { code, stdout, stderr } = await keyless('log', ...args)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(said)
  })

  it.concurrent('and 0 for its help', async () => {
    expect(await keyless('log', 'verify', '--help')).toMatchObject({ code: 0, stderr: '' })
  })
})

describe('keyless log find', () => {
  it.concurrent('says that a call is one record, where half of it is asked for', async () => {
    const { code, stderr } = await keyless('log', 'find', '--kind', 'call.decision')
    expect(code).toBe(1)
    expect(stderr).toMatch(/kind: got .*, allowed is call \(its decision and outcome are one record\), .*lease\.issued/)
  })

  it.concurrent('says that nothing was found, and makes nobody up for what the gateway says of itself', async () => {
    const index = ['--index', join(home, 'other.sqlite')]
    expect(await keyless('log', 'find', '--human', 'nobody', ...index)).toMatchObject({
      code: 0,
      stdout: '',
      stderr: 'keyless: nothing in the log is like that.\n',
    })
    const { stdout } = await keyless('log', 'find', '--kind', 'log.*', ...index)
    expect(stdout).toMatch(/ {2}log\.sealed\n.* {2}log\.opened\n$/)
  })
})

it('an outcome is asked for by the id of its call: a number names one entry', async () => {
  const { code, stdout, stderr } = await keyless('log', 'prove', '1', '--outcome')
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toContain('1 is the number of one entry')
})

it('a witness says in words what it does without options', async () => {
  const { stdout } = await keyless('witness', '--help')
  expect(stdout.replaceAll(/\s+/g, ' ')).toContain('where logs reach it (default: 127.0.0.1:8090)')
  expect(stdout).not.toMatch(/default: [[{]/)
})
