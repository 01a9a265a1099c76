/** What `verify` finds impossible, though every signature is right: the history itself. */
import { cp, rm } from 'node:fs/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Disk, realDisk } from '../../gateway/audit/files/disk.ts'
import { coveredBy } from '../../gateway/audit/files/follow.ts'
import { verifyLog, verifyLogs } from '../../gateway/audit/verify/verify.ts'
import { excessOf } from '../../gateway/grant/attenuate/attenuate.ts'
import type { Grant } from '../../gateway/protocol/grant.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import { GatewayError } from '../../gateway/protocol/problem.ts'
import { dropAndSign, type History, history, writeHistory } from './history.fixture.ts'
import {
  decision,
  endpoint,
  entriesOf,
  inbound,
  linesOf,
  ORIGIN,
  outcome,
  temporaryDir,
  testClock,
} from './log.fixture.ts'

let dir: string
beforeEach(async () => {
  dir = await temporaryDir()
})
afterEach(() => rm(dir, { recursive: true, force: true }))

const excess = (parent: Grant['authority'], child: Grant['authority']) => excessOf(parent, child).map(({ at }) => at)
const verify = (path = dir) => verifyLog(path, { excess })

async function of(write: (h: History) => Promise<void>) {
  const h = await history(dir)
  await write(h)
  await h.close()
  return verify()
}

it('finds an honest history sound, without a word of warning', async () => {
  await writeHistory(dir)
  expect(await verify()).toMatchObject({
    ok: true,
    faults: [],
    warnings: [],
    calls: 6,
    grants: 2,
    leases: 2,
    open_calls: 0,
  })
})

