/**
 * Messages on disk: those that wait, and those that were given up and can be sent again. One file each, written whole, so that a crash
 * leaves a message in one of both places or, between two steps, in both: it is then sent twice under one id, never lost.
 */
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { makePrivate, readIfThere, replace } from '../../private-file.ts'
import type { LetterView } from '../../protocol/exporting.ts'
import type { Letter } from './letter.ts'

/** A message with what became of it so far. */
export interface Waiting extends Letter {
  readonly attempts: number
  /** Of the first attempt, epoch milliseconds. */
  readonly firstMs: number
  readonly reason: string | undefined
}

export type Place = 'waiting' | 'dead'
export type Key = Pick<Letter, 'id' | 'seq'>

export interface Spool {
  /** Durable when it resolves. */
  put(place: Place, letter: Waiting): Promise<void>
  get(place: Place, key: Key): Promise<Waiting | undefined>
  remove(place: Place, key: Key): Promise<void>
  /** The oldest entry first. */
  keys(place: Place): Promise<Key[]>
  /** The same with what is told of each, at most `limit`. */
  list(place: Place, limit: number): Promise<LetterView[]>
}

const FILE = /^(\d{12})-(msg_[\w-]{1,64})\.json$/

/** @param dir of one receiver; made when something is first put there. */
export function openSpool(dir: string): Spool {
  const pathOf = (place: Place, { id, seq }: Key) => join(dir, place, `${String(seq).padStart(12, '0')}-${id}.json`)
  const keys = async (place: Place): Promise<Key[]> => {
    const found = await readdir(join(dir, place)).catch((cause: NodeJS.ErrnoException) => {
      if (cause.code === 'ENOENT') return []
      throw cause
    })
    return found.sort().flatMap((name) => {
      const [, seq, id] = FILE.exec(name) ?? []
      return seq === undefined || id === undefined ? [] : [{ id, seq: Number(seq) }]
    })
  }
  const get = async (place: Place, key: Key): Promise<Waiting | undefined> => {
    const text = await readIfThere(pathOf(place, key))
    return text && parse(text.toString('utf8'))
  }
  return {
    async put(place, letter) {
      await makePrivate(join(dir, place))
      await replace(pathOf(place, letter), JSON.stringify(letter))
    },
    get,
    remove: (place, key) => rm(pathOf(place, key), { force: true }),
    keys,
    async list(place, limit) {
      const letters = await Promise.all((await keys(place)).slice(0, limit).map((key) => get(place, key)))
      return letters.filter((letter) => letter !== undefined).map(viewOf)
    },
  }
}

export function viewOf({ id, kind, seq, at, attempts, reason }: Waiting): LetterView {
  return { id, kind, seq, at, attempts, ...(reason !== undefined && { reason }) }
}

/** Undefined for what is no message: half a file cannot be, but somebody may have edited one. */
function parse(text: string): Waiting | undefined {
  try {
    const letter = JSON.parse(text) as Waiting
    const isWhole = typeof letter.id === 'string' && typeof letter.text === 'string' && Number.isSafeInteger(letter.seq)
    return isWhole && Number.isSafeInteger(letter.attempts) && Number.isFinite(letter.firstMs) ? letter : undefined
  } catch {
    return undefined
  }
}
