import { generateKeyPairSync } from 'node:crypto'
import { readFile, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { inclusionProof, leafHash, treeRoot } from '../../gateway/audit/tree/merkle.ts'
import { type NoteVerifier, noteVerifier, parseVerifier, signNote } from '../../gateway/audit/tree/note.ts'
import { checkProof, formatProof, parseProof, prove } from '../../gateway/audit/verify/prove.ts'
import { cosigner } from '../../gateway/audit/witness/cosignature.ts'
import { writeHistory } from './history.fixture.ts'
import { linesOf, temporaryDir } from './log.fixture.ts'

let dir: string
let verifier: NoteVerifier
let lines: string[]
beforeEach(async () => {
  dir = await temporaryDir()
  await writeHistory(dir)
  verifier = parseVerifier((await readFile(join(dir, 'log.pub'), 'utf8')).trim())
  lines = await linesOf(dir)
})
afterEach(() => rm(dir, { recursive: true, force: true }))

it('proves every entry of a log to whoever has its public key, and nothing else', async () => {
  for (const [seq, line] of lines.entries()) {
    const { index, entry, checkpoint } = checkProof(await prove(dir, seq), { verifier })
    expect([index, String(entry), checkpoint.size]).toEqual([seq, line, lines.length])
  }
})

it('is the text that C2SP tlog-proof says, with the entry as extra data', async () => {
  const text = await prove(dir, 2)
  const checkpoint = await readFile(join(dir, 'checkpoint'), 'utf8')
  const hashes = inclusionProof(
    lines.map((line) => leafHash(Buffer.from(line))),
    2,
  )
  expect(text).toBe(
    `c2sp.org/tlog-proof@v1\nextra ${Buffer.from(lines[2] ?? '').toString('base64')}\nindex 2\n${hashes.map((hash) => `${hash.toString('base64')}\n`).join('')}\n${checkpoint}`,
  )
})

it('prefers the checkpoint that witnesses cosigned', async () => {
  const witness = cosigner('w1', generateKeyPairSync('ed25519').privateKey)
  const note = await readFile(join(dir, 'checkpoint'), 'utf8')
  await writeFile(
    join(dir, 'checkpoint.witnessed'),
    note + witness.cosign(note.slice(0, note.indexOf('\n\n') + 1), 1_795_000_000),
  )
  const text = await prove(dir, 1)
  const proven = checkProof(text, { verifier, witnesses: [witness.verifier] })
  expect(proven.witnesses).toEqual([{ name: 'w1', atS: 1_795_000_000 }])
  const other = cosigner('w2', generateKeyPairSync('ed25519').privateKey).verifier
  expect(() => checkProof(text, { verifier, witnesses: [witness.verifier, other] })).toThrow('1 of the witnesses')
  expect(checkProof(text, { verifier, witnesses: [witness.verifier, other], least: 1 }).index).toBe(1)
})

it('does without the entry where its text is gone, if whoever checks has it', async () => {
  const { entry, ...proof } = parseProof(await prove(dir, 3))
  const text = formatProof({ ...proof, entry: undefined })
  expect(() => checkProof(text, { verifier })).toThrow('must be given beside it')
  expect(checkProof(text, { verifier, entry: entry as Buffer }).index).toBe(3)
  expect(() => checkProof(text, { verifier, entry: Buffer.from(lines[4] ?? '') })).toThrow('not number 3')
})

describe('refuses', () => {
  it('an entry that is not in the log yet', async () => {
    await expect(prove(dir, lines.length)).rejects.toThrow('not signed yet')
  })

  it('to make a proof from damaged hashes', async () => {
    await writeFile(join(dir, 'leaves'), Buffer.alloc(lines.length * 32))
    await expect(prove(dir, 1)).rejects.toThrow('keyless log verify')
  })

  it('the key of another log', async () => {
    const other = noteVerifier('other.test', generateKeyPairSync('ed25519').publicKey)
    const text = await prove(dir, 1)
    expect(() => checkProof(text, { verifier: other })).toThrow('not signed by other.test')
  })

  it('a proof in which any one character is another', async () => {
    const text = await prove(dir, 5)
    fc.assert(
      fc.property(fc.nat(text.length - 1), fc.constantFrom('A', 'z', '0', '=', '\n', ' '), (at, character) => {
        const changed = text.slice(0, at) + character + text.slice(at + 1)
        if (changed !== text) expect(() => checkProof(changed, { verifier })).toThrow()
      }),
      { numRuns: 300 },
    )
  })

  it.each<[string, (text: string) => string]>([
    ['nothing', () => ''],
    ['another version', (text) => text.replace('@v1', '@v2')],
    ['a number with a zero in front', (text) => text.replace('index 5', 'index 05')],
    ['no number', (text) => text.replace('index 5\n', '')],
    ['another number', (text) => text.replace('index 5', 'index 4')],
    ['a path without its last hash', (text) => text.replace(/[^\n]+\n\n/, '\n')],
    ['lines with carriage returns', (text) => text.replaceAll('\n', '\r\n')],
    ['base64 without padding', (text) => text.replace('=\n', '\n')],
  ])('%s', async (_, edit) => {
    const text = await prove(dir, 5)
    expect(() => checkProof(edit(text), { verifier })).toThrow()
  })
})

it('proves entries of trees of any size', () => {
  const key = generateKeyPairSync('ed25519')
  const own = noteVerifier('t', key.publicKey)
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 300 }), fc.nat(), (size, n) => {
      const entries = Array.from({ length: size }, (_, i) => Buffer.from(`entry ${i}`))
      const leaves = entries.map((entry) => leafHash(entry))
      const index = n % size
      const checkpoint = signNote(`t\n${size}\n${treeRoot(leaves).toString('base64')}\n`, own, key.privateKey)
      const text = formatProof({ index, entry: entries[index], path: inclusionProof(leaves, index), checkpoint })
      expect(checkProof(text, { verifier: own })).toMatchObject({ index, checkpoint: { size } })
    }),
    { numRuns: 40 },
  )
})
