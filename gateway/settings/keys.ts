/**
 * The gateway's own keys on disk: those that sign grants and assertions, and those that seal records and leases. Replicas that stand
 * behind one address share this directory; an embedded gateway makes it on first start. Files are 0600 in a 0700 directory.
 */
import {
  createSecretKey,
  generateKeyPair,
  generateKeyPairSync,
  hkdfSync,
  type KeyObject,
  randomBytes,
} from 'node:crypto'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { SigningKeys } from '../grant/chain/token.ts'
import { createOnce, makePrivate, readIfThere, readOrCreate } from '../private-file.ts'
import { type Clock, systemClock } from '../protocol/clock.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { AssertionKeys } from '../provider/assertions.ts'
import { isRing, makeRing, openRing, type Ring, type RingKind, rotateRing } from './keys-ring.ts'

const KEY_BYTES = 32

const grantRing: RingKind = {
  name: 'grant',
  title: 'Ed25519',
  // No grant lives longer than an hour (DESIGN §2), and a replica may go on signing with the old key until it has looked.
  outlivesS: 3600 + 60,
  announcedS: 0,
  make: () => generateKeyPairSync('ed25519').privateKey,
  isOfKind: (key) => key.asymmetricKeyType === 'ed25519',
}

/** An assertion lives ten minutes (provider/assertions.ts). Who verifies it keeps our published keys for a while: clouds up to an hour. */
const ofAssertions = { outlivesS: 600 + 60, announcedS: 3600 } as const

const assertionRings = {
  ES256: {
    ...ofAssertions,
    name: 'assertion-es256',
    title: 'P-256',
    make: () => generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey,
    isOfKind: (key) => key.asymmetricKeyDetails?.namedCurve === 'prime256v1',
  },
  RS256: {
    ...ofAssertions,
    name: 'assertion-rs256',
    title: 'RSA',
    // A tenth of a second of work, in which the gateway must not stand still.
    make: async () => (await promisify(generateKeyPair)('rsa', { modulusLength: 2048 })).privateKey,
    isOfKind: (key) => key.asymmetricKeyType === 'rsa',
  },
} as const satisfies Record<string, RingKind>

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
  /** 32 bytes, encrypts what browsers of approvers keep. */
  readonly sessions: KeyObject
  /** Keys what is masked in exports: replicas that share the keys mask alike. */
  readonly masks: KeyObject
  /** Sign what the gateway says of whom it asks for. Made and read when one is first needed. Live, like `grantKeys`. */
  readonly assertions: AssertionKeys
}

/** Read the keys in `dir`, making those that are absent. Two processes that start at once end up with the same keys. */
export async function loadKeys(dir: string, clock: Clock = systemClock): Promise<Keys> {
  await makePrivate(dir)
  await makeRing(dir, grantRing)
  const grantKeys = await openRing(dir, grantRing, clock)
  const store = await readStoreKey(dir, grantKeys)
  const lease = wholeKey(
    await readOrCreate(join(dir, 'lease.key'), () => randomBytes(KEY_BYTES)),
    join(dir, 'lease.key'),
  )
  return {
    grantKeys,
    store: createSecretKey(store),
    lease: createSecretKey(lease),
    record: derived(lease, 'keyless record values'),
    personal: derived(lease, PERSONAL),
    sessions: derived(lease, 'keyless approver sessions'),
    masks: derived(lease, MASKS),
    assertions: {
      ES256: onDemand(dir, assertionRings.ES256, clock),
      RS256: onDemand(dir, assertionRings.RS256, clock),
    },
  }
}

/** Every key that replicas share, those included that one gateway makes when it first needs them. */
export async function makeKeys(dir: string): Promise<void> {
  await loadKeys(dir)
  for (const kind of Object.values(assertionRings)) await makeRing(dir, kind)
}

function onDemand(dir: string, kind: RingKind, clock: Clock): AssertionKeys['ES256'] {
  let ring: Promise<Ring> | undefined
  const open = async () => {
    try {
      await makeRing(dir, kind)
      return await openRing(dir, kind, clock)
    } catch (cause) {
      ring = undefined // the next one tries again
      throw new GatewayError(
        'credential_unconfigured',
        `The ${kind.title} keys of assertions can be neither read nor made. Make them with "keyless keys make" where keys_dir can be written.`,
        { cause },
      )
    }
  }
  return () => {
    ring ??= open()
    return ring
  }
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

/** The first key of the sealed store (keys-sealed.ts). @throws when there are no keys. */
export async function sealedKeyIn(dir: string): Promise<KeyObject> {
  const key = await derivedIn(dir, 'keyless sealed store')
  if (key !== undefined) return key
  throw new Error(`${dir} holds no keys. Start the gateway once, or make them with \`keyless keys --dir ${dir}\`.`)
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
 * @returns whether this call made the change. @see rotateRing
 */
export async function rotateGrantKey(dir: string, nowS: number): Promise<boolean> {
  if (!(await isRing(dir, grantRing)))
    throw new Error(
      `${dir} holds no keys. Name the directory that the gateways use: <data_dir>/keys, or what keys_dir says.`,
    )
  await loadKeys(dir) // the key of the store must not be derived from a key that comes later
  return rotateRing(dir, grantRing, nowS)
}

/** New keys for assertions are published at once and sign an hour later. A gateway that never signed one has none to change. */
export async function rotateAssertionKeys(dir: string, nowS: number): Promise<void> {
  for (const kind of Object.values(assertionRings)) if (await isRing(dir, kind)) await rotateRing(dir, kind, nowS)
}

/** Gateways before key changes derived it from the only signing key there was; what they stored must stay readable. */
async function readStoreKey(dir: string, { current, changes }: Ring): Promise<Buffer> {
  const path = join(dir, 'store.key')
  const present = await readIfThere(path)
  if (present !== undefined) return wholeKey(present, path)
  if (changes > 0)
    throw new Error(`${path} is missing. Restore it from a backup: without it no living grant can be read.`)
  const source = current.export({ type: 'pkcs8', format: 'der' })
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
