import { appendFile, readdir, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { beforeEach, describe, expect, it, vi } from 'vitest'
import { type Disk, realDisk } from '../../gateway/audit/files/disk.ts'
import { loadLogKey } from '../../gateway/audit/log.ts'
import { openCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import { noteVerifier, parseVerifier } from '../../gateway/audit/tree/note.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import {
  entriesOf,
  failingDisk,
  linesOf,
  note,
  ORIGIN,
  openTestLog,
  temporaryDir,
  testClock,
  verifyStored,
} from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
  return () => rm(dir, { recursive: true, force: true })
})

const checkpointSize = async () =>
  openCheckpoint(
    await readFile(join(dir, 'checkpoint')),
    parseVerifier((await readFile(join(dir, 'log.pub'), 'utf8')).trim()),
  ).size

/** A log of `entries` notes between its opening and its seal: `entries + 2` in all. */
async function fill(entries: number): Promise<void> {
  const log = await openTestLog(dir)
  for (let i = 0; i < entries; i++) await log.append(note({ i }))
  await log.close()
}

describe('appending', () => {
  it('numbers entries without gaps, in the order they came, and every one is in the file when it resolves', async () => {
    const log = await openTestLog(dir)
    const seqs = await Promise.all(Array.from({ length: 500 }, (_, i) => log.append(note({ i }))))
    expect(seqs).toEqual(Array.from({ length: 500 }, (_, i) => i + 1))
    const entries = await entriesOf(dir)
    expect(entries.slice(1).map((entry) => entry.facts?.i)).toEqual(Array.from({ length: 500 }, (_, i) => i))
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 502, covered: 502, uncovered: 0 })
  })

  it('writes what gathers during one write in the next one', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    const before = disk.writes
    await Promise.all(Array.from({ length: 1000 }, (_, i) => log.append(note({ i }))))
    expect(disk.writes - before).toBeLessThanOrEqual(2)
    await log.close()
  })

  it('splits what is too much for one write', async () => {
    const log = await openTestLog(dir)
    const long = 'x'.repeat(4000)
    await Promise.all(Array.from({ length: 1000 }, (_, i) => log.append(note({ i, long }))))
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 1002 })
  })

  it('takes outcomes without waiting, and writes them before it closes', async () => {
    const log = await openTestLog(dir)
    log.enqueue(note({ i: 1 }))
    expect(log.size).toBe(1)
    await log.close()
    expect((await entriesOf(dir)).map((entry) => entry.kind)).toEqual(['log.opened', 'policy.loaded', 'log.sealed'])
  })

  it('refuses after it was closed, and closes once', async () => {
    const log = await openTestLog(dir)
    await Promise.all([log.close(), log.close()])
    await expect(log.append(note())).rejects.toMatchObject({ code: 'audit_unavailable' })
  })

  it('says when the clock was set back, and goes on', async () => {
    const clock = testClock()
    const log = await openTestLog(dir, { clock })
    await log.append(note())
    clock.ms -= 3_600_000
    await log.append(note())
    clock.ms -= 20_000
    await log.append(note())
    await log.close()
    expect((await entriesOf(dir)).map((entry) => entry.kind)).toEqual([
      'log.opened',
      'policy.loaded',
      'log.clock_set_back',
      'policy.loaded',
      'policy.loaded',
      'log.sealed',
    ])
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
  })

  it('waits only for the write when it is relaxed, and syncs before it signs', async () => {
    const steps: string[] = []
    const disk = {
      ...realDisk,
      sync: (fd: number) => {
        steps.push('sync')
        return realDisk.sync(fd)
      },
      replace: (path: string, text: string) => {
        steps.push('sign')
        return realDisk.replace(path, text)
      },
    }
    const log = await openTestLog(dir, { durability: 'relaxed', disk })
    await log.append(note())
    await log.close()
    expect(steps.slice(0, 2)).toEqual(['sync', 'sign'])
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 3 })
  })
})

