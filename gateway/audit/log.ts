/**
 * The append-only log in one directory: one writer, one file of entries, a signed checkpoint. `sequencer.ts` stores entries,
 * `publisher.ts` signs, `recovery.ts` finds out at start where to go on. Tiles, witnesses and the index attach beside this file.
 */
import { createPublicKey, type KeyObject } from 'node:crypto'
import { type FileHandle, mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { Clock } from '../protocol/clock.ts'
import { publish } from './anchor.ts'
import { type Draft, draftFrom, type JsonValue } from './canonical.ts'
import { unavailable } from './entries/cause.ts'
import { Archive } from './files/archive.ts'
import { type Disk, openForAppending, realDisk } from './files/disk.ts'
import { type Lock, takeLock } from './files/lock.ts'
import { factsOf, type Recovered, recover } from './files/recovery.ts'
import { Rotation } from './files/rotation.ts'
import { Sequencer } from './files/sequencer.ts'
import { files } from './lines.ts'
import { checkpointSigner } from './tree/checkpoint.ts'
import { HashFiles } from './tree/hash-files.ts'
import { Frontier } from './tree/merkle.ts'
import { noteVerifier } from './tree/note.ts'
import { Publisher } from './tree/publisher.ts'

export { loadLogKey } from './key.ts'

/** A published checkpoint. */
export interface Head {
  /** The signed note, as in the file `checkpoint`. */
  readonly note: string
  /** Entries that it covers. */
  readonly size: number
}

export interface Log {
  /** Name of this log, as in its checkpoints. */
  readonly origin: string
  /** Entries in the log. */
  readonly size: number
  /** The newest checkpoint. There is one as soon as the log is open. */
  head(): Head
  /** Why the log cannot be written or signed at present; undefined when all is well. */
  readonly failure: Error | undefined
  /** Entries that wait for a disk that failed. */
  readonly kept: number
  /**
   * Resolves with the entry's number when it is durable (`relaxed`: written).
   * @throws {GatewayError} `audit_unavailable`, and then the entry is not in the log.
   */
  append(draft: Draft): Promise<number>
  /** For what has already happened: kept through a failing disk until it can be written. */
  enqueue(draft: Draft): void
  /**
   * Write what is queued, seal and sign. Idempotent.
   * @throws {Error} when entries could not be written or signed.
   */
  close(): Promise<void>
}

export interface LogOptions {
  /** Made if absent, 0700. */
  readonly dir: string
  /** Name of the log, by preference a URL without scheme: `keyless.example.com/acme`. Never changes. */
  readonly origin: string
  /** Ed25519 private key. */
  readonly key: KeyObject
  readonly durability: 'fsync' | 'relaxed'
  readonly clock: Clock
  /** Bytes after which a new file of entries is begun. Default 64 MiB. */
  readonly segmentBytes?: number
  /** Days that the text of entries is kept. Default for ever. */
  readonly keepDays?: number | undefined
  /** What `log.opened` says besides. */
  readonly opened?: Readonly<Record<string, JsonValue>>
  /** Run when the log is closed and signed, before another process can open it. */
  readonly whenClosed?: () => Promise<void>
  /** The durable steps; tests fail them one by one. */
  readonly disk?: Disk
}

const SEGMENT_BYTES = 64 * 1024 * 1024
/** With `keepDays`, no file spans more than a day: the text of one goes as a whole. */
const DAY_MS = 86_400_000

interface Held {
  readonly lock: Lock
  readonly file: Rotation
  readonly hashes: HashFiles
}

/**
 * Open the log in `dir` and write `log.opened`. When this resolves, a signed checkpoint is in place.
 * @throws {Error} when another process writes it, when it is not what its checkpoint says, or when it cannot be written.
 */
export async function openLog(o: LogOptions): Promise<Log> {
  await mkdir(o.dir, { recursive: true, mode: 0o700 })
  const lock = takeLock(join(o.dir, files.lock))
  let entries: FileHandle | undefined
  let hashes: HashFiles | undefined
  try {
    const verifier = noteVerifier(o.origin, createPublicKey(o.key))
    entries = await openForAppending(join(o.dir, files.entries), o.durability)
    const found = await recover({ dir: o.dir, verifier, file: entries, nowMs: o.clock.nowMs() })
    hashes = await HashFiles.open(o.dir)
    const file = rotationOf(o, entries, found)
    return await new FileLog(o, { lock, file, hashes }, found).begin(found)
  } catch (cause) {
    await entries?.close()
    await hashes?.close()
    lock.release()
    throw cause
  }
}

function rotationOf(o: LogOptions, file: FileHandle, { anchor, beganMs }: Recovered): Rotation {
  const { dir, clock, durability, disk = realDisk, segmentBytes = SEGMENT_BYTES } = o
  const segmentMs = o.keepDays === undefined ? undefined : DAY_MS
  const at = { file, first: anchor.segment, beganMs: beganMs ?? clock.nowMs() }
  return new Rotation({ dir, clock, durability, disk, segmentBytes, segmentMs }, at)
}

class FileLog implements Log {
  readonly origin: string
  readonly #opened: LogOptions['opened']
  readonly #held: Held
  readonly #whenClosed: LogOptions['whenClosed']
  readonly #sequencer: Sequencer
  readonly #publisher: Publisher
  readonly #archive: Archive
  #head: Head | undefined
  #closing: Promise<void> | undefined

  constructor(o: LogOptions, held: Held, { anchor }: Recovered) {
    const disk = o.disk ?? realDisk
    const { file, hashes } = held
    const isDurable = o.durability === 'fsync'
    const sign = checkpointSigner(o.origin, o.key)
    const { size, peaks } = anchor.frontier
    const frontier = new Frontier(size, peaks, (level, root) => this.#publisher.addTile(level, root))
    this.origin = o.origin
    this.#opened = o.opened
    this.#held = held
    this.#whenClosed = o.whenClosed
    this.#sequencer = new Sequencer({
      ...{ origin: o.origin, file, disk, clock: o.clock, isDurable, anchor: { ...anchor, frontier } },
      onStored: (leaves) => this.#publisher.add(leaves),
    })
    this.#publisher = new Publisher({
      ...{ clock: o.clock, hashes },
      anchor: () => this.#sequencer.anchor(),
      publish: async (stored) => {
        await file.release()
        // A checkpoint must never say more than the disk holds: after a power cut the log would contradict it.
        if (!isDurable) await disk.sync(file.fd)
        const note = await publish(o.dir, stored, { sign, disk })
        this.#head = { note, size: stored.frontier.size }
        this.#archive.covered(stored.segment)
      },
    })
    this.#archive = new Archive({
      ...{ dir: o.dir, clock: o.clock, keepDays: o.keepDays },
      record: async (kind, facts) => {
        await this.#note(kind, facts)
        await this.#publisher.flush()
      },
    })
  }

  get size(): number {
    return this.#sequencer.size
  }

  head(): Head {
    if (!this.#head) throw new Error('the log is not open yet')
    return this.#head
  }

  get failure(): Error | undefined {
    return this.#sequencer.failure ?? this.#publisher.failure
  }

  get kept(): number {
    return this.#sequencer.kept
  }

  append(draft: Draft): Promise<number> {
    return this.#closing ? Promise.reject(unavailable(undefined)) : this.#sequencer.append(draft)
  }

  enqueue(draft: Draft): void {
    if (this.#closing) throw unavailable(undefined)
    this.#sequencer.enqueue(draft)
  }

  /** The first words of a process: what was cut, and which head it goes on from. */
  async begin(found: Recovered): Promise<this> {
    const { frontier } = found.anchor
    const previous = { previous_size: frontier.size, previous_root: frontier.root().toString('base64') }
    try {
      if (found.cut) await this.#note('log.recovered', factsOf(found.cut))
      await this.#note('log.opened', { ...previous, ...this.#opened })
      await this.#publisher.flush()
    } catch (cause) {
      await this.#archive.close()
      this.#stop()
      throw cause
    }
    return this
  }

  close(): Promise<void> {
    this.#closing ??= this.#end()
    return this.#closing
  }

  async #end(): Promise<void> {
    await this.#archive.close()
    let isSealed = false
    try {
      // Behind everything that is queued: when it is stored, all of that is.
      await this.#note('log.sealed', {})
      await this.#publisher.flush()
      isSealed = true
    } catch (cause) {
      throw new Error(`The log could not be closed: ${this.#sequencer.kept} entries are not written, or not signed.`, {
        cause,
      })
    } finally {
      this.#stop()
      await this.#held.file.close()
      // What is lost of the hashes is made again at the next start.
      await this.#held.hashes.sync().catch(() => undefined)
      await this.#held.hashes.close()
      try {
        if (isSealed) await this.#whenClosed?.()
      } finally {
        this.#held.lock.release()
      }
    }
  }

  #stop(): void {
    this.#sequencer.stop()
    this.#publisher.stop()
  }

  #note(kind: string, facts: Record<string, JsonValue>): Promise<number> {
    return this.#sequencer.append(draftFrom({ kind, log: this.origin, facts }))
  }
}
