/** Calls that are over cost nothing any more: neither memory nor somebody who watches their grant. */
import { describe, expect, it, vi } from 'vitest'
import { type Lasting, LastingCalls } from '../../gateway/upstream/lasting.ts'
import { leftByWork } from '../rig/collections.ts'

function call(n = 0) {
  const said = new Array<number>(500).fill(n)
  return { said, place: -1, unwatch: undefined, cut: () => {} } as unknown as Lasting
}

describe('a call that is over', () => {
  it('leaves nothing behind that a small collection could not free', () => {
    const lasting = new LastingCalls(() => () => {})
    const left = leftByWork((n) => {
      const one = call(n)
      lasting.add(one)
      return () => lasting.delete(one)
    })
    expect(left).toBeLessThan(5e6) // of the 20 MB of all of them
    expect(lasting.size).toBe(0)
  })

  it('is not watched any more, and was not if it was short', () => {
    vi.useFakeTimers()
    try {
      const told: string[] = []
      const lasting = new LastingCalls(() => {
        told.push('watched')
        return () => told.push('left')
      })
      const [short, long] = [call(), call()]
      for (const one of [short, long]) lasting.add(one)
      lasting.delete(short)
      expect(lasting.size).toBe(1)
      vi.advanceTimersByTime(1000)
      expect([lasting.size, told]).toEqual([1, ['watched']])
      for (let i = 0; i < 2; i++) lasting.delete(long)
      expect([lasting.size, told]).toEqual([0, ['watched', 'left']])
    } finally {
      vi.useRealTimers()
    }
  })
})
