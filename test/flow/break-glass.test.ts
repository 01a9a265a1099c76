/**
 * Requirement 83, the drill of docs/break-glass.md: Redis is killed, the OAuth server is gone, the disk of the log is full, the gateway
 * itself is killed, and two custodians open what is needed, briefly and on the record.
 */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import type { Entry } from '../../gateway/audit/entries/entry.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { controlClient } from '../../gateway/cli/control-client.ts'
import { type Drill, type DrillGateway, KEY, startDrill } from './break-glass.fixture.ts'

let drill: Drill
let gateway: DrillGateway
let handle: string
let ordinary: string
let file: string
const signed: string[] = []
const THINGS = () => `https://repair.keyless.test:${drill.echo.tlsPort}/echo`
const NOTES = () => `https://notes.keyless.test:${drill.echo.tlsPort}/echo`

beforeAll(async () => {
  drill = await startDrill()
  gateway = await drill.start()
}, 60_000)

afterAll(async () => {
  gateway.shell.kill('SIGKILL')
  await gateway.shell.ended
  await drill.stop()
})

const control = () => controlClient(join(gateway.data, 'control.sock'))
const late = (entries: readonly Entry[]) => entries.filter(({ kind }) => kind === 'breakglass.recorded_late')
/** Calls that the upstream got, by what the agent put into their path. */
const arrived = (mark: string) => drill.echo.requests.filter(({ path }) => path.includes(mark)).length

it('is nothing that ordinary days notice: calls go through Redis and the OAuth server', async () => {
  ordinary = (await control().openTask({ scope: 'repair:* notes:*', purpose: 'an ordinary day' })).handle
  expect(await gateway.curl(ordinary, THINGS())).toMatch(/ 200 200$/)
  expect(await gateway.curl(ordinary, NOTES())).toMatch(/ 200 200$/)
})

it('stops without Redis, for ordinary grants and for everybody who wants one', async () => {
  await drill.redis.stop()
  await drill.demo.stop()
  await expect.poll(() => gateway.curl(ordinary, THINGS()), { timeout: 10_000 }).toMatch(/ 000 503$/)
  await expect(control().openTask({ scope: 'repair:*', purpose: 'repair' })).rejects.toThrow(/state of grants/)
})

it('does not open what one custodian has signed, whoever else is down', async () => {
  file = await drill.request()
  signed.push(await drill.sign(file, 'ana'))
  const { code, stderr } = await drill.keyless(['break-glass', 'open', ...signed, ...signed, '--data', gateway.data])
  expect(code).not.toBe(0)
  expect(stderr).toMatch(/2 different custodians.*1 did \(ana\)/)
})

it('opens what two custodians have signed apart, loudly, and once', async () => {
  signed.push(await drill.sign(file, 'cy'))
  const open = ['break-glass', 'open', ...signed, '--data', gateway.data, '--json']
  const { code, stdout, stderr } = await drill.keyless(open)
  expect(code, stderr).toBe(0)
  handle = (JSON.parse(stdout) as { handle: string }).handle
  await gateway.shell.says(
    /BREAK-GLASS: emergency access \S+ was opened by local:.*dee@acme\.test, signed by ana and cy/,
  )
  expect((await drill.keyless(open)).stderr).toMatch(/opened here already/)
})

it('lets the agent work without Redis, under policy, and never shows it the key', async () => {
  const answer = await gateway.curl(handle, `${THINGS()}?plain`)
  expect(answer).toMatch(/ 200 200$/)
  expect(answer).not.toContain(KEY)
  expect(drill.echo.requests.at(-1)?.head.toString()).toContain(`Bearer ${KEY}`)
  expect(await gateway.curl(handle, `https://repair.keyless.test:${drill.echo.tlsPort}/other`)).toMatch(/ 403 200$/)
  // Its issuer is down, and no other can be asked.
  expect(await gateway.curl(handle, NOTES())).toMatch(/credential_unavailable.* 502 200$/s)
  expect(await gateway.curl(ordinary, THINGS())).toMatch(/ 000 503$/)
})

