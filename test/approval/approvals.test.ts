/** The room by itself: it dies between any two steps, its time runs out, it is asked by many at once. */
import { EventEmitter } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type ApprovalRoom, createApprovals } from '../../gateway/approval/approvals.ts'
import type { Waiter } from '../../gateway/approval/holding.ts'
import { createApprovalSeal } from '../../gateway/approval/seal.ts'
import type { Asked } from '../../gateway/approval/seeking.ts'
import type { ApprovalStore } from '../../gateway/approval/store.ts'
import { openSqliteApprovals } from '../../gateway/approval/store-sqlite.ts'
import type { Human } from '../../gateway/protocol/grant.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { type ManualClock, manualClock } from '../rig/clock.ts'
import { GRANT, KEY, record, subject } from './approval.fixture.ts'

const BEN: Human = { iss: 'https://id.acme.test', sub: 'ben' }
const CLEO: Human = { iss: 'https://id.acme.test', sub: 'cleo' }

let dir: string
let clock: ManualClock
/** What is in the log, whichever process wrote it. */
let log: string[]
/** Something that takes its time on the way, or fails there. */
let onWrite: (line: string) => void

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'keyless-approvals-'))
  clock = manualClock()
  log = []
  onWrite = () => {}
})
afterEach(() => rm(dir, { recursive: true, force: true }))

class Killed extends Error {}

/** Counts every step that lasts; the process is dead from the `at`-th on: `before` it, or right `after` it. */
interface Death {
  readonly at: number
  readonly when: 'before' | 'after'
  steps: number
}

function open(death?: Death, wanted = true, onCall = ['ben', 'cleo']): ApprovalRoom {
  const step = async <T>(work: () => T | Promise<T>): Promise<T> => {
    if (death === undefined) return work()
    death.steps += 1
    if (death.steps > death.at || (death.steps === death.at && death.when === 'before')) throw new Killed()
    const done = await work()
    if (death.steps === death.at) throw new Killed()
    return done
  }
  const kept = openSqliteApprovals({ path: join(dir, 'approvals.sqlite'), clock })
  const store: ApprovalStore = {
    ...kept,
    add: (one, most) => step(() => kept.add(one, most)),
    change: (one) => step(() => kept.change(one)),
    byId: (tenant, id) => step(() => kept.byId(tenant, id)),
    inSlot: (tenant, slot) => step(() => kept.inSlot(tenant, slot)),
    count: (tenant, agent) => step(() => kept.count(tenant, agent)),
  }
  const write = (line: string) =>
    step(() => {
      onWrite(line)
      log.push(line)
    })
  return createApprovals({
    ...{ tenant: 'acme', store, clock, lifeMs: 300_000, maxPending: 5 },
    seal: createApprovalSeal(KEY),
    people: {
      groups: new Map([['on-call', onCall]]),
      approvers: [BEN, CLEO].map((human) => ({ name: human.sub, identities: [human] })),
    },
    statusUrl: (id) => `https://keyless.test/approvals/${id}/status`,
    log: {
      under: (kind) => write(kind),
      decided: (_, { verdict, needed }) => write(needed === 0 ? `${verdict}` : `${verdict}, ${needed} more`),
      expired: () => write('approval.expired'),
    },
    paced: () => true,
    isWanted: async () => wanted,
  })
}

let event = 0
const asked = (o: Parameters<typeof subject>[0] = {}): Asked => ({
  ...subject(o),
  event: `call-${event++}`,
  describe: () => ({ facts: record(0).facts, agentSays: { intent: 'x' } }),
})

class Client extends EventEmitter {
  destroyed = false
}
const waiter = (client = new Client(), cut: { end?: (why: GatewayError) => void } = {}): Waiter => ({
  client: client as unknown as Waiter['client'],
  watch(end) {
    cut.end = end
    return () => {}
  },
  agent: 'acme lead',
  bytes: 3,
  aside: () => ({ [Symbol.dispose]() {} }),
})
const wait = (of = waiter()) => ({ waiter: of, untilMs: clock.nowMs() + 25_000 })
const code = (cause: unknown) => (cause instanceof GatewayError ? cause.code : cause)

