/**
 * The gateway's own keys on disk: those that sign grants, and those that seal records and leases. Replicas that stand behind one
 * address share this directory; an embedded gateway makes it on first start. Files are 0600 in a 0700 directory.
 */
import {
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import type { SigningKeys } from './grant/token.ts'
import { createOnce, makePrivate, readIfThere, readOrCreate, replace, syncDirectory } from './private-file.ts'
import { type Clock, systemClock } from './protocol/clock.ts'
import { GatewayError } from './protocol/problem.ts'

/**
 * Seconds for which a key verifies after another has taken its place: no grant lives longer than an hour (DESIGN §2), and a
 * replica may go on signing with the old key until it has looked.
 */
const OUTLIVES_S = 3600 + 60
const KEY_BYTES = 32
/** `grant.key` is the first one, `grant.1.key` took its place, and so on. */
const NAME = /^grant(?:\.([1-9]\d{0,5}))?\.key$/

export interface Keys {
  /** Ed25519, sign grants. Live: follows a rotation, whoever makes it. */
  readonly grantKeys: SigningKeys
  /** 32 bytes, seals what grants are in a store. Stays the same when the signing key is changed. */
  readonly store: KeyObject
  /** 32 bytes, seals leases. */
  readonly lease: KeyObject
  /** Keys the hashes of low-entropy values in the log, so that they can be compared and not guessed. */
  readonly record: KeyObject
  /** 32 bytes, wraps the keys that humans' names are sealed under. */
  readonly personal: KeyObject
  /** Keys what is masked in exports: replicas that share the keys mask alike. */
  readonly masks: KeyObject
  /** Sign what the gateway says of whom it asks for; private halves. */
  readonly assertions: { readonly ES256: KeyObject; readonly RS256: KeyObject }
}

/** Read the keys in `dir`, making those that are absent. Two processes that start at once end up with the same keys. */
export async function loadKeys(dir: string, clock: Clock = systemClock): Promise<Keys> {
  await makePrivate(dir)
  if ((await keyFiles(dir)).length === 0) {
    const pem = generateKeyPairSync('ed25519').privateKey.export({ type: 'pkcs8', format: 'pem' })
    await createOnce(join(dir, nameOf(0)), pem)
  }
  const ring = await readRing(dir)
  const store = await readStoreKey(dir, ring)
  const lease = wholeKey(
    await readOrCreate(join(dir, 'lease.key'), () => randomBytes(KEY_BYTES)),
    join(dir, 'lease.key'),
  )
  return {
    grantKeys: follow(dir, ring, clock),
    store: createSecretKey(store),
    lease: createSecretKey(lease),
    record: derived(lease, 'keyless record values'),
    personal: derived(lease, PERSONAL),
    masks: derived(lease, MASKS),
    assertions: {
      ES256: await readPrivateKey(dir, 'assertion-es256.key', () => generateKeyPairSync('ec', { namedCurve: 'P-256' })),
      RS256: await readPrivateKey(dir, 'assertion-rs256.key', () =>
        generateKeyPairSync('rsa', { modulusLength: 2048 }),
      ),
    },
  }
}

async function readPrivateKey(
  dir: string,
  name: string,
  make: () => { readonly privateKey: KeyObject },
): Promise<KeyObject> {
  const pem = () => Buffer.from(make().privateKey.export({ type: 'pkcs8', format: 'pem' }))
  return createPrivateKey(await readOrCreate(join(dir, name), pem))
}

const PERSONAL = 'keyless personal keys'
const MASKS = 'keyless export masks'

/** For readers of the log, who make no keys: undefined when there are none. @throws when it is there and cannot be read. */
export async function personalKeyIn(dir: string): Promise<KeyObject | undefined> {
  return derivedIn(dir, PERSONAL)
}

/** The same for the key of masks. */
export async function maskKeyIn(dir: string): Promise<KeyObject | undefined> {
  return derivedIn(dir, MASKS)
}

async function derivedIn(dir: string, use: string): Promise<KeyObject | undefined> {
  const path = join(dir, 'lease.key')
  const lease = await readIfThere(path)
  return lease && derived(wholeKey(lease, path), use)
}

function derived(key: Buffer, use: string): KeyObject {
  return createSecretKey(Buffer.from(hkdfSync('sha256', key, Buffer.alloc(0), use, KEY_BYTES)))
}

/**
 * A new key signs grants from now on; the one before verifies until its last grant has died, and its private half is gone.
 * Gateways that run on `dir` notice by themselves.
 * @returns whether this call made the change; false: another one did at the same time, and one change is enough.
 */
export async function rotateGrantKey(dir: string, nowS: number): Promise<boolean> {
  if ((await keyFiles(dir).catch(() => [])).length === 0)
    throw new Error(
      `${dir} holds no keys. Name the directory that the gateways use: <data_dir>/keys, or what keys_dir says.`,
    )
  await loadKeys(dir) // the key of the store must not be derived from a key that comes later
  const { current, retired } = await readRing(dir)
  const next = generateKeyPairSync('ed25519').privateKey
  const path = join(dir, nameOf(current.n + 1))
  const text = JSON.stringify({ ...next.export({ format: 'jwk' }), since: nowS })
  await createOnce(path, text)
  await syncDirectory(dir)
  if (String(await readIfThere(path)) !== text) return false
  // The new key is durable. A crash here leaves the old private half, unused, until the next change.
  for (const old of [...retired, current].filter(({ key }) => key.type === 'private')) {
    const half = createPublicKey(old.key).export({ format: 'jwk' })
    await replace(join(dir, nameOf(old.n)), JSON.stringify({ ...half, since: old.since }))
  }
  for (const { n, untilS } of retired) if (untilS <= nowS) await rm(join(dir, nameOf(n)), { force: true })
  return true
}

interface GrantKey {
  readonly n: number
  readonly key: KeyObject
  /** Epoch seconds since when it signs; 0 when that is not known. */
  readonly since: number
}

interface Ring {
  readonly current: GrantKey
  readonly retired: readonly (GrantKey & { readonly untilS: number })[]
}

/** The key ring as it is on disk, looked at again as often as its users ask, within bounds. */
function follow(dir: string, first: Ring, clock: Clock): SigningKeys {
  let ring = first
  let lookedAtMs = clock.elapsedMs()
  let looking: Promise<void> | undefined // written only by `refresh` and `look`
  const look = async () => {
    const startedAtMs = clock.elapsedMs()
    try {
      const seen = await readRing(dir)
      // Same key, same object: what others worked out from it stays known to them.
      ring = seen.current.n === ring.current.n ? { ...seen, current: ring.current } : seen
      lookedAtMs = startedAtMs
    } catch (cause) {
      throw new GatewayError(
        'store_unavailable',
        'The keys that sign grants cannot be read now, so nothing is signed with them. Try again shortly.',
        { cause },
      )
    } finally {
      looking = undefined
    }
  }
  return {
    get current() {
      return ring.current.key
    },
    get retired() {
      const nowS = clock.nowMs() / 1000
      return ring.retired.filter(({ untilS }) => nowS < untilS)
    },
    refresh(maxAgeMs) {
      if (looking === undefined && clock.elapsedMs() - lookedAtMs < maxAgeMs) return Promise.resolve()
      looking ??= look()
      return looking
    },
  }
}

async function readRing(dir: string): Promise<Ring> {
  try {
    return await readRingOnce(dir)
  } catch {
    // The newest key that we saw may just have lost its private half to a newer one. Then it is not the newest any more.
    return await readRingOnce(dir)
  }
}

async function readRingOnce(dir: string): Promise<Ring> {
  const files = await keyFiles(dir)
  const found = await Promise.all(files.map((n) => readGrantKey(dir, n)))
  const keys = found.filter((key) => key !== undefined)
  const current = keys.at(-1)
  if (current?.key.type !== 'private') throw unusable(join(dir, nameOf(current?.n ?? 0)))
  const retired = keys.slice(0, -1).map((key, i) => ({ ...key, untilS: (keys[i + 1]?.since ?? 0) + OUTLIVES_S }))
  return { current, retired: retired.reverse() }
}

/** Numbers of the keys that are there, oldest first. */
async function keyFiles(dir: string): Promise<number[]> {
  const found = (await readdir(dir)).map((name) => NAME.exec(name)).filter((match) => match !== null)
  return found.map(([, n]) => Number(n ?? 0)).sort((a, b) => a - b)
}

function nameOf(n: number): string {
  return n === 0 ? 'grant.key' : `grant.${n}.key`
}

async function readGrantKey(dir: string, n: number): Promise<GrantKey | undefined> {
  const path = join(dir, nameOf(n))
  const text = await readIfThere(path)
  if (text === undefined) return undefined // it was dead, and removed since we listed it
  try {
    const { since, ...jwk } = text[0] === 0x7b ? JSON.parse(String(text)) : { since: 0 }
    const isPem = text[0] !== 0x7b
    const key = isPem
      ? createPrivateKey(text)
      : (jwk.d === undefined ? createPublicKey : createPrivateKey)({ key: jwk, format: 'jwk' })
    if (key.asymmetricKeyType === 'ed25519' && Number.isSafeInteger(since)) return { n, key, since }
  } catch {
    // Said below; OpenSSL's own words help nobody.
  }
  throw unusable(path)
}

/** Gateways before key changes derived it from the only signing key there was; what they stored must stay readable. */
async function readStoreKey(dir: string, ring: Ring): Promise<Buffer> {
  const path = join(dir, 'store.key')
  const present = await readIfThere(path)
  if (present !== undefined) return wholeKey(present, path)
  if (ring.current.n > 0)
    throw new Error(`${path} is missing. Restore it from a backup: without it no living grant can be read.`)
  const source = ring.current.key.export({ type: 'pkcs8', format: 'der' })
  const derived = Buffer.from(hkdfSync('sha256', source, Buffer.alloc(0), 'keyless grant records', KEY_BYTES))
  await createOnce(path, derived).catch((cause: NodeJS.ErrnoException) => {
    // A directory that is mounted read-only: nobody can change its keys there either, so the next start derives the same.
    if (cause.code !== 'EROFS' && cause.code !== 'EACCES') throw cause
  })
  return derived
}

function wholeKey(bytes: Buffer, path: string): Buffer {
  if (bytes.length === KEY_BYTES) return bytes
  throw new Error(
    `${path} has ${bytes.length} bytes; it must have ${KEY_BYTES}. Restore it from a backup, or remove it to make a new one.`,
  )
}

function unusable(path: string): Error {
  return new Error(
    `${path} holds no Ed25519 private key. Restore it from a backup, or remove it to make a new one; grants signed with the old one then end.`,
  )
}
