import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { rm } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { entriesOf, openTestLog, temporaryDir, verifyStored } from './log.fixture.ts'

const WRITER = fileURLToPath(new URL('./writer.fixture.ts', import.meta.url))

let dir: string
let child: ChildProcess | undefined
beforeEach(async () => {
  dir = await temporaryDir()
})
afterEach(async () => {
  child?.kill('SIGKILL')
  await rm(dir, { recursive: true, force: true })
})

interface Writer {
  readonly child: ChildProcess
  /** Ids of calls whose decision was acknowledged. */
  readonly acknowledged: string[]
  readonly ended: Promise<unknown>
  /** Resolves when the line has been said. */
  said(line: string): Promise<void>
}

function startWriter(command: string, args: readonly string[]): Writer {
  const started = spawn(command, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  child = started
  const acknowledged: string[] = []
  const seen = new Set<string>()
  const waiting = new Map<string, () => void>()
  const lines = createInterface({ input: started.stdout })
  lines.on('line', (line) => {
    seen.add(line)
    waiting.get(line)?.()
    // A kill can tear the last line; half an id was not acknowledged as a whole.
    if (/^[0-9a-f-]{36}$/.test(line)) acknowledged.push(line)
  })
  const said = (line: string) =>
    seen.has(line) ? Promise.resolve() : new Promise<void>((resolve) => void waiting.set(line, resolve))
  return { child: started, acknowledged, ended: Promise.all([once(lines, 'close'), once(started, 'exit')]), said }
}

async function decided(): Promise<Set<string | undefined>> {
  return new Set((await entriesOf(dir)).filter((entry) => entry.kind === 'call.decision').map((entry) => entry.req))
}

it('killed at any moment, keeps every acknowledged decision and stays sound', { timeout: 120_000 }, async () => {
  const acknowledged: string[] = []
  for (let round = 0; round < 5; round++) {
    const writer = startWriter(process.execPath, [WRITER, dir])
    await writer.said('ready')
    setTimeout(() => writer.child.kill('SIGKILL'), Math.random() * 150)
    await writer.ended
    acknowledged.push(...writer.acknowledged)
    // As it lies there, before anything mends it: nothing signed is missing or changed.
    const asLeft = await verifyStored(dir)
    expect(asLeft, JSON.stringify(asLeft)).toMatchObject({ ok: true })
    await (await openTestLog(dir)).close()
    const mended = await verifyStored(dir)
    expect(mended, JSON.stringify(mended)).toMatchObject({ ok: true, torn_bytes: 0, uncovered: 0 })
    const found = await decided()
    expect(acknowledged.filter((req) => !found.has(req))).toEqual([])
  }
  expect(acknowledged.length).toBeGreaterThan(30)
})

it('gives the lock back when its holder is killed, and not before', { timeout: 30_000 }, async () => {
  const writer = startWriter(process.execPath, [WRITER, dir])
  await writer.said('ready')
  await expect(openTestLog(dir)).rejects.toThrow('another gateway writes this log')
  writer.child.kill('SIGKILL')
  await writer.ended
  await (await openTestLog(dir)).close()
})

// The kernel's own refusal, without a file system to fill: a file-size limit stops writes half way, and is lifted from outside.
it.runIf(hasPrlimit())(
  'refuses calls while the kernel refuses bytes, loses none that were acknowledged, and goes on by itself',
  { timeout: 60_000 },
  async () => {
    const limited = 'trap "" XFSZ; ulimit -S -f 300; exec "$0" "$@"'
    const writer = startWriter('bash', ['-c', limited, process.execPath, WRITER, dir, '4000'])
    await writer.said('refused')
    execFileSync('prlimit', ['--pid', String(writer.child.pid), '--fsize=unlimited'])
    await writer.said('recovered')
    const [, [code]] = (await writer.ended) as [unknown, [number]]
    expect(code).toBe(0)
    const found = await decided()
    expect(writer.acknowledged.filter((req) => !found.has(req))).toEqual([])
    expect(found.size).toBe(writer.acknowledged.length)
    const entries = await entriesOf(dir)
    expect(entries.filter((entry) => entry.kind === 'call.outcome')).toHaveLength(found.size)
    expect(entries.find((entry) => entry.kind === 'log.recovered')?.facts).toMatchObject({
      reason: 'write_failed',
      error: 'EFBIG',
    })
    expect(await verifyStored(dir)).toMatchObject({ ok: true, open_calls: 0 })
  },
)

function hasPrlimit(): boolean {
  try {
    execFileSync('prlimit', ['--version'])
    return true
  } catch {
    return false
  }
}
