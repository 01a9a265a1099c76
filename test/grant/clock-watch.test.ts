/** A clock that was set back: nothing is made by it, and everything can still be ended (standards.md H24). */
import { describe, expect, it } from 'vitest'
import { watchClock } from '../../gateway/grant/life/clock-watch.ts'
import type { Clock } from '../../gateway/protocol/clock.ts'
import { uuidv7 } from '../../gateway/protocol/id.ts'
import type { Instruction } from '../../gateway/protocol/instruction.ts'
import { manualClock } from '../rig/clock.ts'
import { openWorld, requesting, search } from './delegate.fixture.ts'
import { human } from './grant.fixture.ts'

/** Its wall time can be set; the other one goes on. */
function settable() {
  const clock = manualClock()
  let offsetMs = 0
  return {
    ...clock,
    nowMs: () => clock.nowMs() + offsetMs,
    set: (byMs: number) => {
      offsetMs += byMs
    },
  }
}

const refusal = expect.objectContaining({ code: 'clock_set_back' })

describe('the watch', () => {
  it.each([
    [-60_000, true], // a step of NTP, and a leap second
    [-60_001, false],
    [-3_600_000, false],
    [3_600_000, true], // ahead is what expiry is for
  ])('after a step of %d ms lets grants be made: %s', (byMs, isFine) => {
    const clock = settable()
    const watch = watchClock(clock)
    clock.set(byMs)
    if (isFine) expect(() => watch.check()).not.toThrow()
    else expect(() => watch.check()).toThrow(refusal)
  })

  it('is not worn down by small steps, nor by waiting', () => {
    const clock = settable()
    const watch = watchClock(clock)
    for (let i = 0; i < 3; i++) {
      clock.set(-20_000)
      watch.check()
    }
    clock.set(-1000)
    expect(() => watch.check()).toThrow(refusal)
    clock.advance(600_000) // what was lost is not made up for by time that passes
    expect(() => watch.check()).toThrow(refusal)
    clock.set(61_000)
    watch.check()
  })

  it('compares with the latest time that it saw', () => {
    const clock = settable()
    const watch = watchClock(clock)
    clock.set(120_000)
    watch.check()
    clock.set(-120_000)
    expect(() => watch.check()).toThrow(refusal)
  })
})

describe('a gateway whose clock was set back', () => {
  it('makes no grant of any kind, and ends what there is', async () => {
    const clock: ReturnType<typeof settable> & Clock = settable()
    const world = openWorld({ clock })
    const root = await world.open()
    const task = { id: uuidv7(), tenant: 'acme', by: { human }, task: root.grant.task.id } as const
    clock.set(-61_000)
    const giving: Instruction[] = [
      requesting({ subject: { token: root.token, type: 'access_token' }, requestedActor: search.id }),
      {
        kind: 'grant.delegate',
        id: uuidv7(),
        tenant: 'acme',
        human,
        parent: root.token,
        agent: search.id,
        request: {},
      },
      { kind: 'grant.present', id: uuidv7(), tenant: 'acme', token: root.token },
      { kind: 'task.intent', ...task, purpose: 'something else', request: {} },
      { kind: 'task.resume', ...task },
    ]
    await expect(world.open()).rejects.toEqual(refusal)
    for (const instruction of giving)
      await expect(world.propose(instruction), instruction.kind).rejects.toEqual(refusal)
    await world.do({ kind: 'task.suspend', ...task })
    await world.do({ kind: 'grant.revoke', id: uuidv7(), tenant: 'acme', token: root.token, by: { human } })
    expect(await world.grants.list('acme')).toEqual([])
  })

  it.each(['remembered', 'not remembered'])('brings no expired grant back, %s or not', async (known) => {
    const clock = settable()
    const world = openWorld({ clock })
    const { token, grant } = await world.open()
    const { token: other } = await world.open()
    await world.grants.holder(token)
    clock.advance((grant.expiresAt - grant.issuedAt) * 1000)
    const expired = expect.objectContaining({ code: 'grant_expired' })
    await expect(world.grants.holder(token)).rejects.toEqual(expired)
    clock.set(-3_600_000)
    clock.advance(60_000) // as much as a clock may be behind
    await expect(world.grants.holder(known === 'remembered' ? token : other)).rejects.toEqual(expired)
  })
})