describe('is a fault:', () => {
  it.each<[string, string, string, (h: History) => Promise<unknown>]>([
    [
      'a call under a grant that nobody made',
      'grant',
      'which no entry made',
      async (h) => {
        const root = await h.open()
        const other = { ...root, id: root.id.replace(/.$/, (last) => (last === '0' ? '1' : '0')) }
        await h.call(
          { ...other, lineage: other.lineage.map((step) => (step.grant ? { ...step, grant: other.id } : step)) },
          await h.lease(root),
        )
      },
    ],
    [
      'a call with a credential that nobody obtained',
      'lease',
      'no entry says how the credential',
      async (h) => {
        const root = await h.open()
        await h.call(root, { ...(await h.lease(root)), credentialId: 'hmac:other' })
      },
    ],
    [
      'a call with the credential of another grant',
      'lease',
      'no entry says how the credential',
      async (h) => {
        const [one, two] = [await h.open(), await h.open()]
        await h.call(two, await h.lease(one))
      },
    ],
    [
      'a call with a credential that had expired',
      'lease',
      'had expired before',
      async (h) => {
        const root = await h.open()
        const lease = await h.lease(root)
        h.clock.ms += 400_000
        await h.call(root, lease)
      },
    ],
    [
      'a credential that outlives its grant',
      'lease',
      'outlives the grant',
      async (h) => {
        const root = await h.open()
        await h.lease(root, { expiresAt: root.expiresAt + 1 })
      },
    ],
    [
      'a credential for a grant that nobody made',
      'grant',
      'which no entry made',
      async (h) => {
        await h.lease({
          ...(await h.open()),
          id: '019aa5c1-0000-7000-8000-000000000000'.replace('019aa5c1', 'ffffffff'),
        })
      },
    ],
    [
      'a call after its grant expired',
      'ended',
      'after it expired',
      async (h) => {
        const root = await h.open()
        const lease = await h.lease(root, { expiresAt: root.expiresAt })
        h.clock.ms = root.expiresAt * 1000 + 2500
        await h.call(root, lease)
      },
    ],
    [
      'a call after its grant was revoked',
      'ended',
      'after it ended',
      async (h) => {
        const root = await h.open()
        const child = await h.delegate(root)
        const lease = await h.lease(child)
        await h.end(child)
        h.clock.ms += 2500
        await h.call(child, lease)
      },
    ],
    [
      'a call after a grant above it was revoked',
      'ended',
      'after it ended with',
      async (h) => {
        const child = await h.delegate(await h.delegate(await h.open()))
        const lease = await h.lease(child)
        await h.end({ ...child, id: child.ancestry[1]?.id ?? '', depth: 1 })
        h.clock.ms += 2500
        await h.call(child, lease)
      },
    ],
    [
      'a call after its task was completed',
      'ended',
      'after it ended with',
      async (h) => {
        const root = await h.open()
        const lease = await h.lease(root)
        await h.propose({ kind: 'task.complete', grant: root, reason: 'completed' })
        h.clock.ms += 2500
        await h.call(root, lease)
      },
    ],
    [
      'a call after its step was completed',
      'ended',
      'after it ended with',
      async (h) => {
        const root = await h.open()
        const child = await h.delegate(root, { step: 'fetch' })
        const lease = await h.lease(child)
        await h.propose({ kind: 'task.step_complete', grant: root, step: 'fetch', reason: 'step_completed' })
        h.clock.ms += 2500
        await h.call(child, lease)
      },
    ],
    [
      'a call while its task is suspended',
      'ended',
      'suspended with its task',
      async (h) => {
        const root = await h.open()
        const lease = await h.lease(root)
        await h.propose({ kind: 'task.suspend', grant: root, reason: 'suspended' })
        h.clock.ms += 2500
        await h.call(root, lease)
      },
    ],
    [
      'a call under a grant whose place another has taken',
      'ended',
      'after it ended',
      async (h) => {
        const root = await h.open()
        const lease = await h.lease(root)
        const next = { ...root, id: root.id.replace(/.{4}$/, 'ffff') }
        const lineage = root.lineage.map((step) => (step.grant ? { ...step, grant: next.id } : step))
        await h.propose({
          kind: 'grant.replace',
          reason: 'intent_changed',
          old: root,
          grant: { ...next, lineage },
          authority: [],
          agent: root.agent,
          ttlS: 1,
        })
        h.clock.ms += 2500
        await h.call(root, lease)
      },
    ],
    [
      'a credential obtained long after its grant was revoked',
      'ended',
      'after it ended',
      async (h) => {
        const root = await h.open()
        await h.end(root)
        h.clock.ms += 60_000
        await h.lease(root)
      },
    ],
    [
      'a delegation of a grant that was revoked',
      'ended',
      'after it ended',
      async (h) => {
        const root = await h.open()
        await h.end(root)
        h.clock.ms += 2500
        await h.delegate(root)
      },
    ],
    [
      'a child of a grant that nobody made',
      'grant',
      'which no entry made',
      async (h) => {
        const root = await h.open()
        await h.delegate({ ...root, id: root.id.replace(/.{4}$/, 'ffff') })
      },
    ],
    [
      'a child that is wider than its parent',
      'grant',
      'wider than its parent',
      async (h) => {
        await h.delegate(await h.open(), { authority: [{ operations: ['github:*'] }] })
      },
    ],
    [
      'a child that outlives its parent',
      'grant',
      'outlives its parent',
      async (h) => {
        const root = await h.open()
        await h.delegate(root, { expiresAt: root.expiresAt + 1 })
      },
    ],
    [
      'a child that is deeper than its parent allows',
      'grant',
      'the most that its parent allows',
      async (h) => {
        await h.delegate(await h.open({ maxDepth: 0 }))
      },
    ],
    [
      'a child that skips a step',
      'grant',
      'is at depth 2',
      async (h) => {
        await h.delegate(await h.open(), { depth: 2 })
      },
    ],
    [
      'a child of a grant that cannot be delegated',
      'grant',
      'cannot be delegated',
      async (h) => {
        await h.delegate(await h.open({ delegable: false }))
      },
    ],
    [
      'a child of another task',
      'grant',
      'another task',
      async (h) => {
        await h.delegate(await h.open(), { task: { id: 'task_other', purpose: 'something else' } })
      },
    ],
    [
      'a child whose lineage leaves out who stands above it',
      'grant',
      'another lineage than its parent',
      async (h) => {
        const root = await h.open()
        const child = await h.delegate(root)
        await h.delegate({ ...child, lineage: root.lineage })
      },
    ],
    [
      'another attestation than the one a step was made with',
      'grant',
      'another attestation',
      async (h) => {
        const child = await h.delegate(await h.open())
        await h.delegate({ ...child, attestations: ['a forged one'] })
      },
    ],
    [
      'a call whose lineage is not that of its grant',
      'grant',
      'another lineage',
      async (h) => {
        const root = await h.open()
        const lineage = root.lineage.map((step, i) => (i === 0 ? { ...step, id: 'bob' } : step))
        await h.call({ ...root, lineage }, await h.lease(root))
      },
    ],
    [
      'a decision under policies that were not loaded',
      'policy',
      'had loaded them',
      async (h) => {
        const event = h.audit.openInstruction({ kind: 'task.open', id: 'x', tenant: 'default', request: {} } as never)
        event.decided(decision({ policySet: 'sha256:other' }))
        await event.refused(new GatewayError('policy_denied', 'No policy allows it.'))
      },
    ],
  ])('%s', async (_, check, what, write) => {
    const verdict = await of(async (h) => {
      await write(h)
    })
    const faults = verdict.faults.map((fault) => [fault.check, fault.what])
    expect(faults, JSON.stringify(verdict)).toContainEqual([check, expect.stringContaining(what)])
  })
})

