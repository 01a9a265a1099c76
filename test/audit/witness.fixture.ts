/** Logs that say what they like, and witnesses that remember in memory. */
import { generateKeyPairSync, type KeyObject } from 'node:crypto'
import { checkpointSigner } from '../../gateway/audit/tree/checkpoint.ts'
import { consistencyProof, leafHash, treeRoot } from '../../gateway/audit/tree/merkle.ts'
import { type NoteVerifier, noteVerifier } from '../../gateway/audit/tree/note.ts'
import { cosigner } from '../../gateway/audit/witness/cosignature.ts'
import { createWitness, type Finding, type WitnessStore } from '../../gateway/audit/witness/witness.ts'
import { testClock } from './log.fixture.ts'

export const LOG = 'log.test/acme'

export interface Keys {
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export function keys(): Keys {
  return generateKeyPairSync('ed25519')
}

/** A log whose entries are `entry(0)`, `entry(1)`, …; it signs any size of them. */
export interface PlayedLog {
  readonly verifier: NoteVerifier
  note(size: number): string
  proof(old: number, size: number): Buffer[]
  /** The body that a witness is sent. */
  submission(old: number, size: number): Buffer
}

export function playedLog(pair: Keys, entry = (n: number) => `entry ${n}`, name = LOG): PlayedLog {
  const sign = checkpointSigner(name, pair.privateKey)
  const leaves = (size: number) => Array.from({ length: size }, (_, n) => leafHash(Buffer.from(entry(n))))
  const log: PlayedLog = {
    verifier: noteVerifier(name, pair.publicKey),
    note: (size) => sign({ size, root: treeRoot(leaves(size)) }),
    proof: (old, size) => (old === 0 || old >= size ? [] : consistencyProof(leaves(size), old)),
    submission: (old, size) => submission(old, log.proof(old, size), log.note(size)),
  }
  return log
}

export function submission(old: number | string, proof: readonly Buffer[], note: string): Buffer {
  return Buffer.from([`old ${old}`, ...proof.map((hash) => hash.toString('base64')), '', ''].join('\n') + note)
}

export interface MemoryStore extends WitnessStore {
  readonly kept: Map<string, Buffer>
  readonly evidence: string[]
  /** Before each write. */
  beforeKeep: () => Promise<void> | void
  /** What becomes of writes. */
  fails: 'not' | 'not stored' | 'but stored'
}

export function memoryStore(): MemoryStore {
  const store: MemoryStore = {
    kept: new Map(),
    evidence: [],
    beforeKeep: () => undefined,
    fails: 'not',
    latest: async (origin) => store.kept.get(origin),
    async keep(origin, note) {
      const { fails } = store
      await store.beforeKeep()
      if (fails !== 'not stored') store.kept.set(origin, Buffer.from(note))
      if (fails !== 'not') throw new Error('EIO')
    },
    async keepEvidence(_origin, notes) {
      store.evidence.push(...notes.map(({ bytes }) => Buffer.from(bytes).toString()))
    },
  }
  return store
}

export function playedWitness(logs: readonly NoteVerifier[], store = memoryStore()) {
  const signer = cosigner('witness.test/w1', keys().privateKey)
  const findings: Finding[] = []
  const witness = createWitness({
    store,
    cosigner: signer,
    logs,
    clock: testClock(1_700_000_000_000),
    report: (finding) => void findings.push(finding),
  })
  return { witness, store, findings, verifier: signer.verifier }
}
