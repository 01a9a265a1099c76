/**
 * The keys of people: one for each human, made when they are first spoken of, in a directory that replicas share. Destroying one
 * is what forgets a person: every copy of the log stays whole and provable, and what it says of them is noise.
 *
 * `<hash>.key` is a person's key. `<id>.gone` says that a key was destroyed; it stays, and finishes what a crash left undone: a
 * process that finds the key of that id removes it. Running replicas look once a second.
 */
import { type KeyObject, randomBytes } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, makePrivate, readIfThere, syncDirectory } from '../../private-file.ts'
import { type Field, SEALED, Seal } from '../sealing.ts'
import { type Kept, KeyFiles, nameOf, newId, type Person } from './file.ts'

export type { Person } from './file.ts'

/** What readers need: open what is sealed, and find what a name looks like when it is. */
export interface Unsealing {
  /** A copy in which every sealed text that has a key is plain; the others stay as they are. */
  unseal<T>(value: T): T
  /** All that this value may stand in the log as: one form for each key that could have closed it. `human`: keys of that name only. */
  sealedForms(value: string, field?: Field): string[]
  /** Follow what other processes made and destroyed. Cheap when nothing changed: call it before every answer, or once a second. */
  refresh(): Promise<void>
}

export interface Personal extends Unsealing {
  /** The key of a person, made if there is none; undefined: `of` has it already. @throws when it cannot be made durable. */
  ready(person: Person): Promise<void> | undefined
  /** After `ready`. In place of a key that was destroyed in between, one that nobody keeps. */
  of(person: Person): Seal
  /** Everybody of this name who has a key, and its id. */
  known(sub: string): readonly (Person & { readonly id: string })[]
  /** Durable when this resolves; other processes follow at their next look. @throws when it is still on the disk. */
  destroy(id: string): Promise<void>
  /** Told whenever a key is destroyed, here or by another process. */
  onDestroyed(listener: () => void): void
}

export interface PersonalOptions {
  /** Made if absent, unless `isReader`: a reader finds nobody in a directory that is not there. */
  readonly dir: string
  /** 32 bytes, of the gateways that share the directory. */
  readonly key: KeyObject
  readonly isReader?: boolean
}

const KEY = /^[A-Za-z0-9_-]{43}\.key$/
const GONE = /^([A-Za-z0-9_-]{16})\.gone$/
/** Looks after a change: the time of a directory can be too coarse to show a second one. */
const LOOKS = 3

/** @throws {Error} when the directory, or a key in it, cannot be read. */
export async function openPersonal({ dir, key, isReader }: PersonalOptions): Promise<Personal> {
  if (!isReader) await makePrivate(dir)
  const personal = new PersonalKeys(new KeyFiles(dir, key))
  await personal.refresh()
  return personal
}

class PersonalKeys implements Personal {
  readonly #files: KeyFiles
  /** File → what it holds. */
  readonly #kept = new Map<string, Kept>()
  /** Key id → the same. */
  readonly #byId = new Map<string, Kept>()
  /** Ids of keys that were destroyed. */
  readonly #gone = new Set<string>()
  /** Person → their key: saves the hash that names the file. */
  readonly #near = new Map<string, Seal>()
  readonly #listeners: (() => void)[] = []
  #changedMs: number | undefined
  #looks = LOOKS
  #looking: Promise<void> | undefined

  constructor(files: KeyFiles) {
    this.#files = files
  }

  ready(person: Person): Promise<void> | undefined {
    return this.#near.has(nameOf(person)) ? undefined : this.#make(person)
  }

  of(person: Person): Seal {
    const near = this.#near.get(nameOf(person))
    if (near !== undefined) return near
    const lost = new Seal(newId(), randomBytes(32))
    lost.destroy()
    return lost
  }

