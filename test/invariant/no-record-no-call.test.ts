/** SECURITY.md 6: if the decision cannot be written, the call is refused. The disks are real ones: file systems in memory, mounted for one gateway. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { ROOT, run, start } from '../rig/process.ts'
import { startUpstream, type TestUpstream } from '../rig/upstream.ts'

let upstream: TestUpstream
let dir: string

beforeAll(async () => {
  upstream = await startUpstream()
  dir = await mkdtemp(join(tmpdir(), 'keyless-disk-'))
  await mkdir(join(dir, 'data'))
  await writeFile(
    join(dir, 'keyless.yaml'),
    `data_dir: ${dir}/data\nlisten: { proxy: "127.0.0.1:0", control: "127.0.0.1:0" }\n${await upstream.settings()}`,
  )
})

afterAll(async () => {
  await upstream.stop()
  await rm(dir, { recursive: true, force: true })
})

/** A gateway whose data directory is a file system of its own, which only it and those who look through /proc see. */
function startOn(options: string, prepare = 'true') {
  const data = join(dir, 'data')
  const script = `mount -t tmpfs -o ${options} tmpfs "$0" && ${prepare} && exec "$@"`
  const keyless = [
    process.execPath,
    join(ROOT, 'gateway', 'keyless.ts'),
    'start',
    '--config',
    join(dir, 'keyless.yaml'),
  ]
  const gateway = start('unshare', ['--user', '--map-root-user', '--mount', 'bash', '-c', script, data, ...keyless])
  return { gateway, data: `/proc/${gateway.pid}/root${data}` }
}

it('refuses calls with 503 while the disk is full, sends nothing, and recovers by itself', {
  timeout: 60_000,
}, async () => {
  const { gateway, data } = startOn('size=4m')
  const [, proxy = ''] = await gateway.says(/proxy +(http:\/\/[\d.:]+)/)
  await gateway.says(/Ctrl-C/)
  const { handle } = await controlClient(join(data, 'control.sock')).openTask({ scope: 'demo:*', purpose: 'fill it' })
  const via = ['--cacert', join(data, 'keys', 'ca.pem'), '-x', proxy.replace('//', `//task:${handle}@`)]
  const call = async () =>
    (await run('curl', ['-sS', ...via, '-w', ' %{http_code}', `${upstream.facts.api}/notes`])).stdout
  expect(await call()).toMatch(/ 200$/)
  const filler = join(data, 'filler')
  await run('dd', ['if=/dev/zero', `of=${filler}`, 'bs=1k']) // until nothing fits
  const answers: string[] = []
  const sent = upstream.counts.get('GET /notes') ?? 0
  for (let n = 0; n < 12; n++) answers.push(await call())
  // What was begun before the disk was full had a little room left in its last block.
  const answered = answers.filter((answer) => answer.endsWith(' 200')).length
  expect(answered).toBeLessThan(6)
  expect(answers.at(-1)).toMatch(/audit_unavailable.* 503$/s)
  expect((upstream.counts.get('GET /notes') ?? 0) - sent).toBe(answered)
  await rm(filler)
  await expect.poll(call, { timeout: 15_000 }).toMatch(/ 200$/)
  // The checkpoint follows within 200 ms; before that the entries are well formed and not yet signed.
  await expect.poll(async () => (await verifyLog(join(data, 'audit'))).uncovered).toBe(0)
  const verdict = await verifyLog(join(data, 'audit'))
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true })
  gateway.kill('SIGTERM')
  expect((await gateway.ended).code).toBe(0)
})

it('does not start on a disk that cannot be written, and says so', async () => {
  const { gateway } = startOn('size=4m', 'mount -o remount,ro "$0"')
  const { code, stderr } = await gateway.ended
  expect(code).toBe(1)
  expect(stderr).toMatch(/EROFS|read-only/)
})
