/** `checkpoint.witnessed`: which cosigned checkpoint is kept, when witnesses answer late, or not at all. */
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { openCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import { parseNote, parseSignatures } from '../../gateway/audit/tree/note.ts'
import type { Head } from '../../gateway/audit/witness/call.ts'
import { type Cosigner, cosigner } from '../../gateway/audit/witness/cosignature.ts'
import { openCosigned } from '../../gateway/audit/witness/witnessed.ts'
import { temporaryDir } from './log.fixture.ts'
import { keys, playedLog } from './witness.fixture.ts'

const log = playedLog(keys())
const [a, b] = [cosigner('a.test/w', keys().privateKey), cosigner('b.test/w', keys().privateKey)]
const witnesses = [a.verifier, b.verifier]
const MINUTE_MS = 60_000

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const head = (size: number): Head => {
  const note = log.note(size)
  const refuse = () => Promise.reject(new Error('not asked'))
  const { text } = parseNote(Buffer.from(note))
  return { ...openCheckpoint(Buffer.from(note), log.verifier), text, note, rootAt: refuse, consistency: refuse }
}
const by = (witness: Cosigner, size: number, atS = 7) => parseSignatures(witness.cosign(head(size).text, atS))
const open = () => openCosigned(dir, log.verifier, witnesses)
const kept = async () => {
  const { text, signatures } = parseNote(await readFile(join(dir, 'checkpoint.witnessed')))
  return `${text.split('\n')[1]}: ${signatures.slice(1).map(({ name }) => name.charAt(0))}`
}

it('gathers the cosignatures of one checkpoint, each witness once', async () => {
  const cosigned = await open()
  await cosigned.add(head(3), by(a, 3), 0)
  await cosigned.add(head(3), by(b, 3), 1)
  await cosigned.add(head(3), by(a, 3, 8), 2)
  expect(await kept()).toBe('3: a,b')
})

it('gives up a checkpoint with more cosignatures only for one with as many, or when a witness is away for long', async () => {
  const cosigned = await open()
  await cosigned.add(head(3), by(a, 3), 0)
  await cosigned.add(head(3), by(b, 3), 0)
  await cosigned.add(head(5), by(a, 5), MINUTE_MS)
  expect(await kept()).toBe('3: a,b')
  await cosigned.add(head(5), by(b, 5), MINUTE_MS)
  expect(await kept()).toBe('5: a,b')
  await cosigned.add(head(8), by(a, 8), 2 * MINUTE_MS + 1)
  expect(await kept()).toBe('8: a')
})

it('never goes back: a late cosignature of an earlier checkpoint changes nothing', async () => {
  const cosigned = await open()
  await cosigned.add(head(3), by(a, 3), 0)
  await cosigned.add(head(8), by(a, 8), 1)
  await cosigned.add(head(3), by(b, 3), 2)
  expect(await kept()).toBe('8: a')
})

it('knows after a restart what each witness has cosigned', async () => {
  await (await open()).add(head(5), by(a, 5), 0)
  const again = await open()
  expect(again.checkpoint?.size).toBe(5)
  expect([again.sizeOf(a.verifier), again.sizeOf(b.verifier)]).toEqual([5, 0])
})

it.each([
  ['is damaged', 'no note'],
  ['is signed by another key', playedLog(keys()).note(5)],
])('counts for nothing when it %s', async (_, text) => {
  await writeFile(join(dir, 'checkpoint.witnessed'), text)
  const cosigned = await open()
  expect(cosigned.checkpoint).toBeUndefined()
  expect(cosigned.sizeOf(a.verifier)).toBe(0)
})