describe('an honest gateway may leave behind, and is not called tampered for it:', () => {
  it('a call that had begun when its grant was revoked, and was held up', async () => {
    const verdict = await of(async (h) => {
      const root = await h.open()
      const lease = await h.lease(root)
      const event = h.audit.openCall(inbound({ id: uuidv7(h.clock.nowMs()) }))
      await h.end(root)
      h.clock.ms += 10_000
      event.located(endpoint())
      event.authenticated(root)
      event.decided(decision())
      await event.commit()
      event.leased({ facts: lease })
      event.closed(outcome())
    })
    expect(verdict).toMatchObject({
      ok: true,
      warnings: [{ check: 'ended', what: expect.stringContaining('had begun before') }],
    })
  })

  it('a call that began while the disk took its time over the end of its grant', async () => {
    const clock = testClock()
    let stallMs = 0
    const store: Disk['store'] = (batch, done) =>
      realDisk.store(batch, (error) => {
        clock.ms += stallMs
        stallMs = 0
        done(error)
      })
    const h = await history(dir, { clock, disk: { ...realDisk, store } })
    const root = await h.open()
    const lease = await h.lease(root)
    stallMs = 10_000
    const begun = uuidv7(clock.nowMs() + 9_000)
    await h.end(root)
    const event = h.audit.openCall(inbound({ id: begun }))
    event.located(endpoint())
    event.authenticated(root)
    event.decided(decision())
    await event.commit()
    event.leased({ facts: lease })
    event.closed(outcome())
    await h.close()
    expect(await verify()).toMatchObject({ ok: true, warnings: [] })
    const stalls = (await entriesOf(dir)).filter(({ kind }) => kind === 'log.stalled')
    expect(stalls.map(({ facts }) => facts)).toEqual([{ from_ms: clock.ms - 10_000, ms: 10_000, refused: 0 }])
  })

  it('the use of a grant whose revocation failed after it was recorded', async () => {
    const verdict = await of(async (h) => {
      const root = await h.open()
      const lease = await h.lease(root)
      const event = h.audit.openInstruction({
        kind: 'grant.revoke',
        id: uuidv7(),
        tenant: 'default',
        by: {},
        token: '',
      } as never)
      event.proposed({ kind: 'grant.revoke', grant: root, reason: 'revoked' })
      event.decided(decision())
      await event.commit()
      await event.refused(new GatewayError('store_unavailable', 'The store is away.'))
      h.clock.ms += 10_000
      await h.call(root, lease)
    })
    expect(verdict).toMatchObject({
      ok: true,
      warnings: [{ check: 'ended', what: expect.stringContaining('that had failed') }],
    })
  })

  it('the use of a grant whose revocation was recorded in the moment of a crash', async () => {
    const h = await history(dir)
    const root = await h.open()
    const lease = await h.lease(root)
    await h.end(root)
    await h.close()
    await dropAndSign(dir, ORIGIN, ({ kind }) => kind === 'log.sealed') // as a killed process leaves it
    const next = await history(dir, { clock: testClock(h.clock.ms + 20_000) })
    await next.call(root, lease)
    await next.close()
    expect(await verify()).toMatchObject({
      ok: true,
      warnings: [{ check: 'ended', what: expect.stringContaining('had died') }],
    })
  })

  it('calls that a crash cut short', async () => {
    const h = await history(dir)
    const root = await h.open()
    const lease = await h.lease(root)
    const req = await h.call(root, lease)
    await h.close()
    await dropAndSign(
      dir,
      ORIGIN,
      (entry) => entry.kind === 'log.sealed' || (entry.kind === 'call.outcome' && entry.req === req),
    )
    await (await history(dir)).close()
    expect(await verify()).toMatchObject({ ok: true, open_calls: 1, warnings: [{ check: 'call' }] })
  })

  it('a call that goes on for longer than is usual', async () => {
    const h = await history(dir)
    const root = await h.open()
    const req = await h.call(root, await h.lease(root))
    h.clock.ms += 3_700_000
    await h.close()
    await dropAndSign(dir, ORIGIN, (entry) => entry.kind === 'call.outcome' && entry.req === req)
    expect(await verify()).toMatchObject({ ok: true, warnings: [{ what: expect.stringContaining('62 min') }] })
  })

  it('grants that are older than the log, because it was begun anew', async () => {
    const h = await history(dir)
    const root = await h.open()
    const lease = await h.lease(root)
    await h.close()
    const second = await temporaryDir()
    const next = await history(second, { clock: testClock(h.clock.ms + 5000) })
    await next.call(root, lease)
    await next.close()
    const verdict = await verify(second)
    await rm(second, { recursive: true })
    expect(verdict).toMatchObject({ ok: true, warning_count: 2 })
    expect(verdict.warnings.map(({ check }) => check)).toEqual(['grant', 'lease'])
  })

  it('silence while the machine slept', async () => {
    const h = await history(dir)
    await h.beat({ allowed: 0, open: 0 })
    h.clock.ms += 8 * 3_600_000
    await h.beat({ allowed: 0, open: 0 })
    await h.close()
    expect(await verify()).toMatchObject({
      ok: true,
      warnings: [{ check: 'heartbeat', index: 4, what: expect.stringContaining('28800 s') }],
    })
  })
})

