/** The attacks on a log, one by one and at random: each is found, or has changed nothing that anybody reads. */
import { generateKeyPairSync } from 'node:crypto'
import { cp, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { compressSegment } from '../../gateway/audit/files/compress.ts'
import { readEntries } from '../../gateway/audit/files/follow.ts'
import { listSegments } from '../../gateway/audit/files/segments.ts'
import { exitCode, type VerifyOptions, verifyLog, verifyLogs } from '../../gateway/audit/verify/verify.ts'
import { cosigner, formatWitnessKey } from '../../gateway/audit/witness/cosignature.ts'
import { history, renumber, signAgain, writeHistory } from './history.fixture.ts'
import { linesOf, ORIGIN, temporaryDir, testClock } from './log.fixture.ts'

let base: string
/** An honest log in one file, and one of several: plain, compressed, active. */
let whole: string
let parted: string
let publicKey: Record<string, string>
beforeAll(async () => {
  base = await temporaryDir()
  whole = join(base, 'whole')
  parted = join(base, 'parted')
  await writeHistory(whole)
  await writeHistory(parted, { segmentBytes: 4096 })
  const closed = (await listSegments(parted)).filter(({ count, form }) => count !== undefined && form === 'plain')
  for (const { first, count = 0 } of closed.slice(0, 2)) await compressSegment({ dir: parted, first, count })
  publicKey = Object.fromEntries(
    await Promise.all([whole, parted].map(async (dir) => [dir, await readFile(join(dir, 'log.pub'), 'utf8')])),
  )
})
afterAll(() => rm(base, { recursive: true, force: true }))

let dir: string
beforeEach(async () => {
  dir = join(await temporaryDir(), 'audit')
})
afterEach(() => rm(join(dir, '..'), { recursive: true, force: true }))

const take = async (from: string) => {
  await cp(from, dir, { recursive: true })
  return dir
}
const file = (name: string) => join(dir, name)
const memory = () => join(dir, '..', 'remembered.json')
const remembering = (): VerifyOptions => ({ remember: memory() })

async function entries(from: string): Promise<string> {
  const all: string[] = []
  for await (const stretch of readEntries(from)) all.push(...stretch.entries.map(String))
  return all.join('\n')
}

it('finds both logs sound', async () => {
  const forms = (await listSegments(parted)).map(({ form }) => form)
  expect(forms).toEqual(expect.arrayContaining(['zstd', 'zstd', 'plain', 'plain']))
  for (const log of [whole, parted]) expect(await verifyLog(log)).toMatchObject({ ok: true, warnings: [], pruned: 0 })
})

describe('whoever has stolen the key and rewrites everything is caught', () => {
  const rewrite = async (edit: (lines: string[]) => string[]) =>
    signAgain(dir, renumber(edit(await linesOf(dir))), ORIGIN)

  it.each<[string, (lines: string[]) => string[], RegExp]>([
    [
      'by what was remembered, after an edit',
      (lines) => lines.map((line) => line.replaceAll('"ana"', '"bob"')),
      /not those that were verified on/,
    ],
    [
      'by what was remembered, after calls were dropped',
      (lines) => lines.filter((line) => !line.includes('"kind":"call.')),
      /an earlier verification saw/,
    ],
  ])('%s', async (_, edit, what) => {
    await take(whole)
    await verifyLog(dir, remembering())
    await rewrite(edit)
    const verdict = await verifyLog(dir, remembering())
    expect([exitCode(verdict), verdict.faults.map((fault) => fault.what).join('; ')]).toEqual([
      1,
      expect.stringMatching(what),
    ])
  })

  it('by the cosignature of a witness', async () => {
    await take(whole)
    const { key } = await cosign()
    await rewrite((lines) => lines.map((line) => line.replaceAll('/repos/acme/site', '/repos/acme/cite')))
    expect(await verifyLog(dir, { witnessKeys: [key], checks: 'integrity' })).toMatchObject({
      ok: false,
      faults: [{ check: 'witness', what: expect.stringContaining('witnesses saw') }],
    })
  })

  it('by the lineage, where only that was rewritten', async () => {
    await take(whole)
    await rewrite((lines) => lines.map((line) => line.replaceAll('agents/triage"', 'agents/other"')))
    expect(await verifyLog(dir)).toMatchObject({ ok: false, first_bad: { check: 'grant' } })
  })
})

async function cosign(atS = 1_795_000_000) {
  const { privateKey } = generateKeyPairSync('ed25519')
  const { cosign: sign, verifier } = cosigner('witness.example.com/w1', privateKey)
  const note = await readFile(file('checkpoint'), 'utf8')
  await writeFile(file('checkpoint.witnessed'), note + sign(note.slice(0, note.indexOf('\n\n') + 1), atS))
  return { key: formatWitnessKey(verifier), note }
}

describe('witnesses', () => {
  it('are counted, and the newest cosignature says how old the log is', async () => {
    await take(whole)
    const [one, two] = [
      await cosign(),
      formatWitnessKey(cosigner('w2', generateKeyPairSync('ed25519').privateKey).verifier),
    ]
    const nowMs = 1_795_000_060_000
    const verify = (o: VerifyOptions) => verifyLog(dir, { nowMs, ...o })
    expect(await verify({ witnessKeys: [one.key], maxAgeS: 60 })).toMatchObject({
      ok: true,
      witnessed: { by: ['witness.example.com/w1'], at: '2026-11-18T11:06:40.000Z' },
    })
    expect(await verify({ witnessKeys: [one.key], maxAgeS: 59 })).toMatchObject({
      ok: false,
      first_bad: { check: 'age' },
    })
    expect(await verify({ witnessKeys: [one.key, two] })).toMatchObject({ ok: false, first_bad: { check: 'witness' } })
    expect(await verify({ witnessKeys: [one.key, two], minWitnesses: 1 })).toMatchObject({ ok: true })
    await rm(file('checkpoint.witnessed'))
    expect(await verify({ witnessKeys: [one.key] })).toMatchObject({ ok: false, first_bad: { check: 'witness' } })
  })

  it('are not believed when their cosignature is wrong', async () => {
    await take(whole)
    const { key } = await cosign()
    const note = await readFile(file('checkpoint.witnessed'), 'utf8')
    await writeFile(file('checkpoint.witnessed'), note.replace(/.{8}\n$/, 'AAAAAAA=\n'))
    expect((await verifyLog(dir, { witnessKeys: [key] })).faults).toContainEqual(
      expect.objectContaining({ check: 'witness' }),
    )
  })
})

describe('what is remembered', () => {
  it('goes on from one verification to the next while the log grows', async () => {
    await take(whole)
    const first = await verifyLog(dir, remembering())
    await (await history(dir, { clock: testClock(Date.parse('2026-11-22T10:00:00Z')) })).close()
    expect(await verifyLog(dir, remembering())).toMatchObject({ ok: true, remembered: { size: first.covered } })
    expect(await verifyLog(dir, remembering())).toMatchObject({ ok: true, remembered: { size: first.covered + 4 } })
  })

  it('finds an old directory restored', async () => {
    await take(whole)
    const old = join(dir, '..', 'old')
    await cp(dir, old, { recursive: true })
    await (await history(dir, { clock: testClock(Date.parse('2026-11-22T10:00:00Z')) })).close()
    const { covered } = await verifyLog(dir, remembering())
    await rm(dir, { recursive: true })
    await cp(old, dir, { recursive: true })
    expect(await verifyLog(dir, remembering())).toMatchObject({
      ok: false,
      first_bad: { check: 'remembered', index: covered - 4 },
    })
  })

  it('finds log, checkpoint and public key replaced together', async () => {
    await take(whole)
    await verifyLog(dir, remembering())
    await rm(dir, { recursive: true })
    await writeHistory(dir)
    expect(await verifyLog(dir)).toMatchObject({ ok: true })
    expect(await verifyLog(dir, remembering())).toMatchObject({ ok: false })
  })

  it('is not overwritten by a log that is not sound, nor by a file that is none of its own', async () => {
    await take(whole)
    await verifyLog(dir, remembering())
    const before = await readFile(memory(), 'utf8')
    await writeFile(file('entries.jsonl'), 'nothing\n')
    await verifyLog(dir, remembering())
    expect(await readFile(memory(), 'utf8')).toBe(before)
    await writeFile(memory(), '{}')
    await expect(verifyLog(dir, remembering())).rejects.toThrow('not a file that was written by --remember')
  })
})

describe('files of the log', () => {
  it('a fork in another directory is held against it', async () => {
    await take(whole)
    const other = join(dir, '..', 'fork')
    await cp(dir, other, { recursive: true })
    for (const [path, hour] of [
      [dir, '10'],
      [other, '11'],
    ] as const)
      await (await history(path, { clock: testClock(Date.parse(`2026-11-22T${hour}:00:00Z`)) })).close()
    const verdicts = await verifyLogs([dir, other])
    expect(verdicts.flatMap(({ faults }) => faults)).toContainEqual(
      expect.objectContaining({ what: expect.stringContaining('this is a fork') }),
    )
  })

  it('a closed file that is missing is named by its first entry', async () => {
    await take(parted)
    const [, second] = await listSegments(dir)
    await rm(second?.path ?? '')
    expect(await verifyLog(dir)).toMatchObject({
      ok: false,
      first_bad: { index: second?.first, what: expect.stringContaining('is missing') },
    })
  })

  it('text that is gone without retention having said so is missed', async () => {
    await take(parted)
    const [first, second] = await listSegments(dir)
    await rm(first?.path ?? '')
    await writeFile(file('pruned.json'), JSON.stringify({ before: second?.first }))
    expect(await verifyLog(dir)).toMatchObject({
      ok: false,
      pruned: second?.first,
      faults: [{ check: 'file', index: 0 }],
    })
  })

  it('text that retention has removed is missed by nobody', async () => {
    await take(whole)
    const clock = testClock(Date.parse('2026-12-22T10:00:00Z'))
    const h = await history(dir, { clock, segmentBytes: 1024, keepDays: 1 })
    const root = await h.open()
    for (let i = 0; i < 20; i++) await h.call(root, await h.lease(root))
    await expect.poll(() => readdir(dir), { timeout: 5000 }).toContain('pruned.json')
    await h.close()
    const verdict = await verifyLog(dir)
    expect(verdict, JSON.stringify(verdict)).toMatchObject({ ok: true, warnings: [] })
    expect(verdict.pruned).toBeGreaterThan(0)
  })

  it('a file of a closed segment that is cut short is a fault, not a crash', async () => {
    await take(parted)
    const plain = (await listSegments(dir)).find(({ form, count }) => form === 'plain' && count !== undefined)
    await truncate(plain?.path ?? '', 100)
    expect(await verifyLog(dir)).toMatchObject({ ok: false, first_bad: { index: plain?.first } })
  })
})

describe('any single change to any file', () => {
  type Change = {
    readonly name: number
    readonly at: number
    readonly how: 'flip' | 'cut' | 'remove' | 'insert' | 'delete' | 'double' | 'swap'
  }
  const change: fc.Arbitrary<Change> = fc.record({
    name: fc.nat(1000),
    at: fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
    how: fc.constantFrom('flip', 'flip', 'flip', 'cut', 'remove', 'insert', 'delete', 'double', 'swap'),
  })

  const apply = async (path: string, { at, how }: Change) => {
    const bytes = await readFile(path)
    const offset = Math.floor(at * bytes.length)
    if (how === 'remove') return rm(path)
    if (how === 'cut') return writeFile(path, bytes.subarray(0, offset))
    if (how === 'insert')
      return writeFile(path, Buffer.concat([bytes.subarray(0, offset), Buffer.of(0x20), bytes.subarray(offset)]))
    if (how === 'flip') {
      bytes[offset] = (bytes[offset] ?? 0) ^ (1 << (offset % 8))
      return writeFile(path, bytes)
    }
    const lines = bytes.toString('latin1').split('\n')
    const i = Math.floor(at * Math.max(1, lines.length - 1))
    const [line = '', next = ''] = [lines[i], lines[i + 1]]
    if (how === 'delete') lines.splice(i, 1)
    else if (how === 'double') lines.splice(i, 0, line)
    else lines.splice(i, 2, next, line)
    return writeFile(path, Buffer.from(lines.join('\n'), 'latin1'))
  }

  it.each([
    ['one file', () => whole, 60],
    ['several files, some compressed', () => parted, 60],
  ])(
    'in a log of %s is found, or has changed nothing that anybody reads',
    { timeout: 60_000 },
    async (_, log, numRuns) => {
      const names = (await readdir(log())).filter((name) => name !== 'lock').sort()
      const [before, text] = [await verifyLog(log()), await entries(log())]
      await fc.assert(
        fc.asyncProperty(change, async (one) => {
          await rm(dir, { recursive: true, force: true })
          await take(log())
          const name = names[one.name % names.length] ?? ''
          await apply(file(name), one)
          const verdict = await verifyLog(dir, { publicKey: publicKey[log()] ?? '' })
          if (!verdict.ok) return
          const { root, entries: count, covered, torn_bytes: torn } = verdict
          expect({ root, covered }, name).toEqual({ root: before.root, covered: before.covered })
          expect(count, name).toBe(before.entries)
          expect(await entries(dir), name).toBe(text)
          if (torn > 0) expect(name).toBe('entries.jsonl')
        }),
        { numRuns, interruptAfterTimeLimit: 20_000 },
      )
    },
  )
})
