/** One person's key on disk: its form, wrapped under the gateway's, and its end. */
import { createCipheriv, createDecipheriv, createHmac, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { open, readdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, readIfThere } from '../../private-file.ts'
import { Seal } from '../sealing.ts'

/** Of which tenant, named by whom, called what. */
export interface Person {
  readonly tenant: string
  readonly iss: string
  readonly sub: string
}

export interface Kept {
  readonly person: Person
  readonly file: string
  readonly seal: Seal
}

const NONCE_BYTES = 12
const TAG_BYTES = 16

export class KeyFiles {
  readonly dir: string
  readonly #wrap: Buffer
  readonly #names: Buffer

  /** @param key 32 bytes, of the gateways that share the directory. */
  constructor(dir: string, key: KeyObject) {
    this.dir = dir
    this.#wrap = Buffer.from(hkdfSync('sha256', key.export(), '', 'keyless personal wrap', 32))
    this.#names = Buffer.from(hkdfSync('sha256', key.export(), '', 'keyless personal names', 32))
  }

  /** A keyed hash: who reads the directory learns how many people there are, and not who. */
  fileOf(person: Person): string {
    return `${createHmac('sha256', this.#names).update(nameOf(person)).digest('base64url')}.key`
  }

  /** Durable but for the directory's own entry. Of two who make one at once, the first wins. */
  make(file: string, person: Person): Promise<void> {
    const nonce = randomBytes(NONCE_BYTES)
    const cipher = createCipheriv('aes-256-gcm', this.#wrap, nonce).setAAD(Buffer.from(file))
    const text = JSON.stringify({ ...person, id: newId(), key: randomBytes(32).toString('base64url') })
    return createOnce(
      join(this.dir, file),
      Buffer.concat([nonce, cipher.update(text), cipher.final(), cipher.getAuthTag()]),
    )
  }

  /** @throws {Error} when it was wrapped under another key. */
  async read(file: string): Promise<Kept | undefined> {
    const bytes = await readIfThere(join(this.dir, file))
    if (bytes === undefined) return undefined
    try {
      const nonce = bytes.subarray(0, NONCE_BYTES)
      const decipher = createDecipheriv('aes-256-gcm', this.#wrap, nonce, { authTagLength: TAG_BYTES })
      decipher.setAAD(Buffer.from(file)).setAuthTag(bytes.subarray(-TAG_BYTES))
      const text = Buffer.concat([decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES)), decipher.final()])
      const { id, key, tenant, iss, sub } = JSON.parse(text.toString()) as Person & { id: string; key: string }
      return { person: { tenant, iss, sub }, file, seal: new Seal(id, Buffer.from(key, 'base64url')) }
    } catch {
      throw new Error(
        `${join(this.dir, file)} was not sealed by this gateway's keys. Restore the lease.key that belongs to it, or remove the file: what it opens is then lost.`,
      )
    }
  }

  /** Take a key off the disk. Its name goes first: nobody reads half of one. */
  async remove({ file, seal }: Kept): Promise<void> {
    const path = join(this.dir, file)
    // Another replica may have finished this already, and the person may have a new key by now.
    if ((await this.read(file))?.seal.id !== seal.id) return
    const dead = join(this.dir, `${seal.id}.dead`)
    await rename(path, dead)
    await overwrite(dead)
  }

  /** All names, after what a crash left behind is gone; where nothing may be written, somebody else sees to that. */
  async names(): Promise<string[]> {
    const names = await readdir(this.dir)
    for (const name of names) if (name.endsWith('.dead')) await overwrite(join(this.dir, name)).catch(() => undefined)
    return names
  }
}

export function nameOf({ tenant, iss, sub }: Person): string {
  return `${tenant}\0${iss}\0${sub}`
}

/** Random: a person who is forgotten and comes back has another. */
export function newId(): string {
  return randomBytes(NONCE_BYTES).toString('base64url')
}

/** Noise in place of the key before the file goes: what is undeleted is no key. */
async function overwrite(path: string): Promise<void> {
  const file = await open(path, 'r+')
  try {
    const { size } = await file.stat()
    await file.write(randomBytes(size), 0, size, 0)
    await file.sync()
  } finally {
    await file.close()
  }
  await rm(path, { force: true })
}