describe('heartbeats', () => {
  const run = async (
    told: { allowed: number; open: number },
    calls: number,
    isDropped: (kind: string) => boolean = () => false,
  ) => {
    const h = await history(dir)
    await h.beat({ allowed: 0, open: 0 })
    const root = await h.open()
    const lease = await h.lease(root)
    for (let i = 0; i < calls; i++) await h.call(root, lease)
    await h.beat(told)
    await h.close()
    let dropped = false
    await dropAndSign(dir, ORIGIN, ({ kind }) => {
      if (dropped || !isDropped(kind)) return false
      dropped = true
      return true
    })
    return verify()
  }

  it('count what is there', async () => {
    expect(await run({ allowed: 3, open: 0 }, 3)).toMatchObject({ ok: true, warnings: [] })
  })

  it('tell of an outcome that the holder of the key has dropped', async () => {
    expect(await run({ allowed: 3, open: 0 }, 3, (kind) => kind === 'call.outcome')).toMatchObject({
      first_bad: {
        check: 'run',
        what: expect.stringContaining('counts 3 calls that ended, and 2 stand in front of it'),
      },
    })
  })

  it('tell of calls that were added', async () => {
    const h = await history(dir)
    const root = await h.open()
    const lease = await h.lease(root)
    await h.call(root, lease)
    await h.call(root, lease)
    await h.beat({ allowed: 1, open: 0 }) // the second is on its way to the count
    await h.beat({ allowed: 1, open: 0 })
    await h.close()
    expect(await verify()).toMatchObject({
      first_bad: { check: 'run', what: expect.stringContaining('entries were added') },
    })
  })
})

