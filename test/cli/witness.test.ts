/** `keyless witness` as a process: what it prints, what it bounds, and that no death makes it sign two histories. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { formatVerifier, parseNote, parseSignatures } from '../../gateway/audit/tree/note.ts'
import { cosignedAt, parseWitnessKey } from '../../gateway/audit/witness/cosignature.ts'
import { witnessCommand } from '../../gateway/cli/witness.ts'
import { keys, playedLog } from '../audit/witness.fixture.ts'
import { ROOT, run } from '../rig/process.ts'
import { startWitness, submit, type TestWitness } from '../rig/witness.ts'

const pair = keys()
const log = playedLog(pair)
const LOG_KEY = formatVerifier(log.verifier)
const keyless = (args: readonly string[], cwd?: string) =>
  run(process.execPath, [join(ROOT, 'gateway/keyless.ts'), ...args], {
    ...(cwd === undefined ? {} : { cwd }),
    env: { ...process.env, KEYLESS_HOME: join(dir, 'home') },
  })

let dir: string
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-witness-'))
})
afterEach(() => rm(dir, { recursive: true, force: true }))

describe('a witness that runs', () => {
  let witness: TestWitness
  let data: string
  beforeAll(async () => {
    data = await mkdtemp(join(tmpdir(), 'keyless-witness-'))
    witness = await startWitness(data, [LOG_KEY])
  })
  afterAll(async () => {
    await witness.process.stop()
    await rm(data, { recursive: true, force: true })
  })

  it('cosigns under the key that it prints, and that "keyless witness key" prints', async () => {
    const answer = await submit(witness.url, log.submission(0, 5))
    expect(answer).toMatchObject({ status: 200 })
    const { text } = parseNote(Buffer.from(log.note(5)))
    const at = cosignedAt(text, parseSignatures(answer.text), parseWitnessKey(witness.key))
    expect(Math.abs((at ?? 0) - Date.now() / 1000)).toBeLessThan(60)
    const printed = await keyless(['witness', 'key', '--data', data])
    expect(printed.stdout).toBe(`${witness.key}\n`)
  })

  it('answers an old size that is not its own with its own, as text/x.tlog.size', async () => {
    expect(await submit(witness.url, log.submission(4, 8))).toMatchObject({ status: 409, type: 'text/x.tlog.size' })
  })

  it('lets no second process remember beside it', async () => {
    const second = await keyless(['witness', '--data', data, '--log', LOG_KEY, '--listen', '127.0.0.1:0'])
    expect(second).toMatchObject({ code: 1 })
    expect(second.stderr).toContain('another witness runs on this directory')
  })

  it('reads no more than a checkpoint can need, and goes on', async () => {
    expect(await submit(witness.url, Buffer.alloc(300_000))).toMatchObject({ status: 413 })
    expect(await submit(witness.url, Buffer.alloc(100_000))).toMatchObject({ status: 400 })
    expect((await fetch(witness.url)).status).toBe(404)
    expect((await fetch(`${witness.url}/add-checkpoint`)).status).toBe(405)
    const socket = connect(Number(new URL(witness.url).port), '127.0.0.1')
    socket.write('POST /add-checkpoint HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nold 0') // and then nothing
    expect(await submit(witness.url, '')).toMatchObject({ status: 400 })
    socket.destroy()
  })
})

it.each([
  ['no log', [], 'Name at least one log'],
  ['a log that is no key', ['--log', 'log+00000000+AAAA'], 'not an Ed25519 key'],
  ['a file that is not there', ['--log', 'nowhere.pub'], 'Name the log.pub'],
  ['an address that is none', ['--log', LOG_KEY, '--listen', '8090'], 'Write host and port'],
  ['a name that cannot be in a signature line', ['--log', LOG_KEY, '--name', 'two words'], 'must not be empty'],
])('says what to do about %s', async (_, args, words) => {
  const command = witnessCommand()
    .exitOverride()
    .configureOutput({ writeErr: () => undefined })
  const ended = command.parseAsync(['--data', join(dir, 'w'), ...args], { from: 'user' })
  await expect(ended).rejects.toThrow(words)
})

it('keeps its name, because logs trust it by that', async () => {
  const data = join(dir, 'w')
  const first = await keyless(['witness', 'key', '--data', data, '--name', 'witness.example.com/acme'])
  expect(first.stdout).toMatch(/^witness\.example\.com\/acme\+[0-9a-f]{8}\+B/)
  expect((await keyless(['witness', 'key', '--data', data])).stdout).toBe(first.stdout)
  const other = await keyless(['witness', 'key', '--data', data, '--name', 'other'])
  expect(other.stderr).toContain('is called witness.example.com/acme')
})

it('prints the key of a gateway before its first start, so that replicas can be told of each other', async () => {
  await writeFile(join(dir, 'keyless.yaml'), 'data_dir: gw\nservices: []\naudit: { origin: gw-1.acme.test/log }\n')
  const printed = await keyless(['witness', 'key'], dir)
  expect(printed.stdout).toMatch(/^gw-1\.acme\.test\/log\/witness\+/)
  expect(await readdir(join(dir, 'gw', 'witness'))).toEqual(expect.arrayContaining(['witness.key', 'witness.pub']))
})

it('killed at any moment, never signs two histories', { timeout: 60_000 }, async () => {
  const other = playedLog(pair, (n) => (n < 2 ? `entry ${n}` : `other ${n}`))
  const signed: { size: number; note: string }[] = []
  let size = 0
  for (let round = 0; round < 4; round++) {
    const witness = await startWitness(join(dir, 'w'), [LOG_KEY])
    // So much it has signed by then, however fast this machine is; and then in the middle of whatever it does.
    const enough = signed.length + 4 + Math.random() * 40
    let kill: NodeJS.Timeout | undefined
    // Both histories ask for the next size at once, again and again, from the size that the witness names.
    for (let isUp = true; isUp; ) {
      const both = Math.random() < 0.5 ? [log, other] : [other, log]
      const tries = both.map(async (history) => {
        const answer = await submit(witness.url, history.submission(size, size + 1))
        if (answer.status === 200) signed.push({ size: size + 1, note: history.note(size + 1) })
        return answer
      })
      const answers = await Promise.allSettled(tries)
      isUp = answers.every(({ status }) => status === 'fulfilled')
      if (signed.length > enough) kill ??= setTimeout(() => witness.process.kill('SIGKILL'), Math.random() * 20)
      const known = answers.map((one) => (one.status === 'fulfilled' && one.value.status === 409 ? one.value.text : ''))
      size = Math.max(size, ...known.map(Number), ...signed.map((one) => one.size))
      if (size > 250) break
    }
    clearTimeout(kill)
    witness.process.kill('SIGKILL')
    await witness.process.ended
  }
  expect(signed.length).toBeGreaterThan(10)
  // Up to two entries the histories are one; after that only one of them may have been signed.
  const parted = signed.filter((one) => one.size > 2)
  expect(new Set(parted.map((one) => log.note(one.size) === one.note)).size, JSON.stringify(parted)).toBe(1)
})
