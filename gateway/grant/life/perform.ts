/**
 * Instructions taking effect, after the decision is in the log. What ends, ends here and then in the store; what begins, begins
 * last. A crash in between leaves less authority than was recorded, never more.
 */
import type { Grant } from '../../protocol/grant.ts'
import type { IssuedGrant, Proposal } from '../../protocol/instruction.ts'
import { GatewayError } from '../../protocol/problem.ts'
import { remaining, remember } from '../attenuate/remaining.ts'
import { TOKEN_LIMIT } from '../chain/token.ts'
import { digestOf, newHandle } from '../handle.ts'
import type { Room } from '../room.ts'
import { firstRecord, type TaskRecord } from '../store/record.ts'
import type { StoredGrant } from '../store/store.ts'
import { livingTask, marksOf, SUSPENDED_S, stepMark } from './task.ts'

type Of<K extends Proposal['kind']> = Extract<Proposal, { kind: K }>

export async function perform(p: Proposal, room: Room): Promise<IssuedGrant | null> {
  switch (p.kind) {
    case 'task.open':
      return open(p, room)
    case 'grant.replace':
      return replace(p, room)
    case 'grant.delegate':
      return delegate(p, room)
    case 'grant.revoke': // nothing is left of a task whose root grant is revoked
      return p.grant.depth === 0 ? endTask(p, room) : end(p.grant.id, p, room)
    case 'task.complete':
      return endTask(p, room)
    case 'task.step_complete':
      return end(stepMark(p.grant.task.id, p.step), p, room)
    case 'task.suspend':
      return suspend(p, room)
  }
}

async function open(p: Of<'task.open'>, room: Room): Promise<IssuedGrant> {
  const { grant, token } = await signed(p.grant, room)
  if (p.beside !== undefined) {
    const issued = await issue(grant, token, room)
    await checkAlive(grant, room) // its task may have ended since it was proposed
    return issued
  }
  // The grant last: a crash before it leaves a task that nobody can use.
  await save(firstRecord(grant, p.heartbeat === true), undefined, room)
  return issue(grant, token, room)
}

/** Of two replacements at once one is saved; unless it is renewed the old grant is dead either way, and everything below it. */
async function replace({ old, reason, ceiling, ...p }: Of<'grant.replace'>, room: Room): Promise<IssuedGrant> {
  await signed(p.grant, room) // first: what is too long for a token leaves the old grant alone
  const task = await livingTask(old.tenant, old.task.id, room)
  // Suspended since it was proposed, it stays so until somebody resumes it.
  const isExpected = (task.state === 'suspended') === (reason === 'resumed')
  if (task.root.id !== old.id || !isExpected) throw overtaken(task.id)
  // Renewed, both spend from where the old one did, for as long as either lives.
  if (reason === 'renewed') await remember(room.store, old, p.grant.expiresAt)
  else await end(old.id, { grant: old, reason }, room)
  // A new ceiling is what the human authorises anew. Without one, what was spent stays spent.
  const left = ceiling ? {} : await remaining(room.store, old, p.grant.authority)
  const { grant, token } = await signed({ ...p.grant, ...left }, room)
  const { version, watched, createdAt } = task
  await save(
    { ...firstRecord(grant, watched), createdAt, ceiling: ceiling ?? task.ceiling, version: version + 1 },
    version,
    room,
  )
  return issue(grant, token, room)
}

async function delegate(
  { parent, grant: child, attestation, narrowed }: Of<'grant.delegate'>,
  room: Room,
): Promise<IssuedGrant> {
  const told = narrowed === undefined ? {} : { narrowed }
  // Signed offline by the parent's holder: that text is the token, and what the children of this one name.
  if (child.signedHash !== undefined) return { ...(await issue(child, child.attestations.at(-1) ?? '', room)), ...told }
  const { issuer, policySet, seal } = room
  const newest = attestation ?? (await seal.attest({ parent, child, issuer, policy: policySet() }))
  const { grant, token } = await signed({ ...child, attestations: [...child.attestations, newest] }, room)
  return { ...(await issue(grant, token, room)), ...told }
}

/** Credentials go at once; the grants are parked, and die when a fresh one takes their place. */
async function suspend(
  {
    grant: {
      tenant,
      task: { id },
    },
  }: Of<'task.suspend'>,
  room: Room,
): Promise<null> {
  const task = await livingTask(tenant, id, room)
  const expiresAt = Math.floor(room.clock.nowMs() / 1000) + SUSPENDED_S
  await remember(room.store, task.root, expiresAt)
  await save({ ...task, state: 'suspended', expiresAt, version: task.version + 1 }, task.version, room)
  room.authenticator.recheck(tenant, id)
  letGo(await livingUnder(id, task.root, room), room)
  return null
}

