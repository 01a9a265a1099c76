/** One thread compresses all files, one after the other; when it is ended or dies, whoever waits is told, and the next file has another. */

import { readFileSync } from 'node:fs'
import { rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { ArchiveThread } from '../../gateway/audit/files/archive-thread.ts'
import { leafHash } from '../../gateway/audit/tree/merkle.ts'
import { temporaryDir } from './log.fixture.ts'

const FIRST = 100
let dir: string
let thread: ArchiveThread
beforeEach(async () => {
  dir = await temporaryDir()
  thread = new ArchiveThread()
})
afterEach(async () => {
  await thread.end()
  await rm(dir, { recursive: true, force: true })
})

/** A closed segment of these lines, and the hashes that were logged of `logged`. */
async function segment(
  lines: readonly string[],
  logged = lines,
): Promise<{ dir: string; first: number; count: number }> {
  const leaves = logged.map((line) => leafHash(Buffer.from(line)))
  await writeFile(join(dir, 'leaves'), Buffer.concat([Buffer.alloc(32 * FIRST), ...leaves]))
  await writeFile(plain(), lines.map((line) => `${line}\n`).join(''))
  return { dir, first: FIRST, count: lines.length }
}

const plain = () => join(dir, `entries-${String(FIRST).padStart(12, '0')}.jsonl`)
const entry = (n: number, length: number) => `{"n":${n},"filler":"${'x'.repeat(length)}"}`

it.each([
  ['short', 1000, 10],
  ['of which a frame is longer than what is read at once', 600, 6000],
  ['as long as they can be', 300, 60_000],
  ['that end with a frame', 256 - FIRST + 256, 100],
])('compresses entries %s', async (_, count, length) => {
  const lines = Array.from({ length: count }, (_, n) => entry(n, length))
  expect(await thread.compress([await segment(lines)])).toEqual([])
  expect(zstdDecompressSync(readFileSync(`${plain()}.zst`)).toString()).toBe(`${lines.join('\n')}\n`)
  expect(() => readFileSync(plain())).toThrow('ENOENT')
})

it.each([
  ['an entry that was changed', (lines: string[]) => lines.with(5, entry(5, 11))],
  ['an entry too many', (lines: string[]) => [...lines, entry(9, 10)]],
  ['an entry too few', (lines: string[]) => lines.slice(0, -1)],
  ['a line that is too long', (lines: string[]) => [...lines, entry(9, 40_000_000)]],
])('leaves a file with %s as it is, and goes on', async (_, change) => {
  const lines = Array.from({ length: 700 }, (_, n) => entry(n, 10))
  const { count } = await segment(lines)
  await segment(change(lines), lines)
  const before = readFileSync(plain())
  const [failure] = await thread.compress([{ dir, first: FIRST, count }])
  expect(failure).toMatchObject({ first: FIRST, code: undefined })
  expect(readFileSync(plain()).equals(before)).toBe(true)
  expect(await thread.compress([await segment(lines)])).toEqual([])
})

it('leaves a file without its last line feed as it is', async () => {
  const whole = await segment([entry(0, 10), entry(1, 10)])
  await writeFile(plain(), `${entry(0, 10)}\n${entry(1, 10)}`)
  expect(await thread.compress([whole])).toMatchObject([{ first: FIRST, code: undefined }])
})

it('gives up what is under way when it is ended, and begins anew', async () => {
  const lines = Array.from({ length: 5000 }, (_, n) => entry(n, 1000))
  const whole = await segment(lines)
  const given = expect(thread.compress([whole])).rejects.toThrow('was ended')
  await thread.end()
  await given
  expect(await thread.compress([whole])).toEqual([])
})
