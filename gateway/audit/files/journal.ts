/**
 * The journal of emergencies: entries that the log could not take, durable beside it until it can. One file, one line an entry, each
 * under a keyed hash that covers all before it. Knows nothing of what an entry says, and of the log only where it stood.
 */
import { createHmac, type KeyObject, randomUUID } from 'node:crypto'
import {
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fdatasyncSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  truncateSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { makePrivate } from '../../private-file.ts'
import { nameOf, unavailable } from '../entries/cause.ts'
import { type Lock, takeLock } from './lock.ts'

const FILE = 'journal.jsonl'
const BUSY = 'another gateway keeps its journal there: give each a directory of its own (break_glass.journal)'
/** As much as a few entries need: whether the disk takes it is known before anybody relies on it. */
const PROBE_BYTES = 64 * 1024

/** An entry as it was written. */
export interface Journalled {
  /** From 1. */
  readonly n: number
  /** Its canonical bytes, without a place in the log. */
  readonly entry: string
}

/** What was found at the start that nobody of ours wrote. */
export interface Damage {
  readonly journal: string
  /** Lines in front of it that are whole. */
  readonly whole: number
  /** Name of the file in the directory that keeps all of it. */
  readonly keptIn: string
}

interface Line extends Journalled {
  readonly mac: string
}

/** The first line of the file. */
interface Head {
  readonly journal: string
  /** Entries in the log when this began: what was handed over stands behind them. */
  readonly size: number
  readonly mac: string
}

export class Journal {
  readonly #dir: string
  readonly #key: KeyObject
  readonly #lock: Lock
  #head: Head | undefined
  /** Whole lines of the file; those up to `#handedOver` are in the log. */
  #lines: Line[] = []
  #handedOver = 0
  #fd: number | undefined
  /** Bytes of whole lines. */
  #offset = 0
  #failure: NodeJS.ErrnoException | undefined
  #damage: Damage | undefined

  private constructor(dir: string, key: KeyObject, lock: Lock) {
    this.#dir = dir
    this.#key = key
    this.#lock = lock
  }

  /**
   * @param dir made if absent, 0700. @param key 32 bytes.
   * @throws {Error} when another process has it, or it can be neither read nor written.
   */
  static async open(dir: string, key: KeyObject): Promise<Journal> {
    await makePrivate(dir)
    const journal = new Journal(dir, key, takeLock(join(dir, 'lock'), BUSY))
    try {
      journal.#load()
      return journal
    } catch (cause) {
      journal.close()
      throw cause
    }
  }

  /** Entries that are here and not in the log. */
  get pending(): number {
    return this.#lines.length - this.#handedOver
  }

  /** What is pending: where it began, and of which journal. Undefined: nothing was journalled since the last was handed over. */
  get began(): { readonly journal: string; readonly size: number } | undefined {
    return this.#head
  }

  /** Why the last entry could not be written; undefined when it could. */
  get failure(): NodeJS.ErrnoException | undefined {
    return this.#failure
  }

  get damage(): Damage | undefined {
    return this.#damage
  }

  /**
   * Durable when it returns. @param logSize entries in the log at present.
   * @returns how it is known to whoever kept what was said of it: number, and a hash over all up to it.
   * @throws {GatewayError} `audit_unavailable`, and then it is not in the journal.
   */
  append(entry: string, logSize: number): { readonly n: number; readonly mac: string } {
    try {
      const begun = this.#head === undefined ? this.#begin(logSize) : ''
      const n = this.#lines.length + 1
      const mac = this.#mac(this.#lines.at(-1)?.mac ?? this.#head?.mac ?? '', n, entry)
      this.#write(`${begun}${JSON.stringify({ n, entry, mac })}\n`)
      this.#lines.push({ n, entry, mac })
      this.#failure = undefined
      return { n, mac }
    } catch (cause) {
      if (this.#lines.length === 0) this.#abandon()
      this.#failure = cause as NodeJS.ErrnoException
      throw unavailable(this.#failure)
    }
  }

  /** The oldest entry that is not in the log. */
  next(): Journalled | undefined {
    return this.#lines[this.#handedOver]
  }

  /** All up to this one are in the log. With the last one the file is put aside; the next entry begins another. */
  handOver(n: number): void {
    this.#handedOver = Math.min(Math.max(this.#handedOver, n), this.#lines.length)
    if (this.pending > 0 || this.#head === undefined) return
    // Not possible on a disk that takes nothing: then the next start finds all of it in the log.
    attempt(() => renameSync(join(this.#dir, FILE), join(this.#dir, `handed-over-${this.#head?.journal}.jsonl`)))
    this.#forget()
  }

  /** Whether the disk takes an entry now. @returns why not. */
  probe(): string | undefined {
    const path = join(this.#dir, 'probe')
    try {
      const fd = openSync(path, 'w', 0o600)
      try {
        writeAll(fd, Buffer.alloc(PROBE_BYTES), 0)
        fdatasyncSync(fd)
      } finally {
        closeSync(fd)
      }
      rmSync(path)
      return undefined
    } catch (cause) {
      attempt(() => rmSync(path, { force: true }))
      return nameOf(cause as NodeJS.ErrnoException)
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#lock.release()
  }

  #mac(before: string, n: number, text: string): string {
    return createHmac('sha256', this.#key).update(`${before}\n${n}\n${text}`).digest('base64url')
  }

  #begin(size: number): string {
    const journal = randomUUID()
    this.#head = { journal, size, mac: this.#mac('', 0, `${journal} ${size}`) }
    this.#fd = openSync(join(this.#dir, FILE), constants.O_RDWR | constants.O_CREAT | constants.O_TRUNC, 0o600)
    this.#offset = 0
    const dir = openSync(this.#dir, 'r')
    try {
      fsyncSync(dir) // its name too survives a power cut
    } finally {
      closeSync(dir)
    }
    return `${JSON.stringify(this.#head)}\n`
  }

  /** What a failed write left behind is cut off by the next one: an entry counts only if its caller was told so. */
  #write(text: string): void {
    const fd = this.#fd ?? openSync(join(this.#dir, FILE), constants.O_RDWR)
    this.#fd = fd
    ftruncateSync(fd, this.#offset)
    const bytes = Buffer.from(text)
    writeAll(fd, bytes, this.#offset)
    fdatasyncSync(fd)
    this.#offset += bytes.length
  }

  /** The first entry did not get in: nothing has begun. */
  #abandon(): void {
    attempt(() => rmSync(join(this.#dir, FILE), { force: true }))
    this.#forget()
  }

  #forget(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#head = undefined
    this.#lines = []
    this.#handedOver = 0
    this.#offset = 0
  }

  /** A last line without its end was cut short by a crash: nobody was told that it is there. Anything else is kept and reported. */
  #load(): void {
    const path = join(this.#dir, FILE)
    if (!existsSync(path)) return
    const text = readFileSync(path, 'utf8')
    const lines = text.split('\n')
    lines.pop()
    const head = parse<Head>(lines[0] ?? '')
    if (head === undefined || head.mac !== this.#mac('', 0, `${head.journal} ${head.size}`)) {
      if (lines.length > 0) this.#keep(path, undefined, 0)
      else rmSync(path)
      return
    }
    this.#head = head
    this.#offset = bytesOf(lines[0] ?? '')
    let before = head.mac
    for (const line of lines.slice(1)) {
      const read = parse<Line>(line)
      const n = this.#lines.length + 1
      if (read === undefined || read.n !== n || read.mac !== this.#mac(before, n, read.entry)) {
        this.#keep(path, head.journal, n - 1)
        return
      }
      before = read.mac
      this.#lines.push(read)
      this.#offset += bytesOf(line)
    }
    if (this.#lines.length === 0) this.#abandon()
  }

  /** What is whole is handed over; the file as it was found stays for whoever looks into it. */
  #keep(path: string, journal: string | undefined, whole: number): void {
    const keptIn = `damaged-${journal ?? 'unknown'}-${this.#offset}.jsonl`
    copyFileSync(path, join(this.#dir, keptIn))
    if (whole > 0) truncateSync(path, this.#offset)
    else this.#abandon()
    this.#damage = { journal: journal ?? 'unknown', whole, keptIn }
  }
}

function writeAll(fd: number, bytes: Buffer, at: number): void {
  // A short write is legal; the rest then meets the real error, such as a full disk.
  for (let done = 0; done < bytes.length; ) done += writeSync(fd, bytes, done, bytes.length - done, at + done)
}

function bytesOf(line: string): number {
  return Buffer.byteLength(line) + 1
}

function parse<T>(line: string): T | undefined {
  try {
    return JSON.parse(line) as T
  } catch {
    return undefined
  }
}

function attempt(work: () => void): void {
  try {
    work()
  } catch {
    // Said where it matters: by the next write, or by the next start.
  }
}