/** Remembered for as long as the record of the task, so that it does not come back when the end is forgotten. */
async function endTask(o: { readonly grant: Grant; readonly reason: string }, room: Room): Promise<null> {
  const { tenant, task, expiresAt } = o.grant
  room.authenticator.end(tenant, task.id, { reason: o.reason, untilS: expiresAt }) // whatever becomes of the store, it is over here
  const kept = await room.store.task(tenant, task.id)
  return end(task.id, o, room, Math.max(expiresAt, kept?.expiresAt ?? 0))
}

/** End every grant that carries the mark, and let go of what was leased under them. */
async function end(
  mark: string,
  o: { readonly grant: Grant; readonly reason: string },
  room: Room,
  untilS?: number,
): Promise<null> {
  letGo(await endMark(mark, o, room, untilS), room)
  return null
}

/** End every grant that carries the mark. @returns those that lived. */
export async function endMark(
  mark: string,
  { grant, reason }: { readonly grant: Grant; readonly reason: string },
  room: Room,
  untilS: number = grant.expiresAt,
): Promise<readonly StoredGrant[]> {
  room.authenticator.end(grant.tenant, mark, { reason, untilS }) // first: whatever becomes of the store, it is over here
  // Only what lives is listed, so this is asked before; but no answer to it keeps the end from the store.
  const [below] = await Promise.allSettled([livingUnder(mark, grant, room)])
  await room.store.end(grant.tenant, mark, { reason, untilS })
  if (below.status === 'rejected') throw below.reason
  return below.value
}

async function livingUnder(mark: string, { tenant, task }: Grant, room: Room): Promise<readonly StoredGrant[]> {
  const living = await room.store.grantsOf(tenant, task.id)
  return living.filter(({ marks }) => marks.includes(mark))
}

/** A record that does not open was never of use to anyone, so nothing was leased under it. */
function letGo(grants: readonly StoredGrant[], room: Room): void {
  for (const grant of grants) void (async () => room.onEnded(room.records.open(grant)))().catch(() => {})
}

async function signed(draft: Grant, room: Room): Promise<{ readonly grant: Grant; readonly token: string }> {
  const { token, signedHash } = await room.seal.sign(draft)
  if (token.length <= TOKEN_LIMIT) return { grant: { ...draft, signedHash }, token }
  throw new GatewayError(
    'invalid_scope',
    'The scope is too long for a signed grant. Name fewer operations, or patterns that cover them.',
  )
}

/** In one step known to every replica. A grant that is bound to a key has no handle: that would be a way around the key. */
async function issue(grant: Grant, token: string, room: Room): Promise<IssuedGrant> {
  const handle = grant.cnf === undefined ? newHandle() : undefined
  const handleDigest = handle === undefined ? undefined : digestOf(handle)
  const isNew = await room.store.create(room.records.close(grant, { handleDigest, marks: marksOf(grant) }))
  if (!isNew) await checkSame(grant, room)
  if (grant.depth > 0 || grant.step !== undefined) await checkAlive(grant, room)
  return { grant, token, ...(handle !== undefined && { handle }) }
}

/** Presented by two at once, it is made once. Whoever signs offline chooses the id, and may have chosen one that is taken. */
async function checkSame({ tenant, id, attestations }: Grant, room: Room): Promise<void> {
  const standing = await room.store.byId(tenant, id)
  const newest = standing === undefined ? undefined : room.records.open(standing.stored).attestations.at(-1)
  if (newest !== undefined && newest === attestations.at(-1)) return
  throw new GatewayError(
    'lineage_duplicated',
    `Another grant has the id ${id} already. Delegate again, with a fresh one.`,
  )
}

/** What it hangs on may have ended since it was proposed, or long ago, like a step. @throws {GatewayError} `grant_revoked` */
async function checkAlive({ tenant, id }: Grant, room: Room): Promise<void> {
  const standing = await room.store.byId(tenant, id)
  if (standing !== undefined) room.authenticator.admit(standing)
}

async function save(task: TaskRecord, expected: number | undefined, room: Room): Promise<void> {
  if (await room.store.saveTask(room.records.closeTask(task), expected)) return
  throw overtaken(task.id)
}

function overtaken(task: string): GatewayError {
  return new GatewayError(
    'instruction_invalid',
    `The task ${task} was changed or ended by another instruction meanwhile. Look at it, and try again if it is still wanted.`,
  )
}
