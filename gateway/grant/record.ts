/**
 * Grants and tasks as kept in a store: JSON under a keyed hash. Whoever can write to the store can lose them, but can neither
 * widen one, nor point a handle at another, nor take a mark off.
 */
import { createHmac, type KeyObject, timingSafeEqual } from 'node:crypto'
import type { Grant } from '../protocol/grant.ts'
import { GatewayError } from '../protocol/problem.ts'
import type { StoredGrant, StoredTask } from './store.ts'
import type { TaskRecord } from './task.ts'

const MAC_BYTES = 32
const MAC_CHARS = 43

export interface Records {
  /** @param o.handleDigest absent for a grant without a handle. @param o.marks `marksOf` the grant. */
  close(grant: Grant, o: { readonly handleDigest?: string | undefined; readonly marks: readonly string[] }): StoredGrant
  /** @throws {GatewayError} `grant_invalid` when the record is not one that this gateway wrote. */
  open(stored: StoredGrant): Grant
  closeTask(task: TaskRecord): StoredTask
  /** @throws {GatewayError} `grant_invalid` when the record is not one that this gateway wrote. */
  openTask(stored: StoredTask): TaskRecord
}

/** @param key HMAC key of 32 bytes, the same on every replica and after every change of the signing key. */
export function createRecords(key: KeyObject): Records {
  // The first word keeps a task from passing for a grant; nothing before the JSON, nor JSON itself, has a line break.
  const mac = (kind: 'grant' | 'task', name: string, json: string) =>
    createHmac('sha256', key).update(`${kind}\n${name}\n${json}`).digest()
  const sealed = (kind: 'grant' | 'task', name: string, json: string) =>
    mac(kind, name, json).toString('base64url') + json
  const opened = (kind: 'grant' | 'task', name: string, body: string): unknown => {
    const json = body.slice(MAC_CHARS)
    const given = Buffer.from(body.slice(0, MAC_CHARS), 'base64url')
    if (given.length !== MAC_BYTES || !timingSafeEqual(given, mac(kind, name, json))) throw forged()
    return JSON.parse(json) // our own bytes: the seal was checked
  }
  return {
    close(grant, { handleDigest, marks }) {
      const { tenant, id, task, expiresAt, ancestry } = grant
      const parent = ancestry.at(-1)?.id
      const body = sealed('grant', nameOf(handleDigest, marks), JSON.stringify(grant))
      const stored = { tenant, id, task: task.id, handleDigest, body, expiresAt, marks }
      return parent === undefined ? stored : { ...stored, parent }
    },
    open(stored) {
      const grant = opened('grant', nameOf(stored.handleDigest, stored.marks), stored.body) as Grant
      if (grant.tenant !== stored.tenant || grant.id !== stored.id || grant.task.id !== stored.task) throw forged()
      return grant
    },
    closeTask(task) {
      const { tenant, id, version, expiresAt, state } = task
      const body = sealed('task', '', JSON.stringify(task))
      // Nobody is missed while suspended: the heartbeat starts anew when the task is resumed.
      const watched = task.watched && state === 'active'
      return { tenant, id, body, version, expiresAt, watched, isSuspended: state === 'suspended' }
    },
    openTask(stored) {
      const task = opened('task', '', stored.body) as TaskRecord
      const isSame = task.tenant === stored.tenant && task.id === stored.id && task.version === stored.version
      if (!isSame || (task.state === 'suspended') !== stored.isSuspended) throw forged()
      return task
    },
  }
}

function nameOf(handleDigest: string | undefined, marks: readonly string[]): string {
  return `${handleDigest ?? ''}\n${JSON.stringify(marks)}`
}

function forged(): GatewayError {
  return new GatewayError(
    'grant_invalid',
    'What the store holds for this grant does not carry this gateway’s seal: it was changed there, or the key of the store was replaced. Open a new task.',
  )
}