async function pendingId(room: ApprovalRoom): Promise<string> {
  const [one] = await room.pending('acme')
  return one?.id ?? ''
}

/** A whole life: asked for, approved, taken up, and tried once more. @returns how many calls were let out. */
async function life(room: ApprovalRoom): Promise<number> {
  let out = 0
  await room.seek(asked()).catch((cause: unknown) => {
    if (cause instanceof Killed) throw cause
  })
  const id = await pendingId(room)
  await room.decide('acme', id, 'approve', { human: BEN, via: 'test' })
  await room.seek(asked())
  await room.take(asked())
  out += 1
  await room.take(asked()).then(
    () => (out += 1),
    (cause: unknown) => {
      if (cause instanceof Killed) throw cause
    },
  )
  return out
}

/** @returns how many calls a new process lets out of what another one left behind, which it tries thrice. */
async function takenFrom(room: ApprovalRoom): Promise<number> {
  const tries = []
  for (let n = 0; n < 3; n++)
    tries.push(
      await room.take(asked()).then(
        () => 1,
        () => 0,
      ),
    )
  return tries.filter(Boolean).length
}

async function dieAndGoOn(at: number, when: Death['when']): Promise<void> {
  for (const ending of ['', '-wal', '-shm']) await rm(join(dir, `approvals.sqlite${ending}`), { force: true })
  log = []
  const dying = open({ at, when, steps: 0 })
  const out = await life(dying).catch(() => 0)
  const before = [...log]
  const next = open()
  const after = await takenFrom(next) // nobody decides any more
  const where = `${when} step ${at}: ${before.join(', ')}`
  if (after > 0) expect(before, where).toContain('approve')
  expect(after, where).toBeLessThanOrEqual(before.includes('approval.used') ? 0 : 1)
  expect(out, where).toBeLessThanOrEqual(1)
  // And what is approved now is let out once.
  await next.seek(asked()).catch(() => undefined)
  const id = await pendingId(next)
  if (id !== '') {
    await next.decide('acme', id, 'approve', { human: BEN, via: 'test' })
    expect(await takenFrom(next), where).toBe(1)
  }
  await next.close()
  await dying.close()
}

describe('a gateway that is killed', () => {
  it('lets out no call that was not approved, and none twice, wherever it dies', async () => {
    const whole: Death = { at: Number.POSITIVE_INFINITY, when: 'before', steps: 0 }
    expect(await life(open(whole))).toBe(1)
    expect(whole.steps).toBeGreaterThan(10)
    for (let at = 1; at <= whole.steps; at++) {
      await dieAndGoOn(at, 'before')
      await dieAndGoOn(at, 'after')
    }
  })
})