it('goes on when the log cannot be written, journalled and said aloud, while nobody else does', async () => {
  await gateway.fillDisk()
  // What was begun before the disk was full has a little room left in its last block.
  const isJournalling = () => /BREAK-GLASS: the log cannot be written; the journal has/.test(gateway.shell.stderr)
  for (let n = 0; n < 20 && !isJournalling(); n++)
    expect(await gateway.curl(handle, `${THINGS()}?filling`)).toMatch(/ 200 200$/)
  expect(isJournalling()).toBe(true)
  for (const mark of ['full-1', 'full-2', 'full-3'])
    expect(await gateway.curl(handle, `${THINGS()}?${mark}`)).toMatch(/ 200 200$/)
  expect(await gateway.curl(ordinary, THINGS())).toMatch(/ 000 503$/)
  const { stdout } = await drill.keyless(['break-glass', 'status', '--data', gateway.data])
  expect(stdout).toMatch(
    /OPEN .*\n.*dee@acme\.test.*\n.*\n.*\nThe journal can be written\.\n\d+ entries not in the log yet\./,
  )
})

it('survives kill -9 with a full disk: what the journal has is in the log when it comes back, each call once', async () => {
  await gateway.kill()
  await gateway.freeDisk()
  await gateway.restart()
  await gateway.shell.says(/BREAK-GLASS: emergency access \S+ is still open/)
  expect(await gateway.curl(handle, `${THINGS()}?after`)).toMatch(/ 200 200$/)
  const entries = await gateway.entries()
  const calls = late(entries).filter(({ facts }) => facts?.of === 'call.decision')
  expect(calls.length).toBeGreaterThanOrEqual(3)
  const decided = [...entries.filter(({ kind }) => kind === 'call.decision'), ...calls]
  const allowed = decided.filter(
    ({ human, target, decision }) =>
      human?.iss === 'break-glass' && target?.service === 'repair' && decision?.effect === 'allow',
  )
  expect(allowed.length).toBe(arrived('plain') + arrived('filling') + arrived('full-') + arrived('after'))
  expect(new Set(allowed.map(({ req }) => req)).size).toBe(allowed.length)
  expect(calls.at(-1)).toMatchObject({
    human: { iss: 'break-glass', sub: 'dee@acme.test' },
    target: { host: 'repair.keyless.test', operation: 'repair:things.read' },
    decision: { effect: 'allow' },
  })
  expect(await readdir(join(drill.dir, 'journal'))).toContainEqual(expect.stringMatching(/^handed-over-/))
})

it('has a log that verifies as a whole, and says who, why, signed by whom, used for what', async () => {
  await expect.poll(async () => (await verifyLog(join(gateway.data, 'audit'))).uncovered).toBe(0)
  const verdict = await verifyLog(join(gateway.data, 'audit'))
  expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true })
  const entries = await gateway.entries()
  const opened = entries.find(({ kind }) => kind === 'breakglass.opened')
  expect(opened).toMatchObject({
    human: { sub: 'dee@acme.test' },
    task: { purpose: 'the store is down, and things are broken' },
    facts: { custodians: ['ana', 'cy'], threshold: 2 },
  })
  const refused = entries.filter(({ kind }) => kind === 'breakglass.refused')
  expect(refused.length).toBe(2)
  const text = await readFile(join(gateway.data, 'audit', 'entries.jsonl'), 'utf8')
  expect(text).not.toContain(KEY)
  expect(text).not.toContain(handle)
})

it('is closed at once, and stays closed', async () => {
  const [{ id = '' } = {}] = (await control().breakGlass()).open
  const { stdout, stderr } = await drill.keyless(['break-glass', 'close', id, '--data', gateway.data])
  expect(stdout, stderr).toMatch(/^Closed/)
  expect(await gateway.curl(handle, THINGS())).toMatch(/ 000 407$/)
  await gateway.kill()
  await gateway.restart()
  expect(await gateway.curl(handle, THINGS())).toMatch(/ 000 407$/)
})
