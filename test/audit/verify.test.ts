import { generateKeyPairSync } from 'node:crypto'
import { appendFile, copyFile, readFile, rm, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import canonicalize from 'canonicalize'
import { beforeEach, describe, expect, it } from 'vitest'
import { loadLogKey } from '../../gateway/audit/log.ts'
import { checkpointSigner } from '../../gateway/audit/tree/checkpoint.ts'
import { leafHash, treeRoot } from '../../gateway/audit/tree/merkle.ts'
import { formatVerifier, noteVerifier } from '../../gateway/audit/tree/note.ts'
import { exitCode } from '../../gateway/audit/verify/verify.ts'
import { call, linesOf, ORIGIN, openTestLog, temporaryDir, testAudit, verifyStored } from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
  const audit = testAudit(await openTestLog(dir))
  for (let i = 0; i < 5; i++) await call(audit)
  await audit.close()
  return () => rm(dir, { recursive: true, force: true })
})

const write = (lines: readonly string[]) =>
  writeFile(join(dir, 'entries.jsonl'), lines.map((line) => `${line}\n`).join(''))
const change = async (edit: (lines: string[]) => string[]) => write(edit(await linesOf(dir)))
const renumber = (lines: readonly string[]) =>
  lines.map((line, seq) => canonicalize({ ...JSON.parse(line), seq }) ?? '')
/** What someone with the log's key could do: make head and helpers fit whatever the entries now say. */
async function signAgain(lines: readonly string[]): Promise<void> {
  const leaves = lines.map((line) => leafHash(Buffer.from(line)))
  const sign = checkpointSigner(ORIGIN, await loadLogKey(dir, ORIGIN))
  await write(lines)
  await writeFile(join(dir, 'leaves'), Buffer.concat(leaves))
  await writeFile(join(dir, 'checkpoint'), sign({ size: leaves.length, root: treeRoot(leaves) }))
}
/** 0 opened, then decision and outcome in turn, 11 sealed. */
const SIZE = 12

it('finds a whole log sound', async () => {
  const verdict = await verifyStored(dir)
  expect(verdict).toMatchObject({
    ok: true,
    unreadable: null,
    origin: ORIGIN,
    entries: SIZE,
    covered: SIZE,
    uncovered: 0,
    torn_bytes: 0,
    open_calls: 0,
    faults: [],
    first_bad: null,
  })
  expect(exitCode(verdict)).toBe(0)
})

describe('names the first bad entry after', () => {
  it.each<[string, number, (lines: string[]) => string[]]>([
    ['an edit', 3, (lines) => lines.with(3, (lines[3] ?? '').replace('/repos/acme/site', '/repos/acme/sitf'))],
    [
      'an edit that keeps the length and looks like an entry',
      1,
      (lines) => lines.with(1, (lines[1] ?? '').replace('"ana"', '"bob"')),
    ],
    ['a deletion in the middle', 4, (lines) => lines.toSpliced(4, 1)],
    ['a deletion in the middle, renumbered', 4, (lines) => renumber(lines.toSpliced(4, 1))],
    ['a deletion of a whole call, renumbered', 3, (lines) => renumber(lines.toSpliced(3, 2))],
    ['a deletion of the tail', 10, (lines) => lines.slice(0, 10)],
    ['two entries in the other order', 3, (lines) => lines.with(3, lines[5] ?? '').with(5, lines[3] ?? '')],
    [
      'two entries in the other order, renumbered',
      3,
      (lines) => renumber(lines.with(3, lines[5] ?? '').with(5, lines[3] ?? '')),
    ],
    ['a duplicate', 4, (lines) => lines.toSpliced(4, 0, lines[3] ?? '')],
    ['a duplicate, renumbered', 4, (lines) => renumber(lines.toSpliced(4, 0, lines[3] ?? ''))],
    ['an insertion', 5, (lines) => renumber(lines.toSpliced(5, 0, lines[0] ?? ''))],
    ['a blank line', 6, (lines) => lines.toSpliced(6, 0, '')],
    ['garbage', 6, (lines) => lines.with(6, 'garbage')],
    ['the same entry with a space', 2, (lines) => lines.with(2, (lines[2] ?? '').replace(',', ', '))],
    ['the same entry with a member twice', 2, (lines) => lines.with(2, (lines[2] ?? '').replace('{', '{"cred":1,'))],
  ])('%s', async (_, index, edit) => {
    await change(edit)
    const verdict = await verifyStored(dir)
    expect(verdict.first_bad?.index, JSON.stringify(verdict.faults)).toBe(index)
    expect(exitCode(verdict)).toBe(1)
  })
})

