/** A roster holds who is there, and nothing of those who were. */
import { describe, expect, it } from 'vitest'
import { Roster } from '../../gateway/protocol/roster.ts'
import { leftByWork } from '../rig/collections.ts'

const member = () => ({ place: -1 })

describe('a roster', () => {
  it('has those who came and did not leave, once each, whatever the order they leave in', () => {
    const roster = new Roster()
    const [a, b, c] = [member(), member(), member()]
    for (const one of [a, b, c, b]) roster.add(one)
    expect(roster.size).toBe(3)
    expect([roster.delete(a), roster.delete(a), roster.delete(member())]).toEqual([true, false, false])
    expect([a, b, c].map((one) => roster.has(one))).toEqual([false, true, true])
    roster.add(a)
    expect(roster.delete(c)).toBe(true)
    expect(new Set(roster.all())).toEqual(new Set([a, b]))
    for (const one of [b, a]) roster.delete(one)
    expect([roster.size, roster.all()]).toEqual([0, []])
  })

  it('takes nobody of another roster for one of its own', () => {
    const [here, there] = [new Roster(), new Roster()]
    const [mine, other] = [member(), member()]
    here.add(mine)
    there.add(other)
    expect([here.has(other), here.delete(other), here.has(mine)]).toEqual([false, false, true])
  })
})

describe('the memory of who has left a roster', () => {
  it('is free at the next small collection, however long the roster has been there', () => {
    const roster = new Roster()
    const left = leftByWork((n) => {
      const call = { ...member(), said: new Array<number>(500).fill(n) }
      roster.add(call)
      return () => roster.delete(call)
    })
    expect(left).toBeLessThan(5e6) // of the 20 MB of all of them
  })
})
