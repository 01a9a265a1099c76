/** SECURITY.md 6: the decision is on disk before a credential is attached; if it cannot be written, the call is refused. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { verifyLog } from '../../gateway/audit/verify.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { ROOT, type Running, run, start } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let dir: string

beforeAll(async () => {
  upstream = await startUpstream()
  dir = await mkdtemp(join(tmpdir(), 'keyless-crash-'))
  await writeFile(
    join(dir, 'keyless.yaml'),
    `data_dir: ${dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\n${await upstream.settings()}`,
  )
})

afterAll(async () => {
  await upstream.stop()
  await rm(dir, { recursive: true, force: true })
})

interface Entry {
  readonly kind: string
  readonly decision?: { readonly effect: string }
}

const entries = async () =>
  (await readFile(join(dir, 'data', 'audit', 'entries.jsonl'), 'utf8'))
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Entry)

async function startProcess(): Promise<{ gateway: Running; proxy: string }> {
  const gateway = start(process.execPath, [
    join(ROOT, 'gateway', 'keyless.ts'),
    'start',
    '--config',
    join(dir, 'keyless.yaml'),
  ])
  const [, proxy] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
  await gateway.says(/Ctrl-C/)
  return { gateway, proxy: proxy ?? '' }
}

it('has a decision for every call that the upstream saw, whenever the gateway was killed', {
  timeout: 120_000,
}, async () => {
  for (let round = 0; round < 6; round++) {
    const { gateway, proxy } = await startProcess()
    const task = await controlClient(join(dir, 'data', 'control.sock')).openTask({
      scope: 'demo:*',
      purpose: 'be killed',
    })
    const load = run(
      'curl',
      [
        '-sS',
        '--cacert',
        join(dir, 'data', 'keys', 'ca.pem'),
        '-x',
        proxy.replace('//', `//task:${task.handle}@`),
        '-o',
        '/dev/null',
        `${upstream.facts.api}/notes?[1-400]`,
      ],
      { timeoutMs: 15_000 },
    )
    await expect
      .poll(() => upstream.counts.get('GET /notes') ?? 0, { interval: 5, timeout: 15_000 })
      .toBeGreaterThan(round * 40)
    await pause(Math.random() * 150)
    gateway.kill('SIGKILL')
    await Promise.all([gateway.ended, load])
  }
  const { gateway } = await startProcess() // recovers the tail
  gateway.kill('SIGTERM')
  expect((await gateway.ended).code).toBe(0)
  const verdict = await verifyLog(join(dir, 'data', 'audit'))
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true })
  const decided = (await entries()).filter(
    (entry) => entry.kind === 'call.decision' && entry.decision?.effect === 'allow',
  ).length
  expect(decided).toBeGreaterThanOrEqual(upstream.counts.get('GET /notes') ?? 0)
})

it('refuses calls with 503 while the log cannot be written, sends nothing, and recovers by itself', {
  timeout: 60_000,
}, async () => {
  const before = upstream.counts.get('GET /notes') ?? 0
  // RLIMIT_FSIZE is a full disk for this process alone: writes beyond the limit fail with EFBIG.
  const size = (await readFile(join(dir, 'data', 'audit', 'entries.jsonl'))).length
  const gateway = start('bash', [
    '-c',
    'trap "" XFSZ; ulimit -S -f "$0"; exec "$@"',
    String(Math.ceil(size / 1024) + 8),
    process.execPath,
    join(ROOT, 'gateway', 'keyless.ts'),
    'start',
    '--config',
    join(dir, 'keyless.yaml'),
  ])
  const [, proxy = ''] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
  await gateway.says(/Ctrl-C/)
  const task = await controlClient(join(dir, 'data', 'control.sock')).openTask({
    scope: 'demo:*',
    purpose: 'fill the disk',
  })
  const call = () =>
    run('curl', [
      '-sS',
      '--cacert',
      join(dir, 'data', 'keys', 'ca.pem'),
      '-x',
      proxy.replace('//', `//task:${task.handle}@`),
      '-w',
      ' %{http_code}',
      `${upstream.facts.api}/notes`,
    ])
  const codes: string[] = []
  for (let n = 0; n < 30; n++) codes.push((await call()).stdout.slice(-3))
  expect(codes[0]).toBe('200')
  expect(codes.at(-1)).toBe('503')
  expect((await call()).stdout).toContain('audit_unavailable')
  const answered = codes.filter((code) => code === '200').length
  expect((upstream.counts.get('GET /notes') ?? 0) - before).toBe(answered)
  await run('prlimit', ['--pid', String(gateway.pid), '--fsize=unlimited:unlimited'])
  await expect.poll(async () => (await call()).stdout.slice(-3), { timeout: 15_000 }).toBe('200')
  gateway.kill('SIGTERM')
  await gateway.ended
  const verdict = await verifyLog(join(dir, 'data', 'audit'))
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true })
})
