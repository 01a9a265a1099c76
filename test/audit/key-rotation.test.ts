/** A log can get a new key: who trusts the old one is led to it, and the old one can say nothing more. */
import { createPublicKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { copyFile, cp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { draftFrom } from '../../gateway/audit/canonical.ts'
import { followKeys, type HandoverFile, KEY_ROTATED } from '../../gateway/audit/files/handover.ts'
import { loadKey, loadLogKey } from '../../gateway/audit/key.ts'
import { rotateKey } from '../../gateway/audit/key-rotation.ts'
import { checkpointSigner, openCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import { formatVerifier, noteVerifier, parseVerifier } from '../../gateway/audit/tree/note.ts'
import { openHashes } from '../../gateway/audit/tree/proofs.ts'
import { checkProof, prove } from '../../gateway/audit/verify/prove.ts'
import { verifyLog } from '../../gateway/audit/verify/verify.ts'
import { cosigner, formatWitnessKey } from '../../gateway/audit/witness/cosignature.ts'
import { entriesOf, note, ORIGIN, openTestLog, temporaryDir, testClock } from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
  const log = await openTestLog(dir)
  for (let n = 0; n < 5; n++) await log.append(note({ n }))
  await log.close()
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const publicKey = async () => parseVerifier((await readFile(join(dir, 'log.pub'), 'utf8')).trim())
const checkpoint = () => readFile(join(dir, 'checkpoint'))

async function handover(): Promise<{ path: string; file: HandoverFile }> {
  const name = (await readdir(dir)).find((one) => one.startsWith('key-rotation-'))
  const path = join(dir, String(name))
  return { path, file: JSON.parse(await readFile(path, 'utf8')) as HandoverFile }
}

it('leads from any key the log ever had to the one that signs now', async () => {
  const keys = [await publicKey()]
  for (let round = 0; round < 2; round++) {
    const rotated = await rotateKey(dir, testClock())
    const next = await publicKey()
    expect(rotated.key).toBe(formatVerifier(next))
    expect(openCheckpoint(await checkpoint(), next).size).toBe(rotated.size)
    keys.push(next)
    const log = await openTestLog(dir)
    await log.append(note({ round }))
    await log.close()
  }
  const last = keys.at(-1)
  for (const [i, key] of keys.entries()) {
    const { current, handovers } = await followKeys(dir, key)
    expect(formatVerifier(current)).toBe(last && formatVerifier(last))
    expect(handovers).toHaveLength(keys.length - 1 - i)
    const hashes = await openHashes(dir)
    for (const one of handovers) expect(await hashes.root(one.checkpoint.size)).toEqual(one.checkpoint.root)
    await hashes.close()
    expect(openCheckpoint(await checkpoint(), current).size).toBe((await entriesOf(dir)).length)
  }
  const entries = await entriesOf(dir)
  const [first] = entries.filter(({ kind }) => kind === KEY_ROTATED)
  expect(first?.facts).toEqual({ old_key: formatVerifier(keys[0] as never), new_key: formatVerifier(keys[1] as never) })
  expect(entries[(first?.seq ?? 0) + 1]?.kind).toBe('log.sealed')
})

it('says nothing when the key never changed', async () => {
  const key = await publicKey()
  expect(await followKeys(dir, key)).toEqual({ current: key, handovers: [] })
})

it('is held to what witnesses cosigned under the old key, until they know the new one', async () => {
  const witness = cosigner('w1', generateKeyPairSync('ed25519').privateKey)
  const cosigned = async () => {
    const note = String(await checkpoint())
    return note + witness.cosign(note.slice(0, note.indexOf('\n\n') + 1), 1_795_000_000)
  }
  const old = await publicKey()
  const path = join(dir, 'checkpoint.witnessed')
  await writeFile(path, await cosigned())
  const stolen = await loadKey(join(dir, 'log.key'))
  await rotateKey(dir, testClock())
  const [last, current] = [(await entriesOf(dir)).length - 1, await publicKey()]
  const verdicts = () =>
    Promise.all(
      [old, current].map((key) =>
        verifyLog(dir, { publicKey: formatVerifier(key), witnessKeys: [formatWitnessKey(witness.verifier)] }),
      ),
    )
  for (const seq of [0, last]) expect(checkProof(await prove(dir, seq), { verifier: current }).index).toBe(seq)
  for (const verdict of await verdicts()) expect(verdict).toMatchObject({ ok: true, witnessed: { by: ['w1'] } })
  // What the old key says beyond its end is forged, whoever cosigned it.
  const log = await openTestLog(dir)
  await log.append(note({}))
  await log.close()
  const { size, root } = openCheckpoint(await checkpoint(), await publicKey())
  await writeFile(join(dir, 'kept'), await checkpoint())
  await writeFile(join(dir, 'checkpoint'), checkpointSigner(ORIGIN, stolen)({ size, root }))
  await writeFile(path, await cosigned())
  await rename(join(dir, 'kept'), join(dir, 'checkpoint'))
  for (const verdict of await verdicts()) expect(verdict).toMatchObject({ ok: false, first_bad: { check: 'witness' } })
})

it('waits for the gateway that writes the log to be stopped', async () => {
  const log = await openTestLog(dir)
  await expect(rotateKey(dir, testClock())).rejects.toThrow('a gateway writes this log. Stop it')
  await log.close()
  await loadLogKey(dir, ORIGIN) // and it starts again as before: nothing has begun
  await rotateKey(dir, testClock())
})

describe('cut short', () => {
  /** What is in the directory after each step, as a crash would leave it. */
  async function states(): Promise<string[]> {
    const made: string[] = []
    const keep = async () => {
      const copy = await temporaryDir()
      await cp(dir, copy, { recursive: true })
      made.push(copy)
    }
    const old = await readFile(join(dir, 'log.key'))
    const [oldPub, oldNote] = [await readFile(join(dir, 'log.pub')), await checkpoint()]
    await loadKey(join(dir, 'log.key.next'))
    await keep()
    await rotateKey(dir, testClock())
    const next = await readFile(join(dir, 'log.key'))
    const { path, file } = await handover()
    const newNote = await checkpoint()
    const set = async (name: string, bytes: Buffer | string) => writeFile(join(dir, name), bytes)
    // Backwards from the end: the key is not renamed, the checkpoint not signed, log.pub not replaced, no file, no checkpoint at all.
    await set('log.key', old)
    await set('log.key.next', next)
    await keep()
    await set('checkpoint', file.checkpoint)
    await keep()
    await set('log.pub', oldPub)
    await keep()
    await rm(path)
    await keep()
    await set('checkpoint', oldNote)
    await keep()
    const lines = (await readFile(join(dir, 'entries.jsonl'), 'utf8')).split('\n')
    await set('entries.jsonl', `${lines.slice(0, -2).join('\n')}\n`)
    await keep()
    expect(newNote.equals(oldNote)).toBe(false)
    return made
  }

  it('at any step lets no gateway start, and is ended when it is run again', async () => {
    const trusted = await publicKey()
    for (const state of await states()) {
      await rm(dir, { recursive: true })
      await rename(state, dir)
      await expect(openTestLog(dir)).rejects.toThrow('keyless log rotate-key')
      await rotateKey(dir, testClock())
      const { current, handovers } = await followKeys(dir, trusted)
      expect(handovers).toHaveLength(1)
      expect(openCheckpoint(await checkpoint(), current).origin).toBe(ORIGIN)
      expect((await entriesOf(dir)).filter(({ kind }) => kind === KEY_ROTATED)).toHaveLength(1)
      await (await openTestLog(dir)).close()
    }
  })
})

describe('whoever stole the old key', () => {
  let old: KeyObject
  let trusted: ReturnType<typeof parseVerifier>
  beforeEach(async () => {
    await copyFile(join(dir, 'log.key'), join(dir, 'stolen'))
    old = await loadKey(join(dir, 'stolen'))
    trusted = await publicKey()
    await rotateKey(dir, testClock())
  })

  it('cannot name another successor: the first one counts', async () => {
    const real = (await followKeys(dir, trusted)).current
    const thief = generateKeyPairSync('ed25519')
    const facts = {
      old_key: formatVerifier(trusted),
      new_key: formatVerifier(noteVerifier(ORIGIN, createPublicKey(thief.privateKey))),
    }
    const forged = await temporaryDir()
    await cp(dir, forged, { recursive: true })
    // In a copy in which the old key goes on as if it had not been replaced.
    await writeFile(join(forged, 'log.key'), await readFile(join(dir, 'stolen')))
    await writeFile(join(forged, 'log.pub'), formatVerifier(trusted))
    const hashes = await openHashes(forged)
    const size = hashes.size
    await writeFile(join(forged, 'checkpoint'), checkpointSigner(ORIGIN, old)({ size, root: await hashes.root() }))
    await hashes.close()
    const log = await openTestLog(forged)
    const seq = await log.append(draftFrom({ kind: KEY_ROTATED, log: ORIGIN, facts }))
    await log.close()
    const stored = await openHashes(forged)
    const [root, proof] = [await stored.root(seq + 2), await stored.inclusionProof(seq, seq + 2)]
    await stored.close()
    const file: HandoverFile = {
      old_key: facts.old_key,
      checkpoint: checkpointSigner(ORIGIN, old)({ size: seq + 2, root }),
      ...{
        seq,
        entry: JSON.stringify((await entriesOf(forged))[seq]),
        proof: proof.map((one) => one.toString('base64')),
      },
    }
    await writeFile(join(dir, 'key-rotation-000000000099.json'), JSON.stringify(file))
    expect(formatVerifier((await followKeys(dir, trusted)).current)).toBe(formatVerifier(real))
    await rm(forged, { recursive: true })
  })

  it('cannot hide that the key was replaced, and go on', async () => {
    await rm((await handover()).path)
    await copyFile(join(dir, 'stolen'), join(dir, 'log.key'))
    await writeFile(join(dir, 'log.pub'), formatVerifier(trusted))
    const hashes = await openHashes(dir)
    const size = hashes.size
    await writeFile(join(dir, 'checkpoint'), checkpointSigner(ORIGIN, old)({ size, root: await hashes.root() }))
    await hashes.close()
    await (await openTestLog(dir)).close()
    const verdict = await verifyLog(dir)
    expect(verdict.ok).toBe(false)
    expect(verdict.first_bad).toMatchObject({ index: size - 2, what: expect.stringContaining('has an old key') })
  })

  it('cannot stretch, exchange or edit the handover', async () => {
    const { path, file } = await handover()
    const thief = formatVerifier(noteVerifier(ORIGIN, createPublicKey(generateKeyPairSync('ed25519').privateKey)))
    const { size, root } = openCheckpoint(Buffer.from(file.checkpoint), trusted)
    const next = formatVerifier((await followKeys(dir, trusted)).current)
    for (const change of [
      { entry: file.entry.replace(next, thief) },
      { seq: file.seq - 1 },
      { proof: [] },
      { checkpoint: checkpointSigner(ORIGIN, old)({ size: size + 1, root }) },
      { checkpoint: file.checkpoint.replace(`\n${size}\n`, `\n${size - 1}\n`) },
      { entry: (await entriesOf(dir)).map((entry) => JSON.stringify(entry))[1] },
    ]) {
      await writeFile(path, JSON.stringify({ ...file, ...change }))
      await expect(followKeys(dir, trusted)).rejects.toThrow()
    }
  })
})
