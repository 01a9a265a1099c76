/**
 * Keys of the sealed store. The first is derived from `lease.key`; `sealed.1.key` takes its place, and so on. All that are there open,
 * the highest seals. Looked for whenever one is needed, so that a gateway follows a change that another made.
 */
import { createSecretKey, hkdfSync, type KeyObject, randomBytes } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { createOnce, readIfThere, syncDirectory } from '../private-file.ts'
import type { SealingKeys } from '../provider/sealed/sealed.ts'
import { sealedKeyIn } from './keys.ts'

const KEY_BYTES = 32
const NAME = /^sealed\.([1-9]\d{0,5})\.key$/

export function openSealingKeys(dir: string): SealingKeys {
  /** number → key; those that were removed from the directory stay known to this process */
  const known = new Map<number, KeyObject>()
  const find = async (id: number): Promise<KeyObject | undefined> => {
    const present = known.get(id) ?? (id === 0 ? await sealedKeyIn(dir) : await readKey(dir, id))
    if (present !== undefined) known.set(id, present)
    return present
  }
  return {
    find,
    async current() {
      const id = (await numbers(dir)).at(-1) ?? 0
      const key = await find(id)
      if (key === undefined) throw unusable(dir, id)
      return { id, key }
    },
  }
}

/** Seal with a new key from now on. @returns its number. */
export async function advanceSealingKey(dir: string): Promise<number> {
  await sealedKeyIn(dir)
  const next = ((await numbers(dir)).at(-1) ?? 0) + 1
  await createOnce(join(dir, nameOf(next)), randomBytes(KEY_BYTES))
  await syncDirectory(dir)
  return next
}

/**
 * Remove keys that seal nothing any more. The one right before the current is kept until the next change: a replica may have begun to
 * seal with it a moment ago.
 */
export async function removeSealingKeys(dir: string, current: number): Promise<void> {
  for (const id of await numbers(dir)) if (id < current - 1) await rm(join(dir, nameOf(id)), { force: true })
}

async function numbers(dir: string): Promise<number[]> {
  return (await readdir(dir)).flatMap((name) => Number(NAME.exec(name)?.[1] ?? 0) || []).sort((a, b) => a - b)
}

async function readKey(dir: string, id: number): Promise<KeyObject | undefined> {
  const bytes = await readIfThere(join(dir, nameOf(id)))
  if (bytes === undefined) return undefined
  if (bytes.length !== KEY_BYTES) throw unusable(dir, id)
  return createSecretKey(Buffer.from(hkdfSync('sha256', bytes, Buffer.alloc(0), 'keyless sealed store', KEY_BYTES)))
}

function nameOf(id: number): string {
  return `sealed.${id}.key`
}

function unusable(dir: string, id: number): Error {
  return new Error(`${join(dir, nameOf(id))} does not hold ${KEY_BYTES} bytes. Restore it from a backup.`)
}