describe('on disk', () => {
  it('keeps everything but the public key to its owner', async () => {
    await (await openTestLog(dir)).close()
    const modes = await Promise.all(
      (await readdir(dir)).map(async (name) => [name, ((await stat(join(dir, name))).mode & 0o777).toString(8)]),
    )
    expect(Object.fromEntries(modes)).toEqual({
      checkpoint: '600',
      'entries.jsonl': '600',
      leaves: '600',
      lock: '600',
      'log.key': '600',
      'log.pub': '644',
    })
  })

  it('has a signed checkpoint before anything but its own opening is in it', async () => {
    const log = await openTestLog(dir)
    expect(await checkpointSize()).toBe(1)
    await log.close()
  })

  it('signs at most every 200 ms while it grows, and once more at the end', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const disk = failingDisk()
      let signed = 0
      disk.replace = (path, text) => {
        signed += 1
        return realDisk.replace(path, text)
      }
      const log = await openTestLog(dir, { disk })
      for (let i = 0; i < 50; i++) await log.append(note({ i }))
      expect(signed).toBe(1)
      await vi.advanceTimersByTimeAsync(199)
      expect(signed).toBe(1)
      await vi.advanceTimersByTimeAsync(1)
      await vi.waitFor(() => expect(signed).toBe(2))
      await log.close()
      expect(signed).toBe(3)
    } finally {
      vi.useRealTimers()
    }
  })

  it('has one writer', async () => {
    const log = await openTestLog(dir)
    await expect(openTestLog(dir)).rejects.toThrow('another gateway writes this log')
    await log.append(note())
    await log.close()
    await (await openTestLog(dir)).close()
  })

  it('keeps its name and key for ever', async () => {
    await (await openTestLog(dir)).close()
    await expect(loadLogKey(dir, 'keyless.test/renamed')).rejects.toThrow('Keep audit.origin and log.key as they were')
    await rm(join(dir, 'log.key'))
    await expect(loadLogKey(dir, ORIGIN)).rejects.toThrow('another key (was log.key replaced?)')
  })

  it('gives two that start at once the same key', async () => {
    const [one, two] = await Promise.all([loadLogKey(dir, ORIGIN), loadLogKey(dir, ORIGIN)])
    expect(one.equals(two)).toBe(true)
    expect(noteVerifier(ORIGIN, one).keyId).toBeDefined()
  })

  it('refuses a key file that is none', async () => {
    await writeFile(join(dir, 'log.key'), 'garbage')
    await expect(loadLogKey(dir, ORIGIN)).rejects.toThrow('is not a private key in PEM form')
  })
})

describe('a failing disk', () => {
  it.each(['before', 'after', 'half'] as const)(
    'that fails %s the bytes are stored refuses the call, leaves no trace of it, and recovers by itself',
    async (fails) => {
      const disk = failingDisk()
      const log = await openTestLog(dir, { disk })
      await log.append(note({ i: 1 }))
      const good = await readFile(join(dir, 'entries.jsonl'))
      disk.fails = fails
      await expect(log.append(note({ i: 2 }))).rejects.toMatchObject({
        code: 'audit_unavailable',
        message: expect.stringContaining('ENOSPC'),
      })
      expect(log.failure).toMatchObject({ code: 'ENOSPC' })
      expect(await readFile(join(dir, 'entries.jsonl'))).toEqual(good)
      disk.fails = undefined
      expect(await log.append(note({ i: 3 }))).toBe(3)
      expect(log.failure).toBeUndefined()
      await log.close()
      const entries = await entriesOf(dir)
      expect(entries.map((entry) => entry.kind)).toEqual([
        'log.opened',
        'policy.loaded',
        'log.recovered',
        'policy.loaded',
        'log.sealed',
      ])
      expect(entries[2]?.facts).toMatchObject({ reason: 'write_failed', error: 'ENOSPC', refused: 1 })
      expect(await verifyStored(dir)).toMatchObject({ ok: true })
    },
  )

  it('refuses everyone who waits, and nobody twice', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    disk.fails = 'half'
    const results = await Promise.allSettled(Array.from({ length: 100 }, (_, i) => log.append(note({ i }))))
    expect(results.every((result) => result.status === 'rejected' && result.reason instanceof GatewayError)).toBe(true)
    disk.fails = undefined
    await log.append(note({ i: 100 }))
    await log.close()
    expect((await entriesOf(dir)).map((entry) => entry.facts?.i).filter((i) => i !== undefined)).toEqual([100])
  })

  it('keeps refusing until what it left behind can be cut off', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    disk.fails = 'half'
    disk.cannotCut = true
    await expect(log.append(note())).rejects.toThrow('ENOSPC')
    disk.fails = undefined
    await expect(log.append(note())).rejects.toThrow('EIO')
    disk.cannotCut = false
    await log.append(note())
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 4 })
  })

  it('loses no outcome, keeps their order, and writes them when it can, though nobody calls', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] })
    try {
      const disk = failingDisk()
      const log = await openTestLog(dir, { disk })
      disk.fails = 'after'
      for (let i = 0; i < 10; i++) log.enqueue(note({ i }))
      await vi.waitFor(() => expect(log.failure).toBeDefined())
      log.enqueue(note({ i: 10 }))
      disk.fails = undefined
      await vi.advanceTimersByTimeAsync(1000)
      await vi.waitFor(() => expect(log.size).toBe(13))
      expect(log.failure).toBeUndefined()
      await log.close()
    } finally {
      vi.useRealTimers()
    }
    const numbers = (await entriesOf(dir)).map((entry) => entry.facts?.i).filter((i) => i !== undefined)
    expect(numbers).toEqual(Array.from({ length: 11 }, (_, i) => i))
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
  })

  it('lets no call in when it has kept all the outcomes it may', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    disk.fails = 'before'
    log.enqueue(note({ i: 0 }))
    await expect.poll(() => log.failure).toBeDefined()
    for (let i = 1; i < 50_000; i++) log.enqueue(note({ i }))
    await expect(log.append(note())).rejects.toMatchObject({ code: 'audit_unavailable' })
    disk.fails = undefined
    await expect.poll(() => log.failure).toBeUndefined()
    await vi.waitFor(() => log.append(note()), { timeout: 5000 })
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 50_004 })
  })

  it('says how much is lost when it fails to the end, and gives the lock back', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    disk.fails = 'half'
    log.enqueue(note())
    await expect(log.close()).rejects.toThrow('1 entries are not written')
    await (await openTestLog(dir)).close()
  })

  it('that cannot take the checkpoint is reported, and signed later', async () => {
    const disk = failingDisk()
    const log = await openTestLog(dir, { disk })
    disk.replace = () => Promise.reject(Object.assign(new Error('EROFS'), { code: 'EROFS' }))
    await log.append(note())
    await expect.poll(() => log.failure).toMatchObject({ code: 'EROFS' })
    disk.replace = realDisk.replace
    await expect.poll(() => log.failure).toBeUndefined()
    await log.close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, uncovered: 0 })
  })

  it('at the start is an error, and leaves the log as it was', async () => {
    await (await openTestLog(dir)).close()
    const disk = failingDisk()
    disk.fails = 'half'
    await expect(openTestLog(dir, { disk })).rejects.toMatchObject({ code: 'audit_unavailable' })
    await (await openTestLog(dir)).close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 4 })
  })
})