describe('a fleet', () => {
  let other: string
  beforeEach(async () => {
    other = await temporaryDir()
  })
  afterEach(() => rm(other, { recursive: true, force: true }))
  const fleet = () => verifyLogs([dir, other], { excess })
  const ours = { opened: { shared: true } }
  const theirs = { ...ours, origin: 'keyless.test/other' }

  it('is judged together: grant, credential and end may be in another log', async () => {
    const [a, b] = [await history(dir, ours), await history(other, theirs)]
    const root = await a.open()
    const lease = await a.lease(root)
    await b.call(root, lease)
    await a.close()
    await b.close()
    const [alone] = await verifyLogs([other], { excess })
    expect(alone).toMatchObject({ ok: true, warning_count: 2 })
    expect(alone?.warnings[0]?.what).toContain('name the directories of all')
    expect(await fleet()).toMatchObject([
      { ok: true, warnings: [] },
      { ok: true, warnings: [] },
    ])
  })

  it('may have clocks that differ by seconds', async () => {
    const clock = testClock()
    const [a, b] = [
      await history(dir, { ...ours, clock }),
      await history(other, { ...theirs, clock: testClock(clock.ms - 20_000) }),
    ]
    const root = await a.open()
    await b.call(root, await a.lease(root))
    await a.close()
    await b.close()
    expect(await fleet()).toMatchObject([{ ok: true }, { ok: true }])
  })

  it('does not use on one replica what was revoked on another', async () => {
    const [a, b] = [await history(dir, ours), await history(other, theirs)]
    const root = await a.open()
    const lease = await a.lease(root)
    await a.end(root)
    b.clock.ms += 3000
    await b.call(root, lease)
    await a.close()
    await b.close()
    expect(await fleet()).toMatchObject([{ ok: true }, { ok: false, first_bad: { check: 'ended' } }])
    expect(await verifyLogs([dir, other], { excess, boundS: 5 })).toMatchObject([{ ok: true }, { ok: true }])
  })

  it('may be copied one log after the other, while it runs', async () => {
    const [a, b] = [await history(dir, ours), await history(other, theirs)]
    const early = await temporaryDir()
    const call = async () => {
      const root = await a.open()
      await b.call(root, await a.lease(root))
      a.clock.ms = b.clock.ms += 100_000
    }
    const copies = async () => {
      // By the clock that is moved by hand, minutes pass before the next head is signed.
      await expect.poll(async () => (await linesOf(other)).length - (await coveredBy(other))).toBe(0)
      return verifyLogs([early, other], { excess })
    }
    try {
      await call()
      await cp(dir, early, { recursive: true })
      await call()
      expect(await copies()).toMatchObject([
        { ok: true, warnings: [] },
        { ok: true, warnings: Array.from({ length: 2 }, () => ({ what: expect.stringContaining('copied before') })) },
      ])
      await a.close()
      await b.close()
      expect(await fleet()).toMatchObject([{ warnings: [] }, { warnings: [] }])
      // Of a log that was closed there is no more.
      await dropAndSign(dir, ORIGIN, ({ kind }) => kind === 'lease.issued')
      expect(await fleet()).toMatchObject([{ ok: true }, { fault_count: 2, warnings: [] }])
    } finally {
      await rm(early, { recursive: true, force: true })
    }
  })

  it('misses what none of them has', async () => {
    const [a, b] = [await history(dir, ours), await history(other, theirs)]
    const root = await a.open()
    await b.call(root, await a.lease(root))
    await a.close()
    await b.close()
    await dropAndSign(dir, ORIGIN, ({ kind }) => kind === 'lease.issued')
    expect(await fleet()).toMatchObject([{ ok: true }, { ok: false, first_bad: { check: 'lease' } }])
  })
})
