import { EventEmitter } from 'node:events'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { Seats } from '../../gateway/grant/seats.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

const of = (id: string, tenant = 'default') => ({
  tenant,
  agent: { id, owner: 'ana', purpose: 'test', riskTier: 'low' } as const,
})
/** A client that stays. */
const here = { destroyed: false, once: () => {}, off: () => {} }
const give = (seat: Disposable) => seat[Symbol.dispose]()
const seats = (change = {}) => new Seats({ concurrency: 2, queue: 2, queueTimeoutMs: 1_000, ...change })

/** What became of a promise so far. */
async function stateOf(taken: Disposable | Promise<Disposable>): Promise<string> {
  return Promise.race([
    Promise.resolve(taken).then(
      () => 'seated',
      (cause) => cause.code,
    ),
    vi.advanceTimersByTimeAsync(0).then(() => 'waits'),
  ])
}

describe('the seats of an agent', () => {
  it('are given at once, and without a promise, while there are some', () => {
    const room = seats()
    expect(room.take(of('a'), here)).not.toBeInstanceOf(Promise)
    expect(room.take(of('a'), here)).not.toBeInstanceOf(Promise)
    stateOf(room.take(of('a'), here)).then((state) => expect(state).toBe('waits'))
  })

  it('are its own: another agent, or the same name in another tenant, has others', () => {
    const room = seats({ concurrency: 1, queue: 0 })
    room.take(of('a'), here)
    expect(() => room.take(of('a'), here)).toThrow(/The agent a has 1 calls under way/)
    expect(room.take(of('b'), here)).not.toBeInstanceOf(Promise)
    expect(room.take(of('a', 'other'), here)).not.toBeInstanceOf(Promise)
  })

  it('go to whoever waits longest, and not to whoever comes just then', async () => {
    const room = seats()
    const [first, second] = [room.take(of('a'), here) as Disposable, room.take(of('a'), here) as Disposable]
    const [third, fourth] = [room.take(of('a'), here), room.take(of('a'), here)]
    give(first)
    expect(await stateOf(third)).toBe('seated')
    const fifth = room.take(of('a'), here)
    give(second)
    expect([await stateOf(fourth), await stateOf(fifth)]).toEqual(['seated', 'waits'])
  })

  it('are refused when the queue is full, and when waiting takes too long', async () => {
    const room = seats()
    for (let i = 0; i < 2; i++) room.take(of('a'), here)
    const waiting = [room.take(of('a'), here), room.take(of('a'), here)].map(stateOf)
    expect(() => room.take(of('a'), here)).toThrow(expect.objectContaining({ code: 'too_many_requests' }))
    expect(await Promise.all(waiting)).toEqual(['waits', 'waits'])
    for (let i = 0; i < 2; i++) room.take(of('b'), here)
    const refused = (async () => room.take(of('b'), here))().catch((cause) => cause)
    await vi.advanceTimersByTimeAsync(1_000)
    expect(await refused).toMatchObject({ code: 'too_many_requests', detail: expect.stringMatching(/within 1000 ms/) })
  })

  it('are no longer waited for once the client has left', async () => {
    const room = seats({ concurrency: 1, queue: 1 })
    const held = room.take(of('a'), here) as Disposable
    for (let i = 0; i < 3; i++) {
      const client = Object.assign(new EventEmitter(), { destroyed: false })
      const waiting = Promise.resolve(room.take(of('a'), client)).catch((cause) => cause)
      client.emit('close')
      expect(await waiting).toMatchObject({ code: 'too_many_requests', detail: expect.stringContaining('left') })
      expect(client.listenerCount('close')).toBe(0)
    }
    await expect(room.take(of('a'), { ...here, destroyed: true })).rejects.toThrow('left')
    expect(vi.getTimerCount()).toBe(0)
    const client = Object.assign(new EventEmitter(), { destroyed: false })
    const waiting = room.take(of('a'), client)
    give(held)
    give(await waiting)
    expect(client.listenerCount('close')).toBe(0)
    expect(room.take(of('a'), here)).not.toBeInstanceOf(Promise)
  })

  it('are never more than allowed and never lost, whatever is taken, given back and waited for', async () => {
    const step = fc.constantFrom('take', 'give', 'wait' as const)
    const steps = fc.array(step, { maxLength: 60 })
    await fc.assert(fc.asyncProperty(steps, holds), { numRuns: 200 })
  })
})

async function holds(steps: readonly ('take' | 'give' | 'wait')[]): Promise<void> {
  const room = seats({ concurrency: 3, queue: 4 })
  const held: Disposable[] = []
  const act = {
    take: async () => void held.push(await room.take(of('a'), here)),
    give: async () => held.splice(0, 1).forEach(give),
    wait: async () => void (await vi.advanceTimersByTimeAsync(600)),
  }
  for (const what of steps) {
    act[what]().catch((cause) => expect(cause.code).toBe('too_many_requests'))
    await vi.advanceTimersByTimeAsync(0)
    expect(held.length).toBeLessThanOrEqual(3)
  }
  await vi.advanceTimersByTimeAsync(1_000) // nobody waits any more
  held.forEach(give)
  const free = Array.from({ length: 3 }, () => room.take(of('a'), here))
  expect(free.filter((taken) => taken instanceof Promise)).toEqual([])
}