describe('a disk that hangs', () => {
  it('has those refused who come behind a write of 5 s, and loses nothing', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const clock = testClock()
      const held: (() => void)[] = []
      let hangs = false
      const store: Disk['store'] = (batch, done) =>
        hangs ? void held.push(() => realDisk.store(batch, done)) : realDisk.store(batch, done)
      const log = await openTestLog(dir, { clock, disk: { ...realDisk, store } })
      hangs = true
      const first = log.append(note({ n: 1 }))
      await expect.poll(() => held.length).toBe(1)
      const second = log.append(note({ n: 2 }))
      log.enqueue(note({ n: 3 }))
      clock.ms += 4_999
      vi.advanceTimersByTime(1000)
      expect(log.failure).toBeUndefined()
      clock.ms += 1
      vi.advanceTimersByTime(1000)
      await expect(second).rejects.toMatchObject({ code: 'audit_unavailable' })
      await expect(log.append(note())).rejects.toThrow('ETIMEDOUT')
      expect(log.failure?.message).toBe('a write has taken more than 5 s')
      hangs = false
      held[0]?.()
      expect(await first).toBe(1)
      await log.append(note({ n: 4 }))
      expect(log.failure).toBeUndefined()
      await log.close()
      const entries = await entriesOf(dir)
      const told = entries.map(({ kind, facts }) => (kind === 'policy.loaded' ? facts?.n : kind))
      expect(told).toEqual(['log.opened', 1, 'log.stalled', 3, 4, 'log.sealed'])
      expect(entries[2]?.facts).toEqual({ from_ms: clock.ms - 5000, ms: 5000, refused: 2 })
      expect(await verifyStored(dir)).toMatchObject({ ok: true })
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('a directory that hangs', () => {
  it('has those refused who come while a file is changed for more than 5 s, and goes on', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] })
    try {
      const clock = testClock()
      const { promise, resolve } = Promise.withResolvers<void>()
      let isHanging = false
      const rotate: Disk['rotate'] = async (...how) => {
        isHanging = true
        await promise
        return realDisk.rotate(...how)
      }
      const log = await openTestLog(dir, { clock, segmentBytes: 1, disk: { ...realDisk, rotate } })
      const waiting = log.append(note({ n: 1 }))
      await expect.poll(() => isHanging).toBe(true)
      clock.ms += 5000
      vi.advanceTimersByTime(1000)
      await expect(waiting).rejects.toMatchObject({ code: 'audit_unavailable' })
      await expect(log.append(note())).rejects.toThrow('ETIMEDOUT')
      resolve()
      await expect.poll(() => log.failure).toBeUndefined()
      await log.append(note({ n: 2 }))
      await log.close()
      expect(await verifyStored(dir)).toMatchObject({ ok: true })
    } finally {
      vi.useRealTimers()
    }
  })
})

