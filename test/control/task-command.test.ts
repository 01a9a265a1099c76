/** `keyless task` against a real control door. */
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { taskCommand } from '../../gateway/cli/task.ts'
import { openRig, type Rig } from './door.fixture.ts'

let rig: Rig
let out: string
let err: string
beforeEach(async () => {
  rig = await openRig()
  out = ''
  err = ''
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    out += text
    return true
  })
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    err += text
    return true
  })
})
afterEach(async () => {
  vi.restoreAllMocks()
  process.exitCode = undefined
  await rig.close()
})

const task = (...args: string[]) => taskCommand().parseAsync([...args, '--data', `${rig.dir}/run`], { from: 'user' })
const openArgs = ['open', '--task', 'triage issue 42', '--scope', 'github:issues.read']

describe('keyless task', () => {
  it('open prints the lineage, the handle and a proxy URL that carries it', async () => {
    await task(...openArgs, '--ttl', '15m')
    const handle = /kh_[\w-]{43}/.exec(out)?.[0] ?? ''
    const id = /task_[0-9a-f-]{36}/.exec(out)?.[0] ?? ''
    expect(out).toContain('ana authorised spiffe://acme.test/agents/triage for task “triage issue 42”.')
    expect(out).toContain('until 2026-06-01T12:15:00Z')
    expect(out).toContain(`--proxy http://${id}:${handle}@127.0.0.1:8080 `)
    expect(out).toContain('http://127.0.0.1:8080/github   in place of https://api.github.com\n')
    expect(out).toContain(`keyless task end ${id}`)
  })

  it('open --json prints what programs need', async () => {
    await task(...openArgs, '--json')
    const opened = JSON.parse(out)
    expect(opened.proxy_url).toBe(`http://${opened.task}:${opened.handle}@127.0.0.1:8080`)
    expect(opened.expires_in).toBe(900)
  })

  it('list and end work on what was opened', async () => {
    await task('list')
    expect(out).toBe('No task is alive.\n')
    const { task: id } = await rig.client.openTask({ purpose: 'p', scope: 'github:issues.read' })
    out = ''
    await task('list')
    expect(out).toContain(id)
    await task('end', id)
    expect(await rig.client.tasks()).toEqual([])
    await task('end', id)
    expect(err).toContain('(task_unknown)')
    expect(process.exitCode).toBe(77)
  })

  it('tells the refusal and its code, and exits with 64 for what the caller can correct', async () => {
    await task('open', '--task', 'x', '--scope', 'gitlab:x')
    expect(err).toMatch(/gitlab:x.*\(invalid_scope\)/)
    expect(process.exitCode).toBe(64)
  })

  it('says how to start a gateway when none runs', async () => {
    await taskCommand().parseAsync(['list', '--data', '/nowhere'], { from: 'user' })
    expect(err).toContain('keyless start')
    expect(process.exitCode).toBe(69)
  })
})