  known(sub: string): readonly (Person & { readonly id: string })[] {
    const found = [...this.#kept.values()].filter(({ person }) => person.sub === sub)
    return found.map(({ person, seal }) => ({ ...person, id: seal.id }))
  }

  async destroy(id: string): Promise<void> {
    // First: from here on, what a crash leaves is finished by whoever looks next.
    await createOnce(join(this.#files.dir, `${id}.gone`), '')
    await syncDirectory(this.#files.dir)
    await this.#end(id)
    await syncDirectory(this.#files.dir)
  }

  onDestroyed(listener: () => void): void {
    this.#listeners.push(listener)
  }

  // These two are handed on by themselves.
  readonly unseal = <T>(value: T): T => this.#opened(value, 0) as T

  readonly sealedForms = (value: string, field: Field = 'human'): string[] => {
    const kept = [...this.#kept.values()]
    const able = field === 'human' ? kept.filter(({ person }) => person.sub === value) : kept
    return able.map(({ seal }) => seal.close(field, value))
  }

  refresh(): Promise<void> {
    this.#looking ??= this.#look().finally(() => {
      this.#looking = undefined
    })
    return this.#looking
  }

  async #make(person: Person): Promise<void> {
    const file = this.#files.fileOf(person)
    if ((await this.#read(file)) === undefined) {
      await this.#files.make(file, person)
      await syncDirectory(this.#files.dir)
    }
    const made = await this.#read(file) // ours, or that of whoever was quicker
    if (made === undefined) throw new Error('the key of a human was destroyed while it was made')
    this.#near.set(nameOf(person), made.seal)
  }

  async #look(): Promise<void> {
    const changedMs = await changeOf(this.#files.dir)
    if (changedMs === undefined) return
    if (changedMs !== this.#changedMs) this.#looks = LOOKS
    this.#changedMs = changedMs
    if (this.#looks-- <= 0) return
    const names = await this.#files.names()
    for (const name of names) {
      const id = GONE.exec(name)?.[1]
      // Where the disk may not be written, somebody else has removed it or will.
      if (id !== undefined && !this.#gone.has(id)) await this.#end(id).catch(() => undefined)
    }
    await Promise.all(names.filter((name) => KEY.test(name) && !this.#kept.has(name)).map((name) => this.#read(name)))
  }

  /** @returns undefined when there is none, or only one that is gone. */
  async #read(file: string): Promise<Kept | undefined> {
    const kept = await this.#files.read(file)
    if (kept === undefined) return undefined
    const { id } = kept.seal
    const isGone = this.#gone.has(id) || (await readIfThere(join(this.#files.dir, `${id}.gone`))) !== undefined
    const known = this.#byId.get(id)
    if (known && !isGone) return known
    this.#kept.set(file, kept)
    this.#byId.set(id, kept)
    if (!isGone) return kept
    await this.#end(id)
    return undefined
  }

  /** Out of memory, whatever the disk says; then off the disk. */
  async #end(id: string): Promise<void> {
    this.#gone.add(id)
    const kept = this.#byId.get(id)
    if (kept === undefined) return
    kept.seal.destroy()
    this.#byId.delete(id)
    if (this.#kept.get(kept.file) === kept) this.#kept.delete(kept.file)
    if (this.#near.get(nameOf(kept.person)) === kept.seal) this.#near.delete(nameOf(kept.person))
    for (const listener of this.#listeners) listener()
    await this.#files.remove(kept)
  }

  #opened(value: unknown, depth: number): unknown {
    if (typeof value === 'string') {
      const [, id = '', text = ''] = SEALED.exec(value) ?? []
      return this.#byId.get(id)?.seal.open(text) ?? value
    }
    if (typeof value !== 'object' || value === null || depth > 16) return value
    if (Array.isArray(value)) return value.map((member) => this.#opened(member, depth + 1))
    return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, this.#opened(member, depth + 1)]))
  }
}

/** When the directory was last changed; undefined: it is not there. */
async function changeOf(dir: string): Promise<number | undefined> {
  try {
    return (await stat(dir)).mtimeMs
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause
    return undefined
  }
}