describe('starting again', () => {
  it('goes on where it stopped, and names the head it goes on from', async () => {
    await fill(10)
    const log = await openTestLog(dir)
    expect(await log.append(note())).toBe(13)
    await log.close()
    expect((await entriesOf(dir))[12]).toMatchObject({ kind: 'log.opened', facts: { previous_size: 12 } })
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 15 })
  })

  it.each([
    ['half an entry', '{"kind":"policy.loaded","seq":12,"ts":'],
    [
      'an entry with a foreign number',
      '{"kind":"policy.loaded","seq":99,"ts":"2026-11-21T23:04:05.123Z","v":"ar/1"}\n',
    ],
    ['zeros', '\0'.repeat(4096)],
    ['a line without end', 'x'.repeat(100_000)],
  ])('cuts off %s at the end, keeps it aside, and says so', async (_, tail) => {
    await fill(10)
    await appendFile(join(dir, 'entries.jsonl'), tail)
    expect(await verifyStored(dir, {})).toMatchObject({ entries: tail.endsWith('\n') ? 13 : 12 })
    const log = await openTestLog(dir)
    await log.close()
    const recovered = (await entriesOf(dir))[12]
    expect(recovered).toMatchObject({ kind: 'log.recovered', facts: { reason: 'torn_tail', cut_bytes: tail.length } })
    expect(await readFile(join(dir, String(recovered?.facts?.kept_in)), 'utf8')).toBe(tail)
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 15 })
  })

  it('takes up whole entries that no checkpoint covers yet', async () => {
    await fill(10)
    const line = JSON.stringify({ kind: 'policy.loaded', seq: 12, ts: '2026-11-21T23:04:05.123Z', v: 'ar/1' })
    await appendFile(join(dir, 'entries.jsonl'), `${line}\n`)
    await (await openTestLog(dir)).close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 15 })
  })

  it('refuses a log that is shorter than its checkpoint', async () => {
    await fill(10)
    const lines = await linesOf(dir)
    await writeFile(join(dir, 'entries.jsonl'), `${lines.slice(0, -2).join('\n')}\n`)
    await expect(openTestLog(dir)).rejects.toThrow('entries 10 to 11 are missing from its end')
  })

  it('refuses a log that was cut in the middle of a signed entry', async () => {
    await fill(10)
    await truncate(join(dir, 'entries.jsonl'), (await stat(join(dir, 'entries.jsonl'))).size - 10)
    await expect(openTestLog(dir)).rejects.toThrow('entry 11 is damaged')
  })

  it('refuses a log whose root is not the signed one', async () => {
    await fill(10)
    const lines = await linesOf(dir)
    // The last line as well: the stored hashes vouch for what is before it, and `verify` for all.
    const changed = lines.map((line) => line.replace('"default"', '"defau1t"').replace('"seq":11', '"seq":12'))
    await writeFile(join(dir, 'entries.jsonl'), `${changed.join('\n')}\n`)
    await expect(openTestLog(dir)).rejects.toThrow('does not match its signed checkpoint at size 12')
  })

  it('makes the leaf hashes again when they are lost or damaged', async () => {
    await fill(10)
    await rm(join(dir, 'leaves'))
    await (await openTestLog(dir)).close()
    await writeFile(join(dir, 'leaves'), 'garbage')
    await (await openTestLog(dir)).close()
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: 16 })
    expect((await stat(join(dir, 'leaves'))).size).toBe(16 * 32)
  })

  it('refuses calls without any signed head', async () => {
    await fill(10)
    await rm(join(dir, 'checkpoint'))
    await expect(openTestLog(dir)).rejects.toThrow('its signed checkpoint is gone')
  })

  it('refuses a checkpoint of another key', async () => {
    await fill(3)
    const other = await temporaryDir()
    await (await openTestLog(other)).close()
    await writeFile(join(dir, 'checkpoint'), await readFile(join(other, 'checkpoint')))
    await rm(other, { recursive: true })
    await expect(openTestLog(dir)).rejects.toThrow('the checkpoint is not signed by')
  })
})
