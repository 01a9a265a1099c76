/**
 * Secrets that the gateway keeps itself: sealed by AES-256-GCM for one tenant and name, so that a value moved to another place does
 * not open; changed by compare-and-swap, so that of two changes at once one is refused. Where rows are kept, its variants know:
 * `sealed-sqlite.ts` (one process), `sealed-redis.ts` and `sealed-postgres.ts` (replicas). `test/conformance/sealed.ts` runs on all.
 *
 * Layout of a value: format (1 byte), number of the key (4), nonce (12, random), tag (16), ciphertext. Whoever can write to the store
 * can take a value away or put an older one back, and can read none.
 */
import { createCipheriv, createDecipheriv, type KeyObject, randomBytes } from 'node:crypto'
import { GatewayError } from '../../protocol/problem.ts'
import { Secret } from '../../protocol/secret.ts'

/** Where a value is. */
export interface SealedPlace {
  readonly tenant: string
  readonly name: string
}

export interface SealedRow {
  readonly value: Buffer
  /** Grows with every change. A row that is made again after it was removed begins above all that it had before. */
  readonly version: number
}

/** Rows as a store keeps them. Every method rejects with `store_unavailable` when it cannot be reached. */
export interface SealedRows {
  read(place: SealedPlace): Promise<SealedRow | undefined>
  /**
   * Replace what is there, and with it whatever claim was on it.
   * @param value null removes it. @param expected its version; 0: there is none yet.
   * @returns its new version (of a row that is gone, the one it had); undefined when it is not the expected one any more.
   */
  write(place: SealedPlace, value: Buffer | null, expected: number): Promise<number | undefined>
  /**
   * Have a row for oneself: its version changes, so that nobody who read it before can write. Lapses after `forMs`, by the clock of the
   * store. @returns `taken` while somebody else has it, undefined when there is none.
   */
  claim(place: SealedPlace, forMs: number): Promise<SealedRow | 'taken' | undefined>
  /** Of all tenants. */
  places(): Promise<readonly SealedPlace[]>
  close(): Promise<void>
}

/** Keys by number; the highest seals, all of them open. */
export interface SealingKeys {
  current(): Promise<{ readonly id: number; readonly key: KeyObject }>
  find(id: number): Promise<KeyObject | undefined>
}

export interface Opened {
  readonly secret: Secret
  readonly version: number
}

/** The sealed store of one tenant. */
export interface Sealed {
  /** @throws {GatewayError} `credential_unconfigured` for a value that does not open, `store_unavailable`. */
  read(name: string): Promise<Opened | undefined>
  /** As `SealedRows.write`. */
  write(name: string, secret: Secret | null, expected: number): Promise<number | undefined>
  /** As `SealedRows.claim`. */
  claim(name: string, forMs: number): Promise<Opened | 'taken' | undefined>
  /** Names that begin so, sorted. */
  names(prefix: string): Promise<readonly string[]>
  close(): Promise<void>
}

const FORMAT = 1
const NONCE_BYTES = 12
const TAG_BYTES = 16
const NONCE_AT = 1 + 4
const TAG_AT = NONCE_AT + NONCE_BYTES
const BODY_AT = TAG_AT + TAG_BYTES

interface SealedOptions {
  readonly rows: SealedRows
  readonly keys: SealingKeys
  readonly tenant: string
}

export function createSealed({ rows, keys, tenant }: SealedOptions): Sealed {
  const opened = async (name: string, row: SealedRow | undefined): Promise<Opened | undefined> =>
    row && { secret: await open(keys, { tenant, name }, row.value), version: row.version }
  return {
    read: async (name) => opened(name, await rows.read({ tenant, name })),
    async write(name, secret, expected) {
      const place = { tenant, name }
      return rows.write(place, secret && (await seal(keys, place, Buffer.from(secret.reveal(), 'utf8'))), expected)
    },
    async claim(name, forMs) {
      const row = await rows.claim({ tenant, name }, forMs)
      return row === 'taken' ? row : opened(name, row)
    },
    async names(prefix) {
      const places = await rows.places()
      return places
        .flatMap((place) => (place.tenant === tenant && place.name.startsWith(prefix) ? place.name : []))
        .sort()
    },
    close: () => rows.close(),
  }
}

/**
 * Seal everything anew under the current key, of all tenants: the keys before it can go. Whatever changes meanwhile is sealed under it
 * anyway. @returns how many values it was.
 */
export async function resealAll(rows: SealedRows, keys: SealingKeys): Promise<number> {
  const places = await rows.places()
  for (const place of places) while (!(await resealOne(rows, keys, place)));
  return places.length
}

/** @returns false when somebody changed it meanwhile, and it is to be looked at again. */
async function resealOne(rows: SealedRows, keys: SealingKeys, place: SealedPlace): Promise<boolean> {
  const row = await rows.read(place)
  if (row === undefined || keyOf(row.value) === (await keys.current()).id) return true
  // A holder of a claim cannot write what it did not read: it is waited for, so that a token it is just given is not lost.
  const claimed = await rows.claim(place, RESEAL_MS)
  if (claimed === undefined) return true
  if (claimed === 'taken') return await new Promise((done) => setTimeout(done, 50, false))
  const plain = Buffer.from((await open(keys, place, claimed.value)).reveal(), 'utf8')
  return (await rows.write(place, await seal(keys, place, plain), claimed.version)) !== undefined
}

const RESEAL_MS = 5_000

async function seal(keys: SealingKeys, place: SealedPlace, plain: Buffer): Promise<Buffer> {
  const { id, key } = await keys.current()
  const head = Buffer.alloc(NONCE_AT)
  head[0] = FORMAT
  head.writeUInt32BE(id, 1)
  const nonce = randomBytes(NONCE_BYTES)
  const cipher = createCipheriv('aes-256-gcm', key, nonce)
  cipher.setAAD(associated(place))
  const body = cipher.update(plain)
  plain.fill(0)
  cipher.final()
  return Buffer.concat([head, nonce, cipher.getAuthTag(), body])
}

async function open(keys: SealingKeys, place: SealedPlace, value: Buffer): Promise<Secret> {
  const id = keyOf(value)
  const key = id === undefined ? undefined : await keys.find(id)
  if (key === undefined) throw closed(place, 'the key that it was sealed under is not in the keys directory')
  const decipher = createDecipheriv('aes-256-gcm', key, value.subarray(NONCE_AT, TAG_AT), { authTagLength: TAG_BYTES })
  decipher.setAuthTag(value.subarray(TAG_AT, BODY_AT))
  decipher.setAAD(associated(place))
  const plain = decipher.update(value.subarray(BODY_AT))
  try {
    decipher.final()
    return new Secret(plain.toString('utf8'))
  } catch {
    throw closed(place, 'it was sealed for another place or by another key, or was changed')
  } finally {
    plain.fill(0)
  }
}

function keyOf(value: Buffer): number | undefined {
  return value.length >= BODY_AT && value[0] === FORMAT ? value.readUInt32BE(1) : undefined
}

/** Injective: no tenant and name look like another pair. */
function associated({ tenant, name }: SealedPlace): Buffer {
  return Buffer.from(`keyless sealed v${FORMAT}\0${JSON.stringify([tenant, name])}`, 'utf8')
}

function closed({ name }: SealedPlace, why: string): GatewayError {
  return new GatewayError(
    'credential_unconfigured',
    `The sealed value ${name} does not open: ${why}. Restore the keys directory, or store the value anew.`,
  )
}

export function sealedStoreAway(which: string): GatewayError {
  return new GatewayError('store_unavailable', `The sealed store (${which}) cannot be reached.`)
}