describe('sees without any signature to help', () => {
  it.each<[string, number, (lines: string[]) => string[]]>([
    ['an outcome whose decision was dropped', 3, (lines) => renumber(lines.toSpliced(3, 1))],
    [
      'an outcome whose decision was a denial',
      4,
      (lines) => renumber(lines.with(3, (lines[3] ?? '').replace('"effect":"allow"', '"effect":"deny"'))),
    ],
    ['a second outcome', 3, (lines) => renumber(lines.toSpliced(3, 0, lines[2] ?? ''))],
    ['an outcome before its decision', 1, (lines) => renumber(lines.with(1, lines[2] ?? '').with(2, lines[1] ?? ''))],
    ['a call decided twice', 2, (lines) => renumber(lines.toSpliced(2, 0, lines[1] ?? ''))],
    ['a call that outlives a restart', 3, (lines) => renumber(lines.toSpliced(2, 0, lines[0] ?? ''))],
    ['an unknown version', 7, (lines) => lines.with(7, (lines[7] ?? '').replace('"ar/1"', '"ar/2"'))],
    ['an unknown kind', 7, (lines) => lines.with(7, (lines[7] ?? '').replace('"call.decision"', '"cull.decision"'))],
    ['a decision that decides nothing', 7, (lines) => lines.with(7, (lines[7] ?? '').replace('"allow"', '"perhaps"'))],
    ['a time that jumps back', 7, (lines) => lines.with(7, (lines[7] ?? '').replace('T23:04', 'T23:03'))],
    [
      'an entry larger than any',
      7,
      (lines) => lines.with(7, (lines[7] ?? '').replace('"path":"', `"path":"${'x'.repeat(62_000)}`)),
    ],
    ['an escaped lone surrogate', 7, (lines) => lines.with(7, (lines[7] ?? '').replace('"path":"', '"path":"\\ud800'))],
  ])('%s', async (_, index, edit) => {
    await signAgain(edit(await linesOf(dir)))
    expect((await verifyStored(dir)).first_bad?.index).toBe(index)
  })

  it('nothing wrong when nothing is, so that these tests prove something', async () => {
    await signAgain(await linesOf(dir))
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
  })
})

describe('holds the log to its heads:', () => {
  it('an edit whose leaf hashes were changed too is tampering, though not which entry', async () => {
    const lines = (await linesOf(dir)).map((line) => line.replace('/repos/acme/site', '/repos/acme/sitf'))
    await write(lines)
    await writeFile(join(dir, 'leaves'), Buffer.concat(lines.map((line) => leafHash(Buffer.from(line)))))
    expect((await verifyStored(dir)).first_bad).toMatchObject({
      index: null,
      what: expect.stringContaining('do not hash to the signed root'),
    })
  })

  it('damage to the leaf hashes alone is none to the log', async () => {
    await writeFile(join(dir, 'leaves'), Buffer.alloc(SIZE * 32))
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
    await rm(join(dir, 'leaves'))
    expect(await verifyStored(dir)).toMatchObject({ ok: true })
  })

  it('a checkpoint of the same key over other entries', async () => {
    const sign = checkpointSigner(ORIGIN, await loadLogKey(dir, ORIGIN))
    await writeFile(join(dir, 'checkpoint'), sign({ size: SIZE, root: leafHash(Buffer.from('other')) }))
    expect(exitCode(await verifyStored(dir))).toBe(1)
  })

  it('a checkpoint of another log', async () => {
    const other = await temporaryDir()
    await (await openTestLog(other)).close()
    await copyFile(join(other, 'checkpoint'), join(dir, 'checkpoint'))
    await rm(other, { recursive: true })
    expect((await verifyStored(dir)).first_bad?.what).toContain('not signed by keyless.test/default')
  })

  it('another public key than the one it is signed with', async () => {
    const publicKey = formatVerifier(noteVerifier(ORIGIN, generateKeyPairSync('ed25519').publicKey))
    const verdict = await verifyStored(dir, { publicKey })
    expect([verdict.first_bad?.what, exitCode(verdict)]).toEqual([expect.stringContaining('not signed by'), 1])
  })

  it('no checkpoint', async () => {
    await rm(join(dir, 'checkpoint'))
    expect((await verifyStored(dir)).first_bad?.what).toBe('the checkpoint is missing')
  })

  it('no entries at all', async () => {
    await rm(join(dir, 'entries.jsonl'))
    expect((await verifyStored(dir)).first_bad?.index).toBe(0)
  })
})

describe('the end of the log', () => {
  it('may hold entries that are not signed yet, and says how many', async () => {
    const before = await readFile(join(dir, 'checkpoint'))
    const audit = testAudit(await openTestLog(dir))
    await call(audit)
    await audit.close()
    await writeFile(join(dir, 'checkpoint'), before)
    expect(await verifyStored(dir)).toMatchObject({ ok: true, entries: SIZE + 4, covered: SIZE, uncovered: 4 })
  })

  it('may be torn behind the signed entries', async () => {
    await appendFile(join(dir, 'entries.jsonl'), '{"half":')
    expect(await verifyStored(dir)).toMatchObject({ ok: true, torn_bytes: 8, entries: SIZE })
  })

  it('must not be torn before that', async () => {
    await truncate(join(dir, 'entries.jsonl'), (await readFile(join(dir, 'entries.jsonl'))).length - 5)
    expect((await verifyStored(dir)).first_bad).toMatchObject({
      index: SIZE - 1,
      what: expect.stringContaining('is damaged'),
    })
  })

  it('may lack the outcome of a call that a crash cut short', async () => {
    const lines = await linesOf(dir)
    await signAgain(renumber(lines.toSpliced(10, 2)))
    expect(await verifyStored(dir)).toMatchObject({ ok: true, open_calls: 1 })
  })
})

describe('cannot judge', () => {
  it.each([
    ['a directory that is none', () => rm(dir, { recursive: true })],
    ['a log without a public key', () => rm(join(dir, 'log.pub'))],
    ['a log with a public key that is none', () => writeFile(join(dir, 'log.pub'), 'garbage')],
  ])('%s', async (_, damage) => {
    await damage()
    const verdict = await verifyStored(dir)
    expect([verdict.ok, exitCode(verdict)]).toEqual([false, 2])
    expect(verdict.unreadable).toEqual(expect.any(String))
  })
})
