/**
 * A ring of signing keys on disk: `grant.key` is the first one, `grant.1.key` took its place, and so on. Replicas share the directory and
 * follow a change, whoever makes it; what a key signed can be verified until the last of it has died.
 */
import { createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { SigningKeys } from '../grant/chain/token.ts'
import { createOnce, readIfThere, replace, syncDirectory } from '../private-file.ts'
import type { Clock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'

/** What a ring is for. */
export interface RingKind {
  /** Beginning of its files: `grant`. */
  readonly name: string
  /** How a person calls its keys: `Ed25519`. */
  readonly title: string
  /** Seconds for which a key verifies after another has taken its place. */
  readonly outlivesS: number
  /** Seconds for which a new key is published before it signs. 0: at once. */
  readonly announcedS: number
  make(): KeyObject | Promise<KeyObject>
  isOfKind(key: KeyObject): boolean
}

export interface Ring extends SigningKeys {
  /** Will sign, and verify already: whoever keeps published keys for a while must know them by then. */
  readonly coming: readonly KeyObject[]
  /** How often the key was changed before the one that signs. */
  readonly changes: number
  refresh(maxAgeMs: number): Promise<void>
}

interface RingKey {
  readonly n: number
  readonly key: KeyObject
  /** Epoch seconds since when it signs; 0 when that is not known. */
  readonly since: number
}

/** The first key of a ring, unless it has keys. */
export async function makeRing(dir: string, kind: RingKind): Promise<void> {
  if ((await numbersIn(dir, kind)).length > 0) return
  const pem = (await kind.make()).export({ type: 'pkcs8', format: 'pem' })
  await createOnce(join(dir, nameOf(kind, 0)), pem)
}

/** @returns whether the ring has a key. */
export async function isRing(dir: string, kind: RingKind): Promise<boolean> {
  return (await numbersIn(dir, kind).catch(() => [])).length > 0
}

/** The key ring as it is on disk, looked at again as often as its users ask, within bounds. */
export async function openRing(dir: string, kind: RingKind, clock: Clock): Promise<Ring> {
  let keys = await readRing(dir, kind)
  let lookedAtMs = clock.elapsedMs()
  let looking: Promise<void> | undefined // written only by `refresh` and `look`
  const nowS = () => clock.nowMs() / 1000
  const look = async () => {
    const startedAtMs = clock.elapsedMs()
    try {
      const seen = await readRing(dir, kind)
      // Same key, same object: what others worked out from it stays known to them.
      keys = seen.map((next) => keys.find(({ n, key }) => n === next.n && key.type === next.key.type) ?? next)
      lookedAtMs = startedAtMs
    } catch (cause) {
      throw new GatewayError(
        'store_unavailable',
        'The keys that the gateway signs with cannot be read now, so nothing is signed. Try again shortly.',
        { cause },
      )
    } finally {
      looking = undefined
    }
  }
  return {
    get current() {
      return (keys[currentIn(keys, nowS())] as RingKey).key
    },
    get changes() {
      return (keys[currentIn(keys, nowS())] as RingKey).n
    },
    get coming() {
      return keys.slice(currentIn(keys, nowS()) + 1).map(({ key }) => key)
    },
    get retired() {
      return retiredIn(keys, kind, nowS()).filter(({ untilS }) => nowS() < untilS)
    },
    refresh(maxAgeMs) {
      if (looking === undefined && clock.elapsedMs() - lookedAtMs < maxAgeMs) return Promise.resolve()
      looking ??= look()
      return looking
    },
  }
}

/**
 * A new key signs from now on, or as soon as it has been announced; those before verify until what they signed has died.
 * Gateways that run on `dir` notice by themselves.
 * @returns whether this call made the change; false: another one did at the same time, and one change is enough.
 */
export async function rotateRing(dir: string, kind: RingKind, nowS: number): Promise<boolean> {
  const keys = await readRing(dir, kind)
  const current = currentIn(keys, nowS)
  const path = join(dir, nameOf(kind, (keys.at(-1) as RingKey).n + 1))
  const since = nowS + kind.announcedS
  const text = JSON.stringify({ ...(await kind.make()).export({ format: 'jwk' }), since })
  await createOnce(path, text)
  await syncDirectory(dir)
  if (String(await readIfThere(path)) !== text) return false
  // The new key is durable. A crash here leaves an old private half, unused, until the next change.
  const unused = kind.announcedS === 0 ? keys : keys.slice(0, current) // until the new one signs, the current one does
  for (const old of unused.filter(({ key }) => key.type === 'private')) {
    const half = createPublicKey(old.key).export({ format: 'jwk' })
    await replace(join(dir, nameOf(kind, old.n)), JSON.stringify({ ...half, since: old.since }))
  }
  for (const { n, untilS } of retiredIn(keys, kind, nowS))
    if (untilS <= nowS) await rm(join(dir, nameOf(kind, n)), { force: true })
  return true
}

/** Which key signs: the newest whose time has come. A private half alone can; of several, none but the newest is left in the end. */
function currentIn(keys: readonly RingKey[], nowS: number): number {
  const able = keys.flatMap(({ key, since }, i) => (key.type === 'private' ? [{ i, since }] : []))
  return able.findLast(({ since }) => since <= nowS)?.i ?? (able[0]?.i as number)
}

/** Newest first. */
function retiredIn(keys: readonly RingKey[], kind: RingKind, nowS: number) {
  const before = keys.slice(0, currentIn(keys, nowS))
  return before.map((key, i) => ({ ...key, untilS: (keys[i + 1]?.since ?? 0) + kind.outlivesS })).reverse()
}

async function readRing(dir: string, kind: RingKind): Promise<readonly RingKey[]> {
  try {
    return await readRingOnce(dir, kind)
  } catch {
    // The newest key that we saw may just have lost its private half to a newer one. Then it is not the newest any more.
    return await readRingOnce(dir, kind)
  }
}

/** Oldest first; the newest has its private half. */
async function readRingOnce(dir: string, kind: RingKind): Promise<readonly RingKey[]> {
  const numbers = await numbersIn(dir, kind)
  const found = await Promise.all(numbers.map((n) => readKey(dir, kind, n)))
  const keys = found.filter((key) => key !== undefined)
  const newest = keys.at(-1)
  if (newest?.key.type !== 'private') throw unusable(join(dir, nameOf(kind, newest?.n ?? 0)), kind)
  return keys
}

/** Numbers of the keys that are there, oldest first. */
async function numbersIn(dir: string, kind: RingKind): Promise<number[]> {
  const name = new RegExp(`^${kind.name}(?:\\.([1-9]\\d{0,5}))?\\.key$`)
  const found = (await readdir(dir)).map((file) => name.exec(file)).filter((match) => match !== null)
  return found.map(([, n]) => Number(n ?? 0)).sort((a, b) => a - b)
}

function nameOf({ name }: RingKind, n: number): string {
  return n === 0 ? `${name}.key` : `${name}.${n}.key`
}

async function readKey(dir: string, kind: RingKind, n: number): Promise<RingKey | undefined> {
  const path = join(dir, nameOf(kind, n))
  const text = await readIfThere(path)
  if (text === undefined) return undefined // it was dead, and removed since we listed it
  try {
    const { since, ...jwk } = text[0] === 0x7b ? JSON.parse(String(text)) : { since: 0 }
    const isPem = text[0] !== 0x7b
    const key = isPem
      ? createPrivateKey(text)
      : (jwk.d === undefined ? createPublicKey : createPrivateKey)({ key: jwk, format: 'jwk' })
    if (kind.isOfKind(key) && Number.isSafeInteger(since)) return { n, key, since }
  } catch {
    // Said below; OpenSSL's own words help nobody.
  }
  throw unusable(path, kind)
}

function unusable(path: string, { title }: RingKind): Error {
  return new Error(
    `${path} holds no ${title} private key. Restore it from a backup, or remove it to make a new one; what was signed with the old one then ends.`,
  )
}
