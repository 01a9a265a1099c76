/**
 * Grants and tasks as kept in a store: encrypted JSON. Whoever can write to the store can lose them, but can neither widen one,
 * nor point a handle at another, nor take a mark off; whoever can read it, or what the disk keeps of it later, learns of nobody.
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createSecretKey,
  type KeyObject,
  randomBytes,
  timingSafeEqual,
} from 'node:crypto'
import type { Authority, Grant } from '../../protocol/grant.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { grantOfVersion1, taskBodyOfVersion1 } from './record-version-1.ts'
import type { StoredGrant, StoredTask } from './store.ts'

/** Begins what is encrypted: no character of a keyed hash. */
const ENCRYPTED = '.'
const NONCE_BYTES = 12
const TAG_BYTES = 16
/** Before records were encrypted: a keyed hash, and the JSON. Such a grant is dead within the hour. */
const MAC_BYTES = 32
const MAC_CHARS = 43

/** A task as the gateway remembers it. */
export interface TaskRecord {
  readonly id: string
  readonly tenant: string
  /** The root grant as last issued: human, agent, declared intent, expiry. Whether it lives is in the store. */
  readonly root: Grant
  /** What the human authorised last; a holder that changes its intent stays within. */
  readonly ceiling: readonly Authority[]
  readonly state: 'active' | 'suspended'
  /** Heartbeats were promised; missed ones end the task. None are missed while it is suspended. */
  readonly watched: boolean
  /** Epoch seconds. */
  readonly createdAt: number
  /** Epoch seconds until which it can be worked on: the expiry of its root grant, or later while it is suspended. */
  readonly expiresAt: number
  /** Counts changes from 0; a change that another one has overtaken is refused by the store. */
  readonly version: number
}

export interface Records {
  /** @param o.handleDigest absent for a grant without a handle. @param o.marks `marksOf` the grant. */
  close(grant: Grant, o: { readonly handleDigest?: string | undefined; readonly marks: readonly string[] }): StoredGrant
  /** @throws {GatewayError} `grant_invalid` when the record is not one that this gateway wrote. */
  open(stored: StoredGrant): Grant
  closeTask(task: TaskRecord): StoredTask
  /** @throws {GatewayError} `grant_invalid` when the record is not one that this gateway wrote. */
  openTask(stored: StoredTask): TaskRecord
}

/** @param key 32 bytes, the same on every replica and after every change of the signing key. */
export function createRecords(key: KeyObject): Records {
  const grants = createSeal(key)
  // A key of its own keeps a task from passing for a grant.
  const tasks = createSeal(createSecretKey(createHmac('sha256', key).update('tasks').digest()))
  const openGrant = (handleDigest: string | undefined, body: string): SealedGrant => {
    const sealed = grants.open(handleDigest ?? '', body) as SealedGrant | Parameters<typeof grantOfVersion1>[0]
    if ('marks' in sealed) return sealed
    const grant = grantOfVersion1(sealed)
    return { grant, marks: [grant.id, grant.task.id] }
  }
  return {
    close(grant, { handleDigest, marks }) {
      const { tenant, id, task, expiresAt, ancestry } = grant
      const parent = ancestry.at(-1)?.id
      const body = grants.close(handleDigest ?? '', JSON.stringify({ grant, marks } satisfies SealedGrant))
      const stored = { tenant, id, task: task.id, handleDigest, body, expiresAt, marks }
      return parent === undefined ? stored : { ...stored, parent }
    },
    open(stored) {
      const { grant, marks } = openGrant(stored.handleDigest, stored.body)
      const isIt = grant.tenant === stored.tenant && grant.id === stored.id && grant.task.id === stored.task
      if (!isIt || JSON.stringify(marks) !== JSON.stringify(stored.marks)) throw forged()
      return grant
    },
    closeTask(task) {
      const { tenant, id, version, expiresAt, state } = task
      const body = tasks.close('', JSON.stringify(task))
      // Nobody is missed while suspended: the heartbeat starts anew when the task is resumed.
      const watched = task.watched && state === 'active'
      return { tenant, id, body, version, expiresAt, watched, isSuspended: state === 'suspended' }
    },
    openTask(stored) {
      const before = taskBodyOfVersion1(stored.body)
      const task = before
        ? firstRecord(openGrant(before.handleDigest, before.body).grant, stored.watched)
        : (tasks.open('', stored.body) as TaskRecord)
      const isIt = task.tenant === stored.tenant && task.id === stored.id && task.version === stored.version
      if (!isIt || (task.state === 'suspended') !== stored.isSuspended) throw forged()
      return task
    },
  }
}

/** The first record of a task: what its root grant says. */
export function firstRecord(root: Grant, watched: boolean): TaskRecord {
  const { tenant, task, authority: ceiling, issuedAt: createdAt, expiresAt } = root
  return { id: task.id, tenant, root, ceiling, state: 'active', watched, createdAt, expiresAt, version: 0 }
}

interface SealedGrant {
  readonly grant: Grant
  readonly marks: readonly string[]
}

export interface Seal {
  close(name: string, json: string): string
  /** @throws {GatewayError} `grant_invalid` */
  open(name: string, body: string): unknown
}

/** AES-256-GCM with random nonces: safe for 2^32 records under one key. */
export function createSeal(key: KeyObject): Seal {
  const cipherKey = createSecretKey(createHmac('sha256', key).update('encrypted records').digest())
  // A name has no line break, nor has JSON: one text has one way to be cut.
  const mac = (name: string, json: string) => createHmac('sha256', key).update(`${name}\n${json}`).digest()
  return {
    close(name, json) {
      const nonce = randomBytes(NONCE_BYTES)
      const cipher = createCipheriv('aes-256-gcm', cipherKey, nonce).setAAD(Buffer.from(name))
      const bytes = Buffer.concat([nonce, cipher.update(json, 'utf8'), cipher.final(), cipher.getAuthTag()])
      return ENCRYPTED + bytes.toString('base64url')
    },
    open(name, body) {
      if (body.startsWith(ENCRYPTED)) return JSON.parse(decrypted(cipherKey, name, body.slice(1)))
      const json = body.slice(MAC_CHARS)
      const given = Buffer.from(body.slice(0, MAC_CHARS), 'base64url')
      if (given.length !== MAC_BYTES || !timingSafeEqual(given, mac(name, json))) throw forged()
      return JSON.parse(json) // our own bytes: the seal was checked
    },
  }
}

function decrypted(key: KeyObject, name: string, text: string): string {
  const bytes = Buffer.from(text, 'base64url')
  try {
    const nonce = bytes.subarray(0, NONCE_BYTES)
    const decipher = createDecipheriv('aes-256-gcm', key, nonce, { authTagLength: TAG_BYTES })
    decipher.setAAD(Buffer.from(name)).setAuthTag(bytes.subarray(-TAG_BYTES))
    return decipher.update(bytes.subarray(NONCE_BYTES, -TAG_BYTES), undefined, 'utf8') + decipher.final('utf8')
  } catch {
    throw forged()
  }
}

function forged(): GatewayError {
  return new GatewayError(
    'grant_invalid',
    'What the store holds for this grant does not carry this gateway’s seal: it was changed there, or the key of the store was replaced. Open a new task.',
  )
}