describe('an approval that waits', () => {
  it('is told apart: nobody decided, somebody said no, nobody could be asked', async () => {
    const room = open()
    const first = room.seek(asked(), wait()).catch(code)
    await expect.poll(() => room.held.calls).toBe(1)
    clock.advance(300_000)
    room.reconsider()
    expect(await first).toBe(false) // everything is asked anew …
    expect(await room.take(asked()).catch(code)).toBe('approval_required') // … and there is nothing
    const second = room.seek(asked(), wait()).catch(code)
    await expect.poll(() => room.held.calls).toBe(1)
    await room.decide('acme', await pendingId(room), 'deny', { human: BEN, via: 'test' })
    expect(await second).toBe('approval_denied')
    expect(await room.seek(asked({ terms: { from: ['nobody'] } })).catch(code)).toBe('approval_required')
    clock.advance(300_000)
    expect(await room.seek(asked()).catch(code)).toBe('approval_required') // a no is not for ever
    await room.close()
  })

  it('expires under a call that is held, which is told so', async () => {
    const room = open()
    const held = room.seek(asked(), wait()).catch(code)
    await expect.poll(() => room.held.calls).toBe(1)
    const id = await pendingId(room)
    await room.decide('acme', id, 'approve', { human: BEN, via: 'test' }).catch(() => undefined)
    expect(await held).toBe(false)
    clock.advance(300_000) // approved, and not taken up in time
    expect(await room.take(asked()).catch(code)).toBe('approval_required')
    expect(await room.get('acme', id)).toMatchObject({ state: 'expired', why: 'time' })
    await room.close()
  })

  it('lets its call go after the time that clients wait, also when somebody sets the clock back meanwhile', async () => {
    const passing = clock
    let backMs = 0
    clock = { ...passing, nowMs: () => passing.nowMs() - backMs }
    const room = open()
    const held = room.seek(asked({ terms: { count: 2 } }), wait()).catch(code)
    await expect.poll(() => room.held.calls).toBe(1)
    passing.advance(25_000)
    backMs = 3_600_000
    await room.decide('acme', await pendingId(room), 'approve', { human: BEN, via: 'test' })
    await expect.poll(() => room.held.calls).toBe(0)
    expect(await held).toBe('approval_required')
    await room.close()
  })

  it('ends with its client, with its grant, and gives back everything it held', async () => {
    const room = open()
    const client = new Client()
    const left = room.seek(asked(), wait(waiter(client))).catch(code)
    await expect.poll(() => room.held).toEqual({ calls: 1, bytes: 3 })
    client.emit('close')
    expect(await left).toBe('approval_required')
    const cut: { end?: (why: GatewayError) => void } = {}
    const ended = room.seek(asked(), wait(waiter(new Client(), cut))).catch(code)
    await expect.poll(() => room.held.calls).toBe(1)
    cut.end?.(new GatewayError('grant_revoked', 'over'))
    expect(await ended).toBe('grant_revoked')
    expect(room.held).toEqual({ calls: 0, bytes: 0 })
    expect(client.listenerCount('close')).toBe(0)
    expect((await room.pending('acme')).length).toBe(1) // it may come back
    await room.close()
  })

  it('is one for any number of equal calls at once, and lets one of them out', async () => {
    const room = open()
    const all = Array.from({ length: 50 }, () => room.seek(asked(), wait()))
    await expect.poll(() => room.held.calls).toBe(50)
    expect(log).toEqual(['approval.requested'])
    await room.decide('acme', await pendingId(room), 'approve', { human: BEN, via: 'test' })
    expect(await Promise.all(all)).toEqual(Array(50).fill(false))
    const taken = await Promise.allSettled(all.map(() => room.take(asked())))
    expect(taken.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    await room.close()
  })

  it('counts every one of two people who say yes at the same moment', async () => {
    const room = open()
    const two = () => asked({ terms: { count: 2 } })
    await room.seek(two()).catch(code)
    const id = await pendingId(room)
    await Promise.all(
      [BEN, CLEO, BEN, CLEO].map((human) => room.decide('acme', id, 'approve', { human, via: 'test' }).catch(code)),
    )
    expect(await room.get('acme', id)).toMatchObject({ state: 'approved', needed: 0 })
    expect((await room.take(two())).by).toHaveLength(2)
    await room.close()
  })

  it('says in the log of which word it was the last one, also of two at the same moment', async () => {
    const room = open()
    await room.seek(asked({ terms: { count: 2 } })).catch(code)
    const id = await pendingId(room)
    await Promise.all([BEN, CLEO].map((human) => room.decide('acme', id, 'approve', { human, via: 'test' })))
    expect(log).toEqual(['approval.requested', 'approve, 1 more', 'approve, 1 more', 'approve'])
    await room.close()
  })

  it('is not approved by a word whose record took longer than its time', async () => {
    const room = open()
    await room.seek(asked()).catch(code)
    const id = await pendingId(room)
    onWrite = () => clock.advance(300_000)
    expect(await room.decide('acme', id, 'approve', { human: BEN, via: 'test' }).catch(code)).toBe('approval_closed')
    expect(await room.get('acme', id)).toMatchObject({ state: 'expired', why: 'time' })
    await room.close()
  })

  it('is withdrawn, and decided by nobody, once what asked for it is over', async () => {
    const room = open()
    await room.seek(asked()).catch(code)
    const id = await pendingId(room)
    const later = open(undefined, false)
    expect(await later.decide('acme', id, 'approve', { human: BEN, via: 'test' }).catch(code)).toBe('approval_closed')
    expect(await later.get('acme', id)).toMatchObject({ state: 'expired', why: 'grant_ended' })
    expect(log).toEqual(['approval.requested', 'approval.expired'])
    await room.close()
    await later.close()
  })

  it('counts no more, also as one of two, once settings took who gave it out of the group', async () => {
    const before = open()
    for (const count of [1, 2]) {
      const two = () => asked({ terms: { count } })
      await before.seek(two()).catch(code)
      await before.decide('acme', await pendingId(before), 'approve', { human: BEN, via: 'test' })
    }
    await before.close()
    const after = open(undefined, true, ['cleo', 'dan'])
    expect(await after.take(asked()).catch(code)).toBe('approval_required')
    expect(await after.seek(asked({ terms: { count: 2 } })).catch(code)).toBe('approval_required')
    const needed = (await after.pending('acme')).map((one) => one.needed)
    expect(needed.toSorted()).toEqual([1, 2]) // the former one, which nobody comes for, and one that is asked anew
    await after.close()
  })

  it('is not asked for where there are too few people, whoever says yes', async () => {
    const room = open()
    expect(await room.seek(asked({ terms: { count: 3 } })).catch(String)).toContain('there are 2 at most')
    expect(await room.seek(asked({ terms: { from: ['human'], count: 2 } })).catch(String)).toContain(
      'there are 1 at most',
    )
    expect(log).toEqual([])
    expect(await room.seek(asked({ terms: { from: ['human', 'on-call'], count: 3 } })).catch(code)).toBe(
      'approval_required',
    )
    expect(log).toEqual(['approval.requested'])
    await room.close()
  })

  it('is of its tenant alone', async () => {
    const room = open()
    await room.seek(asked()).catch(code)
    const id = await pendingId(room)
    expect(await room.get('other', id)).toBeUndefined()
    expect(await room.decide('other', id, 'approve', { human: BEN, via: 'test' }).catch(code)).toBe('approval_unknown')
    expect(await room.ofGrant({ ...GRANT, tenant: 'other' }, id)).toBeUndefined()
    expect(await room.ofGrant({ ...GRANT, task: { id: 'task_2', purpose: '' } }, id)).toBeUndefined()
    expect(await room.ofGrant(GRANT, id)).toMatchObject({ id })
    await room.close()
  })
})

it('has no more waiting of one task than of one agent, however many agents it delegates to', async () => {
  const room = open()
  const ask = async (n: number, task = GRANT.task) => {
    const agent = { ...GRANT.agent, id: `child-${n}` }
    const facts = { ...record(0).facts, agent, task: { id: task.id } }
    const grant = { agent, task }
    const one = { ...asked({ grant }), describe: () => ({ facts, agentSays: { intent: 'x' } }) }
    return room.seek(one).then(() => 'done', code)
  }
  for (let n = 0; n < 5; n++) expect(await ask(n)).toBe('approval_required')
  expect(await ask(5)).toBe('too_many_requests')
  expect(await ask(5, { id: 'task_2', purpose: 'x' })).toBe('approval_required')
  clock.advance(300_000)
  expect(await ask(5)).toBe('approval_required')
  await room.close()
})
