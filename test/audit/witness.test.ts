/** C2SP tlog-witness, the witness's side: every status of the specification, and that no two histories are ever signed. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { openCheckpoint, parseCheckpoint } from '../../gateway/audit/tree/checkpoint.ts'
import {
  formatVerifier,
  NoteRefused,
  parseNote,
  parseSignatures,
  parseVerifier,
} from '../../gateway/audit/tree/note.ts'
import { cosignedAt, cosigner, formatWitnessKey, parseWitnessKey } from '../../gateway/audit/witness/cosignature.ts'
import { createWitness } from '../../gateway/audit/witness/witness.ts'
import vectors from '../vectors/witness-go.json' with { type: 'json' }
import { testClock } from './log.fixture.ts'
import { keys, LOG, memoryStore, playedLog, playedWitness, submission } from './witness.fixture.ts'

const pair = keys()
const log = playedLog(pair)
const forked = playedLog(pair, (n) => (n < 3 ? `entry ${n}` : `other ${n}`))

describe('a cosignature', () => {
  const text = parseNote(Buffer.from(log.note(5))).text
  const signer = cosigner('witness.test/w1', keys().privateKey)

  it('says when, and is verified with the key that the witness prints', () => {
    const lines = parseSignatures(signer.cosign(text, 1_679_315_147))
    const verifier = parseWitnessKey(formatWitnessKey(signer.verifier))
    expect(cosignedAt(text, lines, verifier)).toBe(1_679_315_147)
    expect(cosignedAt(text, lines, cosigner('witness.test/w1', keys().privateKey).verifier)).toBeUndefined()
  })

  it('is for one text and one time', () => {
    const [line] = parseSignatures(signer.cosign(text, 7))
    if (!line) throw new Error('no line')
    const later = { ...line, signature: Buffer.from(line.signature) }
    later.signature.writeBigUInt64BE(8n)
    for (const [said, lines] of [
      [text.replace('\n5\n', '\n6\n'), [line]],
      [text, [later]],
      [text, [line, later]], // one good line does not heal a bad one
      [text, [{ ...line, signature: line.signature.subarray(8) }]], // a plain note signature in its place
    ] as const)
      expect(() => cosignedAt(said, lines, signer.verifier)).toThrow(NoteRefused)
  })

  it('is not mistaken for a signature of a log, nor the other way round', () => {
    const both = cosigner(LOG, pair.privateKey)
    expect(both.verifier.keyId.equals(log.verifier.keyId)).toBe(false)
    const note = `${text}\n${both.cosign(text, 7)}`
    expect(() => openCheckpoint(Buffer.from(note), log.verifier)).toThrow('not signed by')
    expect(() => parseVerifier(formatWitnessKey(both.verifier))).toThrow('not an Ed25519 key')
  })

  it('is verified under a key that its witness published in the form of plain notes', () => {
    const lines = parseSignatures(cosigner(LOG, pair.privateKey).cosign(text, 7))
    expect(cosignedAt(text, lines, parseWitnessKey(formatVerifier(log.verifier)))).toBe(7)
  })
})

describe('the examples of the specifications', () => {
  const LINE =
    '— example.com/behind-the-sofa Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n'
  const TEXT = 'example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n'

  it('are read: a checkpoint with a cosignature, which says its time (tlog-cosignature)', () => {
    const cosignature =
      '— witness.example.com/w1 jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n'
    const note = parseNote(Buffer.from(`${TEXT}\n${LINE}${cosignature}`))
    expect(parseCheckpoint(note.text).size).toBe(20852163)
    const [, { name, signature } = { name: '', signature: Buffer.alloc(8) }] = note.signatures
    expect(name).toBe('witness.example.com/w1')
    expect([signature.length, signature.readBigUInt64BE(0)]).toEqual([72, 1_679_315_147n])
  })

  it('are read: a request of which only the log is not known (tlog-witness)', async () => {
    const body = `old 20852014
PlRNCrwHpqhGrupue0L7gxbjbMiKA9temvuZZDDpkaw=
jrJZDmY8Y7SyJE0MWLpLozkIVMSMZcD5kvuKxPC3swk=
5+pKlUdi2LeF/BcMHBn+Ku6yhPGNCswZZD1X/6QgPd8=
/6WVhPs2CwSsb5rYBH5cjHV/wSmA79abXAwhXw3Kj/0=

${TEXT}
${LINE}— example.com/behind-the-sofa opLqBQsREYCgu6xQkYQwJr9fo45a62DN9EdmHXnZdXNqlcVGlCum2Wks+49/V6267UEjw6QUXTS5Rovnzv++qbSzm9Q=
`
    const namesake = playedLog(keys(), undefined, 'example.com/behind-the-sofa')
    expect(await playedWitness([log.verifier]).witness.addCheckpoint(Buffer.from(body))).toMatchObject({ status: 404 })
    expect(await playedWitness([namesake.verifier]).witness.addCheckpoint(Buffer.from(body))).toMatchObject({
      status: 403,
    })
  })

  it('are read: what a witness with several keys answers (tlog-witness)', () => {
    const answer = `— witness.example/w1 CMp+6LWBU0anHGH5aNDTJkH/gj79sG+T6+iP2ThYN5krrDJbR1HDnucjL39QsZTSvVjyQLrdk3DXDqI5G2HgLatVs0pWh6Up69HVOw==
— witness.example/w1 I7rEps0pvK2UqkS2gSpVUDhrhVtQV9lgF6pRrWAvjJHjyWpW7VcE3SiOlVlbQNt64vWhO+DlkL0+UfzuOBMh9ChdMkP1vi/lCAsmlw==
— witness.example/w2 AWui8Sk55XjYLOijihBjhqEH6nS1ndDymE0a+6idX7pLcnoB+dhnz0854aLZgrrKbYKA7nC3HNJhm/kWl7oJlqU3rXXvpysAdyP3wQ==
`
    const lines = parseSignatures(answer)
    expect(lines.map(({ name, signature }) => [name, signature.length])).toEqual([
      ['witness.example/w1', 72],
      ['witness.example/w1', 72],
      ['witness.example/w2', 72],
    ])
  })
})

describe('other implementations', () => {
  it('have our log witnessed: transparency-dev/witness cosigned a checkpoint of a gateway', () => {
    const { log, witness, note } = vectors.foreign_witness
    const { text, signatures } = parseNote(Buffer.from(note))
    expect(openCheckpoint(Buffer.from(note), parseVerifier(log)).size).toBe(21)
    expect(cosignedAt(text, signatures, parseWitnessKey(witness))).toBe(1_795_346_902)
  })

  it('are witnessed: a log of golang.org/x/mod gets the statuses that its client expects', async () => {
    const { key, steps } = vectors.foreign_log
    const { witness, verifier } = playedWitness([parseVerifier(key)])
    for (const { old, proof, note, status } of steps) {
      const hashes = proof.map((hash) => Buffer.from(hash, 'base64'))
      const answer = await witness.addCheckpoint(submission(old, hashes, note))
      expect(answer.status, answer.body).toBe(status)
      if (status === 200)
        expect(cosignedAt(parseNote(Buffer.from(note)).text, parseSignatures(answer.body), verifier)).toBeDefined()
    }
  })
})

describe('a witness', () => {
  it('cosigns what continues the last checkpoint, and the same once more', async () => {
    const { witness, verifier, store } = playedWitness([log.verifier])
    for (const [old, size] of [
      [0, 3],
      [3, 3],
      [3, 8],
      [8, 21],
    ] as const) {
      const answer = await witness.addCheckpoint(log.submission(old, size))
      expect(answer).toMatchObject({ status: 200 })
      const text = parseNote(Buffer.from(log.note(size))).text
      expect(cosignedAt(text, parseSignatures(answer.body), verifier)).toBe(1_700_000_000)
      expect(openCheckpoint(store.kept.get(LOG) ?? Buffer.alloc(0), log.verifier).size).toBe(size)
    }
  })

  it.each([
    ['no old size', 400, () => Buffer.from(`${log.note(8)}`)],
    ['a leading zero in the old size', 400, () => submission('05', log.proof(5, 8), log.note(8))],
    ['an old size below zero', 400, () => submission('-1', [], log.note(8))],
    ['an old size beyond the checkpoint', 400, () => submission(9, [], log.note(8))],
    ['64 hashes', 400, () => submission(5, Array(64).fill(Buffer.alloc(32)), log.note(8))],
    ['a hash of 31 bytes', 400, () => submission(5, [Buffer.alloc(31)], log.note(8))],
    ['a note without a checkpoint in it', 400, () => submission(5, [], 'words\n\n— log.test/acme AAAAAAAA\n')],
    ['nothing', 400, () => Buffer.alloc(0)],
    ['an empty line only', 400, () => Buffer.from('\n\n')],
    ['bytes that are not UTF-8', 400, () => Buffer.concat([log.submission(5, 8), Buffer.of(0xff, 0x0a)])],
    ['a log that it was not told of', 404, () => playedLog(pair, undefined, 'log.test/other').submission(0, 8)],
    ['a log that borrows a name', 403, () => playedLog(keys()).submission(5, 8)],
    ['no signature', 403, () => submission(5, log.proof(5, 8), log.note(8).replace(/— .*\n/u, '— other AAAAAAAA\n'))],
    ['a signature over something else', 403, () => submission(5, [], log.note(8).replace('\n8\n', '\n9\n'))],
    ['no proof', 422, () => submission(5, [], log.note(8))],
    ['a proof of another tree', 422, () => submission(5, forked.proof(5, 8), log.note(8))],
    ['a hash too many', 422, () => submission(5, [...log.proof(5, 8), Buffer.alloc(32)], log.note(8))],
    ['a proof where the sizes are equal', 422, () => submission(5, [Buffer.alloc(32)], log.note(5))],
  ])('refuses %s with %i and remembers what it knew', async (_, status, body) => {
    const { witness, store } = playedWitness([log.verifier])
    await witness.addCheckpoint(log.submission(0, 5))
    const before = store.kept.get(LOG)
    expect(await witness.addCheckpoint(body())).toMatchObject({ status, type: 'text/plain; charset=utf-8' })
    expect(store.kept.get(LOG)).toBe(before)
  })

  it('names its size to a log that has another in mind', async () => {
    const { witness } = playedWitness([log.verifier])
    expect(await witness.addCheckpoint(log.submission(4, 8))).toMatchObject({ status: 409, body: '0\n' })
    await witness.addCheckpoint(log.submission(0, 5))
    for (const old of [0, 4, 6])
      expect(await witness.addCheckpoint(log.submission(old, 8))).toEqual({
        status: 409,
        type: 'text/x.tlog.size',
        body: '5\n',
      })
  })

  it('takes no proof from nothing', async () => {
    const { witness } = playedWitness([log.verifier])
    expect(await witness.addCheckpoint(submission(0, [Buffer.alloc(32)], log.note(8)))).toMatchObject({ status: 422 })
  })

  it('names fork, rollback and truncation, and keeps both sides of what it can prove', async () => {
    const { witness, findings, store } = playedWitness([log.verifier])
    await witness.addCheckpoint(log.submission(0, 8))
    expect(await witness.addCheckpoint(forked.submission(8, 8))).toMatchObject({ status: 409 })
    expect(await witness.addCheckpoint(forked.submission(8, 12))).toMatchObject({ status: 422 })
    expect(await witness.addCheckpoint(log.submission(5, 5))).toMatchObject({ status: 409, body: '8\n' })
    expect(findings.map(({ divergence }) => divergence)).toEqual(['fork', 'rollback', 'truncation'])
    const roots = store.evidence.slice(0, 2).map((note) => parseCheckpoint(parseNote(Buffer.from(note)).text))
    expect(roots.map(({ size }) => size)).toEqual([8, 8])
    expect(roots[0]?.root.equals(roots[1]?.root ?? Buffer.alloc(0))).toBe(false)
  })

  it('knows a log by its old and its new key', async () => {
    const next = playedLog(keys())
    const { witness } = playedWitness([log.verifier, next.verifier])
    expect(await witness.addCheckpoint(log.submission(0, 5))).toMatchObject({ status: 200 })
    expect(await witness.addCheckpoint(next.submission(5, 8))).toMatchObject({ status: 200 })
  })

  it('signs nothing that it could not remember', async () => {
    const { witness, store } = playedWitness([log.verifier])
    store.fails = 'not stored'
    expect(await witness.addCheckpoint(log.submission(0, 5))).toMatchObject({ status: 500 })
    store.fails = 'not'
    expect(await witness.addCheckpoint(forked.submission(0, 5))).toMatchObject({ status: 200 })
  })

  it('signs nothing for a log whose memory was tampered with', async () => {
    const { witness, store } = playedWitness([log.verifier])
    await witness.addCheckpoint(log.submission(0, 8))
    store.kept.set(LOG, Buffer.from(log.note(5)))
    expect(await witness.addCheckpoint(log.submission(5, 8))).toMatchObject({ status: 500 })
  })

  it('compares and remembers as one step, whoever comes in between', async () => {
    const { witness, store } = playedWitness([log.verifier])
    const { promise, resolve } = Promise.withResolvers<void>()
    store.beforeKeep = () => promise
    const first = witness.addCheckpoint(log.submission(0, 5))
    const others = [forked.submission(0, 5), log.submission(0, 8), log.submission(0, 3)]
    const answers = others.map((body) => witness.addCheckpoint(body))
    resolve()
    expect((await Promise.all([first, ...answers])).map(({ status }) => status)).toEqual([200, 409, 409, 409])
  })

  it('never signs two histories, whatever it is sent and however it is restarted', async () => {
    const histories = [log, forked, playedLog(pair, (n) => (n < 6 ? `entry ${n}` : `third ${n}`))]
    const move = fc.record({
      history: fc.nat(2),
      old: fc.nat(10),
      size: fc.nat(10),
      fails: fc.constantFrom('not', 'not', 'not stored', 'but stored'),
    })
    await fc.assert(
      fc.asyncProperty(fc.array(fc.array(move, { maxLength: 6 }), { maxLength: 5 }), async (rounds) => {
        const signer = cosigner('witness.test/w1', keys().privateKey)
        const store = memoryStore()
        const signed: { history: number; size: number }[] = []
        for (const round of rounds) {
          const witness = createWitness({
            ...{ store, cosigner: signer, logs: [log.verifier], clock: testClock(), report: () => undefined },
          })
          await Promise.all(
            round.map(async ({ history, old, size, fails }) => {
              store.fails = fails
              const body = histories[history]?.submission(old, size) ?? Buffer.alloc(0)
              const { status } = await witness.addCheckpoint(body)
              if (status === 200) signed.push({ history, size })
            }),
          )
        }
        // What was signed lies in one history: each two agree on the entries that both have.
        for (const a of signed)
          for (const b of signed) {
            const size = Math.min(a.size, b.size)
            expect(histories[a.history]?.note(size)).toBe(histories[b.history]?.note(size))
          }
      }),
      { numRuns: 60 },
    )
  })
})
